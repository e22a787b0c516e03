package inventory

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// CircleCI. Only jobs that a workflow invokes are read, once per invocation and
// under the name that it gives them. Commands, executors and inline orbs are
// opened with their parameters put in; contexts are sets of secrets whose
// variables lie outside of the file.

//go:embed tables/orbs.tbl
var orbsTable string

var orbRows = sync.OnceValue(func() *table { return parseTable(orbsTable) })

// ccFile is one configuration.
type ccFile struct {
	r        *reader
	root     *node
	orbs     map[string]string // alias -> source
	inline   map[string]*node  // alias -> inline orb
	opened   map[string]bool
	pipeline map[string]string // defaults of the pipeline's parameters
	beside   []string          // other files of the directory
}

func readCircleCI(r *reader, docs []*node) {
	for _, root := range docs {
		if !r.isMap(root) {
			continue
		}
		f := newCircleCI(r, root)
		r.version(r.get(root, "version"), "2", "2.0", "2.1")
		if r.isTrue(r.get(root, "setup")) {
			r.open(place{}, root.Line, "continuation", "setup: true", "the rest of the pipeline is chosen or generated at run time")
		}
		f.workflows()
	}
}

// newCircleCI gives a configuration with its orbs and parameters.
func newCircleCI(r *reader, root *node) *ccFile {
	f := &ccFile{r: r, root: root, orbs: make(map[string]string), inline: make(map[string]*node), opened: make(map[string]bool), pipeline: make(map[string]string)}
	for k, p := range r.pairs(r.get(root, "parameters")) {
		if d := r.str(r.get(p, "default")); d != "" && !f.chosen(k.Value) {
			f.pipeline[k.Value] = d
		}
	}
	for k, v := range r.pairs(r.get(root, "orbs")) {
		if r.isMap(v) {
			f.inline[k.Value] = v
		} else {
			f.orbs[k.Value] = r.str(v)
		}
	}
	return f
}

// chosen reports whether the file itself sets a parameter of the pipeline by
// what a push changes: in the mapping of a path filter.
func (f *ccFile) chosen(param string) bool {
	for _, wf := range f.r.pairs(f.r.get(f.root, "workflows")) {
		for item := range f.r.items(f.r.get(wf, "jobs")) {
			for _, call := range f.r.pairs(item) {
				if containsWord(f.r.str(f.r.get(call, "mapping")), param) {
					return true
				}
			}
		}
	}
	return false
}

// workflows reads every invocation of every workflow.
func (f *ccFile) workflows() {
	wfs := f.r.get(f.root, "workflows")
	found := false
	for k, wf := range f.r.pairs(wfs) {
		if !f.r.isMap(wf) || k.Value == "version" {
			continue
		}
		found = true
		f.workflow(wf)
	}
	if found {
		return
	}
	// Version 2 without workflows runs the job named build.
	if job := f.r.at(f.root, "jobs", "build"); job != nil {
		f.job(&ccCall{name: "build", target: "build", line: job.Line, reach: Reach{Trust: TrustUnknown}}, f.root, job, nil)
	}
}

// ccCall is one invocation of a job in a workflow.
type ccCall struct {
	name, target string
	node         *node // its settings, nil when it has none
	line         int
	reach        Reach
	requires     []string
	approval     bool
	// lent is set when the job is another file's: what the invocation itself brings has been read.
	lent bool
}

// workflow reads the invocations of one workflow: first who needs whom, for their reach, then the jobs.
func (f *ccFile) workflow(wf *node) {
	var calls []*ccCall
	byName := make(map[string]*ccCall)
	base := f.workflowReach(wf)
	for item := range f.r.items(f.r.get(wf, "jobs")) {
		var c *ccCall
		if f.r.isScalar(item) {
			c = &ccCall{name: f.r.str(item), target: f.r.str(item), line: item.Line}
		} else {
			for k, v := range f.r.pairs(item) {
				c = &ccCall{name: firstOf(f.r.str(f.r.get(v, "name")), k.Value), target: k.Value, node: v, line: k.Line}
				c.requires = f.requires(v)
				c.approval = f.r.str(f.r.get(v, "type")) == "approval"
				break
			}
		}
		if c == nil {
			continue
		}
		c.reach = f.filters(c.node, base)
		calls = append(calls, c)
		byName[c.name] = c
		if byName[c.target] == nil {
			byName[c.target] = c
		}
	}
	for _, c := range calls {
		f.inherit(c, byName, 0)
	}
	for _, c := range calls {
		if c.approval {
			continue
		}
		if owner, job := f.findJob(c.target); job != nil {
			f.job(c, owner, job, nil)
		} else {
			f.orbJob(c)
			f.siblingJob(c)
		}
	}
}

// requires gives the names that an invocation needs; an entry may be a mapping with a status.
func (f *ccFile) requires(n *node) []string {
	var out []string
	for item := range f.r.items(f.r.get(n, "requires")) {
		if f.r.isMap(item) {
			for k := range f.r.pairs(item) {
				out = append(out, k.Value)
			}
			continue
		}
		out = append(out, f.r.str(item))
	}
	return out
}

var (
	ccAny       = regexp.MustCompile(`^/\^?\.\*\$?/$`)
	ccScheduled = regexp.MustCompile(`scheduled_pipeline|pipeline\.schedule`)
)

// workflowReach reads the triggers and the condition of a workflow.
func (f *ccFile) workflowReach(wf *node) Reach {
	for trig := range f.r.items(f.r.get(wf, "triggers")) {
		if f.r.get(trig, "schedule") != nil {
			return Reach{Trust: Protected, Events: []string{"schedule"}}
		}
	}
	when := f.r.get(wf, "when")
	closed := f.outsiderRuns(when) == no
	if unless := f.r.get(wf, "unless"); unless != nil && f.outsiderRuns(unless) == yes {
		closed = true
	}
	if !closed {
		return Reach{Trust: TrustUnknown, Events: []string{"push"}}
	}
	event := "api" // a parameter asks for it, which only who may call the API sets
	switch v := &f.r.view; {
	case ccCond{v: v, params: f.bind(nil, nil, nil), names: ccPushRun}.eval(when, 0) != no:
		event = "push"
	case ccCond{v: v, names: ccScheduledRun}.eval(when, 0) != no && f.mentions(when, ccScheduled):
		event = "schedule"
	}
	return Reach{Trust: Protected, Events: []string{event}}
}

// mentions reports whether a condition speaks of something.
func (f *ccFile) mentions(n *node, what *regexp.Regexp) bool {
	found := false
	f.r.scalars(n, func(_ string, leaf *node) { found = found || what.MatchString(leaf.Value) })
	return found
}

// ccPushRun and ccScheduledRun are the pipeline values of a push by somebody who may, and of a schedule.
var (
	ccPushRun      = map[string]string{"pipeline.trigger_source": "webhook", "pipeline.schedule.name": ""}
	ccScheduledRun = map[string]string{"pipeline.trigger_source": "scheduled_pipeline"}
)

// filters reads the branches and tags that an invocation is limited to.
func (f *ccFile) filters(n *node, base Reach) Reach {
	flt := f.r.get(n, "filters")
	if flt == nil || base.Trust == Protected {
		return base
	}
	only := f.r.strs(f.r.at(flt, "branches", "only"))
	ignore := f.r.strs(f.r.at(flt, "branches", "ignore"))
	tags := f.r.strs(f.r.get(f.r.get(flt, "tags"), "only"))
	if f.r.isScalar(flt) {
		only, tags = nil, nil
		if text := f.r.str(flt); strings.Contains(text, "pipeline.git.branch ==") || strings.Contains(text, "pipeline.git.tag") {
			return Reach{Trust: Protected, Events: []string{"push"}}
		}
	}
	if len(tags) == 0 && f.r.isScalar(f.r.get(flt, "tags")) {
		tags = f.r.strs(f.r.get(flt, "tags"))
	}
	out := base
	out.Events = nil
	if len(tags) > 0 || f.r.get(flt, "tags") != nil && len(f.r.strs(f.r.at(flt, "tags", "ignore"))) > 0 && !slices.ContainsFunc(f.r.strs(f.r.at(flt, "tags", "ignore")), ccAny.MatchString) {
		out.Events = append(out.Events, "tag")
	}
	noBranches := slices.ContainsFunc(ignore, ccAny.MatchString)
	if !noBranches {
		out.Events = append([]string{"push"}, out.Events...)
	}
	switch {
	case noBranches:
		out.Trust = Protected
	case keepsForksOut(only), slices.ContainsFunc(ignore, isForkBranch):
		out.Trust = Protected
	}
	return out
}

// inherit closes an invocation that needs a closed one, or an approval.
func (f *ccFile) inherit(c *ccCall, byName map[string]*ccCall, depth int) Reach {
	if c.reach.Trust == Protected || depth > 20 {
		return c.reach
	}
	for _, name := range c.requires {
		need := byName[name]
		if need == nil || need == c {
			continue
		}
		if r := f.inherit(need, byName, depth+1); need.approval || r.Trust == Protected {
			c.reach.Trust = Protected
			if !need.approval && len(r.Events) > 0 {
				c.reach.Events = r.Events
			}
			break
		}
	}
	return c.reach
}

// findJob gives a job of the file or of an inline orb, with the node that its commands are looked up in.
func (f *ccFile) findJob(name string) (owner, job *node) {
	if job = f.r.at(f.root, "jobs", name); job != nil {
		return f.root, job
	}
	if orb, inner, ok := strings.Cut(name, "/"); ok {
		if o := f.inline[orb]; o != nil {
			if job = f.r.at(o, "jobs", inner); job != nil {
				return o, job
			}
		}
	}
	return nil, nil
}

// ccParams are the values of parameters at one level.
type ccParams map[string]ccParam

type ccParam struct {
	text  string
	steps *node
	// outer are the parameters that steps were written with.
	outer ccParams
}

// bind gives the parameters of a definition for a call: its defaults, and what the call sets.
func (f *ccFile) bind(def, call *node, outer ccParams) ccParams {
	out := make(ccParams)
	for k, v := range f.pipeline {
		out[ccPipeline+k] = ccParam{text: v}
	}
	for k, p := range f.r.pairs(f.r.get(def, "parameters")) {
		d := f.r.get(p, "default")
		if f.r.isList(d) {
			out[k.Value] = ccParam{steps: d}
		} else {
			out[k.Value] = ccParam{text: f.r.str(d)}
		}
	}
	for k, v := range f.r.pairs(f.r.at(call, "matrix", "parameters")) {
		if values := f.r.strs(v); len(values) == 1 {
			out[k.Value] = ccParam{text: values[0]}
		} else {
			delete(out, k.Value)
		}
	}
	for k, v := range f.r.pairs(call) {
		if f.r.isList(v) {
			out[k.Value] = ccParam{steps: v, outer: outer}
		} else {
			out[k.Value] = ccParam{text: outer.put(f.r.str(v))}
		}
	}
	return out
}

// ccPipeline is put before the names of the pipeline's own parameters.
const ccPipeline = "pipeline.parameters."

var ccHole = regexp.MustCompile(`<<\s*(parameters|pipeline\.parameters|matrix)\.([A-Za-z0-9_-]+)\s*>>`)

// put replaces << parameters.x >> by its value, where one is known.
func (p ccParams) put(s string) string {
	if !strings.Contains(s, "<<") {
		return s
	}
	return ccHole.ReplaceAllStringFunc(s, func(m string) string {
		g := ccHole.FindStringSubmatch(m)
		name := g[2]
		if g[1] == "pipeline.parameters" {
			name = ccPipeline + name
		}
		if v, ok := p[name]; ok && v.steps == nil {
			return v.text
		}
		return m
	})
}
