package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// Jenkins: declarative and scripted pipelines, and steps of shared libraries.
// A credential is an id that only the controller can resolve: the same syntax
// may give a static secret, an identity token or a value of a vault. Who can
// start a pipeline is the controller's too, unless a `when` limits it.

// Names of jobs outside of stages.
const (
	jkEnvironment = "(environment)"
	jkAgent       = "(agent)"
	jkScripted    = "(scripted)"
	jkPost        = "(post)"
	jkOptions     = "(options)"
)

// jkFile is one pipeline while it is read.
type jkFile struct {
	r *reader
	// funcs are functions of the file; a call of one is read where it stands.
	funcs  map[string]*gCall
	called map[string]bool
	// mentioned are names that something calls, wherever it stands.
	mentioned map[string]bool
	active    map[string]bool // what is being read now
	closures  map[*gCall]*jkClosure
	computed  []*gCall // assignments whose value a function gives
	copied    [][2]string
	guarded   map[string]bool // names that stand for a condition on the branch
	pending   []jkPending
	// consts are names with a literal value, and defaults of parameters.
	consts map[string][]string
	// names says what scripts of the whole file do with environment variables.
	names map[string]use
	// bound is set when an environment block holds a credential: commands may use it.
	bound    bool
	depth    int
	budget   int // of calls that are read
	calls    []*gCall
	assigned map[string][]gValue // what names are assigned; made on first use
	given    map[string]bool     // names that the file gives a value; made on first use
	library  map[string]*gCall   // steps of the library beside the file, by name; nil is none
	// pipelines are names that stand for the pipeline in classes of a library: script.sh.
	pipelines map[string]bool
	loaded    map[string]*jkLoaded // files of functions, by the name that the file gives them
	lend      int                  // calls of their functions
	lentBytes int                  // of the files that were looked over for these calls
	borrowed  bool                 // this is a loaded file itself: what it loads is not followed, it may be the same
	opened    map[string]string    // kinds of resources that ids stand for which only a run can tell, by job and id
}

// jkCtx is where in the pipeline a call stands.
type jkCtx struct {
	job         string
	declarative bool
	inStage     bool
	trust       Trust
	events      []string
	runner      Runner
	// covered is set inside of a block that brings credentials of its own.
	covered bool
	// named is set where everything that a block brings has a name in the file.
	named bool
	// uses says what the scripts of the stage do with variables; nil when the stage sets none.
	uses map[string]use
}

func readJenkins(r *reader) {
	if len(r.src.text) == 0 {
		return
	}
	calls := parseGroovy(r.src.text)
	f := newJenkins(r, calls)
	f.prepare()
	ctx := jkCtx{job: jkScripted, trust: TrustUnknown}
	f.block(calls, ctx)
	f.uncalled(ctx)
	f.settle()
	if f.budget <= 0 {
		r.problems = append(r.problems, problem{1, "the functions of the file call each other more often than the bound of this reader; only a part of it was read"})
	}
}

// newJenkins makes the reader of a file's calls.
func newJenkins(r *reader, calls []*gCall) *jkFile {
	return &jkFile{
		r: r, calls: calls, budget: maxJenkinsCalls,
		funcs: make(map[string]*gCall), called: make(map[string]bool), mentioned: make(map[string]bool), active: make(map[string]bool), closures: make(map[*gCall]*jkClosure),
		guarded: make(map[string]bool), pipelines: make(map[string]bool), loaded: make(map[string]*jkLoaded), opened: make(map[string]string), consts: make(map[string][]string), names: make(map[string]use),
	}
}

// maxJenkinsCalls bounds how many calls are read of one file, functions where they are called.
const maxJenkinsCalls = 200_000

// survey collects functions, constants, axes, defaults of parameters, and what scripts do with variables.
func (f *jkFile) survey(calls []*gCall, depth int) {
	if depth > 100 {
		return
	}
	for _, c := range calls {
		if c.of != "" {
			f.pipelines[c.of] = true
		}
		if !c.isDef {
			f.mentioned[strings.TrimSuffix(strings.TrimPrefix(c.name, "this."), ".call")] = true
		}
		switch {
		case c.isDef:
			f.define(c.name, c)
		case c.name == "return" && c.value():
			continue // the calls of its value stand before it
		case c.value():
			f.surveyValue(c)
			continue // and here they come behind it
		case c.name == "axis":
			f.axis(c)
		case isParameter(c.name):
			if name, def := named(c, "name"), named(c, "defaultValue"); name.isStr && def.isStr {
				f.consts["params."+name.str] = appendNew(f.consts["params."+name.str], def.str)
				f.consts[name.str] = appendNew(f.consts[name.str], def.str)
			}
		default:
			f.usesOf(c, f.names)
		}
		f.surveyArgs(c.args, depth)
		f.survey(c.body, depth+1)
	}
}

// surveyValue looks at an assignment: a literal, a choice of them, a closure, or what a function gives.
func (f *jkFile) surveyValue(c *gCall) {
	name, v := strings.TrimPrefix(c.assign, "env."), c.args[0].val
	if body := closureOf(v); body != nil && !strings.Contains(name, ".") && jkReaders[name] == nil {
		f.closures[body] = &jkClosure{name: name}
		f.define(name, body)
		return
	}
	f.loads(c)
	f.surveyGuard(name, c.line)
	f.surveySettings(name, v, 0)
	switch {
	case v.isStr && !v.gstr:
		f.consts[name] = appendNew(f.consts[name], v.str)
	case !v.isStr && len(v.parts) > 1:
		for _, s := range f.ids(v) {
			f.consts[name] = appendNew(f.consts[name], s)
		}
	case v.isStr, v.call != nil && v.call.name != "":
		f.computed = append(f.computed, c)
	}
}

func (f *jkFile) surveyArgs(args []gArg, depth int) {
	for _, a := range args {
		if a.key == "" || a.val.call != nil || a.val.list != nil {
			f.survey(a.val.calls(), depth+1)
		}
	}
}

func appendNew(list []string, s string) []string {
	if len(list) < 16 && !slices.Contains(list, s) {
		return append(list, s)
	}
	return list
}

func isParameter(name string) bool {
	switch name {
	case "string", "choice", "text", "credentials", "password", "stringParam", "booleanParam":
		return true
	}
	return false
}

// axis reads an axis of a matrix: its name and its values.
func (f *jkFile) axis(c *gCall) {
	var name string
	for _, b := range c.body {
		for _, a := range b.args {
			if b.name == "name" && a.val.isStr {
				name = a.val.str
			}
		}
	}
	for _, b := range c.body {
		for _, a := range b.args {
			if b.name == "values" && a.val.isStr && name != "" {
				f.consts[name] = appendNew(f.consts[name], a.val.str)
			}
		}
	}
}

func isScript(name string) bool {
	switch name {
	case "sh", "bat", "powershell", "pwsh":
		return true
	}
	return false
}

// scriptsOf gives the script texts of a step.
func scriptsOf(c *gCall) []gValue {
	var out []gValue
	for _, a := range c.args {
		if a.key == "" || a.key == "script" {
			if a.val.isStr {
				out = append(out, a.val)
			}
			for _, part := range a.val.parts {
				if part.isStr && !a.val.isStr {
					out = append(out, part)
				}
			}
		}
		if a.key == "" {
			for _, l := range a.val.list {
				if l.key == "script" && l.val.isStr {
					out = append(out, l.val)
				}
			}
		}
	}
	return out
}

// named gives a named argument, also from a map argument.
func named(c *gCall, key string) gValue {
	for _, a := range c.args {
		if a.key == key {
			return a.val
		}
		if a.key == "" {
			if v := mapValue(a.val, key); v.line > 0 || v.isStr || v.ident != "" {
				return v
			}
			for _, p := range a.val.parts { // [a: b] + more
				if v := mapValue(p, key); v.line > 0 {
					return v
				}
			}
		}
	}
	return gValue{}
}

// positional gives the i-th argument without a name.
func positional(c *gCall, i int) gValue {
	for _, a := range c.args {
		if a.key == "" {
			if i == 0 {
				return a.val
			}
			i--
		}
	}
	return gValue{}
}

// ids gives the credential ids that a value can be: a literal, a GString over
// known names, a choice. Several are several paths; none is a name that only a run can tell.
func (f *jkFile) ids(v gValue) []string {
	switch {
	case v.isStr && !v.gstr:
		return []string{v.str}
	case v.isStr:
		return f.expand(v.str)
	case v.ident != "" && v.call == nil:
		return f.consts[strings.TrimPrefix(v.ident, "env.")]
	case v.call != nil && v.list == nil:
		if name, fn := f.callee(v.call); fn != nil {
			return f.results(name, fn)
		}
	case len(v.parts) > 0:
		var out []string
		for i, p := range v.parts {
			if !p.asked && (i > 0 || p.ident != "" && p.call == nil) {
				out = append(out, f.ids(p)...)
			}
		}
		return out
	}
	return nil
}

var gHole = regexp.MustCompile(`\$\{([A-Za-z_][\w.]*)\}|\$([A-Za-z_][\w.]*)`)

// expand puts known names into a GString; nil when one is not known.
func (f *jkFile) expand(s string) []string {
	out := []string{s}
	for range 4 {
		m := gHole.FindStringSubmatch(out[0])
		if m == nil && strings.Contains(out[0], "${") {
			return nil // what it holds is computed
		}
		if m == nil {
			return out
		}
		name := strings.TrimPrefix(firstOf(m[1], m[2]), "env.")
		values := f.consts[name]
		if len(values) == 0 {
			return nil
		}
		var next []string
		for _, t := range out {
			for _, v := range values {
				if len(next) < maxCandidates {
					next = append(next, strings.Replace(t, m[0], v, 1))
				}
			}
		}
		out = next
	}
	return out
}

// place gives the place of a path.
func (c jkCtx) place() place {
	return place{job: c.job, reach: Reach{Trust: c.trust, Events: c.events}, runner: c.runner}
}

// block reads a list of calls.
func (f *jkFile) block(calls []*gCall, ctx jkCtx) {
	if f.depth++; f.depth > 60 {
		f.depth--
		return
	}
	for _, c := range calls {
		if f.budget--; f.budget <= 0 {
			break
		}
		f.one(c, ctx)
	}
	f.depth--
}

// jkAsks matches functions that only ask whether the controller has a credential.
var jkAsks = regexp.MustCompile(`(?i)cred(ential)?s?_?exists?$`)

// one reads one call by its name; unknown calls are looked at for arguments that name credentials.
func (f *jkFile) one(c *gCall, ctx jkCtx) {
	if c.isDef || jkAsks.MatchString(c.name) {
		return
	}
	if c.value() {
		f.keeps(c.assign, c.args[0].val, ctx, 0)
		return // the calls of its value stand beside it
	}
	if body := f.closures[c]; body != nil {
		body.at = &ctx
		return // it is read where it is called
	}
	name, fn := f.callee(c)
	if own := fn != nil && c.of == "" && gSteps[name]; own {
		// a method of the class, which is named as the step that it wraps
	} else if read, ok := jkReaders[c.name]; ok {
		read(f, c, ctx)
		return
	}
	if fn != nil && (c.of == "" || c.of == "this") {
		f.arguments(c, ctx)
		f.nestedCalls(c, ctx)
		inner := ctx
		inner.covered = ctx.covered || brings(fn.body, 0)
		f.block(c.body, inner)
		f.invoke(name, fn, c, ctx)
		return
	}
	if f.lent(c, ctx) {
		return
	}
	f.arguments(c, ctx)
	f.nestedCalls(c, ctx)
	f.block(c.body, ctx)
}

// nestedCalls reads calls and closures among the arguments: parallel(a: { ... }), return usernamePassword(...).
func (f *jkFile) nestedCalls(c *gCall, ctx jkCtx) {
	for _, a := range c.args {
		f.block(a.val.calls(), ctx)
	}
}

// jkGuarded matches conditions that only a branch or a tag of the repository meets.
var jkGuarded = regexp.MustCompile(`(?i)(BRANCH_NAME|GIT_BRANCH|branch|TAG_NAME)'?\)?\s*(==|=~|in)|BRANCH_IS_PRIMARY|isPrimary|buildingTag|TAG_NAME|isMaster|isMain|!\s*env\.CHANGE_ID|CHANGE_ID\s*==\s*null`)

// narrow applies a condition on the branch.
func (c jkCtx) narrow(cond string) jkCtx {
	if guards(cond) {
		c.trust, c.events = Protected, []string{"push"}
	}
	return c
}

// when reads the `when` of a stage.
func (f *jkFile) when(body []*gCall, ctx jkCtx) jkCtx {
	for _, w := range body {
		if w.name != "when" {
			continue
		}
		for _, cond := range w.body {
			switch cond.name {
			case "branch", "tag", "buildingTag":
				ctx.trust, ctx.events = Protected, []string{"push"}
			case "anyOf", "allOf":
				all := len(cond.body) > 0
				for _, b := range cond.body {
					ok := b.name == "branch" || b.name == "tag" || b.name == "buildingTag" || b.name == "triggeredBy"
					if cond.name == "allOf" && ok {
						ctx.trust, ctx.events = Protected, []string{"push"}
					}
					all = all && ok
				}
				if all {
					ctx.trust, ctx.events = Protected, []string{"push"}
				}
			case "not":
				if len(cond.body) == 1 && cond.body[0].name == "changeRequest" {
					ctx.trust, ctx.events = Protected, []string{"push"}
				}
			case "expression":
				ctx = f.narrow(f.r.lineText(cond.line, w.body), ctx)
			case "environment", "triggeredBy":
				if cond.name == "triggeredBy" {
					ctx.trust, ctx.events = Protected, []string{"schedule"}
				}
			}
		}
	}
	return ctx
}

// lineText gives the source of a condition: its line and the two behind it.
func (r *reader) lineText(line int, _ []*gCall) string {
	return r.src.line(line) + " " + r.src.line(line+1) + " " + r.src.line(line+2)
}
