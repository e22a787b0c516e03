package identity

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// documentOf reads a payload as the verifier would.
func documentOf(t testing.TB, c claimSet) document.Value {
	t.Helper()
	doc, err := document.Parse(c.json(t), document.Limits{Bytes: 4 << 20, Members: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// mutate replaces the value at a claim's path.
func mutate(c claimSet, name claimName, value any) claimSet {
	if name.path == nil {
		return c.with(name.shown, value)
	}
	out := maps.Clone(c)
	inner := map[string]any{}
	if m, ok := c[name.path[0]].(map[string]any); ok {
		inner = maps.Clone(m)
	}
	inner[name.path[1]] = value
	out[name.path[0]] = inner
	return out
}

// allVerifier knows every platform's example.
func allVerifier(t testing.TB) (*Verifier, []string) {
	t.Helper()
	var list []IssuerConfig
	names := slices.Sorted(maps.Keys(confs()))
	for _, name := range names {
		list = append(list, confs()[name])
	}
	if want := slices.Sorted(slices.Values(PlatformNames())); !slices.Equal(names, want) {
		t.Fatalf("examples of %v, platforms %v", names, want)
	}
	return newVerifier(t, list...), names
}

// TestWrongTypes puts a value of every wrong JSON type into every claim that any
// row reads. None may pass; none may be read as something.
func TestWrongTypes(t *testing.T) {
	v, names := allVerifier(t)
	wrong := map[string]any{
		"object": map[string]any{"a": "b"}, "list": []string{"main"}, "empty list": []string{}, "fraction": 1.5,
		"boolean": true, "negative": -1, "integer": 12,
	}
	for _, name := range names {
		conf := confs()[name]
		for _, f := range v.issuers[conf.URL].fields {
			for kind, value := range wrong {
				switch {
				case kind == "integer" && (f.class == ident || f.class == count), kind == "boolean" && f.class == truth:
					continue // right, or normalised
				}
				t.Run(name+" "+f.claim.shown+" "+kind, func(t *testing.T) {
					job, err := admitted(t, v, conf.URL, documentOf(t, mutate(example(t, name), f.claim, value)))
					switch code := codeOf(t, job, err); code {
					case proviso.CodeClaimType, CodeClaimMismatch, proviso.CodeSubInvalid, proviso.CodeClaimsInconsistent:
					case "":
						t.Errorf("%s %v was taken: %s", f.claim.shown, value, job.Document())
					default:
						t.Errorf("code %q", code)
					}
				})
			}
		}
	}
}

// TestNullAndEmptyAreAbsent: what isn't there isn't there, in all three
// spellings: the same identity, or the same refusal.
func TestNullAndEmptyAreAbsent(t *testing.T) {
	v, names := allVerifier(t)
	for _, name := range names {
		conf := confs()[name]
		for _, f := range v.issuers[conf.URL].fields {
			if f.claim.path != nil {
				continue
			}
			outcome := func(value any) string {
				job, err := admitted(t, v, conf.URL, documentOf(t, example(t, name).with(f.claim.shown, value)))
				if err != nil {
					return string(codeOf(t, job, err))
				}
				return job.Document().String()
			}
			absent, null, empty := outcome(nil), outcome(json.RawMessage("null")), outcome("")
			if absent != null || absent != empty {
				t.Errorf("%s %s: absent gives %s\nnull %s\nempty %s", name, f.claim.shown, absent, null, empty)
			}
			if f.must && strings.HasPrefix(absent, "{") {
				t.Errorf("%s: a job without %s is taken", name, f.claim.shown)
			}
		}
	}
}

var hostileTexts = map[string]string{
	"line break":        "main\nadmin",
	"carriage return":   "main\radmin",
	"NUL":               "main\x00",
	"escape":            "\x1b[31mmain",
	"delete":            "main\x7f",
	"C1 control":        "main\u0085x",
	"bidi override":     "main\u202egnp.exe",
	"bidi isolate":      "main\u2066x\u2069",
	"zero width":        "ma\u200bin",
	"byte order mark":   "\ufeffmain",
	"line separator":    "main\u2028x",
	"soft hyphen":       "ma\u00adin",
	"no-break space":    "main\u00a0x",
	"private use":       "main\ue000",
	"tag characters":    "main\U000e0041",
	"up":                "../../etc/passwd",
	"up in the middle":  "a/../b",
	"up with backslash": `a\..\b`,
	"up at the end":     "a/..",
	"leading space":     " main",
	"trailing space":    "main ",
	"a megabyte":        strings.Repeat("a", 1<<20),
	"too long":          strings.Repeat("a", 1025),
}

// TestHostileTexts puts what no honest platform sends into every claim that any
// row makes text of.
func TestHostileTexts(t *testing.T) {
	v, names := allVerifier(t)
	for _, name := range names {
		conf := confs()[name]
		fields := append(slices.Clone(v.issuers[conf.URL].fields), from("sub", "actor", may))
		for _, f := range fields {
			if f.class == truth || f.class == count {
				continue
			}
			for what, s := range hostileTexts {
				job, err := admitted(t, v, conf.URL, documentOf(t, mutate(example(t, name), f.claim, s)))
				if code := codeOf(t, job, err); code == "" {
					t.Errorf("%s %s with %s was taken", name, f.claim.shown, what)
				}
			}
		}
	}
}

func TestClasses(t *testing.T) {
	for _, tc := range []struct {
		class class
		good  []string
		bad   []string
	}{
		{text, []string{"deploy", "Deploy to prod: EU (blue)", "Größe/ünïcode", "日本語", "a..b", "...", "v1..", "it's \"quoted\"", "<b>"},
			[]string{"..", "a/..", "../a", "x\t", "\u200e"}},
		{ident, []string{"1", "{5b0c2d1e-4f3a}", "a@b.iam", "acme-ship/shipping-service", "org:1"}, []string{"a b", "ä", "..", "a/../b", "a;b", "a%2f", "*", "$x"}},
		{repo, []string{"acme/app", "github.com/acme/app", "https://github.com/acme/app", "https://dev.azure.com/o/My%20P/_git/r", "g/s/p", "app", "~user/app"},
			[]string{"/app", "app/", "a//b", "a/./b", "a/../b", "a b", "ä/b", "https:///x", "a\\b"}},
		{gitRef, []string{"main", "refs/heads/main", "feature/eta", "v1.2.3", "dependabot/npm/x-1.0", "größe", "a@b", "renovate/all#1", "x{y}"},
			[]string{"-main", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", `a\b`, "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "@", "a@{1}", "\u202ea"}},
		{commit, []string{strings.Repeat("a", 40), strings.Repeat("0", 64)},
			[]string{"HEAD", strings.Repeat("a", 39), strings.Repeat("a", 41), strings.Repeat("A", 40), strings.Repeat("g", 40)}},
		{word, []string{"push", "pull_request", "TRACKED", "h.f-i"}, []string{"a b", "a:b", "a/b", "ä", "*"}},
	} {
		for _, s := range tc.good {
			if !tc.class.takes(s) {
				t.Errorf("class %d refuses %q", tc.class, s)
			}
		}
		for _, s := range tc.bad {
			if tc.class.takes(s) {
				t.Errorf("class %d takes %q", tc.class, s)
			}
		}
	}
}

// TestStringsAreNormalised: one fact, one form, however the platform spells it.
func TestStringsAreNormalised(t *testing.T) {
	v := newVerifier(t, confs()["github"])
	want, err := verify(t, v, example(t, "github"))
	wantCode(t, want, err, "")
	for name, edit := range map[string][]any{
		"a boolean":           {"ref_protected", true},
		"numbers":             {"run_attempt", 1, "run_id", 19870012345, "repository_id", 741200456, "actor_id", 5500123},
		"null where empty":    {"head_ref", json.RawMessage("null"), "base_ref", nil},
		"null where absent":   {"deployment", json.RawMessage("null")},
		"what nobody maps":    {"something_new", map[string]any{"a": []int{1}}, "run_number", 7},
		"a sub without ids":   {"sub", want.Identity().Subject},
		"claims in any order": {},
	} {
		got, err := verify(t, v, example(t, "github").with(edit...))
		if err != nil || got.Document().String() != want.Document().String() {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got.Document(), want.Document())
		}
	}
	for _, bad := range []any{"1 ", "01", "+1", "1.0", "0", 0, -1, 1.5, "0x1", "1e3", "9999999999", "1000000000", 1_000_000_000, 5_000_000_000} {
		job, err := verify(t, v, example(t, "github").with("run_attempt", bad))
		wantCode(t, job, err, proviso.CodeClaimType)
	}
	for _, bad := range []any{"True", "TRUE", "yes", "1", 1, 0, "0", " true"} {
		job, err := verify(t, v, example(t, "github").with("ref_protected", bad))
		wantCode(t, job, err, proviso.CodeClaimType)
	}
}

// who are the members of an identity that say whose job it is.
func who(job Job) string {
	id := job.Identity()
	return fmt.Sprintf("%q", []string{id.Issuer, id.Platform, id.Tenant, id.Role, id.OwnerID, id.RepositoryID, id.Audience, id.Kind})
}

// TestOneClaimChangesNobody: whatever is done to one claim of a good token, the
// result is a refusal or somebody with the same tenant, owner, repository and
// role, unless the claim is the very one that says it, and then exactly that
// one member follows.
func TestOneClaimChangesNobody(t *testing.T) {
	v, names := allVerifier(t)
	texts := slices.Collect(maps.Values(hostileTexts))
	texts = slices.DeleteFunc(texts, func(s string) bool { return len(s) > 2000 })
	texts = append(texts, "999", "acme", "mallory", "mallory/app", "main", "push", "pull_request", "true", broker, "refs/heads/main")
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(names).Draw(rt, "platform")
		conf := confs()[name]
		good := example(t, name)
		want, err := admitted(t, v, conf.URL, documentOf(t, good))
		if err != nil {
			rt.Fatal(err)
		}
		claim := rapid.SampledFrom(append(slices.Sorted(maps.Keys(good)), "unknown_claim", "namespace_id", "tenant")).Draw(rt, "claim")
		value := rapid.OneOf(
			rapid.Just[any](nil), rapid.Just[any](json.RawMessage("null")),
			rapid.Map(rapid.SampledFrom(texts), func(s string) any { return s }),
			rapid.Map(rapid.String(), func(s string) any { return s }),
			rapid.Map(rapid.IntRange(-5, 1<<40), func(n int) any { return n }),
			rapid.Map(rapid.Bool(), func(b bool) any { return b }),
			rapid.Map(rapid.SliceOfN(rapid.SampledFrom(texts), 0, 3), func(s []string) any { return s }),
			rapid.Just[any](map[string]any{"id": "7"}),
		).Draw(rt, "value")
		job, err := admitted(t, v, conf.URL, documentOf(t, good.with(claim, value)))
		if err != nil {
			codeOf(t, job, err)
			return
		}
		before, after := want.Identity(), job.Identity()
		members := map[string][2]string{"owner_id": {before.OwnerID, after.OwnerID}, "repository_id": {before.RepositoryID, after.RepositoryID}}
		for _, f := range v.issuers[conf.URL].fields {
			// A row may read an identifier from just this claim; then the new
			// value must stand there as it is, and no pin names the claim.
			if m, ok := members[f.to]; ok && f.claim.shown == claim {
				if _, pinned := conf.Require[claim]; pinned && m[0] != m[1] {
					rt.Fatalf("%s: the pinned claim %s changed %s", name, claim, f.to)
				}
				delete(members, f.to)
			}
		}
		if name == "azure-devops" && claim == "rpo_id" {
			delete(members, "repository_id")
		}
		for member, m := range members {
			if m[0] != m[1] {
				rt.Fatalf("%s: %s = %v changed %s from %s to %s", name, claim, value, member, m[0], m[1])
			}
		}
		if before.Tenant != after.Tenant || before.Role != after.Role || before.Issuer != after.Issuer || before.Platform != after.Platform {
			rt.Fatalf("%s: %s = %v changed who asks from %s to %s", name, claim, value, who(want), who(job))
		}
	})
}
