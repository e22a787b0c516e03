package inventory

import (
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

const liveTree = `
-- .git/config --
[remote "origin"]
	url = https://github.com/acme/shop
-- .github/workflows/deploy.yml --
on: {push: {branches: [main]}}
permissions: {}
jobs:
  deploy:
    runs-on: ubuntu-latest
    environment: production
    permissions: {id-token: write}
    steps:
      - name: deploy
        run: proviso exec --grant deploy -- ./deploy
  hidden:
    runs-on: ubuntu-latest
    permissions: {id-token: write}
    steps:
      - run: ./scripts/release
`

// A path is served when platform, repository, file, environment and grant fit;
// one that differs in any of them is not.
func TestMarkLive(t *testing.T) {
	at := time.Date(2026, 11, 25, 17, 5, 0, 0, time.UTC)
	fits := Use{Platform: "github", Repository: "acme/shop", Workflow: "acme/shop/.github/workflows/deploy.yml@refs/heads/main", Environment: "production", Grant: "deploy", Time: at}
	for name, c := range map[string]struct {
		change func(*Use)
		want   string // the job that is served
	}{
		"fits": {func(*Use) {}, "deploy"},
		"as a called workflow": {func(u *Use) {
			u.Workflow, u.JobWorkflow = "acme/other/.github/workflows/x.yml@main", u.Workflow
			u.Repository = "acme/other"
		}, "deploy"},
		"hidden consumer":     {func(u *Use) { u.Environment, u.Grant = "", "release" }, "hidden"},
		"another grant":       {func(u *Use) { u.Grant = "rollback" }, ""},
		"another environment": {func(u *Use) { u.Environment = "staging" }, ""},
		"another repository":  {func(u *Use) { u.Repository, u.Workflow = "acme/other", "acme/other/.github/workflows/deploy.yml@main" }, ""},
		"another platform":    {func(u *Use) { u.Platform = "gitlab" }, ""},
		"another file":        {func(u *Use) { u.Workflow = "acme/shop/.github/workflows/test.yml@main" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := fits
			c.change(&u)
			record := NewLiveRecord()
			record.Add(u)
			u.Time = at.Add(-time.Hour)
			record.Add(u)
			inv := inspect(t, txtar.Parse([]byte(liveTree)))
			notes := inv.MarkLive(record)
			served := ""
			for _, p := range inv.Paths {
				if p.Live == nil {
					continue
				}
				served += p.Job
				if p.Live.Uses != 2 || !p.Live.LastUsed.Equal(at) || p.Live.Grant != u.Grant {
					t.Errorf("%+v", p.Live)
				}
			}
			if served != c.want {
				t.Errorf("served is %q, want %q", served, c.want)
			}
			if said := strings.Join(notes, "\n"); (said == "") != (c.want != "") || c.want == "" && !strings.Contains(said, "the record has grant "+u.Grant+" used 2 times by "+u.Repository) {
				t.Errorf("the notes are %q", said)
			}
		})
	}
}
