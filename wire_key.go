package proviso

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
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
