package identity

import (
	"encoding/json"
	"testing"

	"github.com/proviso-ci/proviso/internal/document"
)

// FuzzClaims edits each platform's example with any JSON object, as if the
// result were signed, and applies the platform's rules. Whatever is taken must be
// harmless: every text of the identity has the form of its class, the document
// is the struct's JSON, and a pull request has no branch.
func FuzzClaims(f *testing.F) {
	v, names := allVerifier(f)
	examples, urls := map[string]document.Value{}, map[string]string{}
	for _, name := range names {
		urls[name], examples[name] = confs()[name].URL, documentOf(f, example(f, name))
		f.Add(name, []byte(`{}`))
		f.Add(name, example(f, name).json(f))
	}
	for _, fx := range fixtures {
		f.Add(fx.platform, payload(f, fx.file).with(fx.edit...).json(f))
	}
	f.Fuzz(func(t *testing.T, platform string, edits []byte) {
		doc, err := document.Parse(edits, document.Limits{})
		if urls[platform] == "" || err != nil || doc.Kind() != document.Object {
			return
		}
		job, err := admitted(t, v, urls[platform], examples[platform].With(doc.Fields()...))
		if err != nil {
			codeOf(t, job, err)
			return
		}
		harmless(t, job)
	})
}

func harmless(t *testing.T, job Job) {
	t.Helper()
	id := job.Identity()
	data, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	sameDocument(t, job.Document(), data)
	for to, cl := range targets {
		if cl == truth || cl == count {
			continue
		}
		if s := *id.slot(to); s != "" && !cl.takes(s) {
			t.Errorf("%s is %q", to, s)
		}
	}
	if isTrue(id.PullRequest) && (id.Branch != "" || id.Tag != "" || id.RefType != "" || id.Protected != nil) {
		t.Errorf("a pull request with a branch: %s", job.Document())
	}
	if (id.Branch != "") != (id.RefType == "branch") || (id.Tag != "") != (id.RefType == "tag") {
		t.Errorf("branch %q, tag %q, ref_type %q", id.Branch, id.Tag, id.RefType)
	}
}
