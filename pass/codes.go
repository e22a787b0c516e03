package pass

import "github.com/proviso-ci/proviso"

// Causes that only a pass can have.
const (
	// CodePassLint: the finished bytes of a token aren't what the warrant allows.
	// It is a fault of our own side, and the last thing between it and a signature.
	CodePassLint proviso.Code = "pass_lint" // 503 server_error
	// CodeKeyring: a signing key can't be made, read or trusted.
	CodeKeyring proviso.Code = "keyring" // config, 503 server_error
	// CodeScopeInsufficient: the token lacks a scope that the resource wants (RFC 6750 section 3.1).
	CodeScopeInsufficient proviso.Code = "scope_insufficient" // 403 insufficient_scope
)
