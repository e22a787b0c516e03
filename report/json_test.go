package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/report"
)

// The document is written in parts; together they are what package json would
// have written at once, also of names that look like JSON themselves.
func TestTheJSONIsThatOfPackageJSON(t *testing.T) {
	hostile := everything(t)
	hostile.Unresolved = append(hostile.Unresolved, inventory.Unresolved{File: "a\"b\\", Name: "{\"a\":[1,2]}\\\"", Why: "<é&\x00\u2028\xff>,:\n"})
	aside := everything(t)
	aside.Suppressed = []inventory.Suppressed{{Finding: aside.Findings[0], By: "ignore", Reason: "[]"}}
	aside.Since = &inventory.Diff{NewPaths: []string{}, GonePaths: aside.Paths[:1]}
	aside.Unresolved = nil
	for name, inv := range map[string]*inventory.Inventory{
		"everything": everything(t), "hostile": hostile, "with a comparison": aside, "zero": {},
		"nothing": {Version: 1, Files: []inventory.File{}, Paths: []inventory.Path{}, Edges: []inventory.Edge{}},
	} {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(inv); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := report.JSON(&got, inv); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.String(), got.String()); d != "" {
			t.Errorf("%s (-package json +ours):\n%s", name, d)
		}
	}
}

// errFull is what a full disk says.
var errFull = errors.New("no space left")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestTheJSONSaysThatItCouldNotBeWritten(t *testing.T) {
	if err := report.JSON(fullDisk{}, everything(t)); !errors.Is(err, errFull) {
		t.Errorf("a full disk gave %v", err)
	}
}
