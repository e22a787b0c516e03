package jose

import (
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// The years in which a token's time is believed to be one: before, somebody
// counted otherwise; after, somebody means "for ever" or milliseconds.
var (
	earliestTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	latestTime   = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
)

// Time reads a claim of seconds since 1970 (NumericDate, RFC 7519 section 2).
// Only an integer is taken, so neither null nor a text nor 1.7e9 nor 1700000000.0:
// readers differ in what they make of those. The code is exp_invalid for exp,
// claim_type for the others.
func Time(claims document.Value, name string) (t time.Time, present bool, err error) {
	v := claims.Get(name)
	if v.IsAbsent() {
		return time.Time{}, false, nil
	}
	code := proviso.CodeClaimType
	if name == "exp" {
		code = proviso.CodeExpInvalid
	}
	seconds, ok := v.Integer()
	if !ok {
		return time.Time{}, true, refuse(code, "the token's %s is a JSON %s, not an integer number of seconds", name, v.Kind())
	}
	if seconds < earliestTime || seconds >= latestTime {
		return time.Time{}, true, refuse(code, "the token's %s is not a time between the years 2000 and 2100", name)
	}
	return time.Unix(seconds, 0), true, nil
}
