package report

import (
	"encoding/csv"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/inventory"
)

// csvHeader names the columns; they are stable, new ones come at the end.
var csvHeader = []string{
	"id", "file", "line", "ci", "job", "step", "credential_kind", "credential", "nature", "source", "resource_kind", "resource",
	"permission", "exposed_via", "trust", "events", "environment", "runner_kind", "runner_labels", "migration", "findings", "worst_finding", "repository", "live_grant", "last_used",
}

// CSV writes one line for each path, by RFC 4180, for spreadsheets. A cell that
// a spreadsheet would take for a formula begins with an apostrophe, which keeps
// it text: the name of a job must not run anything on the desk of an auditor.
func CSV(w io.Writer, inv *inventory.Inventory) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(csvHeader); err != nil {
		return err
	}
	count, worst := findingsOf(inv)
	for i := range inv.Paths {
		p := &inv.Paths[i]
		row := []string{
			p.ID, p.File, strconv.Itoa(p.Line), string(p.CI), p.Job, p.Step, string(p.Credential.Kind), p.Credential.Name, string(p.Credential.Nature), p.Credential.Source,
			p.Resource.Kind, p.Resource.Name, p.Permission, p.ExposedVia, string(p.Reach.Trust), strings.Join(p.Reach.Events, " "), p.Reach.Environment,
			p.Runner.Kind, strings.Join(p.Runner.Labels, " "), p.Migration, strconv.Itoa(count[p.ID]), string(worst[p.ID]), p.Repository,
		}
		if p.Live != nil {
			row = append(row, p.Live.Grant, p.Live.LastUsed.UTC().Format(time.RFC3339))
		} else {
			row = append(row, "", "")
		}
		for j := range row {
			row[j] = cell(row[j])
		}
		if err := out.Write(row); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// formula finds where a spreadsheet would begin to calculate: at the start of a
// cell, spaces before it or not, and behind what another locale takes for the
// border of a cell. The wide forms are what some of them accept too.
var formula = regexp.MustCompile(`(^|[;\t\r\n])(\s*)([=+\-@|%＝＋－＠])`)

// cell makes a text safe to open in a spreadsheet.
func cell(s string) string {
	return formula.ReplaceAllString(s, "$1$2'$3")
}

// findingsOf counts the findings of each path and gives the worst of each.
func findingsOf(inv *inventory.Inventory) (count map[string]int, worst map[string]inventory.Severity) {
	count, worst = make(map[string]int), make(map[string]inventory.Severity)
	for i := range inv.Findings {
		f := &inv.Findings[i]
		for _, id := range f.Paths {
			count[id]++
			if w, ok := worst[id]; !ok || f.Severity.AtLeast(w) {
				worst[id] = f.Severity
			}
		}
	}
	return count, worst
}
