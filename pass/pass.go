// Package pass is Proviso's own token: what it says, how it is signed, and how
// a resource checks it, side by side in one package so that the two can't
// drift apart.
//
// # The token
//
// A pass is a JWT access token in the profile of RFC 9068: a compact JWS with
// the header {"alg","kid","typ":"at+jwt"} and these claims, in canonical JSON
// (RFC 8785), and no others:
//
//	act        {"sub": the runner's SPIFFE ID} when a runner was proved (RFC 8693 section 4.1)
//	aud        the one resource that may accept it: the grant's audience
//	authorization_details   the intent as it was granted (RFC 9396)
//	client_id  the same as sub: the job is the client, nobody else owns the resource (RFC 9068 section 2.2)
//	cnf        {"jkt"} or {"x5t#S256"}: the key that a holder must prove (RFC 9449, RFC 8705)
//	exp iat    Unix time; exp - iat is what the warrant allowed, never more
//	iss        Proviso's own URL
//	jti        the credential's id, as in the record
//	proviso    {"decision", "grant", "policy", "repository_id", "run_id", ...}: where the decision is, and what it was about
//	scope      what it permits, words separated by one space; absent when the grant has none
//	sub        the job's stable name, composed by package credential
//
// # Signing
//
// A [Keyring] holds ES256 and EdDSA keys, made at first start. The file name of
// a key says from when on it signs, and that is all of the state there is: at
// any instant the key that signs is the newest whose time has come. A next key
// is published for at least the JWKS's max-age before it signs, and a retired
// one until its last token has expired; then its file is deleted. A [Signer]
// writes the claims by hand, lints the finished bytes as a stranger would read
// them, and only then signs: bytes that fail the lint never meet a key.
//
// # Checking
//
// A [Verifier] accepts exactly the above and says which part is wrong
// otherwise. A token with cnf is worth nothing without the proof of its key:
// presented as a plain bearer token it is refused (RFC 9449 section 7.2). DPoP
// proofs are made and checked here too, because the broker binds tokens with
// the same proofs that a resource demands.
package pass

import (
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Typ is the header's typ, exactly (RFC 9068 section 2.1).
const Typ = "at+jwt"

const (
	// MaxTTL bounds every token's life, whatever a grant says. It is also how
	// long a retired key stays published, so it is a constant: were it
	// configuration, lowering it would unpublish keys of tokens still alive.
	MaxTTL = 24 * time.Hour

	// MaxSkew is how far a verifier's clock may be off.
	MaxSkew = 30 * time.Second

	// MaxBytes bounds a token: most servers take 8 KiB for all headers.
	MaxBytes = 6 << 10
)

// StageAccess is the last arrow: a credential is shown to a resource.
const StageAccess proviso.Stage = "access"

// Claims is what a pass says. A zero field is an absent claim.
type Claims struct {
	Issuer   string
	Subject  string
	Audience string
	ID       string // jti
	ClientID string
	Scope    []string
	IssuedAt time.Time // whole seconds; so is Expires
	Expires  time.Time
	// Actor is the SPIFFE ID of the runner that executes the job.
	Actor        string
	Confirmation Confirmation
	// Details are the authorization_details, an array, or absent.
	Details document.Value
	// Proviso is Proviso's own claim, an object, or absent.
	Proviso document.Value
}

// Confirmation names the key that the token's holder must prove (cnf). At most
// one of its members is set; none means a bearer token.
type Confirmation struct {
	JKT     string // RFC 9449 section 6.1: the RFC 7638 thumbprint of the DPoP key
	X5TS256 string // RFC 8705 section 3.1: the SHA-256 of the client certificate
}

// IsZero reports whether the token is bound to no key.
func (c Confirmation) IsZero() bool { return c == Confirmation{} }
