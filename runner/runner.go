// Package runner answers the second question of every exchange: where does the
// job run? The machine or workload that executes a job is a party of its own,
// with its own evidence, so that a stolen job token on another machine gets
// nothing.
//
// Evidence is a SPIFFE identity: a JWT-SVID that the job sends as actor_token,
// or an X.509-SVID that it shows as TLS client certificate, or both, which then
// must name the same SPIFFE ID. An SVID is believed only if it was issued by
// its own trust domain: every domain has one configured bundle, bundles are
// never merged, the system's certificate authorities are never used, and what
// a trust domain is called is configured here, never read from a bundle.
//
// go-spiffe reads the identifiers, holds the bundles and verifies the X.509
// chain. Around it stand the demands of the SPIFFE standards that it leaves
// open: a path in every SVID, the key usage of a leaf, one exact audience, no
// leeway, header parameters by allow-list, the use of every bundle key, bounded
// lifetimes.
//
// A verified SPIFFE ID becomes a Runner only if its path matches one of the
// domain's templates ("/region/{region}/runner/{id}"), which name what policy
// reads as input.runner.id and input.runner.region. A path that matches none
// belongs to something that is no runner, and is refused.
//
// Every error is a *proviso.Refusal with stage "runner". No SVID is ever part
// of one.
package runner

import (
	"crypto/x509"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
)

// Evidence is what a request shows of its runner. Empty fields are absent.
type Evidence struct {
	// JWTSVID is the actor_token of type urn:ietf:params:oauth:token-type:jwt.
	JWTSVID string
	// Certificates is the chain of the TLS client certificate, leaf first, from
	// a handshake that has proved possession of the leaf's key.
	Certificates []*x509.Certificate
	// Other is evidence of the kinds in Options.Kinds, by the kind's name.
	Other map[string]string
	// Key is the RFC 7638 thumbprint of the key that the request proves by DPoP,
	// or an agent by its certificate request; "" without one. It is no evidence
	// by itself: some kinds are tied to it.
	Key string
}

// IsZero reports whether the request shows no evidence at all.
func (e Evidence) IsZero() bool {
	return e.JWTSVID == "" && len(e.Certificates) == 0 && len(e.Other) == 0
}

// How a runner was attested: the value of input.runner.attestation.
const (
	AttestationX509 = "spiffe-x509"
	AttestationJWT  = "spiffe-jwt"

	AttestationAWS        = "aws"
	AttestationGCP        = "gcp"
	AttestationAzure      = "azure"
	AttestationKubernetes = "kubernetes"
	AttestationPlatform   = "platform"
	AttestationTPM        = "tpm"
	AttestationVerifier   = "attestation"
)

// How a runner and a job are tied to each other: the value of input.runner.binding,
// from the weakest on. docs/decisions has what each of them proves.
const (
	// BindingMTLS: the job's token came over a connection of the runner's own key,
	// and from then on comes from no other runner.
	BindingMTLS = "mtls"
	// BindingKey: the job's token and the runner's evidence name one key, and the
	// request proves it.
	BindingKey = "key"
	// BindingPlatform: the CI platform says in the job's token which runner it
	// gave the job to, and the evidence is that one's.
	BindingPlatform = "platform"
)

// Runner is a verified runner. Only Verify makes one; the zero Runner is "there
// is none".
type Runner struct {
	name        string
	id          string
	region      string
	spiffeID    string
	trustDomain string
	attestation string
	assurance   int
	binding     string
	tied        bool
	hash        string
	issued      time.Time
	expires     time.Time
	doc         document.Value
}

// IsZero reports whether there is no runner.
func (r Runner) IsZero() bool { return r.name == "" }

// Name gives the name of the configuration entry that accepted the runner.
func (r Runner) Name() string { return r.name }

// ID gives input.runner.id, which is unique only within its trust domain.
func (r Runner) ID() string { return r.id }

// Region gives input.runner.region, "" if there is none.
func (r Runner) Region() string { return r.region }

// SPIFFEID gives the full SPIFFE ID.
func (r Runner) SPIFFEID() string { return r.spiffeID }

// TrustDomain gives the trust domain's name.
func (r Runner) TrustDomain() string { return r.trustDomain }

// Attestation says which evidence was verified. With a certificate and a
// JWT-SVID it is the certificate, the stronger: it can't be copied.
func (r Runner) Attestation() string { return r.attestation }

// Assurance says how much the evidence proves, by the attack that still works:
//
//	1  the CI platform's word about the machine: an impostor that registered
//	   with the platform has it too
//	2  somebody's signed word about the machine, good for whoever shows it:
//	   a copy works until it expires
//	3  a copy is useless: made over the broker's challenge, or with a key whose
//	   possession was proved
//	4  as 3, and the machine's software was measured by hardware, or appraised by
//	   an attestation verifier
//
// It follows from the kind and from what was proved, and can't be configured.
// 0 is the zero Runner's.
func (r Runner) Assurance() int { return r.assurance }

// Bound reports whether the evidence and the job's token are tied to each other.
func (r Runner) Bound() bool { return r.binding != "" }

// Binding says by what they are tied: BindingMTLS, BindingKey, BindingPlatform,
// the strongest that holds; "" by nothing.
func (r Runner) Binding() string { return r.binding }

// Tied reports whether evidence of a further kind is tied to the key that the
// request proved, so that a copy of it serves nobody else.
func (r Runner) Tied() bool { return r.tied }

// EvidenceHash names the evidence in the record, in hex: the SHA-256 of the
// leaf certificate's DER, or of the JWT-SVID's signed bytes (header and
// payload, never the whole token: one signature has several spellings).
func (r Runner) EvidenceHash() string { return r.hash }

// Issued says when the evidence was made: an X.509-SVID's notBefore, a JWT-SVID's
// iat; of two, the earlier. It is zero where the evidence doesn't say.
func (r Runner) Issued() time.Time { return r.issued }

// Expires says when the evidence ends; of two, the earlier.
func (r Runner) Expires() time.Time { return r.expires }

// Document gives input.runner; absent for the zero Runner.
func (r Runner) Document() document.Value { return r.doc }
