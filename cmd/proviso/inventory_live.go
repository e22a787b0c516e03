package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/inventory"
)

// liveFlags are the flags of `proviso inventory` that name a broker's record.
type liveFlags struct {
	log, record string
}

func (f *liveFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.log, "live", "", "mark what a running Proviso serves: its store, a log that audit export wrote, or the URL of its operations listener's /log")
	cmd.Flags().StringVar(&f.record, "record", "", "the same from a file that proviso audit search --output json wrote; - is standard input")
}

// read counts the uses of the record that the flags name; nil when they name none.
func (f *liveFlags) read(ctx context.Context) (*inventory.LiveRecord, error) {
	switch {
	case f.log == "" && f.record == "":
		return nil, nil
	case f.log != "" && f.record != "":
		return nil, errors.New("--live and --record are two places for one record; choose one")
	}
	record := inventory.NewLiveRecord()
	if f.record != "" {
		return record, readRecord(f.record, record)
	}
	source, done, err := openLog(ctx, f.log)
	if err != nil {
		return nil, fmt.Errorf("--live: %w", err)
	}
	for s, err := range audit.Entries(ctx, source) {
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--live %s: %w", f.log, err), done())
		}
		var e recordEntry
		if json.Unmarshal([]byte(s.Document.String()), &e) == nil {
			e.count(record)
		}
	}
	return record, done()
}

// maxRecordLine bounds one entry of a record's file.
const maxRecordLine = 4 << 20

// readRecord reads entries, one a line.
func readRecord(name string, record *inventory.LiveRecord) error {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("--record: %w", err)
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxRecordLine)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var e recordEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Type == "" {
			return fmt.Errorf("--record: line %d of %s is no entry of a record, as proviso audit search --output json prints them", n, name)
		}
		e.count(record)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("--record: %s can't be read: %w", name, err)
	}
	return nil
}

// recordEntry is what the inventory wants of an entry of the record.
type recordEntry struct {
	Type   string `json:"type"`
	Result string `json:"result"`
	Mode   string `json:"mode"`
	Grant  string `json:"grant"`
	Time   int64  `json:"time"` // milliseconds
	Input  struct {
		Identity struct {
			Platform     string `json:"platform"`
			Repository   string `json:"repository"`
			RepositoryID string `json:"repository_id"`
			OwnerID      string `json:"owner_id"`
			Workflow     string `json:"workflow"`
			JobWorkflow  string `json:"job_workflow"`
			Environment  string `json:"environment"`
		} `json:"identity"`
	} `json:"input"`
}

// count counts an entry that gave a job a credential; simulations and refusals are no use.
func (e *recordEntry) count(record *inventory.LiveRecord) {
	if e.Type != audit.Decision || e.Result != "allowed" || e.Mode != string(audit.Enforce) {
		return
	}
	id := e.Input.Identity
	record.Add(inventory.Use{Platform: id.Platform, Repository: id.Repository, RepositoryID: id.RepositoryID, OwnerID: id.OwnerID, Workflow: id.Workflow, JobWorkflow: id.JobWorkflow,
		Environment: id.Environment, Grant: e.Grant, Time: time.UnixMilli(e.Time).UTC()})
}
