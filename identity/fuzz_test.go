package identity

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/internal/document"
)

// FuzzClaims gives any JSON object, as if it were signed, to every platform's
// rules. Whatever is taken must be harmless: every text of the identity has the
// form of its class, the document is the struct's JSON, and a pull request has
// no branch.
func FuzzClaims(f *testing.F) {
	v, names := allVerifier(f)
	urls := map[string]string{}
	for _, name := range names {
		urls[name] = confs()[name].URL
		f.Add(name, example(f, name).json(f))
	}
	files, _ := filepath.Glob("testdata/claims/*.json")
	for _, file := range files {
		base := strings.TrimSuffix(filepath.Base(file), ".json")
		for _, name := range names {
			if strings.HasPrefix(base, name) {
				f.Add(name, payload(f, base).json(f))
			}
		}
	}
	f.Fuzz(func(t *testing.T, platform string, claims []byte) {
		url, known := urls[platform]
		doc, err := document.Parse(claims, document.Limits{})
		if !known || err != nil || doc.Kind() != document.Object {
			return
		}
		job, err := admitted(t, v, url, doc)
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
