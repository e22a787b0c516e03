package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

// discoveryDocument is the metadata of RFC 8414, which is at the same time what
// OpenID Connect Discovery asks for: a cloud, Vault, Kubernetes or a stock OIDC
// library finds the keys with it and needs nothing of Proviso's own.
func (s *Server) discoveryDocument() []byte {
	url := s.config.URL
	grantTypes := []string{proviso.GrantTypeTokenExchange}
	if s.parts.Workloads {
		grantTypes = append(grantTypes, proviso.GrantTypeClientCredentials)
	}
	doc := map[string]any{
		"issuer":                                     url,
		"jwks_uri":                                   url + "/jwks",
		"token_endpoint":                             url + "/token",
		"grant_types_supported":                      grantTypes,
		"token_endpoint_auth_methods_supported":      []string{"none"},
		"authorization_details_types_supported":      []string{proviso.IntentType},
		"dpop_signing_alg_values_supported":          pass.ProofAlgorithms,
		"tls_client_certificate_bound_access_tokens": s.config.TLS != TLS{},
		"challenge_endpoint":                         url + "/challenge",
		// Required by OpenID Connect Discovery, although nobody logs in here.
		"response_types_supported":              []string{"none"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": s.parts.Algorithms,
		"claims_supported": []string{"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope", "act", "cnf",
			"authorization_details", "proviso"},
	}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		panic(err) // strings and booleans only
	}
	return append(data, '\n')
}

func (s *Server) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "public, max-age=3600")
	writeJSON(w, http.StatusOK, s.discovery)
}

func (s *Server) serveJWKS(w http.ResponseWriter, _ *http.Request) {
	body, maxAge := s.parts.JWKS()
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(maxAge.Seconds())))
	writeJSON(w, http.StatusOK, body)
}

func (s *Server) serveCA(w http.ResponseWriter, r *http.Request) {
	if s.parts.CA == nil {
		s.notFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=300")
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = w.Write(s.parts.CA()) // a caller that went away
}

// serveChallenge gives a nonce that a runner's evidence is made over, as
// draft-ietf-oauth-attestation-based-client-auth has it for a client's. Asking
// for many costs the broker nothing: it remembers only those that were answered.
func (s *Server) serveChallenge(w http.ResponseWriter, r *http.Request) {
	if s.parts.Challenge == nil {
		s.notFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeText(w, http.StatusMethodNotAllowed, "a challenge is asked for with POST\n")
		return
	}
	nonce, life := s.parts.Challenge()
	w.Header()["Cache-Control"] = noStore
	body, _ := json.Marshal(proviso.Challenge{Nonce: nonce, ExpiresIn: int(life.Seconds())})
	writeJSON(w, http.StatusOK, append(body, '\n'))
}

// readyz says whether a request would be worked on now.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.draining:
		writeText(w, http.StatusServiceUnavailable, "draining\n")
		return
	default:
	}
	if err := s.parts.Ready(); err != nil {
		s.parts.Logger.Warn("not ready", "error", err)
		writeText(w, http.StatusServiceUnavailable, "not ready: the broker's log says why\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func (s *Server) notFound(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusNotFound, "not found: credentials are asked for with POST /token\n")
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))} // else a body over 2 KiB is sent in chunks
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that went away
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header()["Cache-Control"] = noStore
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // a caller that went away
}
