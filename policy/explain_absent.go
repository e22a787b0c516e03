package policy

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso/facts"
)

// absence explains a condition on a value of the input that isn't there.
func (x *explainer) absence(o operand, wanted string, _ *scope, loc *ast.Location) finding {
	f := finding{loc: loc, path: o.path, wanted: wanted, absent: true}
	if o.path == "" {
		f.message = o.label + " has no value"
	} else {
		f.message = fmt.Sprintf("%s is absent: %s", o.label, x.whyAbsent(o.path))
	}
	if wanted != "" {
		f.message += "; policy wants " + wanted
	}
	return f
}

// missing explains a reference into the input that leads to nothing: the first
// part that is absent, or a list with nothing in it.
func (x *explainer) missing(ref ast.Ref, o operand, wanted string, sc *scope, envs []env, loc *ast.Location) finding {
	for n := 2; n < len(ref); n++ {
		if _, iterated := ref[n].Value.(ast.Var); !iterated {
			continue
		}
		part := x.operand(ast.NewTerm(ref[:n:n]), sc, envs)
		switch {
		case len(part.values) == 0:
			return x.absence(part, wanted, sc, loc)
		case isEmpty(part.values[0]):
			f := finding{loc: loc, path: part.path, found: jsonText(part), wanted: wanted, message: part.label + " is empty"}
			if wanted != "" {
				f.message += ", policy wants " + wanted
			}
			return f
		}
	}
	return x.absence(o, wanted, sc, loc)
}

// whyAbsent says why the input has no value at path: what the source of the
// fact said, or whose word it would have been.
func (x *explainer) whyAbsent(path string) string {
	for _, a := range x.absent {
		if overlap(a.Key, path) && a.Why != "" {
			return strings.TrimRight(clean(a.Why, 200), ".")
		}
	}
	part, key, _ := strings.Cut(path, ".")
	key, below, _ := strings.Cut(key, ".")
	switch part {
	case "runner":
		if x.document.Get("runner").IsAbsent() {
			return "the request shows no runner's evidence"
		}
		return "the runner's evidence does not say"
	case "identity":
		if key == "on_call" {
			return "no source of facts says who is on call"
		}
		return "the job's token does not say"
	case "resource":
		return "the grant does not say"
	case "intent":
		return "the request does not declare it"
	case "context":
		switch {
		case declared[key]:
			return "the request does not declare it"
		case key == "service" || key == "environment":
			return "the grant does not say"
		case jobKeys[key]:
			return "the job's token does not say"
		case below != "" && !x.document.Get("context").Get(key).IsAbsent():
			return "the source of " + key + " does not say"
		}
		return "no source of facts gives it"
	}
	return "it is not part of the input"
}

// declared are the members of context that are the request's own words.
var declared = func() map[string]bool {
	m := map[string]bool{}
	for _, f := range inputFields(reflect.TypeFor[facts.Intent]()) {
		m[f.name] = true
	}
	return m
}()

// jobKeys are the members of context that the job's token gives.
var jobKeys = map[string]bool{"branch": true, "tag": true, "ref": true, "commit": true, "event": true}

// wantedOf says what a comparison or test wants of its operand i, for the
// message about an operand that has no value.
func (x *explainer) wantedOf(op string, args []*ast.Term, i int, sc *scope, envs []env) string {
	if len(args) != 2 && op != "glob.match" && op != "internal.member_3" {
		return ""
	}
	other := func(j int) operand { return x.operand(args[j], sc, envs) }
	switch {
	case isComparison(op):
		o := other(1 - i)
		if len(o.values) == 0 && !o.constant {
			return ""
		}
		if m, ok := mirrored[op]; ok && i == 1 {
			op = m
		}
		w := x.wantText(o).text
		switch {
		case op == "neq" && w == "null":
			return "a value"
		case o.fromInput && phrases[op] == "":
			return "it equal to " + o.label
		}
		return phrases[op] + w
	case op == "internal.member_2" && i == 0:
		return x.membership(operand{label: "x", fromInput: true}, other(1), nil).wanted
	case op == "internal.member_2":
		return "it to contain " + x.wantText(other(0)).text
	}
	if f, ok := x.text(op, args, sc, envs, nil); ok && f.wanted != "" {
		return "it " + f.wanted
	}
	return ""
}
