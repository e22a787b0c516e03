package server

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/runner"
)

// CodeClientAuthMissing: the request has to come from an authenticated client,
// and there is no authentication in it.
const CodeClientAuthMissing proviso.Code = "client_auth_missing" // 401 invalid_client

// readClient reads SPIFFE client authentication (draft-ietf-oauth-spiffe-client-auth
// section 3): a JWT-SVID as client_assertion, or the X.509-SVID of the TLS
// handshake with its SPIFFE ID as client_id. Beside a job's token the client is
// the job's runner; with client_credentials it is a workload that asks for itself.
func (f *form) readClient(values url.Values) error {
	f.clientAssertion = values.Get("client_assertion")
	kind := values.Get("client_assertion_type")
	switch {
	case values.Has("client_secret"):
		return requestRefusal(proviso.CodeClientAuthUnsupported, "there are no client secrets here; a client proves itself by its SVID")
	case f.clientAssertion == "" && kind == "":
	case f.clientAssertion == "":
		return requestRefusal(proviso.CodeRequestMalformed, "client_assertion_type is sent without a client_assertion (RFC 7521 section 4.2)")
	case kind != proviso.ClientAssertionSPIFFE:
		return requestRefusal(proviso.CodeClientAuthUnsupported, "client_assertion_type must be %s, for a JWT-SVID", proviso.ClientAssertionSPIFFE)
	case f.actorToken != "":
		return requestRefusal(proviso.CodeRequestMalformed, "the runner is proved by actor_token or by client_assertion; send one of them")
	}
	// Any other client_id is a name without a meaning here, and stock clients send one.
	if id := values.Get("client_id"); strings.HasPrefix(id, "spiffe://") {
		f.clientID = id
	}
	return nil
}

// readWorkload holds what a workload that asks for itself must and mustn't send.
func (f *form) readWorkload(grantType string) error {
	if grantType == proviso.GrantTypeClientCredentials {
		f.workload = true
		if f.subjectToken != "" || f.subjectTokenType != "" || f.actorToken != "" || f.actorTokenType != "" {
			return requestRefusal(proviso.CodeRequestMalformed, "with %s the client asks for itself, and sends neither subject_token nor actor_token", grantType)
		}
		return nil
	}
	if f.subjectTokenType != proviso.TokenTypeJWTSVID {
		return nil
	}
	f.workload = true
	if f.actorToken != "" || f.clientAssertion != "" {
		return requestRefusal(proviso.CodeRequestMalformed, "a workload that asks for itself is its own proof; send its JWT-SVID as subject_token alone")
	}
	return nil
}

// evidence gives what the request shows of its runner, by the type that it has,
// or of the workload that asks.
func (f *form) evidence() runner.Evidence {
	switch kind := proviso.EvidenceKinds[f.actorTokenType]; {
	case f.clientAssertion != "":
		return runner.Evidence{JWTSVID: f.clientAssertion}
	case f.workload:
		return runner.Evidence{JWTSVID: f.subjectToken}
	case kind != "":
		return runner.Evidence{Other: map[string]string{kind: f.actorToken}}
	}
	return runner.Evidence{JWTSVID: f.actorToken}
}

// authenticate adds the TLS client certificate, and wants that a client which
// has to be authenticated is. The handshake has proved that the caller holds the
// certificate's key; nothing else is proved yet.
func (f *form) authenticate(r *http.Request, req *broker.Request) error {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		req.Evidence.Certificates = r.TLS.PeerCertificates
	}
	req.ClientID = f.clientID
	req.ClientAuth = f.clientAssertion != "" || f.clientID != ""
	if !f.workload {
		return nil
	}
	req.Workload, req.SubjectToken = true, ""
	switch {
	case req.Evidence.IsZero():
		return requestRefusal(CodeClientAuthMissing, "client_credentials is for a client that proves itself: send its JWT-SVID as client_assertion with the type %s, or connect with its X.509-SVID", proviso.ClientAssertionSPIFFE)
	case req.Evidence.JWTSVID == "" && f.clientID == "":
		return requestRefusal(CodeClientAuthMissing, "client_id is missing: with mutual TLS it names the SPIFFE ID of the certificate")
	}
	return nil
}
