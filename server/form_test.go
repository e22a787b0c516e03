package server

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/proviso-ci/proviso"
)

// FuzzForm: whatever is sent to /token is a form that says each thing once, or a
// refusal of the stage request that can be printed anywhere.
func FuzzForm(f *testing.F) {
	good := url.Values{"grant_type": {proviso.GrantTypeTokenExchange}, "subject_token": {"a.b.c"}, "subject_token_type": {proviso.TokenTypeJWT},
		"audience": {"deploy"}, "scope": {"a b"}, "authorization_details": {`[{"type":"proviso_intent","purpose":"p","requested_ttl":5}]`}}
	const formType = "application/x-www-form-urlencoded"
	f.Add(formType, "", good.Encode())
	f.Add(formType+"; charset=UTF-8", "", good.Encode()+"&audience=b")
	f.Add("multipart/form-data; boundary=x", "", "--x")
	f.Add(formType, "a=b", good.Encode())
	f.Add(formType, "", "grant_type;subject_token=%zz&\x00=\xff")
	f.Add(formType, "", strings.Repeat("a=b&", 40))
	f.Add(formType, "", good.Encode()+"&authorization_details=[[[[[[")
	f.Fuzz(func(t *testing.T, contentType, query, body string) {
		r, err := http.NewRequest(http.MethodPost, "http://proviso.example/token", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		got, err := readForm(r)
		if err != nil {
			refusal := new(proviso.Refusal)
			if !errors.As(err, &refusal) || refusal.Stage != proviso.StageRequest || answerFor(refusal.Code).status >= 500 {
				t.Fatalf("%v is no refusal of a request", err)
			}
			if len(refusal.Public) > 600 || strings.ContainsFunc(refusal.Public, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("a sentence that not everybody can print: %q", refusal.Public)
			}
			return
		}
		values, err := url.ParseQuery(body)
		if err != nil || query != "" || len(body) > maxFormBytes {
			t.Fatalf("a form was read of %q?%q", body, query)
		}
		for name, all := range values {
			if len(all) != 1 {
				t.Errorf("%q is there %d times and was read", name, len(all))
			}
		}
		if got.subjectToken != values.Get("subject_token") || got.subjectToken == "" || got.grant == "" || len(got.scope) > maxScopes || len(got.scope) != len(slices.Compact(slices.Sorted(slices.Values(got.scope)))) {
			t.Errorf("%+v was read of %q", got, body)
		}
		for _, text := range []string{got.intent.Purpose, got.intent.Annotation, got.intent.Action, got.intent.TicketID} {
			if len(text) > maxText || !isOneLine(text) {
				t.Errorf("declared was %q", text)
			}
		}
	})
}
