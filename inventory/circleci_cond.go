package inventory

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// Conditions of CircleCI: `when` and `unless` of steps and of workflows.

// ccOutsider are the pipeline values in a run that a fork's pull request starts.
var ccOutsider = map[string]string{
	"pipeline.trigger_source": "webhook", "pipeline.git.branch": "pull/1", "pipeline.git.tag": "", "pipeline.schedule.name": "", "pipeline.schedule.id": "",
	"pipeline.git.branch.is_default": "false", "pipeline.event.github.pull_request.merged": "false", "pipeline.event.name": "pull_request",
}

var ccValue = regexp.MustCompile(`<<\s*(pipeline\.[A-Za-z0-9_.-]+)\s*>>`)

// ccCond evaluates a condition; names give the pipeline values of an assumed run, nil knows none.
type ccCond struct {
	v      *view
	params ccParams
	names  map[string]string
}

// text puts parameters and pipeline values in; unsure when one is left.
func (c ccCond) text(n *node) (s string, unsure bool) {
	s = c.params.put(c.v.str(n))
	if c.names != nil && strings.Contains(s, "<<") {
		s = ccValue.ReplaceAllStringFunc(s, func(m string) string {
			if v, ok := c.names[ccValue.FindStringSubmatch(m)[1]]; ok {
				return v
			}
			return m
		})
	}
	return s, strings.Contains(s, "<<")
}

// eval tells whether a condition holds.
func (c ccCond) eval(n *node, depth int) truth {
	if n == nil || depth > 12 {
		return maybe
	}
	if c.v.isScalar(n) {
		s, unsure := c.text(n)
		switch low := strings.ToLower(strings.TrimSpace(s)); {
		case unsure:
			return maybe
		case strings.Contains(low, " == ") || strings.Contains(low, " and ") || strings.Contains(low, " or ") || strings.HasPrefix(low, "not ") || strings.Contains(low, "pipeline."):
			return c.expression(low)
		case low == "", low == "false", low == "0", low == "null", low == "~":
			return no
		}
		return yes
	}
	for k, v := range c.v.pairs(n) {
		switch k.Value {
		case "and", "or":
			out := truthOf(k.Value == "and")
			for item := range c.v.items(v) {
				if t := c.eval(item, depth+1); k.Value == "and" {
					out = both(out, t)
				} else {
					out = either(out, t)
				}
			}
			return out
		case "not":
			return c.eval(v, depth+1).not()
		case "equal":
			return c.equal(v)
		case "matches":
			return c.matches(v)
		case "condition":
			return c.eval(v, depth+1)
		}
	}
	return maybe
}

// equal compares the entries of a list.
func (c ccCond) equal(list *node) truth {
	var values []string
	out := yes
	for item := range c.v.items(list) {
		if !c.v.isScalar(item) {
			return maybe
		}
		s, unsure := c.text(item)
		if unsure {
			out = maybe
			continue
		}
		values = append(values, s)
	}
	for _, v := range values {
		if v != values[0] {
			return no
		}
	}
	return out
}

// matches compares a value with a pattern.
func (c ccCond) matches(n *node) truth {
	s, unsure := c.text(c.v.get(n, "value"))
	re, err := regexp.Compile(strings.Trim(c.v.str(c.v.get(n, "pattern")), "/"))
	if unsure || err != nil {
		return maybe
	}
	return truthOf(re.MatchString(s))
}

// expression reads the newer form: pipeline.git.branch == "main" and not pipeline.parameters.x.
func (c ccCond) expression(s string) truth {
	if parts := strings.Split(s, " or "); len(parts) > 1 {
		out := no
		for _, p := range parts {
			out = either(out, c.expression(p))
		}
		return out
	}
	if parts := strings.Split(s, " and "); len(parts) > 1 {
		out := yes
		for _, p := range parts {
			out = both(out, c.expression(p))
		}
		return out
	}
	s = strings.Trim(strings.TrimSpace(s), "()")
	if rest, ok := strings.CutPrefix(s, "not "); ok {
		return c.expression(rest).not()
	}
	for _, op := range []string{"==", "!="} {
		if l, r, ok := strings.Cut(s, op); ok {
			a, known1 := c.operand(l)
			b, known2 := c.operand(r)
			if !known1 || !known2 {
				return maybe
			}
			return truthOf((a == b) == (op == "=="))
		}
	}
	if v, ok := c.operand(s); ok {
		return truthOf(v != "" && v != "false" && v != "0")
	}
	return maybe
}

// operand gives the value of a word of an expression.
func (c ccCond) operand(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if name, ok := strings.CutPrefix(s, ccPipeline); ok {
		p, ok := c.params[ccPipeline+name]
		return strings.ToLower(p.text), ok
	}
	if strings.HasPrefix(s, "pipeline.") {
		v, ok := c.names[s]
		return v, ok
	}
	return strings.Trim(s, `"'`), !strings.ContainsAny(s, " <>=")
}

// runs tells whether the steps under a `when` or an `unless` run.
func (j *ccJob) runs(kind string, n *node, params ccParams) bool {
	t := ccCond{v: &j.f.r.view, params: params}.eval(j.f.r.get(n, "condition"), 0)
	if kind == "unless" {
		t = t.not()
	}
	return t != no
}

// outsiderRuns tells whether a fork's pull request can start a workflow with
// this condition: the parameters of the pipeline have their defaults then, for
// only who may call the API, or a schedule, sets others.
func (f *ccFile) outsiderRuns(n *node) truth {
	if n == nil {
		return yes
	}
	params := f.bind(nil, nil, nil)
	if base := path.Base(f.r.src.path); base != "config.yml" && base != "config.yaml" || f.r.isTrue(f.r.get(f.root, "setup")) {
		params = nil // a continuation gets its parameters from the pipeline that sets it up
	}
	return ccCond{v: &f.r.view, params: params, names: ccOutsider}.eval(n, 0)
}

// ccForkBranch is what a fork's pull request has for a branch.
const ccForkBranch = "pull/1"

// keepsForksOut reports whether a list of branches has none that a fork's pull request can have.
func keepsForksOut(only []string) bool {
	return len(only) > 0 && !slices.ContainsFunc(only, func(b string) bool {
		if !strings.HasPrefix(b, "/") {
			return b == ccForkBranch || strings.Contains(b, "<<")
		}
		re, err := ccBranches(b)
		return err != nil || re.MatchString(ccForkBranch)
	})
}

// isForkBranch reports whether a filter is for every branch that a fork's pull request can have.
func isForkBranch(filter string) bool {
	re, err := ccBranches(filter)
	return strings.HasPrefix(filter, "/") && err == nil && re.MatchString(ccForkBranch) && re.MatchString("pull/98765")
}

// ccBranches compiles a filter between slashes.
func ccBranches(filter string) (*regexp.Regexp, error) {
	return regexp.Compile("^(?:" + strings.Trim(filter, "/") + ")$")
}
