// Package jose is Proviso's own strict verifier and signer of JSON Web Tokens:
// compact JWS (RFC 7515), JWK (RFC 7517, 7518, 8037), JWT (RFC 7519), read as
// RFC 8725 advises. No library holds all of the rules below by itself, so this
// package is the gate, and libraries are second opinions in its tests.
//
// A token is taken only in one spelling. Its size is looked at before anything
// else. It is three segments of canonical base64url: no padding, no white
// space, no bits left over. Header and claims are each exactly one JSON object
// of package document: valid UTF-8, no name twice, and at the top level no two
// names that another reader may take for one (equal under Unicode's simple case
// folding: sub, SUB, ſub). Five segments are an encrypted token, which is
// refused unread.
//
// The header names an algorithm, never a key: jku, x5u, x5c, crit, b64, zip,
// enc and the like are refused, jwk as well unless the profile asks for it
// (DPoP). The key comes from the caller, and belongs to exactly one algorithm;
// "none" and HMAC don't exist here. RSA keys have 2,048 to 8,192 bits and an odd
// exponent of at least 65,537; EC keys are points of P-256, P-384 or P-521; the
// only Edwards curve is Ed25519. An ECDSA signature has exactly the length of
// two coordinates.
//
// An ECDSA signature (r, s) has a twin (r, n-s) that is valid too, so one token
// has two spellings even here. High s is not refused: JWS never demanded low s
// (RFC 7518 section 3.4), half of all honest signatures would fail, and nothing
// hangs on it, because a token's identity is [Token.SignedHash], the hash of
// what was signed, in which the signature has no part.
//
// Parse verifies nothing, and Verify nothing but the signature: who may have
// signed, for whom, and until when is for packages identity, runner, pass.
package jose

import (
	"errors"
	"fmt"
	"slices"

	proviso "github.com/proviso-ci/proviso"
)

// Alg is a JWS algorithm (RFC 7518 section 3.1, RFC 8037 section 3.1).
type Alg string

// The algorithms. RSA signatures are verified because CI platforms use them;
// Proviso itself signs ES256 and EdDSA.
const (
	RS256 Alg = "RS256"
	RS384 Alg = "RS384"
	RS512 Alg = "RS512"
	PS256 Alg = "PS256"
	PS384 Alg = "PS384"
	PS512 Alg = "PS512"
	ES256 Alg = "ES256"
	ES384 Alg = "ES384"
	ES512 Alg = "ES512"
	EdDSA Alg = "EdDSA"
)

// algs are all algorithms that exist for Proviso.
var algs = []Alg{RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA}

// Known reports whether Proviso has this algorithm; "none" and HMAC it has not.
func (a Alg) Known() bool { return slices.Contains(algs, a) }

// CodeJWKSMalformed: what an issuer published is not a JWK set.
const CodeJWKSMalformed proviso.Code = "jwks_malformed"

// Error is why a token or a key was not taken. Msg is for the caller who sent
// it: it quotes names, lengths and algorithms, never a claim or a signature.
type Error struct {
	Code proviso.Code
	Msg  string
	// Err is the cause for the operator's log, where there is more to say than
	// a caller may know; nil otherwise.
	Err error
	// Leaked are the thumbprints of the keys whose private half was published:
	// with code jwks_private_key only.
	Leaked []string
}

func (e *Error) Error() string {
	if e.Err != nil {
		return string(e.Code) + ": " + e.Msg + ": " + e.Err.Error()
	}
	return string(e.Code) + ": " + e.Msg
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Refusal makes the flow's refusal of an error of this package or of keyset.
// Any other error becomes a fault of our own side under the given code.
func Refusal(err error, stage proviso.Stage, code proviso.Code) *proviso.Refusal {
	var e *Error
	if errors.As(err, &e) {
		return &proviso.Refusal{Stage: stage, Code: e.Code, Public: e.Msg, Err: e.Err}
	}
	return proviso.AsRefusal(err, stage, code)
}

func refuse(code proviso.Code, msg string, args ...any) *Error {
	return &Error{Code: code, Msg: fmt.Sprintf(msg, args...)}
}

// shown quotes a name that a stranger chose, bounded and without control
// characters.
func shown(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%+q…", s[:64])
	}
	return fmt.Sprintf("%+q", s)
}
