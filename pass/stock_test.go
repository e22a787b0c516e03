package pass

import (
	"context"
	"crypto"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	gojosejwt "github.com/go-jose/go-jose/v4/jwt"
	golangjwt "github.com/golang-jwt/jwt/v5"
	"github.com/lestrrat-go/jwx/v3/jwk"
	jwxjwt "github.com/lestrrat-go/jwx/v3/jwt"
)

// A resource that has never heard of Proviso takes its tokens with the library
// that it has: each of these knows only the issuer's URL.
func TestStockVerifiersTakeAPass(t *testing.T) {
	c := newClock()
	k := testKeyring(t, c)
	mux := http.NewServeMux()
	issuer := httptest.NewServer(mux)
	defer issuer.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"issuer": issuer.URL, "jwks_uri": issuer.URL + "/jwks",
			"id_token_signing_alg_values_supported": Algorithms, "response_types_supported": []string{"none"}, "subject_types_supported": []string{"public"}})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, r *http.Request) {
		body, _ := k.JWKS()
		w.Write(body)
	})
	body, _ := k.JWKS()
	for _, alg := range Algorithms {
		claims := testClaims(c.now())
		claims.Issuer = issuer.URL
		claims.Confirmation.JKT = testJKT
		token, err := testSigner(t, k, string(alg)).Sign(&claims, time.Hour)
		must(t, err)

		t.Run("go-oidc "+string(alg), func(t *testing.T) {
			ctx := oidc.ClientContext(context.Background(), issuer.Client())
			provider, err := oidc.NewProvider(ctx, issuer.URL)
			must(t, err)
			id, err := provider.Verifier(&oidc.Config{ClientID: testAudience, Now: c.now}).Verify(ctx, token)
			must(t, err)
			if id.Subject != claims.Subject || !id.Expiry.Equal(claims.Expires) {
				t.Errorf("it reads %+v", id)
			}
			if _, err := provider.Verifier(&oidc.Config{ClientID: "https://other.example", Now: c.now}).Verify(ctx, token); err == nil {
				t.Error("taken for another audience")
			}
		})
		t.Run("golang-jwt "+string(alg), func(t *testing.T) {
			parsed, err := golangjwt.Parse(token, func(tok *golangjwt.Token) (any, error) {
				key, err := k.Key(context.Background(), tok.Header["kid"].(string), alg)
				if err != nil {
					return nil, err
				}
				return key.Public(), nil
			}, golangjwt.WithValidMethods([]string{string(alg)}), golangjwt.WithIssuer(issuer.URL), golangjwt.WithAudience(testAudience),
				golangjwt.WithTimeFunc(c.now), golangjwt.WithExpirationRequired())
			must(t, err)
			if sub, err := parsed.Claims.GetSubject(); err != nil || sub != claims.Subject {
				t.Errorf("it reads %q, %v", sub, err)
			}
		})
		t.Run("jwx "+string(alg), func(t *testing.T) {
			set, err := jwk.Parse(body)
			must(t, err)
			parsed, err := jwxjwt.Parse([]byte(token), jwxjwt.WithKeySet(set), jwxjwt.WithIssuer(issuer.URL), jwxjwt.WithAudience(testAudience),
				jwxjwt.WithClock(jwxjwt.ClockFunc(c.now)))
			must(t, err)
			if id, ok := parsed.JwtID(); !ok || id != claims.ID {
				t.Errorf("it reads %q", id)
			}
			kids, ok := set.Key(0)
			if thumb, err := kids.Thumbprint(crypto.SHA256); !ok || err != nil || len(thumb) != 32 {
				t.Errorf("thumbprint %x, %v", thumb, err)
			}
		})
		t.Run("go-jose "+string(alg), func(t *testing.T) {
			var set jose.JSONWebKeySet
			must(t, json.Unmarshal(body, &set))
			parsed, err := gojosejwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
			must(t, err)
			var read gojosejwt.Claims
			must(t, parsed.Claims(set, &read))
			must(t, read.ValidateWithLeeway(gojosejwt.Expected{Issuer: issuer.URL, AnyAudience: gojosejwt.Audience{testAudience}, Time: c.now()}, 0))
			if read.Subject != claims.Subject || parsed.Headers[0].ExtraHeaders["typ"] != "at+jwt" {
				t.Errorf("it reads %+v, header %+v", read, parsed.Headers)
			}
		})
	}
}

// A stock DPoP client is anything that signs JWTs: here go-jose, with the
// public key in the header.
func TestAProofMadeByAnotherLibrary(t *testing.T) {
	s := newProofScene(t, ProofConfig{})
	key := mustKey(t)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{EmbedJWK: true}).WithType(ProofTyp))
	must(t, err)
	proof, err := gojosejwt.Signed(signer).Claims(map[string]any{"htm": "POST", "htu": proofURL, "iat": s.now().Unix(), "jti": "another-library"}).Serialize()
	must(t, err)
	jkt, err := s.checker.Check(proof, ProofRequest{Method: "POST", URL: proofURL})
	must(t, err)
	if !isThumbprint(jkt) {
		t.Errorf("thumbprint %q", jkt)
	}
}
