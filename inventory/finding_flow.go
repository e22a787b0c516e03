package inventory

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// flow is a workflow of GitHub or Forgejo as rules want it: jobs, steps, and their texts.
type flow struct {
	events map[string]*node // triggers and their settings
	perms  *node
	env    []flowValue
	jobs   []*flowJob
}

// flowValue is one entry of `env:` or `with:`.
type flowValue struct {
	name, text string
	node       *node
	line       int
}

// flowJob is one job of a workflow.
type flowJob struct {
	id    string
	line  int
	uses  *node // of a call
	perms *node // its own block, nil when there is none
	env   []flowValue
	steps []*flowStep
}

// flowStep is one step. label names it as paths do.
type flowStep struct {
	label, uses string
	line        int
	with, env   []flowValue
	run         *node
}

// workflow gives the file as a workflow; one without jobs when it is none.
func (s *subject) workflow() *flow {
	if s.flow != nil {
		return s.flow
	}
	f := &flow{events: make(map[string]*node)}
	s.flow = f
	for _, root := range s.documents() {
		if runs := s.get(root, "runs"); runs != nil && s.get(root, "jobs") == nil {
			job := &flowJob{id: compositeJob, line: runs.Line}
			s.flowSteps(job, s.get(runs, "steps"))
			f.jobs = append(f.jobs, job)
			continue
		}
		s.flowEvents(f, root)
		f.perms = s.get(root, "permissions")
		f.env = s.flowValues(s.get(root, "env"))
		for k, n := range s.pairs(s.get(root, "jobs")) {
			if !s.isMap(n) {
				continue
			}
			job := &flowJob{id: k.Value, line: k.Line, uses: s.get(n, "uses"), perms: s.get(n, "permissions"), env: s.flowValues(s.get(n, "env"))}
			s.flowSteps(job, s.get(n, "steps"))
			f.jobs = append(f.jobs, job)
		}
	}
	return f
}

// flowEvents reads `on:`, which YAML 1.1 may have turned into true.
func (s *subject) flowEvents(f *flow, root *node) {
	on := s.get(root, "on")
	if on == nil {
		on = s.get(root, "true")
	}
	if s.isMap(on) {
		for k, n := range s.pairs(on) {
			f.events[k.Value] = n
		}
		return
	}
	for n := range s.items(on) {
		f.events[s.str(n)] = n
	}
}

func (s *subject) flowValues(n *node) []flowValue {
	var out []flowValue
	for k, v := range s.pairs(n) {
		out = append(out, flowValue{k.Value, s.str(v), v, k.Line})
	}
	return out
}

func (s *subject) flowSteps(job *flowJob, list *node) {
	for n := range s.items(list) {
		if !s.isMap(n) {
			continue
		}
		st := &flowStep{uses: s.str(s.get(n, "uses")), line: n.Line, with: s.flowValues(s.get(n, "with")), env: s.flowValues(s.get(n, "env")), run: s.get(n, "run")}
		st.label = oneLine(firstOf(s.str(s.get(n, "name")), st.uses, s.str(s.get(n, "id"))))
		if u := s.get(n, "uses"); u != nil {
			st.line = u.Line
		}
		job.steps = append(job.steps, st)
	}
}

// input gives the text of an input of a step.
func (st *flowStep) input(name string) string {
	for _, v := range st.with {
		if strings.EqualFold(v.name, name) {
			return v.text
		}
	}
	return ""
}

// action gives the name of the step's action without its version, in lower case.
func (st *flowStep) action() string { return strings.ToLower(actionName(st.uses)) }

// script gives the lines of the step that are run: its script, or that of actions/github-script.
func (s *subject) script(st *flowStep) (*node, string) {
	if st.run != nil {
		return st.run, s.str(st.run)
	}
	if st.action() == "actions/github-script" {
		for _, v := range st.with {
			if v.name == "script" {
				return v.node, v.text
			}
		}
	}
	return nil, ""
}

// lineIn gives the line of the file for an offset in a scalar, by the word that stands there.
func (s *subject) lineIn(n *node, offset int, word string) int {
	if n == nil || s.src == nil {
		return 1
	}
	if isBlock(n) && offset >= 0 {
		return lineAt(n, offset)
	}
	return s.src.find(n.Line, 2+strings.Count(n.Value, "\n")+len(n.Value)/30, word)
}

// forkRef matches what names the code of somebody's pull request.
var forkRef = regexp.MustCompile(`github\.event\.pull_request\.head\.|github\.head_ref|github\.event\.workflow_run\.head_|github\.event\.workflow_run\.pull_requests|refs/pull/|pull/\$\{\{|github\.event\.pull_request\.merge_commit_sha|github\.event\.number|github\.event\.issue\.number|github\.event\.client_payload\.(pull_request|pr\b|pr_|github\.payload\.pull|head)`)

// forkFetch matches commands that fetch it.
var forkFetch = regexp.MustCompile(`gh pr checkout|hub pr checkout|git (fetch|pull)[^\n]*(pull/|\.head\.|head_ref|head_branch)|git checkout[^\n]*(\.head\.|head_ref|head_sha)`)

// forkCheckout gives the step that brings the code of a pull request into a
// job, nil when there is none.
func (s *subject) forkCheckout(job *flowJob) *flowStep {
	for _, st := range job.steps {
		if strings.HasSuffix(st.action(), "/checkout") {
			if forkRef.MatchString(st.input("ref")) || strings.Contains(st.input("repository"), "head") && strings.Contains(st.input("repository"), "repo") {
				return st
			}
			continue
		}
		if _, text := s.script(st); text != "" && forkFetch.MatchString(text) {
			return st
		}
	}
	return nil
}

// harmless matches scripts that run nothing of what is checked out.
var harmless = regexp.MustCompile(`^\s*(echo|printf|mkdir|cat|ls|cd|git (fetch|checkout|config|diff|log|status)|gh |exit|true|test|\[)\b`)

// runsCode gives the first step behind another one that runs something from the checked-out tree, nil when none is seen.
func (s *subject) runsCode(job *flowJob, after *flowStep) *flowStep {
	behind := false
	for _, st := range job.steps {
		if st == after {
			behind = true
			continue
		}
		if !behind {
			continue
		}
		if strings.HasPrefix(st.uses, "./") {
			return st
		}
		if st.run == nil {
			continue
		}
		for _, line := range strings.Split(s.str(st.run), "\n") {
			if t := strings.TrimSpace(line); t != "" && !strings.HasPrefix(t, "#") && !harmless.MatchString(t) && !strings.Contains(t, "=$(") {
				return st
			}
		}
	}
	return nil
}

// tokenOf gives the path of a job's own token, nil when there is none.
func (s *subject) tokenOf(job string) *Path {
	for _, p := range s.paths {
		if p.Job == job && p.Credential.Kind == PlatformToken && p.Step == "" && p.ExposedVia == "job token" {
			return p
		}
	}
	return nil
}

// writes reports whether a token's effective permissions can change something.
// The default is a setting of the repository, which used to be write.
func writes(permission string) bool {
	return permission == "write-all" || strings.HasPrefix(permission, "default") || strings.Contains(strings.ReplaceAll(permission, "id-token: write", ""), ": write")
}

// pinned reports whether a reference to an action names content rather than a
// label that its owner can move: a commit, or the digest of an image.
func pinned(uses string) bool {
	if image, ok := strings.CutPrefix(uses, "docker://"); ok {
		return strings.Contains(image, "@sha256:")
	}
	_, ref, ok := strings.Cut(uses, "@")
	return ok && fullCommit.MatchString(ref)
}

var fullCommit = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// directoryOf gives the directory that file names of a scan are relative to.
func directoryOf(root string) string {
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		return filepath.Dir(root)
	}
	return root
}
