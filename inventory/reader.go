package inventory

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a YAML node with its line.
type node = yaml.Node

// reader is what the parsers of all systems share while they read one file.
type reader struct {
	view
	src        *source
	ci         CI
	tree       *looks
	paths      []Path
	index      map[pathKey]int
	ofJob      map[string][]int // places in paths of a job's paths
	unresolved []Unresolved
	opened     map[[3]string]bool // kind, name and file of unresolved
	problems   []problem
	link       links
	// tentative marks what is recorded at the moment as a variable that a script only hands on: the line
	// that consumes it, when one is met, is the path's.
	tentative bool
	handedOn  map[int]bool // places in paths of what was tentative
}

// pathKey is what there is one path of. part keeps the entries of a call apart
// from the job's own: a token that a job holds and also passes on is two paths.
type pathKey struct {
	file, job, step, name, part string
	kind                        Kind
	line                        int
}

// place is where in a file a path belongs: its job with reach and runner, and its step.
type place struct {
	job    string
	step   string
	reach  Reach
	runner Runner
	// file is set when the lines belong to an included file.
	file string
	part string
	// line is where the step begins: two steps without a name are two steps.
	line int
}

// at gives the place of a step in a job.
func (p place) at(step string) place {
	p.step = step
	return p
}

// add records a path, or completes the one that is there already for the same
// credential, job and step: the first line stays, a known resource replaces an
// unknown one, and a credential is more than an identifier.
func (r *reader) add(at place, line int, c Credential, u use, via string) *Path {
	if c.Name == "" {
		c.Name = unknown
	}
	if c.Kind == StaticSecret && c.Nature == "" {
		c.Nature = NatureCredential
	}
	res := u.res
	if res.Kind == "" {
		res.Kind = unknown
	}
	if res.Name == "" {
		res.Name = unknown
	}
	file := at.file
	if file == "" {
		file = r.src.path
	}
	key := pathKey{file, at.job, at.step, c.Name, at.part, c.Kind, at.line}
	if r.ci == GitLab {
		key.file = "" // a job is put together from several files, and is one all the same
	}
	if r.index == nil {
		r.index = make(map[pathKey]int)
	}
	if i, ok := r.index[key]; ok {
		p := &r.paths[i]
		if p.Resource.Kind == unknown || p.Resource.Kind == "oidc/issuer" && res.Kind != unknown || p.Resource.Name == unknown && p.Resource.Kind == res.Kind {
			p.Resource = res
			p.Migration = migration(r.ci, p.Credential, res)
		}
		if c.Nature == NatureCredential {
			p.Credential.Nature = c.Nature
		}
		if p.Credential.Source == "" {
			p.Credential.Source = c.Source
		}
		p.Reach = wider(p.Reach, at.reach)
		if r.handedOn[i] && !r.tentative {
			p.Line, p.File, p.ExposedVia = max(line, 1), file, via
			delete(r.handedOn, i)
		}
		return p
	}
	reach := at.reach
	reach.Events = slices.Clone(reach.Events)
	if reach.Events == nil {
		reach.Events = []string{}
	}
	if reach.Trust == "" {
		reach.Trust = TrustUnknown
	}
	run := at.runner
	if run.Kind == "" {
		run.Kind = RunnerUnknown
	}
	if run.Labels = slices.Clone(run.Labels); run.Labels == nil {
		run.Labels = []string{}
	}
	r.index[key] = len(r.paths)
	if r.tentative {
		if r.handedOn == nil {
			r.handedOn = make(map[int]bool)
		}
		r.handedOn[len(r.paths)] = true
	}
	if r.ofJob == nil {
		r.ofJob = make(map[string][]int)
	}
	r.ofJob[at.job] = append(r.ofJob[at.job], len(r.paths))
	r.paths = append(r.paths, Path{
		File: file, Line: max(line, 1), CI: r.ci, Job: at.job, Step: oneLine(at.step), Credential: c, Resource: res,
		ExposedVia: via, Reach: reach, Runner: run, Migration: migration(r.ci, c, res),
	})
	return &r.paths[len(r.paths)-1]
}

// wider joins the reach of two ways to the same path: a job that two workflows start, a template that two stages use.
func wider(a, b Reach) Reach {
	if b.Trust == ForkReachable || b.Trust == TrustUnknown && a.Trust == Protected {
		a.Trust = b.Trust
	}
	for _, e := range b.Events {
		if !slices.Contains(a.Events, e) {
			a.Events = append(a.Events, e)
		}
	}
	return a
}

// static, federated and so on record a path of that kind.
func (r *reader) static(at place, line int, name string, u use, via string) *Path {
	return r.add(at, line, Credential{Kind: StaticSecret, Name: name, Nature: u.nature}, u, via)
}

func (r *reader) federated(at place, line int, name string, u use, via string) *Path {
	return r.add(at, line, Credential{Kind: Federated, Name: name}, u, via)
}

func (r *reader) ambient(at place, line int, name string, u use, via string) *Path {
	return r.add(at, line, Credential{Kind: Ambient, Name: name}, u, via)
}

func (r *reader) platform(at place, line int, name string, u use, via string) *Path {
	return r.add(at, line, Credential{Kind: PlatformToken, Name: name}, u, via)
}

func (r *reader) connection(at place, line int, name string, u use, via string) *Path {
	return r.add(at, line, Credential{Kind: ServiceConnection, Name: name}, u, via)
}

// open records something that lies outside of what is scanned.
func (r *reader) open(at place, line int, kind, name, why string) {
	file := at.file
	if file == "" {
		file = r.src.path
	}
	if r.opened == nil {
		r.opened = make(map[[3]string]bool)
	}
	key := [3]string{kind, name, file}
	if r.opened[key] {
		return
	}
	r.opened[key] = true
	r.unresolved = append(r.unresolved, Unresolved{File: file, Line: max(line, 1), CI: r.ci, Job: at.job, Kind: kind, Name: oneLine(name), Why: why})
}

// version notes a version of the syntax that this reader doesn't know; the file is read all the same.
func (r *reader) version(n *node, known ...string) {
	if v := r.str(n); v != "" && !slices.Contains(known, v) {
		r.problems = append(r.problems, problem{n.Line, "version " + oneLine(v) + " of the syntax is not known (known: " + strings.Join(known, ", ") + "); the file was read as if it were " + known[len(known)-1]})
	}
}

// result closes the file.
func (r *reader) result(f File) *result {
	res := &result{file: f, paths: r.paths, unresolved: r.unresolved, link: r.link}
	if r.exhausted {
		r.problems = append(r.problems, problem{1, "the file expands to more than the bound of this reader (aliases, merges or nesting); only a part of it was read"})
	}
	if len(r.problems) > 0 {
		res.file.Status, res.file.Detail, res.file.Line = StatusPartly, r.problems[0].why, r.problems[0].line
		if len(r.paths) == 0 && strings.HasPrefix(res.file.Detail, "the nesting") {
			res.file.Status = StatusUnreadable
		}
		for _, p := range r.problems {
			g := res.file
			g.Detail, g.Line = p.why, p.line
			res.findings = append(res.findings, couldNotRead(g))
		}
	}
	return res
}

// couldNotRead is the finding for a file, or a part of one, that was not read.
func couldNotRead(f File) Finding {
	return Finding{
		ID:   stableID("finding", "could-not-read", f.File, f.Detail),
		Rule: "could-not-read", Severity: SeverityLow, File: f.File, Line: max(f.Line, 1),
		Message:    "could not read: " + f.Detail,
		Fix:        "Correct the file, or look at it by hand: access paths in this part are not listed.",
		References: slices.Clone(ruleCouldNotRead.References),
	}
}

// lineOf gives the line on which a word of a scalar stands.
func (r *reader) lineOf(n *node, offset int, word string) int {
	if n == nil {
		return 1
	}
	if isBlock(n) && offset >= 0 {
		return lineAt(n, offset)
	}
	return r.src.find(n.Line, 2+strings.Count(n.Value, "\n")+len(n.Value)/30, word)
}

// scriptLine gives the line of a line of a script in a scalar.
func (r *reader) scriptLine(n *node, line int, word string) int {
	if isBlock(n) {
		return n.Line + 1 + line
	}
	return r.src.find(n.Line, 2+line+len(n.Value)/30, word)
}

// oneLine makes a name fit into one line of a report.
func oneLine(s string) string {
	if strings.ContainsAny(s, "\r\n\t") {
		s = strings.Join(strings.Fields(s), " ")
	}
	if len(s) > 300 {
		s = s[:300]
	}
	return s
}

// firstOf gives the first of its arguments that is not empty.
func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
