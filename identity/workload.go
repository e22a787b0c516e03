package identity

import (
	"maps"
	"slices"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
)

// KindSPIFFE is the kind of an identity that an SVID proved: a deployed workload
// that asks for itself, without a CI platform's job.
const KindSPIFFE = "spiffe"

// PlatformSPIFFE stands where a job has its CI platform.
const PlatformSPIFFE = "spiffe"

// Workload is what package runner has proved of a workload that asks for itself.
type Workload struct {
	Entry        string // the name of its entry under runners
	TrustDomain  string // as a SPIFFE ID: spiffe://prod.acme.example
	ID           string // its SPIFFE ID
	Attestation  string // spiffe-x509 or spiffe-jwt
	Tenant, Role string // of the configuration
	Attributes   map[string]string
	Claims       document.Value // of a JWT-SVID
	Hash         [32]byte       // of the evidence, as in the record
	JTI          string
	// Replay is how a second use is recognised: ReplayToken, ReplayJTI (by JTI,
	// which must be set) or ReplayOff.
	Replay string
	// Key is the thumbprint of the key that the SVID is bound to, whose proof the
	// exchange must come with; "" for a bearer, and where it is proved already.
	Key             string
	Issued, Expires time.Time
}

// OfWorkload makes the identity of a proved workload. Nobody but package runner,
// which verifies SVIDs, calls it: a test says so.
func OfWorkload(w Workload) Job {
	j := &job{
		issuer: w.Entry, claims: w.Claims, hash: w.Hash, jti: w.JTI, jkt: w.Key, replay: w.Replay,
		issued: w.Issued, expires: w.Expires,
		identity: Identity{Kind: KindSPIFFE, Issuer: w.TrustDomain, Platform: PlatformSPIFFE, Audience: AudienceBroker, Subject: w.ID,
			Tenant: w.Tenant, Role: w.Role, Attestation: w.Attestation, Attributes: maps.Clone(w.Attributes)},
	}
	switch w.Replay {
	case ReplayJTI:
		j.replayKey = keyOf("jti", w.TrustDomain, w.JTI)
	case ReplayToken:
		j.replayKey = keyOf("token", w.TrustDomain, string(w.Hash[:]))
	}
	j.document = j.identity.Document()
	return Job{j}
}

func textsDocument(m map[string]string) document.Value {
	fields := make([]document.Field, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fields = append(fields, document.Member(name, document.StringOf(m[name])))
	}
	return document.ObjectOf(fields...)
}
