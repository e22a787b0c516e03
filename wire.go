// Package proviso holds the words that cross the wire between a pipeline's job
// and the broker, and nothing that any part of the broker decides.
//
// The one door to a credential is POST /token, an OAuth 2.0 Token Exchange
// (RFC 8693). A job sends its CI platform's OIDC token as subject_token, its
// runner's SVID as actor_token (or as TLS client certificate), the name of a
// grant as audience, and what it intends as an authorization detail (RFC 9396)
// of type "proviso_intent". It gets a [TokenResponse], or a [TokenError] that
// says which stage refused and why.
//
// Everything here is declared by a caller or shown to one. What is believed is
// in the packages identity, runner and facts; this package believes nothing.
package proviso

import (
	"crypto/sha256"
	"encoding/json"

	"github.com/proviso-ci/proviso/internal/document"
)

// Identifiers of RFC 8693 and RFC 9396 that /token speaks.
const (
	GrantTypeTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

	TokenTypeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	TokenTypeIDToken     = "urn:ietf:params:oauth:token-type:id_token"
	TokenTypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	// TokenTypeX509 asks for a client certificate. RFC 8693 section 3 lets a
	// deployment name its own; the certificate chain comes in proviso.credential.
	TokenTypeX509 = "urn:proviso:params:oauth:token-type:x509"

	// What an actor_token is when it is no JWT-SVID: the runner's evidence of
	// another kind (docs/runners.md). A kind has its own type, because a JWT of
	// Google's and one of a cluster's are believed for different reasons.
	TokenTypeAWS        = "urn:proviso:params:oauth:token-type:aws-instance-identity"
	TokenTypeGCP        = "urn:proviso:params:oauth:token-type:gcp-instance-identity"
	TokenTypeAzure      = "urn:proviso:params:oauth:token-type:azure-attested-document"
	TokenTypeKubernetes = "urn:proviso:params:oauth:token-type:kubernetes-service-account"
	TokenTypeTPM        = "urn:proviso:params:oauth:token-type:tpm-quote"
	TokenTypeEvidence   = "urn:proviso:params:oauth:token-type:attestation-result"

	// IntentType is the authorization_details type that carries an Intent.
	IntentType = "proviso_intent"
)

// Intent is what the job says that it wants to do, and why. It is declared,
// never believed: policy sees it as input.intent and, marked as such in
// input.origin, in input.context. An empty string is an absent value.
type Intent struct {
	Type       string `json:"type"` // always IntentType
	Action     string `json:"action,omitempty"`
	Purpose    string `json:"purpose,omitempty"`
	Annotation string `json:"annotation,omitempty"`
	TicketID   string `json:"ticket_id,omitempty"`
	// RequestedTTL is the wished lifetime in minutes, 1 to 1440; 0 is absent.
	RequestedTTL int `json:"requested_ttl,omitempty"`
}

// Document gives the intent as authorization_details carries it; what is absent
// is left out.
func (i Intent) Document() document.Value {
	ttl := document.Value{}
	if i.RequestedTTL > 0 {
		ttl = document.IntOf(int64(i.RequestedTTL))
	}
	return document.ObjectOf(
		document.Member("action", document.StringOf(i.Action)),
		document.Member("annotation", document.StringOf(i.Annotation)),
		document.Member("purpose", document.StringOf(i.Purpose)),
		document.Member("requested_ttl", ttl),
		document.Member("ticket_id", document.StringOf(i.TicketID)),
		document.Member("type", document.StringOf(IntentType)),
	)
}

// TokenResponse is the answer to a granted exchange (RFC 8693 section 2.2.1).
type TokenResponse struct {
	// AccessToken is the token, or for a certificate the PEM chain, leaf first.
	AccessToken     string `json:"access_token"`
	IssuedTokenType string `json:"issued_token_type"`
	// TokenType is Bearer, DPoP, or N_A when the credential is not an access token.
	TokenType string `json:"token_type"`
	// ExpiresIn is the lifetime in seconds, counted from the answer.
	ExpiresIn int64  `json:"expires_in"`
	Scope     string `json:"scope,omitempty"`
	// AuthorizationDetails are the intents as they were granted (RFC 9396 section 7).
	AuthorizationDetails []Intent `json:"authorization_details,omitempty"`
	Proviso              Issued   `json:"proviso"`
}

// Issued is Proviso's own part of an answer.
type Issued struct {
	// Decision is the id of the decision in the record.
	Decision string `json:"decision"`
	// Receipt proves that the decision is in the log; package audit reads it.
	Receipt    json.RawMessage `json:"receipt"`
	Credential CredentialInfo  `json:"credential"`
}

// CredentialInfo describes the credential; it holds no secret.
type CredentialInfo struct {
	Kind     string `json:"kind"` // jwt, x509, x509-svid, jwt-svid
	ID       string `json:"id"`   // jti, or serial number in hex
	Audience string `json:"audience,omitempty"`
	// Expires is Unix time in seconds.
	Expires int64 `json:"expires"`
}

// TokenError is the answer to a refused exchange (RFC 6749 section 5.2).
type TokenError struct {
	Error       string   `json:"error"`
	Description string   `json:"error_description"`
	Decision    string   `json:"decision,omitempty"`
	Stage       Stage    `json:"stage,omitempty"`
	Code        Code     `json:"code,omitempty"`
	Reasons     []Reason `json:"reasons,omitempty"`
}

// EvidenceKinds gives, for each type of actor_token that is a runner's evidence
// of another kind than SPIFFE's, the kind: the value of input.runner.attestation.
var EvidenceKinds = map[string]string{
	TokenTypeAWS: "aws", TokenTypeGCP: "gcp", TokenTypeAzure: "azure", TokenTypeKubernetes: "kubernetes",
	TokenTypeTPM: "tpm", TokenTypeEvidence: "attestation",
}

// Challenge is the answer of the challenge endpoint, which the broker's metadata
// names as challenge_endpoint.
type Challenge struct {
	Nonce string `json:"attestation_challenge"`
	// ExpiresIn is for how many seconds evidence over it counts.
	ExpiresIn int `json:"expires_in"`
}

// EvidenceNonce is what evidence is made over where its kind takes a nonce: the
// broker's challenge, the broker itself, so that a malicious broker can't relay
// another one's challenge, and the key that the request proves (its RFC 7638
// thumbprint, "" without one), so that the evidence serves nobody else.
func EvidenceNonce(broker, challenge, thumbprint string) [32]byte {
	// A line each: no part can contain a line break.
	return sha256.Sum256([]byte("proviso runner evidence 1\n" + broker + "\n" + challenge + "\n" + thumbprint + "\n"))
}
