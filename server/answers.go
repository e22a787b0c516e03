package server

import (
	"net/http"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/fleet"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/runner"
)

// answer is what a refusal becomes on the wire.
type answer struct {
	status int
	oauth  string // RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 9449 section 5
}

// CodeHTTPAmbiguous: two servers could read the request's length differently.
const CodeHTTPAmbiguous proviso.Code = "http_ambiguous" // 400 invalid_request

var (
	badRequest  = answer{http.StatusBadRequest, "invalid_request"}
	badTarget   = answer{http.StatusBadRequest, "invalid_target"}
	badScope    = answer{http.StatusBadRequest, "invalid_scope"}
	badProof    = answer{http.StatusBadRequest, "invalid_dpop_proof"}
	badDetails  = answer{http.StatusBadRequest, "invalid_authorization_details"}
	badClient   = answer{http.StatusUnauthorized, "invalid_client"}
	serverError = answer{http.StatusServiceUnavailable, "server_error"}
)

// answers is the one place where a code becomes a status and an OAuth error.
// What a job showed or asked, also when policy refuses it, is invalid_request
// (RFC 8693 section 2.2.2) and needs no row; the rows are the exceptions.
var answers = map[proviso.Code]answer{
	proviso.CodeTargetMissing:  badTarget,
	proviso.CodeTargetMultiple: badTarget,
	proviso.CodeTargetUnknown:  badTarget,

	proviso.CodeScopeNotAllowed: badScope,
	proviso.CodeDPoPProof:       badProof,
	proviso.CodeDPoPNonce:       {http.StatusBadRequest, "use_dpop_nonce"},

	proviso.CodeGrantUnsupported: {http.StatusBadRequest, "unsupported_grant_type"},
	proviso.CodeContextMalformed: badDetails,

	proviso.CodeMethod:           {http.StatusMethodNotAllowed, "invalid_request"},
	proviso.CodeContentType:      {http.StatusUnsupportedMediaType, "invalid_request"},
	proviso.CodeContentEncoding:  {http.StatusUnsupportedMediaType, "invalid_request"},
	proviso.CodeLimitsBodySize:   {http.StatusRequestEntityTooLarge, "invalid_request"},
	proviso.CodeLimitsHeaderSize: {http.StatusRequestHeaderFieldsTooLarge, "invalid_request"},
	proviso.CodeTimeoutBody:      {http.StatusRequestTimeout, "invalid_request"},
	proviso.CodeHost:             {http.StatusMisdirectedRequest, "invalid_request"},
	proviso.CodeRateLimited:      {http.StatusTooManyRequests, "rate_limited"},

	proviso.CodeClientAuthUnsupported: badClient,
	CodeClientAuthMissing:             badClient,
	runner.CodeClientMismatch:         badClient,

	proviso.CodeAuditUnavailable:        serverError,
	proviso.CodeDiscoveryIssuerMismatch: serverError,
	proviso.CodeDiscoveryMalformed:      serverError,
	proviso.CodeDiscoveryRedirect:       serverError,
	proviso.CodeDiscoveryTLS:            serverError,
	proviso.CodeDiscoveryUnavailable:    serverError,
	proviso.CodeJWKSDuplicateKID:        serverError,
	proviso.CodeJWKSKeyRejected:         serverError,
	proviso.CodeJWKSPrivateKey:          serverError,
	proviso.CodeJWKSStale:               serverError,
	proviso.CodeJWKSTooManyKeys:         serverError,
	proviso.CodeJWKSURINotAllowed:       serverError,
	proviso.CodeIssuerQuarantined:       serverError,
	proviso.CodeOverloaded:              serverError,
	proviso.CodePolicyError:             serverError,
	proviso.CodePolicyMissing:           serverError,
	proviso.CodePolicyResultType:        serverError,
	proviso.CodePolicyTimeout:           serverError,
	proviso.CodeReplayStore:             serverError,
	proviso.CodeReplayStoreFull:         serverError,
	proviso.CodeCredentialFault:         serverError,
	proviso.CodeInternal:                serverError,
	jose.CodeJWKSMalformed:              serverError,
	keyset.CodeAddress:                  serverError,
	runner.CodeBundleUnavailable:        serverError,
	runner.CodeBundleStale:              serverError,
	runner.CodeNonceStoreFull:           serverError,
	pass.CodePassLint:                   serverError,
	pass.CodeKeyring:                    serverError,
	credential.CodeTermsMismatch:        serverError,
	credential.CodeCertificateLint:      serverError,
	fleet.CodeFleetFull:                 serverError,
}

func answerFor(code proviso.Code) answer {
	if a, ok := answers[code]; ok {
		return a
	}
	return badRequest
}

// passing are the faults of our own side that mend themselves, with the seconds
// after which to ask again. A policy that fails now will fail in a second too.
var passing = map[proviso.Code]string{
	proviso.CodeOverloaded:           "1",
	proviso.CodeRateLimited:          "1",
	proviso.CodeAuditUnavailable:     "1",
	proviso.CodeReplayStore:          "1",
	proviso.CodeReplayStoreFull:      "30",
	runner.CodeNonceStoreFull:        "30",
	proviso.CodeDiscoveryUnavailable: "1",
	proviso.CodeJWKSStale:            "1",
	runner.CodeBundleUnavailable:     "5",
	runner.CodeBundleStale:           "5",
}
