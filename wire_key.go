package proviso

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Identifiers of clients that prove themselves by an SVID.
const (
	// GrantTypeClientCredentials is how a workload asks for itself that
	// authenticates as an OAuth client (RFC 6749 section 4.4).
	GrantTypeClientCredentials = "client_credentials"
	// ClientAssertionSPIFFE says that client_assertion is a JWT-SVID
	// (draft-ietf-oauth-spiffe-client-auth).
	ClientAssertionSPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
	// TokenTypeJWTSVID says that subject_token is the JWT-SVID of a workload that
	// asks for itself. It has a type of its own so that nobody has to guess from
	// a token's claims whether it is a job's.
	TokenTypeJWTSVID = "urn:proviso:params:oauth:token-type:jwt-svid"
)

// keyed separates the broker's URL from a key's thumbprint in an audience.
const keyed = "#jkt="

// KeyedAudience is the audience of a job's token that serves only together with
// a proof of one key, given by its RFC 7638 thumbprint: the job asks its CI
// platform for it, where jobs choose the audience. No platform writes cnf.jkt.
func KeyedAudience(broker, thumbprint string) string { return broker + keyed + thumbprint }

// AudienceKey gives the thumbprint in an audience that KeyedAudience made for
// this broker, "" if it is none.
func AudienceKey(audience, broker string) string {
	rest, ok := strings.CutPrefix(audience, broker+keyed)
	if !ok || len(rest) != base64.RawURLEncoding.EncodedLen(sha256.Size) {
		return ""
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(rest); err != nil {
		return ""
	}
	return rest
}
