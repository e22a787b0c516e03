package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/proviso-ci/proviso"
)

// builtinsOn lists the built-in functions that policies may call. It is a list
// of what is on, so that a function that a later OPA brings is off until
// somebody has looked at it. Everything here is a pure function of its arguments,
// quick for the sizes that an input has, and small in its result.
var builtinsOn = strings.Fields(`
	assign eq equal neq lt lte gt gte internal.member_2 internal.member_3
	internal.print print internal.template_string internal.test_case
	rego.metadata.chain rego.metadata.rule
	abs ceil floor round plus minus mul div rem bits.and bits.negate bits.or bits.rsh bits.xor
	and or intersection union
	array.concat array.flatten array.reverse array.slice
	count sum product max min sort
	is_array is_boolean is_null is_number is_object is_set is_string type_name
	concat contains endswith format_int indexof indexof_n lower replace split sprintf startswith
	strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n strings.reverse strings.split_n
	substring trim trim_left trim_prefix trim_right trim_space trim_suffix upper
	regex.find_all_string_submatch_n regex.find_n regex.is_valid regex.match regex.replace regex.split
	glob.match glob.quote_meta
	object.filter object.get object.keys object.remove object.subset object.union object.union_n
	json.filter json.is_valid json.marshal json.patch json.remove json.unmarshal
	base64.decode base64.encode base64.is_valid base64url.decode base64url.encode base64url.encode_no_pad
	hex.decode hex.encode urlquery.decode urlquery.decode_object urlquery.encode urlquery.encode_object
	uri.is_valid uri.parse uuid.parse
	crypto.sha256 crypto.hmac.equal
	semver.compare semver.is_valid to_number units.parse units.parse_bytes
	time.add_date time.clock time.date time.diff time.format time.parse_duration_ns time.parse_ns
	time.parse_rfc3339_ns time.weekday
	graph.reachable graph.reachable_paths walk
`)

// builtinsOff says why a function is off, by prefix; the longest prefix counts.
var builtinsOff = []struct{ prefix, why, instead string }{
	{"http.send", "a policy reaches nothing outside: its answer would differ from one moment to the next, and what it sends would leave unseen", "configure an HTTP source under facts, and read it from input.context"},
	{"net.", "a policy reaches nothing outside, and its input holds no addresses", "configure a source under facts, and read it from input.context"},
	{"opa.runtime", "it shows the broker's own environment", ""},
	{"rand.", "the same input must always give the same decision", ""},
	{"uuid.rfc4122", "the same input must always give the same decision", ""},
	{"time.now_ns", "the same input must always give the same decision", "use input.context.time, .weekday, .date or .timestamp: the time at which the facts were gathered, in the policy's zone"},
	{"io.jwt.", "tokens are verified before policy is asked, and never part of its input", "use input.identity and input.runner"},
	{"crypto.x509", "certificates are verified before policy is asked, and never part of its input", "use input.runner"},
	{"crypto.parse", "no key is part of a policy's input", ""},
	{"crypto.md5", "it is broken", "use crypto.sha256"},
	{"crypto.sha1", "it is broken", "use crypto.sha256"},
	{"crypto.hmac", "it needs a key, and a policy has none to keep", ""},
	{"providers.", "it signs requests, and a policy reaches nothing outside", ""},
	{"json.match_schema", "a schema can name another one on the network", ""},
	{"json.verify_schema", "a schema can name another one on the network", ""},
	{"trace", "it is OPA's own debugging", "use print in a test: in decisions print is left out"},
	{"numbers.range", "its result can be as large as somebody asks", ""},
	{"bits.lsh", "its result can be as large as somebody asks", ""},
	{"yaml.", "its input can unfold to any size", "use JSON"},
	{"graphql.", "no decision about a job needs it", ""},
	{"strings.render_template", "no decision about a job needs it", "use sprintf"},
	{"regex.globs_match", "whether two patterns overlap says nothing about a value", "use glob.match"},
	{"regex.template_match", "its patterns are easily read wrongly", "use regex.match with ^ and $"},
	{"rego.parse_module", "no decision about a job needs it", ""},
	{"json.marshal_with_options", "no decision about a job needs it", "use json.marshal"},
}

// capabilities is what OPA may do here: the functions above, every keyword and
// feature of the language, and no network.
func capabilities(v ast.RegoVersion) *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(v))
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool { return !slices.Contains(builtinsOn, b.Name) })
	c.AllowNet = []string{}
	return c
}

// knownBuiltins are all functions of this OPA, those that are off too.
var knownBuiltins = func() map[string]bool {
	m := map[string]bool{}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		m[b.Name] = true
	}
	return m
}()

// checkBuiltins finds the calls of functions that are off, also where they are
// only named as the target of "with".
func checkBuiltins(m module) Problems {
	var out Problems
	found := func(name string, loc *ast.Location) {
		if !knownBuiltins[name] || slices.Contains(builtinsOn, name) {
			return
		}
		why, instead := "it is not on Proviso's list of functions", ""
		best := 0
		for _, off := range builtinsOff {
			if strings.HasPrefix(name, off.prefix) && len(off.prefix) > best {
				best, why, instead = len(off.prefix), off.why, off.instead
			}
		}
		out = append(out, m.problem(proviso.CodePolicyCapability, loc, instead, "%s is off: %s", name, why))
	}
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			if x.IsCall() {
				found(x.Operator().String(), x.Location)
			}
		case ast.Call:
			found(x[0].String(), x[0].Location)
		case *ast.With:
			found(x.Target.String(), x.Target.Location)
			found(fmt.Sprint(x.Value), x.Value.Location)
		}
		return false
	}).Walk(m.syntax)
	return out
}
