package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// draft is an item while it is written.
type draft struct {
	p      *planner
	item   *Item
	repo   *repository
	method *method
	group  *group

	trusts    []subject         // the jobs that the target is to trust
	strangers []job             // jobs of which nothing is known that a target could trust
	settings  map[string]string // variables of the CI platform that patches read, with what they are
	asks      bool              // the patch asks Proviso
}

// names are the secrets of the item, as pipelines write them.
func (d *draft) names() []string { return d.item.Secrets }

func (it *Item) names() []string { return it.Secrets }

func (d *draft) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(d.item.Notes, s) {
		d.item.Notes = append(d.item.Notes, s)
	}
}

// via says how the item gets its credential in the end.
func (d *draft) via() Via {
	m := d.method
	switch {
	case m.manual != "" && !m.platform:
		return ViaNone
	case m.platform:
		return ViaPlatform
	case !issues(d.group.ci):
		return ViaNone // the platform signs no identity for its jobs: nobody could verify one
	case !m.direct || d.through():
		return ViaProviso
	}
	return ViaDirect
}

// through reports whether the item goes through Proviso although its target
// could trust the platform. On GitHub the actions of Google, Azure and Vault
// know the platform's token only; so do the package indexes everywhere.
func (d *draft) through() bool {
	ci := d.group.ci
	if !issues(ci) {
		return false
	}
	switch d.method.name {
	case "aws":
		return d.p.opt.Route == ThroughProviso
	case "gcp", "azure":
		return d.p.opt.Route == ThroughProviso && !actions(ci) || wildSubject(ci)
	case "vault":
		return d.p.opt.Route == ThroughProviso && !actions(ci)
	}
	return false
}

// actions reports whether jobs are made of actions.
func actions(ci inventory.CI) bool { return ci == inventory.GitHub || ci == inventory.Forgejo }

// wildSubject reports whether the subject of a platform's tokens names the
// person, the commit or the step: Google and Entra compare subjects exactly, so
// nothing could be written into their trust.
func wildSubject(ci inventory.CI) bool {
	return ci == inventory.CircleCI || ci == inventory.Buildkite || ci == inventory.Bitbucket
}

// cluster reports whether jobs are pods, whose identity is their service account's.
func cluster(ci inventory.CI) bool { return ci == inventory.Tekton || ci == inventory.Argo }

// bySubject reports whether a token says nothing of the repository: what it
// names is the job on the controller, or the account that it runs as.
func bySubject(ci inventory.CI) bool {
	return ci == inventory.Jenkins || ci == inventory.CloudBuild || cluster(ci)
}

// issues reports whether a platform signs identity tokens for its jobs.
func issues(ci inventory.CI) bool {
	switch ci {
	case inventory.GitHub, inventory.Forgejo, inventory.GitLab, inventory.CircleCI, inventory.Azure, inventory.Bitbucket, inventory.Buildkite, inventory.Jenkins, inventory.CloudBuild,
		inventory.Tekton, inventory.Argo: // the cluster's own issuer signs for their pods
		return true
	default:
		return false
	}
}

// setting names a variable of the CI platform that the patched pipeline reads,
// and gives the expression for it.
func (d *draft) setting(name, what string) string {
	return d.shared(upper(d.item.ID)+"_"+name, what)
}

// shared is a setting that several items have in common.
func (d *draft) shared(name, what string) string {
	if strings.HasPrefix(name, "GITHUB_") || strings.HasPrefix(name, "CI_") {
		name = "X_" + name // reserved by the platforms
	}
	d.settings[name] = what
	switch d.item.CI {
	case inventory.GitHub, inventory.Forgejo:
		return "${{ vars." + name + " }}"
	default:
		return "$" + name
	}
}

// provisoURL notes that the pipeline has to know where Proviso is.
func (d *draft) provisoURL() {
	d.asks = true
	if strings.HasPrefix(d.p.opt.Broker, "http://") {
		d.note("Proviso's URL is this machine's (a lab): no target and no runner elsewhere reaches it.")
	}
	d.shared("PROVISO_URL", "the URL of Proviso; the command proviso has to be on the runner")
}

// stepID is the id of the step that the patch adds to a job.
func (d *draft) stepID(j *ghJob) string {
	id := d.item.ID
	for n := 2; j.hasStepID(id); n++ {
		id = d.item.ID + "-" + digits(n)
	}
	return id
}

// hosted refuses a job that isn't known to run on the platform's own machines.
func (d *draft) hosted(j *ghJob) error {
	for _, p := range d.group.paths {
		if p.Job == j.id && p.Runner.Kind != inventory.RunnerHosted {
			return no(j.node, "the job's runner is %s, and the registry takes identities of hosted runners only", p.Runner.Kind)
		}
	}
	return nil
}

func digits(n int) string { return strconv.Itoa(n) }

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}
