package runner

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// AttestationConfig takes the signed results of an attestation verifier (RFC
// 9334): somebody who has appraised the machine's raw evidence, a TEE's report
// say, and says in a word what came of it. Only "affirming" counts.
type AttestationConfig struct {
	// Format is ear (EAT Attestation Results, a JWT; the default) or in-toto (a
	// DSSE envelope with a verification summary of SLSA, or a simple verification
	// result).
	Format string `yaml:"format,omitempty" json:"format,omitempty"`
	// Keys is a file with the verifier's keys, a JWK set. Required.
	Keys string `yaml:"keys" json:"keys"`
	// Algorithms of the keys. Default ES256. ear only.
	Algorithms []string `yaml:"algorithms,omitempty" json:"algorithms,omitempty"`
	// Verifier is who must say that it is the verifier: ear_verifier_id.developer,
	// or predicate.verifier.id. Required: a key may sign for more than one.
	Verifier string `yaml:"verifier" json:"verifier"`
	// Profile is the eat_profile of the results. Default
	// "tag:ietf.org,2026:rats/ear#03". With "tag:github.com,2023:veraison/ear" the
	// members are called as in that older draft (ear.status). ear only.
	Profile string `yaml:"profile,omitempty" json:"profile,omitempty"`
	// ID is the claim that names the machine, as sub (the default) or
	// submods.vm.name. ear only: in-toto names it as the statement's one subject.
	ID string `yaml:"id,omitempty" json:"id,omitempty"`
	// Nonce is required (the default) or optional: whether the result must be made
	// over a challenge of this broker. Without, and without a key in the result
	// (cnf), whoever has a copy can show it, and its assurance is 2. ear only.
	Nonce string `yaml:"nonce,omitempty" json:"nonce,omitempty"`
	// Properties must all be among the statement's verifiedLevels, or properties.
	// Required for in-toto: a result says nothing without what was verified.
	Properties []string `yaml:"properties,omitempty" json:"properties,omitempty"`
	// Resource is the resourceUri that a verification summary must be about.
	// in-toto only.
	Resource string `yaml:"resource,omitempty" json:"resource,omitempty"`
	// MaxAge is how old a result may be. Default 10m, at most 24h.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
}

const (
	formatEAR    = "ear"
	formatInToto = "in-toto"

	earProfile      = "tag:ietf.org,2026:rats/ear#03"
	veraisonProfile = "tag:github.com,2023:veraison/ear"
)

func (c *AttestationConfig) kind() string { return AttestationVerifier }

func (c *AttestationConfig) files() []*string { return []*string{&c.Keys} }

func (c *AttestationConfig) check(bad badFunc) {
	if c.Keys == "" {
		bad(".keys", "is missing: nothing can be verified without the verifier's keys; write a file with a JWK set")
	}
	if c.Verifier == "" {
		bad(".verifier", "is missing: write how the verifier calls itself in its results")
	}
	checkAge(bad, c.MaxAge, 24*time.Hour)
	checkAlgorithms(bad, c.Algorithms)
	inToto := c.Format == formatInToto
	if !inToto && c.Format != "" && c.Format != formatEAR {
		bad(".format", "is %q; write ear or in-toto", c.Format)
	}
	if c.Nonce != "" && c.Nonce != "required" && c.Nonce != "optional" {
		bad(".nonce", "is %q; write required or optional", c.Nonce)
	}
	if c.Profile != "" && c.Profile != earProfile && c.Profile != veraisonProfile {
		bad(".profile", "is %q; %s and %s are known", c.Profile, earProfile, veraisonProfile)
	}
	for path, misplaced := range map[string]bool{".algorithms": inToto && len(c.Algorithms) > 0, ".profile": inToto && c.Profile != "",
		".id": inToto && c.ID != "", ".nonce": inToto && c.Nonce != ""} {
		if misplaced {
			bad(path, "is for format ear only; leave it out")
		}
	}
	if !inToto && c.Resource != "" {
		bad(".resource", "is for format in-toto only; leave it out")
	}
	if !inToto && len(c.Properties) > 0 {
		bad(".properties", "is for format in-toto only; leave it out")
	}
	if inToto {
		needPins(bad, ".properties", "a verification result says nothing without what was verified; write what must be in it, as SLSA_BUILD_LEVEL_3", c.Properties)
	}
}

func (c *AttestationConfig) open(v *Verifier, e entry) error {
	conf := *c
	conf.Profile, conf.ID, conf.MaxAge = cmp.Or(c.Profile, earProfile), cmp.Or(c.ID, "sub"), cmp.Or(c.MaxAge, 10*time.Minute)
	algorithms := algorithmsOf(c.Algorithms, jose.ES256)
	if c.Format == formatInToto {
		algorithms = []jose.Alg{jose.ES256, jose.ES384, jose.EdDSA, jose.PS256}
	}
	data, err := readFile(c.Keys, maxBundle)
	if err != nil {
		return &fileError{"keys", err}
	}
	set, err := jose.ParseKeySet(data, algorithms)
	if err != nil {
		return &fileError{"keys", err}
	}
	if len(set.Keys()) == 0 {
		return &fileError{"keys", refuse(CodeEvidenceSigner, "%s holds no key for %v", c.Keys, algorithms)}
	}
	v.tell(e, c.kind(), func(time.Time) (string, error) {
		return fmt.Sprintf("%s of the verifier %s, for results of the form %s", count(len(set.Keys()), "key"), c.Verifier, cmp.Or(c.Format, formatEAR)), nil
	})
	if c.Format == formatInToto {
		k := &inTotoKind{conf: conf, keys: set.Keys(), entry: e, now: v.now}
		v.addEntry(AttestationVerifier, k.verify)
		return nil
	}
	k := &earKind{conf: conf, entry: e, v: v}
	k.statement = statement{what: "the attestation result", algorithms: algorithms,
		keys: keyset.Fixed(conf.Verifier, set, true), maxAge: conf.MaxAge}
	v.addEntry(AttestationVerifier, k.verify)
	return nil
}

// earKind takes EAT Attestation Results (draft-ietf-rats-ear) as JWTs.
type earKind struct {
	conf AttestationConfig
	entry
	statement
	v *Verifier
}

// verify takes a bare JWT, or {"challenge": ..., "result": JWT}, where the
// result's eat_nonce is proviso.EvidenceNonce of the challenge in base64url.
func (k *earKind) verify(ctx context.Context, shown Shown) (Finding, error) {
	compact, asked := shown.Text, ""
	if strings.HasPrefix(compact, "{") {
		if doc, err := document.Parse([]byte(compact), document.Limits{Bytes: maxEvidence, Depth: 4, Members: 64}); err == nil && !doc.Get("payloadType").IsAbsent() {
			return Finding{}, notHere(CodeEvidenceMalformed, "the attestation result is a DSSE envelope, and a JWT is expected")
		}
		members, err := readEvidence(shown.Text, "challenge", "result")
		if err != nil {
			return Finding{}, err
		}
		asked, compact = members[0], members[1]
	}
	if strings.HasPrefix(compact, "{") || compact == "" {
		return Finding{}, notHere(CodeEvidenceMalformed, "the attestation result is no JWT")
	}
	token, err := k.statement.verify(ctx, compact, k.v.now())
	if err != nil {
		return Finding{}, elsewhereIfUnknownKey(err)
	}
	if err := k.affirmed(token.claims); err != nil {
		return Finding{}, err
	}
	key, err := k.confirmed(token.claims, shown.Key)
	if err != nil {
		return Finding{}, err
	}
	ch, fresh, err := k.answered(token.claims, asked, shown.Key)
	if err != nil {
		return Finding{}, err
	}
	id, err := text(token.claims, k.what, strings.Split(k.conf.ID, ".")...)
	if err != nil {
		return Finding{}, err
	}
	f, err := k.finding(id, "", map[string]string{"verifier": k.conf.Verifier})
	if err != nil {
		return Finding{}, err
	}
	if f.Assurance = 2; fresh || key != "" {
		f.Assurance = 4
	}
	if fresh {
		key = shown.Key
		if err := k.v.challenges.use(ch); err != nil {
			return Finding{}, err
		}
	}
	f.Key, f.Hash, f.Expires = key, token.hash, token.expires
	return f, nil
}

// affirmed wants the configured profile and verifier, and "affirming" of every
// part of the machine that was appraised. "warning" is a "no" too.
func (k *earKind) affirmed(claims document.Value) error {
	if profile, _ := claims.Get("eat_profile").Text(); profile != k.conf.Profile {
		return refuse(CodeEvidenceMalformed, "%s has the eat_profile %s; %s is expected", k.what, quoted(profile), k.conf.Profile)
	}
	status, verifier := "ear_status", "ear_verifier_id"
	if k.conf.Profile == veraisonProfile {
		status, verifier = "ear.status", "ear.verifier-id"
	}
	if who, _ := claims.At(verifier, "developer").Text(); who != k.conf.Verifier {
		return notHere(CodeEvidenceSigner, "%s is of the verifier %s, which is not the configured one", k.what, quoted(who))
	}
	parts := claims.Get("submods")
	if parts.Kind() != document.Object || len(parts.Fields()) == 0 {
		return refuse(CodeEvidenceMalformed, "%s appraises nothing: it has no submods", k.what)
	}
	for _, part := range parts.Fields() {
		if said, ok := part.Value.Get(status).Text(); !ok || said != "affirming" {
			return refuse(CodeEvidenceStatus, "the attestation verifier says %s of the machine's part %s; only affirming is taken", quoted(cmp.Or(said, "nothing")), quoted(part.Name))
		}
	}
	return nil
}

// confirmed gives the thumbprint of the key that the result is bound to (RFC
// 7800), which the request must prove; "" if it is bound to none.
func (k *earKind) confirmed(claims document.Value, proved string) (string, error) {
	cnf := claims.Get("cnf")
	if cnf.IsAbsent() {
		return "", nil
	}
	named, ok := cnf.Get("jkt").Text()
	if !ok {
		key, err := jose.ParseJWK(cnf.Get("jwk"))
		if err != nil {
			return "", refuse(CodeEvidenceKey, "%s is bound to a key (cnf) that can't be read as jwk or jkt", k.what).Because(err)
		}
		named = key.Thumbprint()
	}
	if proved == "" || subtle.ConstantTimeCompare([]byte(named), []byte(proved)) != 1 {
		return "", refuse(CodeEvidenceKey, "%s is bound to a key (cnf), and the request doesn't prove that key: send a DPoP proof of it", k.what)
	}
	return named, nil
}

// answered reports whether the result was made over a challenge of this broker.
// A nonce that is there must be ours, also where none is demanded.
func (k *earKind) answered(claims document.Value, asked, key string) (challenge, bool, error) {
	nonce := claims.Get("eat_nonce")
	if nonce.IsAbsent() && asked == "" && k.conf.Nonce == "optional" {
		return challenge{}, false, nil
	}
	ch, err := k.v.challenges.check(asked)
	if err != nil {
		return challenge{}, false, err
	}
	want := proviso.EvidenceNonce(k.v.audience, asked, key)
	if said, _ := nonce.Text(); said != base64.RawURLEncoding.EncodeToString(want[:]) {
		return challenge{}, false, refuse(CodeNonceInvalid, "%s was not made over this challenge, for this broker and the key that the request proves", k.what)
	}
	return ch, true, nil
}

// elsewhereIfUnknownKey lets another entry look at a result whose key this one
// doesn't know.
func elsewhereIfUnknownKey(err error) error {
	r := proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeInternal)
	if slices.Contains([]proviso.Code{proviso.CodeJWTUnknownKID, proviso.CodeJWTSignature, proviso.CodeJWTKIDMissing}, r.Code) {
		return &elsewhere{r}
	}
	return err
}
