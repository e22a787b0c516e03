package inventory

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

// Both ends of a federation: a job that can show an identity token, and a
// trust that accepts it. An edge joins them; what is wrong with either end, or
// with the pair, is a finding of the rules in rule_trust_*.go. Trusts are read
// per root (readTrusts), edges are made when all roots are one document
// (connect), because infrastructure and pipelines often live apart.

// Edge says whether a job can use a trust.
type Edge struct {
	// Path and Trust are ids.
	Path  string `json:"path"`
	Trust string `json:"trust"`
	// Can is "yes", "no" or "unknown". "no" is only there where the job names the target.
	Can trust.Answer `json:"can"`
	// Named is set when the job names the target: a role's ARN, a provider, a grant.
	Named bool `json:"named,omitempty"`
	// Why says what is refused, or what can't be told.
	Why []string `json:"why,omitempty"`
}

// JobIdentity is what a job's identity token says, as far as the file tells:
// values with * hold what only a run can tell.
type JobIdentity struct {
	trust.Identity
	// Targets are the names that the job gives its targets: roles, providers, grants.
	Targets []string `json:"targets,omitempty"`
	// Chosen is set when the job, not the platform, chooses the audience: it can ask for any.
	Chosen bool `json:"audience_chosen,omitempty"`
}

// readTrusts adds the trusts of a root, and says of each path whose repository it is in.
func readTrusts(ctx context.Context, inv *Inventory, root string, opt Options) error {
	found, err := trust.Scan(ctx, root, trust.Options{MaxFiles: opt.MaxFiles, Workers: opt.Workers})
	if err != nil {
		return err
	}
	inv.Trusts = found.Trusts
	repos := newRepositories(directoryOf(root), opt.Repository)
	for i := range inv.Trusts {
		if t := &inv.Trusts[i]; t.Kind == trust.OctoSTS {
			if r := repos.of(path.Dir(path.Dir(path.Dir(t.File)))); r.slug != "" {
				t.Target.Name = r.slug + "/" + path.Base(t.Target.Name)
			}
		}
	}
	for _, p := range found.Problems {
		inv.Findings = append(inv.Findings, Finding{
			ID:   stableID("finding", ruleCouldNotRead.Name, p.File, p.Why),
			Rule: ruleCouldNotRead.Name, Severity: SeverityLow, File: p.File, Line: p.Line,
			Message: "could not read: " + oneParagraph(p.Why), References: slices.Clone(ruleCouldNotRead.References),
			Fix: "Correct the file, or look at it by hand: trusts in this part are not listed.",
		})
	}
	return nil
}

// federatedJob is one job that can show an identity token: its paths, of which the first stands for it.
type federatedJob struct {
	file, job string
	ci        CI
	paths     []*Path
}

// federatedJobs groups the federated paths of a document by job.
func (inv *Inventory) federatedJobs() []*federatedJob {
	index := make(map[string]*federatedJob)
	var out []*federatedJob
	for i := range inv.Paths {
		p := &inv.Paths[i]
		if p.Identity == nil {
			continue
		}
		key := p.File + "\x00" + p.Job
		j := index[key]
		if j == nil {
			j = &federatedJob{file: p.File, job: p.Job, ci: p.CI}
			index[key] = j
			out = append(out, j)
		}
		j.paths = append(j.paths, p)
	}
	return out
}

// maxEdges bounds the edges of a document: an estate whose repositories can't
// be told apart would have one of each job with each trust.
const maxEdges = 200_000

// KindEdges is the kind of the entry under Unresolved that says that the
// document has not all edges.
const KindEdges = "edges"

// connect makes the edges of a document and the findings about trusts. It can
// be called again: what it made before is replaced.
func (inv *Inventory) connect() { inv.connectUpTo(maxEdges) }

// connectUpTo makes at most so many edges, and says so when there are more.
func (inv *Inventory) connectUpTo(most int) {
	inv.Unresolved = slices.DeleteFunc(inv.Unresolved, func(u Unresolved) bool { return u.Kind == KindEdges })
	if len(inv.Trusts) == 0 {
		inv.Edges = nil
		return
	}
	rules := trustRules()
	inv.Findings = slices.DeleteFunc(inv.Findings, func(f Finding) bool {
		return slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == f.Rule })
	})
	inv.Edges = []Edge{}
	jobs := inv.federatedJobs()
	ends := make([]end, len(inv.Trusts)) // what every pair would work out again
	for i := range inv.Trusts {
		t := &inv.Trusts[i]
		ends[i] = end{t, t.Platform(), strings.TrimSuffix(strings.ToLower(t.Issuer), "/")}
	}
	left, cut := 0, make(map[string]bool)
	var first *federatedJob // of which an edge is left out
	for _, j := range jobs {
		for i := range ends {
			e, ok := j.edge(&ends[i])
			switch {
			case !ok:
			case len(inv.Edges) < most:
				inv.Edges = append(inv.Edges, e)
			default:
				left++
				cut[e.Trust] = true
				if first == nil {
					first = j
				}
			}
		}
	}
	if first != nil {
		inv.Unresolved = append(inv.Unresolved, Unresolved{
			File: first.file, Line: max(first.paths[0].Line, 1), CI: first.ci, Job: first.job, Kind: KindEdges, Name: fmt.Sprintf("%d %s", left, verb(left, "edge", "edges")),
			Why: fmt.Sprintf("more than %d pairs of a job and a trust belong together; from this job on they are left out, and nobody is told that such a trust is unused or refuses. Scan fewer trees at once, or trees with their .git/config, which tells repositories apart", most),
		})
	}
	inv.trustFindings(jobs, cut)
	inv.sortDocument()
}

// end is a trust with what is compared first.
type end struct {
	t                *trust.Trust
	platform, issuer string
}

// edge joins a job with a trust. There is none where the job neither can use it nor names it.
func (j *federatedJob) edge(at *end) (Edge, bool) {
	if at.platform != "" && at.platform != platformOf(j.ci) {
		return Edge{}, false
	}
	t := at.t
	p, named := j.pathFor(t)
	if !issued(p, at) {
		return Edge{}, false
	}
	id := p.Identity.Identity
	if named || sameFamily(p, t) {
		if len(id.Audiences) == 0 && p.Identity.Chosen {
			id.Audiences = t.Audiences
		}
	} else if p.Identity.Chosen {
		id.Audiences = t.Audiences // the job can ask for the one that is wanted
	}
	v := t.Accepts(id)
	e := Edge{Path: p.ID, Trust: t.ID, Can: v.Answer, Named: named}
	switch {
	case v.Answer == trust.No && !named:
		return Edge{}, false
	case v.Answer == trust.Yes && p.Repository == "" && usesRepository(t):
		e.Can = trust.Unknown
		e.Why = []string{"whose repository this is can't be told: the tree has no .git/config"}
	}
	if served(p, t) {
		e.Can, e.Why = trust.Yes, nil // the record has seen it
		return e, true
	}
	if e.Can == trust.Unknown && !named && at.platform == "" && at.issuer == "" {
		return Edge{}, false // whose tokens the trust takes can't be told: this would join it with every job
	}
	for _, r := range v.Why {
		if e.Why = append(e.Why, reasonWords(r)); len(e.Why) == 4 {
			break
		}
	}
	return e, true
}

// pathFor chooses the path of a job that stands for an edge: the one that names
// the target, else one that goes to the same kind of target, else the first.
func (j *federatedJob) pathFor(t *trust.Trust) (p *Path, named bool) {
	for _, p := range j.paths {
		if names(p, t) {
			return p, true
		}
	}
	for _, p := range j.paths {
		if sameFamily(p, t) {
			return p, false
		}
	}
	return j.paths[0], false
}

// sameFamily reports whether a path goes to the kind of target that a trust opens.
func sameFamily(p *Path, t *trust.Trust) bool {
	if c := cloudOf(t.Target.Kind); c != "" {
		return cloudOf(p.Resource.Kind) == c
	}
	return p.Resource.Kind == t.Target.Kind
}

// issued reports whether the platform of a path, which is the trust's own if that
// has one, signs tokens of the trust's issuer.
func issued(p *Path, at *end) bool {
	platform, wants := at.platform, at.issuer
	if platform == "" && wants == "" {
		return true // nobody knows; the conditions decide
	}
	has := strings.TrimSuffix(strings.ToLower(p.Identity.Issuer), "/")
	if has == "" || wants == "" {
		return platform != "" || platformOf(p.CI) != "" && wants == ""
	}
	return has == wants || strings.HasSuffix(has, "/*") && strings.HasPrefix(wants, strings.TrimSuffix(has, "*")) ||
		has == trust.GitHubIssuer && strings.HasPrefix(wants, has+"/") // the enterprise's own
}

// platformOf names a CI system as trusts do.
func platformOf(ci CI) string {
	switch ci {
	case GitHub:
		return "github"
	case Forgejo:
		return "forgejo"
	case GitLab:
		return "gitlab"
	case CircleCI:
		return "circleci"
	case Buildkite:
		return "buildkite"
	case Bitbucket:
		return "bitbucket"
	case Azure:
		return "azure-devops"
	default:
		return "" // no identity tokens, or none of the system's own
	}
}

// repositoryClaims are claims that say whose job it is.
var repositoryClaims = []string{"sub", "repository", "repository_owner", "project_path", "namespace_path", "job_workflow_ref", "workflow_ref", "ci_config_ref_uri"}

// usesRepository reports whether a trust asks whose job it is.
func usesRepository(t *trust.Trust) bool { return t.Condition(repositoryClaims...) != nil }

// reasonWords says a reason in words.
func reasonWords(r trust.Reason) string {
	list := func(values []string) string {
		const most = 3
		if len(values) > most {
			return strings.Join(values[:most], ", ") + ", ..."
		}
		return strings.Join(values, ", ")
	}
	switch {
	case r.Claim == "" || r.Claim == "iss":
		return oneParagraph("not evaluated: " + list(r.Wants))
	case len(r.Has) == 0:
		return oneParagraph("the trust wants " + r.Claim + " " + list(r.Wants) + "; what the job has can't be told from the files")
	}
	return oneParagraph("the trust wants " + r.Claim + " " + list(r.Wants) + "; the job has " + list(r.Has))
}
