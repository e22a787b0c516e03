package credential

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/proviso-ci/proviso/internal/document"
)

// Two jobs have one name only if they are one: whatever a platform puts into
// its values, separators and escapes included.
func TestDifferentJobsHaveDifferentNames(t *testing.T) {
	type job struct{ issuer, tenant, id, repository string }
	subject := func(j job) (string, bool) {
		s, err := defaultSubject(values{issuer: j.issuer, job: document.ObjectOf(document.Member("tenant", text(j.tenant)),
			document.Member("repository_id", text(j.id)), document.Member("repository", text(j.repository)))})
		return s, err == nil
	}
	value := rapid.OneOf(rapid.StringMatching(`[a-c:%/@*-]{0,4}`), rapid.SampledFrom([]string{"", "-", "%2D", "name:a", "a", "a:b", "ä", "\u202e"}), rapid.StringN(0, 6, -1))
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) job {
			return job{value.Draw(t, label+" issuer"), value.Draw(t, label+" tenant"), value.Draw(t, label+" id"), value.Draw(t, label+" repository")}
		}
		a, b := draw("a"), draw("b")
		if a.id != "" {
			a.repository = "" // a name is only used where there is no id
		}
		if b.id != "" {
			b.repository = ""
		}
		sa, okA := subject(a)
		sb, okB := subject(b)
		if okA && okB && sa == sb && !sameText(a.issuer, b.issuer, a.tenant, b.tenant, a.id, b.id, a.repository, b.repository) {
			t.Fatalf("%+v and %+v are both %q", a, b, sa)
		}
		if okA && (!isPrintableASCII(sa) || strings.ContainsAny(sa, ` "\*?`) || strings.Count(sa, ":")-strings.Count(sa, ":name:") != 3) {
			t.Fatalf("%+v is named %q", a, sa)
		}
	})
}

// sameText compares pairs as documents hold them: a text that isn't UTF-8 was
// made so before.
func sameText(pairs ...string) bool {
	for i := 0; i < len(pairs); i += 2 {
		if strings.ToValidUTF8(pairs[i], "\uFFFD") != strings.ToValidUTF8(pairs[i+1], "\uFFFD") {
			return false
		}
	}
	return true
}

func TestATemplateIsReadBackAsItWasWritten(t *testing.T) {
	v := values{issuer: "github", grant: "g-1", runner: "spiffe://r/x", job: testJob()}
	for template, want := range map[string]string{
		"plain":                   "plain",
		"{grant}":                 "g-1",
		"a{grant}b":               "ag-1b",
		"{issuer}/{tenant}":       "github/acme",
		"{issuer}:{branch}:{ref}": "github:main:refs/heads/main",
	} {
		parsed, err := parseTemplate(template, formSubject)
		must(t, err)
		if got, err := parsed.expand(v); err != nil || got != want {
			t.Errorf("%s becomes %q, %v; want %q", template, got, err, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("spiffe://acme.example/job/{issuer}/{tenant}", "acme")
	f.Add("{issuer}:{tenant}", "a:b%")
	f.Fuzz(func(t *testing.T, template, value string) {
		for _, form := range []form{formSubject, formURI, formDNS, formPlain} {
			parsed, err := parseTemplate(template, form)
			if err != nil {
				continue
			}
			name, err := parsed.expand(values{issuer: value, grant: value, runner: value, job: document.ObjectOf(document.Member("tenant", text(value)))})
			if err != nil {
				continue
			}
			if !isPrintableASCII(name) || len(name) > form.limit() {
				t.Fatalf("%q makes %q", template, name)
			}
			if form == formURI && !strings.HasPrefix(name, parsed.parts[0].literal) {
				t.Fatalf("%q makes %q", template, name)
			}
		}
	})
}
