package credential

import "github.com/proviso-ci/proviso"

// Causes that only this stage has.
const (
	// CodeTermsMismatch: what is to be minted is not what the record permits.
	CodeTermsMismatch proviso.Code = "terms_mismatch" // 503 server_error
	// CodeCertificateLint: the rehearsed certificate is not what the terms say.
	CodeCertificateLint proviso.Code = "certificate_lint" // 503 server_error
	// CodeCSRMissing: the grant certifies a key, and the request has none.
	CodeCSRMissing proviso.Code = "csr_missing" // 400 invalid_request
)
