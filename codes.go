package proviso

// Code is the cause of a refusal: one code per cause, the same word in the
// answer, the record, the metrics and the tests. What a code becomes on the
// wire (status and OAuth error) is decided in one place, package server.
type Code string

// The vocabulary. A cause without a code gets a new one; two causes never
// share one. A code that only one package can raise, and that is no word of the
// shared vocabulary, stands in that package beside its cause.
const (
	CodeActorMismatch           Code = "actor_mismatch"            // 400 invalid_request
	CodeAudInvalid              Code = "aud_invalid"               // 400 invalid_request
	CodeAudMismatch             Code = "aud_mismatch"              // 400 invalid_request
	CodeAudMissing              Code = "aud_missing"               // 400 invalid_request
	CodeAudMultiple             Code = "aud_multiple"              // 400 invalid_request
	CodeAuditUnavailable        Code = "audit_unavailable"         // 503 server_error
	CodeAZPMismatch             Code = "azp_mismatch"              // 400 invalid_request
	CodeBundleMalformed         Code = "bundle_malformed"          // bundle
	CodeBundleRollback          Code = "bundle_rollback"           // bundle
	CodeBundleSequenceReused    Code = "bundle_sequence_reused"    // bundle
	CodeBundleSharedKey         Code = "bundle_shared_key"         // bundle
	CodeChainDup                Code = "chain_dup"                 // audit_verify
	CodeChainGap                Code = "chain_gap"                 // audit_verify
	CodeChainOrder              Code = "chain_order"               // audit_verify
	CodeCheckpointFormat        Code = "checkpoint_format"         // audit_verify
	CodeClaimType               Code = "claim_type"                // 400 invalid_request
	CodeClaimsInconsistent      Code = "claims_inconsistent"       // 400 invalid_request
	CodeCnfMismatch             Code = "cnf_mismatch"              // 400 invalid_request
	CodeConfigAudienceMissing   Code = "config_audience_missing"   // config
	CodeConfigDuplicateIssuer   Code = "config_duplicate_issuer"   // config
	CodeConfigIssuerURL         Code = "config_issuer_url"         // config
	CodeConfigIssuerWildcard    Code = "config_issuer_wildcard"    // config
	CodeConstraintRequired      Code = "constraint_required"       // 400 invalid_request
	CodeContentEncoding         Code = "content_encoding"          // 415 invalid_request
	CodeContentType             Code = "content_type"              // 415 invalid_request
	CodeContextMalformed        Code = "context_malformed"         // 400 invalid_request
	CodeContextReservedKey      Code = "context_reserved_key"      // 400 invalid_request
	CodeCSRNames                Code = "csr_names"                 // 400 invalid_request
	CodeCSRRejected             Code = "csr_rejected"              // 400 invalid_request
	CodeDiscoveryIssuerMismatch Code = "discovery_issuer_mismatch" // 503 server_error
	CodeDiscoveryMalformed      Code = "discovery_malformed"       // 503 server_error
	CodeDiscoveryRedirect       Code = "discovery_redirect"        // 503 server_error
	CodeDiscoveryTLS            Code = "discovery_tls"             // 503 server_error
	CodeDiscoveryUnavailable    Code = "discovery_unavailable"     // 503 server_error
	CodeDPoPNonce               Code = "dpop_nonce"                // 400 use_dpop_nonce
	CodeDPoPProof               Code = "dpop_proof"                // 400 invalid_dpop_proof, 401 invalid_dpop_proof
	CodeEnrichmentUnavailable   Code = "enrichment_unavailable"    // 503 server_error
	CodeEntryHash               Code = "entry_hash"                // audit_verify
	CodeExpInvalid              Code = "exp_invalid"               // 400 invalid_request
	CodeExpMissing              Code = "exp_missing"               // 400 invalid_request
	CodeFork                    Code = "fork"                      // audit_verify
	CodeGitFetch                Code = "git_fetch"                 // 400 invalid_request
	CodeGitIdentityMismatch     Code = "git_identity_mismatch"     // 400 invalid_request
	CodeGitKeyExpired           Code = "git_key_expired"           // 400 invalid_request
	CodeGitKeyRevoked           Code = "git_key_revoked"           // 400 invalid_request
	CodeGitKeyTime              Code = "git_key_time"              // 400 invalid_request
	CodeGitMalformedObject      Code = "git_malformed_object"      // 400 invalid_request
	CodeGitNamespace            Code = "git_namespace"             // 400 invalid_request
	CodeGitNotOnBranch          Code = "git_not_on_branch"         // 400 invalid_request
	CodeGitRef                  Code = "git_ref"                   // 400 invalid_request
	CodeGitSignature            Code = "git_signature"             // 400 invalid_request
	CodeGitSignerClass          Code = "git_signer_class"          // 400 invalid_request
	CodeGitSubkey               Code = "git_subkey"                // 400 invalid_request
	CodeGitTagMoved             Code = "git_tag_moved"             // 400 invalid_request
	CodeGitTrustStore           Code = "git_trust_store"           // 400 invalid_request
	CodeGitUnknownKey           Code = "git_unknown_key"           // 400 invalid_request
	CodeGitUnsigned             Code = "git_unsigned"              // 400 invalid_request
	CodeGitUnsignedAncestor     Code = "git_unsigned_ancestor"     // 400 invalid_request
	CodeGrantUnsupported        Code = "grant_unsupported"         // 400 unsupported_grant_type
	CodeHost                    Code = "host"                      // 421 misdirected
	CodeHTTPAmbiguous           Code = "http_ambiguous"            // 400 invalid_request
	CodeIatFuture               Code = "iat_future"                // 400 invalid_request
	CodeIatMissing              Code = "iat_missing"               // 400 invalid_request
	CodeIssuerQuarantined       Code = "issuer_quarantined"        // 503 server_error
	CodeIssuerUnknown           Code = "issuer_unknown"            // 400 invalid_request
	CodeJTIInvalid              Code = "jti_invalid"               // 400 invalid_request
	CodeJTIMissing              Code = "jti_missing"               // 400 invalid_request
	CodeJWKSDuplicateKID        Code = "jwks_duplicate_kid"        // 503 server_error
	CodeJWKSKeyRejected         Code = "jwks_key_rejected"         // 503 server_error
	CodeJWKSKIDReused           Code = "jwks_kid_reused"           // 400 invalid_request
	CodeJWKSPrivateKey          Code = "jwks_private_key"          // 503 server_error
	CodeJWKSStale               Code = "jwks_stale"                // 503 server_error
	CodeJWKSTooManyKeys         Code = "jwks_too_many_keys"        // 503 server_error
	CodeJWKSURINotAllowed       Code = "jwks_uri_not_allowed"      // 503 server_error
	CodeJWTAlgNotAllowed        Code = "jwt_alg_not_allowed"       // 400 invalid_request
	CodeJWTAmbiguousMember      Code = "jwt_ambiguous_member"      // 400 invalid_request
	CodeJWTDuplicateMember      Code = "jwt_duplicate_member"      // 400 invalid_request
	CodeJWTHeaderNotAllowed     Code = "jwt_header_not_allowed"    // 400 invalid_request
	CodeJWTIsJWE                Code = "jwt_is_jwe"                // 400 invalid_request
	CodeJWTKeyAlgMismatch       Code = "jwt_key_alg_mismatch"      // 400 invalid_request
	CodeJWTKeyUse               Code = "jwt_key_use"               // 400 invalid_request
	CodeJWTKIDMissing           Code = "jwt_kid_missing"           // 400 invalid_request
	CodeJWTMalformed            Code = "jwt_malformed"             // 400 invalid_request
	CodeJWTSignature            Code = "jwt_signature"             // 400 invalid_request
	CodeJWTTyp                  Code = "jwt_typ"                   // 400 invalid_request
	CodeJWTUnknownKID           Code = "jwt_unknown_kid"           // 400 invalid_request
	CodeLimitsBodySize          Code = "limits_body_size"          // 413 invalid_request, 413 refused
	CodeLimitsContextSize       Code = "limits_context_size"       // 400 invalid_request
	CodeLimitsGit               Code = "limits_git"                // 400 invalid_request
	CodeLimitsHeaderSize        Code = "limits_header_size"        // 431 invalid_request
	CodeLimitsParams            Code = "limits_params"             // 400 invalid_request
	CodeLimitsTokenSize         Code = "limits_token_size"         // 400 invalid_request
	CodeMethod                  Code = "method"                    // 405 invalid_request
	CodeNbfFuture               Code = "nbf_future"                // 400 invalid_request
	CodeOverloaded              Code = "overloaded"                // 503 server_error
	CodePolicyCanary            Code = "policy_canary"             // policy
	CodePolicyCapability        Code = "policy_capability"         // policy
	CodePolicyDenied            Code = "policy_denied"             // 400 invalid_request
	CodePolicyError             Code = "policy_error"              // 503 server_error
	CodePolicyLintCasefold      Code = "policy_lint_casefold"      // policy
	CodePolicyLintWildcardID    Code = "policy_lint_wildcard_id"   // policy
	CodePolicyMissing           Code = "policy_missing"            // 503 server_error
	CodePolicyParse             Code = "policy_parse"              // policy
	CodePolicyResultType        Code = "policy_result_type"        // 503 server_error
	CodePolicyScope             Code = "policy_scope"              // policy
	CodePolicySize              Code = "policy_size"               // policy
	CodePolicyTests             Code = "policy_tests"              // policy
	CodePolicyTimeout           Code = "policy_timeout"            // 503 server_error
	CodeProof                   Code = "proof"                     // audit_verify
	CodeRateLimited             Code = "rate_limited"              // 429 rate_limited
	CodeReplay                  Code = "replay"                    // 400 invalid_request
	CodeReplayStore             Code = "replay_store"              // 503 server_error
	CodeReplayStoreFull         Code = "replay_store_full"         // 503 server_error
	CodeRequestDuplicateParam   Code = "request_duplicate_param"   // 400 invalid_request
	CodeRequestMalformed        Code = "request_malformed"         // 400 invalid_request
	CodeRollback                Code = "rollback"                  // audit_verify
	CodeRunnerJobMismatch       Code = "runner_job_mismatch"       // 400 invalid_request
	CodeScopeNotAllowed         Code = "scope_not_allowed"         // 400 invalid_scope
	CodeSignature               Code = "signature"                 // audit_verify
	CodeSubInvalid              Code = "sub_invalid"               // 400 invalid_request
	CodeSVIDInvalid             Code = "svid_invalid"              // 400 invalid_request, 401 invalid_client, tls
	CodeTargetMissing           Code = "target_missing"            // 400 invalid_target
	CodeTargetMultiple          Code = "target_multiple"           // 400 invalid_target
	CodeTargetUnknown           Code = "target_unknown"            // 400 invalid_target
	CodeTemplateValue           Code = "template_value"            // 400 invalid_request
	CodeTimeOrder               Code = "time_order"                // audit_verify
	CodeTimeoutBody             Code = "timeout_body"              // 408 timeout
	CodeTokenBinding            Code = "token_binding"             // 401 invalid_token
	CodeTokenExpired            Code = "token_expired"             // 400 invalid_request
	CodeTokenLifetime           Code = "token_lifetime"            // 400 invalid_request
	CodeTokenTypeMismatch       Code = "token_type_mismatch"       // 400 invalid_request
	CodeTokenTypeUnsupported    Code = "token_type_unsupported"    // 400 invalid_request
	CodeTornTail                Code = "torn_tail"                 // audit_verify
	CodeTruncated               Code = "truncated"                 // audit_verify
	CodeTTLMalformed            Code = "ttl_malformed"             // 400 invalid_request
	CodeTTLOutOfRange           Code = "ttl_out_of_range"          // 400 invalid_request
)

// Codes that shared causes of the token endpoint needed beside the list above.
const (
	CodeClientAuthUnsupported Code = "client_auth_unsupported" // 401 invalid_client: the door takes no client authentication of this kind
	CodeCredentialFault       Code = "credential_fault"        // 503 server_error: our own minting failed, or its lint refused
	CodeInternal              Code = "internal"                // 503 server_error: a fault of ours without a better word
	CodeRunnerRequired        Code = "runner_required"         // 400 invalid_request: the grant wants a runner's evidence and there was none
	CodeRunnerNotAllowed      Code = "runner_not_allowed"      // 400 invalid_request: the grant takes no runner's evidence
)
