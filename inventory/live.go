package inventory

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/trust"
)

// Live says that a running Proviso serves a path already. It follows from the
// broker's own record, which names the repository, the workflow and the grant
// of every decision; the inventory doesn't ask the broker for anything.
type Live struct {
	// Grant is what the job was given, LastUsed when, for the last time.
	Grant    string    `json:"grant"`
	LastUsed time.Time `json:"last_used"`
	// Uses counts the decisions that gave it.
	Uses int `json:"uses"`
}

// Use is one decision of a record that gave a credential.
type Use struct {
	// Platform is that of the record: "github", "gitlab", ...
	Platform string
	// Repository is owner and name; its ids are those of the record, where the platform has them.
	Repository, RepositoryID, OwnerID string
	// Workflow and JobWorkflow name files, as owner/name/path@ref; empty on most platforms.
	Workflow, JobWorkflow string
	Environment           string
	Grant                 string
	Time                  time.Time
}

// useKey is what uses are counted by.
type useKey struct {
	platform, repository, workflow, jobWorkflow, environment, grant string
}

// LiveRecord counts uses. It keeps a bounded number of different ones, so that
// a record of years costs no more than one of days.
type LiveRecord struct {
	uses map[useKey]*Live
	ids  map[string][2]string // of repositories, by platform and name
	lost int
}

// maxUses bounds the different uses that are kept.
const maxUses = 200_000

// NewLiveRecord makes an empty one.
func NewLiveRecord() *LiveRecord {
	return &LiveRecord{uses: make(map[useKey]*Live), ids: make(map[string][2]string)}
}

// Add counts one use.
func (l *LiveRecord) Add(u Use) {
	file := func(s string) string { s, _, _ = strings.Cut(s, "@"); return s }
	key := useKey{u.Platform, u.Repository, file(u.Workflow), file(u.JobWorkflow), u.Environment, u.Grant}
	live := l.uses[key]
	if live == nil {
		if len(l.uses) == maxUses {
			l.lost++
			return
		}
		live = &Live{Grant: u.Grant}
		l.uses[key] = live
	}
	live.Uses++
	if u.Time.After(live.LastUsed) {
		live.LastUsed = u.Time
	}
	if u.RepositoryID != "" && u.Repository != "" {
		l.ids[u.Platform+" "+u.Repository] = [2]string{u.RepositoryID, u.OwnerID}
	}
}

// MarkLive marks the paths that a record serves already, and makes the edges
// anew: the record also knows the ids of repositories, which no file holds.
// notes are sentences for people about uses that no path explains.
func (inv *Inventory) MarkLive(record *LiveRecord) (notes []string) {
	explained := make(map[useKey]bool)
	index := record.index()
	for i := range inv.Paths {
		p := &inv.Paths[i]
		p.Live = nil
		if p.Identity == nil {
			continue
		}
		for _, key := range index[platformOf(p.CI)+" "+p.Repository] {
			if key.fits(p) {
				explained[key] = true
				p.serve(record.uses[key])
			}
		}
		p.learnIDs(record.ids)
	}
	inv.connect()
	var left []string
	for key, live := range record.uses {
		if !explained[key] {
			left = append(left, fmt.Sprintf("the record has grant %s used %d %s by %s (%s), last on %s, and no path of the scan explains it",
				key.grant, live.Uses, verb(live.Uses, "time", "times"), firstOf(key.repository, "a job without a repository"), key.platform, live.LastUsed.UTC().Format(time.DateOnly)))
		}
	}
	slices.Sort(left)
	const most = 10
	if len(left) > most {
		left = append(left[:most], fmt.Sprintf("and %d more like this", len(left)-most))
	}
	if record.lost > 0 {
		left = append(left, fmt.Sprintf("the record has more than %d different uses; %d were not counted", maxUses, record.lost))
	}
	return left
}

// index gives the uses by platform and repository, those of a called workflow
// by its own too; all of a platform's where a path's repository isn't known.
func (l *LiveRecord) index() map[string][]useKey {
	out := make(map[string][]useKey)
	for key := range l.uses {
		out[key.platform+" "] = append(out[key.platform+" "], key)
		if key.repository != "" {
			out[key.platform+" "+key.repository] = append(out[key.platform+" "+key.repository], key)
		}
		if parts := strings.SplitN(key.jobWorkflow, "/", 3); len(parts) == 3 && parts[0]+"/"+parts[1] != key.repository {
			called := key.platform + " " + parts[0] + "/" + parts[1]
			out[called] = append(out[called], key)
		}
	}
	return out
}

// serve notes a use; of several grants the one that was used last is named.
func (p *Path) serve(live *Live) {
	switch {
	case p.Live == nil:
		copied := *live
		p.Live = &copied
	case p.Live.Grant == live.Grant:
		p.Live.Uses += live.Uses
		if live.LastUsed.After(p.Live.LastUsed) {
			p.Live.LastUsed = live.LastUsed
		}
	case live.LastUsed.After(p.Live.LastUsed):
		copied := *live
		p.Live = &copied
	}
}

// fits reports whether a use can be of a path: it goes to Proviso, or its
// consumer isn't known; and platform, repository, file, environment and grant
// don't differ.
func (k useKey) fits(p *Path) bool {
	broker := p.Resource.Kind == "broker/proviso"
	hidden := p.Resource.Kind == "oidc/issuer"
	named := broker && p.Resource.Name != unknown && !strings.Contains(p.Resource.Name, "$")
	if !broker && !hidden || platformOf(p.CI) != k.platform || named && p.Resource.Name != k.grant {
		return false
	}
	file := strings.TrimPrefix(strings.TrimPrefix(p.File, repoOf(p.File)), "/")
	inFile := strings.HasSuffix(k.workflow, "/"+file) || strings.HasSuffix(k.jobWorkflow, "/"+file)
	if p.Repository == "" {
		if !named || k.workflow != "" && !inFile {
			return false // nothing ties the use to this tree
		}
	} else if p.Repository != k.repository && !strings.HasPrefix(k.jobWorkflow, p.Repository+"/") {
		return false
	}
	if k.workflow != "" && !inFile {
		return false
	}
	env := p.Reach.Environment
	return env == k.environment || env != "" && strings.Contains(env, "$")
}

// learnIDs adds the ids of a path's repository to what its token says.
func (p *Path) learnIDs(ids map[string][2]string) {
	known, ok := ids[platformOf(p.CI)+" "+p.Repository]
	if !ok || p.Repository == "" {
		return
	}
	names := map[string][2]string{"github": {"repository_id", "repository_owner_id"}, "gitlab": {"project_id", "namespace_id"}}[platformOf(p.CI)]
	for i, name := range names {
		if name != "" && known[i] != "" {
			p.Identity.Claims[name] = []string{known[i]}
		}
	}
	if platformOf(p.CI) != "github" || known[0] == "" || known[1] == "" {
		return
	}
	owner, repo, _ := strings.Cut(p.Repository, "/")
	for i, s := range p.Identity.Claims["sub"] {
		p.Identity.Claims["sub"][i] = strings.Replace(s, "repo:"+owner+"@*/"+repo+"@*:", "repo:"+owner+"@"+known[1]+"/"+repo+"@"+known[0]+":", 1)
	}
}

// served reports whether a live path shows that a grant lets the job in.
func served(p *Path, t *trust.Trust) bool {
	return t.Kind == trust.ProvisoGrant && p.Live != nil && p.Live.Grant == t.Target.Name
}
