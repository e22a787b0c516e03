package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// drafted gives a good token's header and claims as they would be signed.
func (s *site) drafted() (header, claims string) {
	s.t.Helper()
	s.token(lab.Job{}, func(d *lab.Draft) {
		header, claims = string(made(json.Marshal(d.Header))(s.t)), string(made(json.Marshal(d.Claims))(s.t))
	})
	return header, claims
}

// RFC 8725's list and its relatives, each once through the door of a running
// broker: its own code, nothing of the token in the answer, one entry in the
// record, no credential. All but the first five are signed by the right key.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	s.serve()
	key := made(labKey())(t)
	other := made(lab.NewKey("RS256"))(t)
	elliptic := made(lab.NewKey("ES256"))(t)
	with := func(edits ...lab.Edit) string { return s.token(lab.Job{}, edits...) }
	// raw signs bytes as they are, after a replacement in the claims or the header.
	raw := func(part, old, change string) string {
		header, claims := s.drafted()
		if part == "header" {
			header = strings.Replace(header, old, change, 1)
		} else {
			claims = strings.Replace(claims, old, change, 1)
		}
		return made(key.Sign([]byte(header), []byte(claims)))(t)
	}
	good := with()
	parts := strings.Split(good, ".")
	now := time.Now()
	cases := []struct {
		name, token string
		code        proviso.Code
	}{
		{"alg none", with(lab.Unsigned()), proviso.CodeJWTAlgNotAllowed},
		{"HMAC with the public key", with(lab.KeyConfusion()), proviso.CodeJWTAlgNotAllowed},
		{"another's key under our kid", with(lab.SignedBy(other)), proviso.CodeJWTSignature},
		{"a key of another kind", with(lab.SignedBy(elliptic)), proviso.CodeJWTAlgNotAllowed},
		{"no signature", parts[0] + "." + parts[1] + ".", proviso.CodeJWTMalformed},
		{"alg None", with(lab.Header("alg", "None")), proviso.CodeJWTAlgNotAllowed},
		{"an unknown kid", with(lab.Header("kid", "no-such-key")), proviso.CodeJWTUnknownKID},
		{"a key in the header", with(lab.Header("jwk", key.JWK())), proviso.CodeJWTHeaderNotAllowed},
		{"a key's address in the header", with(lab.Header("jku", "https://evil.example/jwks")), proviso.CodeJWTHeaderNotAllowed},
		{"a certificate's address", with(lab.Header("x5u", "https://evil.example/cert")), proviso.CodeJWTHeaderNotAllowed},
		{"a certificate", with(lab.Header("x5c", []string{"MIIB"})), proviso.CodeJWTHeaderNotAllowed},
		{"crit", with(lab.Header("crit", []string{"exp"})), proviso.CodeJWTHeaderNotAllowed},
		{"b64", with(lab.Header("b64", false)), proviso.CodeJWTHeaderNotAllowed},
		{"zip", with(lab.Header("zip", "DEF")), proviso.CodeJWTHeaderNotAllowed},
		{"another type", with(lab.Header("typ", "dpop+jwt")), proviso.CodeJWTTyp},
		{"an encrypted token", strings.Repeat("eyJhbGciOiJkaXIifQ.", 4) + "AAAA", proviso.CodeJWTIsJWE},
		{"JSON serialisation", `{"payload":"e30","signatures":[]}`, proviso.CodeJWTMalformed},
		{"white space at the end", good + "\n", proviso.CodeJWTMalformed},
		{"a claim twice", raw("claims", `{`, `{"sub":"evil",`), proviso.CodeJWTDuplicateMember},
		{"a claim in capitals too", raw("claims", `{`, `{"SUB":"evil",`), proviso.CodeJWTAmbiguousMember},
		{"a claim with a long s", raw("claims", `{`, `{"ſub":"evil",`), proviso.CodeJWTAmbiguousMember},
		{"a header member twice", raw("header", `{`, `{"alg":"none",`), proviso.CodeJWTDuplicateMember},
		{"bytes after the claims", raw("claims", `"}`, `"} {}`), proviso.CodeJWTMalformed},
		{"no end of nesting", raw("claims", `{`, `{"x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`,`), proviso.CodeJWTMalformed},
		{"no exp", with(lab.NoClaim("exp")), proviso.CodeExpMissing},
		{"exp as a text", with(lab.Claim("exp", fmt.Sprint(now.Add(time.Hour).Unix()))), proviso.CodeExpInvalid},
		{"exp of a half second", with(lab.Claim("exp", float64(now.Unix())+300.5)), proviso.CodeExpInvalid},
		{"exp in a hundred years", with(lab.Claim("exp", now.AddDate(100, 0, 0).Unix())), proviso.CodeExpInvalid},
		{"exp beyond every calendar", with(lab.Claim("exp", 9e18)), proviso.CodeJWTMalformed},
		{"exp of null", with(lab.Claim("exp", nil)), proviso.CodeExpInvalid},
		{"expired", with(lab.Claim("exp", now.Add(-5*time.Minute).Unix())), "token_expired"},
		{"issued tomorrow", with(lab.Claim("iat", now.Add(24*time.Hour).Unix())), proviso.CodeIatFuture},
		{"not yet", with(lab.Claim("nbf", now.Add(time.Hour).Unix())), proviso.CodeNbfFuture},
		{"no audience", with(lab.NoClaim("aud")), proviso.CodeAudMissing},
		{"another audience", with(lab.Claim("aud", "https://evil.example")), proviso.CodeAudMismatch},
		{"two audiences", with(lab.Claim("aud", []string{s.url, "https://evil.example"})), proviso.CodeAudMultiple},
		{"the audience with a slash", with(lab.Claim("aud", s.url+"/")), proviso.CodeAudMismatch},
		{"an issuer that looks alike", with(lab.Claim("iss", s.github.URL()+"/")), proviso.CodeIssuerUnknown},
		{"no issuer", with(lab.NoClaim("iss")), proviso.CodeIssuerUnknown},
		{"a token without end", with(lab.Claim("x", strings.Repeat("a", 16<<10))), proviso.CodeLimitsTokenSize},
		{"nothing", "..", proviso.CodeJWTMalformed},
	}
	for _, c := range cases {
		r := s.ask(exchangeForm(c.token, "deploy"))
		if r.granted != nil || r.status != http.StatusBadRequest || r.refused.Error != "invalid_request" || r.refused.Code != c.code || r.refused.Stage != proviso.StageJob {
			t.Errorf("%s: %s, want %s", c.name, r, c.code)
		}
		if strings.Contains(r.refused.Description, "evil") && c.code != proviso.CodeAudMismatch && c.code != proviso.CodeAudMultiple {
			t.Errorf("%s: the answer repeats what nobody has verified: %s", c.name, r)
		}
	}
	if r := s.ask(exchangeForm(good, "deploy")); r.granted == nil {
		t.Errorf("the good token that all of them were made of: %s", r)
	}
	if n := s.metric("proviso_log_entries"); n != fmt.Sprint(len(cases)+1) {
		t.Errorf("the record has %s entries, want one for each of %d requests", n, len(cases)+1)
	}
}
