package policy

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
)

// One answer for outsiders: whatever a policy says of other tenants, a job of
// acme reads nothing of it. The log does.
func TestOtherTenantsAreNotTold(t *testing.T) {
	const in = `{"identity":{"tenant":"acme","owner_id":"7","repository":"acme/shop","subject":"acme/shop:main","workflow":"acme/shop/deploy.yml","role":"ci","claims":{"x":"private-claim"}},"resource":{"tenant":"acme"},"context":{"branch":"dev","annotation":"hello"}}`
	const data = `{"tenants":{"globex":{"branch":"globex-branch"},"initech":{"branch":"globex-too"}},"repositories":["globex/one","globex/two"],"list":[{"repository":"globex/x","branch":"globex-y"}]}`
	for name, rules := range map[string]string{
		"equal":                "allow if {\n\tinput.identity.tenant == \"globex\"\n\tinput.context.branch == \"globex-branch\"\n}",
		"a list of tenants":    "allow if {\n\tinput.identity.tenant in {\"globex\", \"globex-2\"}\n\tinput.context.branch == \"globex-branch\"\n}",
		"a set rule":           "allow if input.identity.tenant in partners\n\npartners := {\"globex\", \"globex-2\"}",
		"an older set":         "allow if partners[input.identity.tenant]\n\npartners contains \"globex\"",
		"an object":            "allow if input.context.branch == branches[input.identity.tenant]\n\nbranches := {\"globex\": \"globex-branch\"}",
		"an owner":             "allow if input.identity.owner_id == \"globex-id\"",
		"a resource":           "allow if input.resource.tenant == \"globex\"",
		"a repository":         "allow if input.identity.repository == \"globex/api\"",
		"repositories":         "allow if input.identity.repository in [\"globex/api\", \"globex/web\"]",
		"a prefix":             "allow if startswith(input.identity.repository, \"globex/\")",
		"prefixes":             "allow if strings.any_prefix_match(input.identity.repository, [\"globex/\", \"globex-2/\"])",
		"a glob":               "allow if glob.match(\"globex/*\", [\"/\"], input.identity.repository)",
		"a pattern":            "allow if regex.match(`^globex/[a-z]+$`, input.identity.repository)",
		"a subject":            "allow if startswith(input.identity.subject, \"globex/\")",
		"a helper":             "allow if known\n\nknown if input.identity.tenant == \"globex\"",
		"helpers":              "allow if known\n\nknown if {\n\tinput.identity.tenant == \"globex\"\n\tinput.context.branch == \"globex-branch\"\n}\n\nknown if {\n\tinput.identity.tenant == \"acme\"\n\tinput.context.branch == \"main\"\n}",
		"a function":           "allow if of(input.identity.tenant)\n\nof(\"globex\")\n\nof(\"globex-2\")",
		"an else":              "allow if {\n\tinput.identity.tenant == \"globex\"\n} else := true if {\n\tinput.identity.tenant == \"globex-2\"\n}",
		"a title":              "# METADATA\n# title: what globex may\nallow if {\n\tinput.identity.tenant == \"globex\"\n}",
		"a negation":           "allow if {\n\tinput.identity.role == \"x\"\n\tnot input.identity.tenant in {\"acme\", \"globex\"}\n}",
		"in a call":            "allow if object.get({\"globex\": true}, input.identity.tenant, false)",
		"in a computation":     "allow if concat(\"/\", [input.identity.tenant, \"x\"]) == \"globex/x\"",
		"lower":                "allow if lower(input.identity.tenant) == \"globex\"",
		"data by key":          "allow if input.context.branch == data.tenants[input.identity.tenant].branch",
		"data in a list":       "allow if input.identity.repository in data.repositories",
		"data one by one":      "allow if {\n\tsome t in data.list\n\tt.repository == input.identity.repository\n\tt.branch == input.context.branch\n}",
		"data by any key":      "allow if {\n\tsome name\n\tdata.tenants[name].branch == input.context.branch\n}",
		"data in a set":        "allow if input.context.branch in branches\n\nbranches contains b if some b in {x | x := data.tenants[_].branch}",
		"data with every":      "allow if {\n\tevery t in data.list { t.branch == input.context.branch }\n}",
		"raw claims":           "allow if input.identity.claims.x == \"another\"",
		"claims in text":       "allow if sprintf(\"%v-%v\", [input.identity.claims.x, input.context.branch]) == \"y\"",
		"claims in a list":     "allow if {\n\tsome v in input.identity.claims\n\tv == \"another\"\n}",
		"claims of a piece":    "allow if {\n\tc := input.identity.claims\n\tstartswith(c.x, \"another\")\n}",
		"claims compared":      "allow if input.identity.claims.x == input.context.branch",
		"claims to a function": "allow if f(input.identity.claims.x)\n\nf(v) if v == \"another\"",
		"claims under not":     "allow if {\n\tinput.identity.role == \"x\"\n\tnot startswith(input.identity.claims.x, \"private\")\n}",
	} {
		t.Run(name, func(t *testing.T) {
			p := onePolicy(t, "production", map[string]string{"p.rego": "package production\n\n" + rules + "\n", "data.json": data})
			out, _ := p.Simulate(context.Background(), input(t, in))
			if out.Code != proviso.CodePolicyDenied || len(out.Reasons) == 0 {
				t.Fatalf("%+v", out)
			}
			public, err := json.Marshal([]any{out.Public, out.Reasons})
			if err != nil {
				t.Fatal(err)
			}
			for _, secret := range []string{"globex", "private-claim", "initech"} {
				if strings.Contains(string(public), secret) {
					t.Errorf("the job reads of %s: %s", secret, public)
				}
			}
			if strings.Contains(string(public), "could not be found out") {
				t.Errorf("unexplained: %s", public)
			}
			_, err = p.Decide(context.Background(), facts.Recorded(input(t, in)))
			if no := proviso.AsRefusal(err, "", ""); no.Public != out.Public || len(no.Reasons) != len(out.Reasons) {
				t.Errorf("Decide says %v, Simulate %v", no.Public, out.Public)
			}
		})
	}
}
