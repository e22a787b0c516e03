package inventory

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// GitLab CI. Variables of a project, group or instance are not declared in the
// file; what a job uses and nothing defines is one of them. The reader merges
// local includes, resolves extends, defaults and !reference, and reads each job
// once, with lines in the file that they come from.

// glFile is a configuration with all its local includes.
type glFile struct {
	r       *reader
	entries map[string]*glEntry // top-level keys; later files win
	order   []string
	globals []glValue // the `variables:` blocks, in order
	files   int
	seen    map[string]bool
	reach   glRules
}

// glEntry is a top-level key with the file it stands in, and what earlier files said under it.
type glEntry struct {
	node  *node
	src   *source
	line  int
	lower *glEntry
}

// glValue is a node with its file.
type glValue struct {
	node *node
	src  *source
}

// glReserved are top-level keys that are no jobs.
var glReserved = set("default", "include", "stages", "variables", "workflow", "image", "services", "cache", "before_script", "after_script", "spec", "types")

// maxIncludes bounds how many files one configuration may include.
const maxIncludes = 300

// isGitLabRoot reports whether a file is a configuration of its own by its name.
func isGitLabRoot(p string) bool {
	base := strings.ToLower(path.Base(p))
	return base == ".gitlab-ci.yml" || base == ".gitlab-ci.yaml"
}

func readGitLab(r *reader, docs []*node) {
	f := &glFile{r: r, entries: make(map[string]*glEntry), seen: map[string]bool{r.src.path: true}}
	f.collect(r.src, docs, nil)
	f.reach = f.rulesOf(f.find("workflow"), "rules")
	for _, name := range f.order {
		e := f.entries[name]
		if glReserved[name] || strings.HasPrefix(name, ".") || !r.isMap(e.node) {
			continue
		}
		job := f.flatten(e, 0)
		if job.has("script") || job.has("trigger") || job.has("run") {
			f.readJob(name, e, job)
		}
	}
}

// collect takes the top-level keys of a file and of what it includes, includes first.
func (f *glFile) collect(src *source, docs []*node, given *node) {
	docs = f.withInputs(src, docs, given)
	for _, root := range docs {
		if !f.r.isMap(root) || f.r.get(root, "spec") != nil && len(docs) > 1 {
			continue
		}
		for inc := range f.r.items(f.r.get(root, "include")) {
			f.include(src, inc)
		}
		for k, v := range f.r.pairs(root) {
			if k.Value == "variables" {
				f.globals = append(f.globals, glValue{v, src})
				continue
			}
			old := f.entries[k.Value]
			if old == nil {
				f.order = append(f.order, k.Value)
			}
			f.entries[k.Value] = &glEntry{node: v, src: src, line: k.Line, lower: old}
		}
	}
}

// include follows one entry of `include:`: local files are read, the rest is unresolved.
func (f *glFile) include(src *source, inc *node) {
	r := f.r
	at := place{file: src.path}
	local := r.str(inc)
	if r.isMap(inc) {
		local = r.str(r.get(inc, "local"))
		for _, kind := range []string{"project", "remote", "template", "component", "artifact"} {
			if v := r.get(inc, kind); v != nil {
				name := r.str(v)
				if files := r.strs(r.get(inc, "file")); len(files) > 0 {
					name += " " + strings.Join(files, ", ")
				}
				r.open(at, v.Line, "include", kind+": "+name, "the included jobs and variables are not in the scanned tree")
				f.handedInputs(src, r.get(inc, "inputs"))
				return
			}
		}
	}
	if strings.Contains(local, "://") {
		r.open(at, inc.Line, "include", "remote: "+local, "the included jobs and variables are not in the scanned tree")
		return
	}
	if local == "" {
		return
	}
	for _, rel := range f.localFiles(src, local) {
		given := r.get(inc, "inputs")
		times := rel + "\x00" + f.inputText(given) // once for every set of inputs
		if f.seen[rel] && given == nil || f.seen[times] || f.files >= maxIncludes {
			continue
		}
		f.seen[rel], f.seen[times] = true, true
		f.files++
		p := r.tree.load(rel)
		if p == nil {
			r.open(at, inc.Line, "include", "local: "+local, "the included file is not in the scanned tree")
			continue
		}
		r.tree.claim(rel)
		f.collect(p.src, p.docs, given)
	}
}

// localFiles gives the files of a local include; a pattern with * is matched in the tree.
func (f *glFile) localFiles(src *source, local string) []string {
	rel := path.Join(f.r.src.repo, strings.TrimPrefix(local, "/"))
	if !strings.Contains(local, "*") {
		if strings.Contains(local, "$") {
			f.r.open(place{file: src.path}, 1, "include", "local: "+local, "the name of the included file is made of variables")
			return nil
		}
		return []string{rel}
	}
	return f.r.tree.match(rel)
}

// find gives the node of a top-level key.
func (f *glFile) find(name string) *node {
	if e := f.entries[name]; e != nil {
		return e.node
	}
	return nil
}

// glJob is a job with everything that it inherits.
type glJob struct {
	keys map[string]glValue   // the value that counts
	maps map[string][]glValue // all levels of a mapping, weakest first
}

func (j *glJob) has(key string) bool { return j.keys[key].node != nil }

// merged are the keys of a job that extends merges level by level.
func (j *glJob) add(r *reader, key string, v glValue) {
	j.keys[key] = v
	if r.isMap(v.node) {
		j.maps[key] = append(j.maps[key], v)
	}
}

// flatten applies extends, parents first.
func (f *glFile) flatten(e *glEntry, depth int) *glJob {
	j := &glJob{keys: make(map[string]glValue), maps: make(map[string][]glValue)}
	f.flattenInto(j, e, depth)
	return j
}

func (f *glFile) flattenInto(j *glJob, e *glEntry, depth int) {
	if e == nil || depth > 12 {
		return
	}
	if e.lower != nil {
		f.flattenInto(j, e.lower, depth+1)
	}
	for _, parent := range f.r.strs(f.r.get(e.node, "extends")) {
		if p := f.entries[parent]; p != nil && p != e {
			f.flattenInto(j, p, depth+1)
		} else if p == nil {
			f.r.open(place{file: e.src.path}, e.line, "extends", parent, "the job that is extended is not in the scanned tree")
		}
	}
	for k, v := range f.r.pairs(e.node) {
		if k.Value != "extends" {
			j.add(f.r, k.Value, glValue{v, e.src})
		}
	}
}

// inherited reports whether a job takes a default, by its `inherit:`.
func (f *glFile) inherited(j *glJob, group, key string) bool {
	n := f.r.get(j.keys["inherit"].node, group)
	if n == nil {
		return true
	}
	if f.r.isList(n) {
		return slices.Contains(f.r.strs(n), key)
	}
	return f.r.isTrue(n)
}

// defaultOf gives the value of a key from `default:` or from the top level.
func (f *glFile) defaultOf(key string) glValue {
	for e := f.entries["default"]; e != nil; e = e.lower {
		if n := f.r.get(e.node, key); n != nil {
			return glValue{n, e.src}
		}
	}
	if e := f.entries[key]; e != nil {
		return glValue{e.node, e.src}
	}
	return glValue{}
}

// value gives a key of a job with the default put in.
func (f *glFile) value(j *glJob, key string) glValue {
	if v := j.keys[key]; v.node != nil {
		return v
	}
	if f.inherited(j, "default", key) {
		return f.defaultOf(key)
	}
	return glValue{}
}

// glTrusted are conditions that only somebody with write access can meet.
var glTrusted = regexp.MustCompile(`(?i)CI_COMMIT_BRANCH\s*==\s*\$CI_DEFAULT_BRANCH|CI_COMMIT_REF_NAME\s*==\s*\$CI_DEFAULT_BRANCH|CI_COMMIT_(BRANCH|REF_NAME)\s*==\s*["'][^"']+["']|CI_COMMIT_(BRANCH|REF_NAME)\s*=~\s*/\^?\(?(main|master|release|v?\\?d|develop|stable|production|staging)|CI_COMMIT_TAG\s*(=~|!=|==\s*["'/])|CI_COMMIT_REF_PROTECTED\s*==\s*["']true|CI_PIPELINE_SOURCE\s*==\s*["'](schedule|web|api|trigger|pipeline|push|parent_pipeline)["']|DDEV_`)

var glTagAlone = regexp.MustCompile(`^\s*\$\{?CI_COMMIT_TAG\}?\s*$`)

// glRules is what the rules of a job or of the workflow say about who can start it.
type glRules struct {
	known  bool // there are rules
	closed bool // each of them needs write access
	never  bool // none of them ever adds the job
	events []string
}

// rulesOf reads `rules:`.
func (f *glFile) rulesOf(n *node, key string) glRules {
	list := f.r.get(n, key)
	if list == nil {
		return glRules{}
	}
	return f.readRules(list)
}

func (f *glFile) readRules(list *node) glRules {
	out := glRules{known: true, closed: true, never: true}
	for rule := range f.rulesIn(list, 0) {
		if f.r.isScalar(rule) {
			continue
		}
		cond := f.r.str(f.r.get(rule, "if"))
		if f.r.str(f.r.get(rule, "when")) == "never" {
			continue
		}
		out.never = false
		if !glClosed(cond) {
			out.closed = false
		}
		out.events = appendEvents(out.events, cond)
	}
	if out.never {
		out.closed = false
	}
	return out
}

// rulesIn gives the rules of a list, with !reference followed.
func (f *glFile) rulesIn(list *node, depth int) func(func(*node) bool) {
	return func(yield func(*node) bool) {
		for item := range f.r.items(list) {
			if item == nil {
				continue
			}
			if item.Tag == "!reference" || f.r.isList(item) {
				target := item
				if item.Tag == "!reference" {
					target = f.reference(item).node
				}
				if depth > 8 {
					continue
				}
				if target == nil {
					// Rules that can't be seen may add the job at any event.
					if !yield(&node{Kind: yaml.MappingNode, Line: item.Line}) {
						return
					}
					continue
				}
				for sub := range f.rulesIn(target, depth+1) {
					if !yield(sub) {
						return
					}
				}
				continue
			}
			if !yield(item) {
				return
			}
		}
	}
}

// glClosed reports whether a condition of a rule needs write access: one of the
// terms of an AND is enough, all terms of an OR are needed.
func glClosed(cond string) bool {
	if cond == "" {
		return false
	}
	for _, alt := range strings.Split(cond, "||") {
		ok := false
		for _, term := range strings.Split(alt, "&&") {
			if glTrusted.MatchString(term) || glTagAlone.MatchString(strings.Trim(term, " ()")) {
				ok = true
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// appendEvents adds the events that a condition names.
func appendEvents(events []string, cond string) []string {
	add := func(e string) {
		if !slices.Contains(events, e) {
			events = append(events, e)
		}
	}
	for _, m := range glSource.FindAllStringSubmatch(cond, 4) {
		add(m[1])
	}
	if strings.Contains(cond, "CI_COMMIT_TAG") {
		add("tag")
	}
	if strings.Contains(cond, "CI_COMMIT_BRANCH") || strings.Contains(cond, "CI_COMMIT_REF_NAME") {
		add("push")
	}
	if strings.Contains(cond, "CI_MERGE_REQUEST") {
		add("merge_request_event")
	}
	return events
}

var glSource = regexp.MustCompile(`CI_PIPELINE_SOURCE\s*==\s*["']([a-z_]+)["']`)

// reference follows !reference [job, key, ...].
func (f *glFile) reference(n *node) glValue {
	names := f.r.strs(n)
	if len(names) < 2 {
		return glValue{}
	}
	e := f.entries[names[0]]
	if e == nil {
		f.r.open(place{}, n.Line, "!reference", strings.Join(names, " "), "what is referenced is not in the scanned tree")
		return glValue{}
	}
	v := f.flatten(e, 0).keys[names[1]]
	for _, k := range names[2:] {
		v.node = f.r.get(v.node, k)
	}
	return v
}
