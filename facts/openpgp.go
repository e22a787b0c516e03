package facts

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proviso-ci/proviso"
)

// keyring is the operator's file of OpenPGP keys whose owners may sign.
type keyring struct {
	entities openpgp.EntityList
	present  bool // a file is configured
}

const (
	maxKeyring       = 16 << 20
	maxPGPSignature  = 64 << 10
	pgpKeyBegin      = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	pgpSignatureType = "PGP SIGNATURE"
)

// pgpHashes are what a signature over a commit may be made with.
var pgpHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}

// parseKeyring reads a keyring, armored (any number of blocks, as several
// exports one after the other) or binary. One key may stand in it only once,
// because of two copies one may lack the revocation that the other has.
func parseKeyring(data []byte) (keyring, error) {
	k := keyring{present: true}
	if len(data) > maxKeyring {
		return k, fmt.Errorf("is larger than %d bytes", maxKeyring)
	}
	blocks := [][]byte{data}
	if trimmed := bytes.TrimSpace(data); bytes.HasPrefix(trimmed, []byte("-----")) {
		blocks = nil
		for i, text := range strings.Split(string(trimmed), pgpKeyBegin) {
			if i == 0 {
				if text != "" {
					return k, errors.New("begins with something else than a public key block")
				}
				continue
			}
			block, err := armor.Decode(strings.NewReader(pgpKeyBegin + text))
			if err != nil {
				return k, fmt.Errorf("block %d: %w", i, err)
			}
			body, err := io.ReadAll(io.LimitReader(block.Body, maxKeyring))
			if err != nil {
				return k, fmt.Errorf("block %d: %w", i, err)
			}
			blocks = append(blocks, body)
		}
	}
	seen := map[string]bool{}
	for i, block := range blocks {
		list, err := openpgp.ReadKeyRing(bytes.NewReader(block))
		if err != nil {
			return k, fmt.Errorf("block %d: %w", i+1, err)
		}
		for _, e := range list {
			if e.PrivateKey != nil {
				return k, fmt.Errorf("holds the private key of %X; export public keys only", e.PrimaryKey.Fingerprint)
			}
			if name := string(e.PrimaryKey.Fingerprint); seen[name] {
				return k, fmt.Errorf("holds the key %X twice, and one copy may lack a revocation; keep the newer one", e.PrimaryKey.Fingerprint)
			} else {
				seen[name] = true
			}
		}
		k.entities = append(k.entities, list...)
	}
	return k, nil
}

// parsePGPSignature wants exactly one signature packet over binary data: with
// several, readers differ in which one counts.
func parsePGPSignature(text string) (*packet.Signature, error) {
	if len(text) > maxPGPSignature {
		return nil, errors.New("too long")
	}
	if strings.Count(text, "-----BEGIN") != 1 || !strings.HasSuffix(strings.TrimRight(text, "\n"), "-----END PGP SIGNATURE-----") {
		return nil, errors.New("not exactly one armored signature")
	}
	block, err := armor.Decode(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	if block.Type != pgpSignatureType {
		return nil, errors.New("no signature block")
	}
	body, err := io.ReadAll(io.LimitReader(block.Body, maxPGPSignature))
	if err != nil {
		return nil, err
	}
	packets := packet.NewReader(bytes.NewReader(body))
	first, err := packets.Next()
	if err != nil {
		return nil, err
	}
	sig, ok := first.(*packet.Signature)
	if !ok {
		return nil, errors.New("no signature packet")
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the signature packet")
	}
	if sig.SigType != packet.SigTypeBinary {
		return nil, errors.New("not a signature over binary data")
	}
	if sig.IssuerKeyId == nil {
		return nil, errors.New("the signature doesn't say whose it is")
	}
	return sig, nil
}

func (k keyring) judge(c *commit, now time.Time, anyIdentity bool) verdict {
	sig, err := parsePGPSignature(string(c.signature))
	if err != nil {
		v := unsigned(proviso.CodeGitSignature, "the commit's OpenPGP signature is malformed")
		v.err = err
		return v
	}
	keys := slices.DeleteFunc(k.entities.KeysById(*sig.IssuerKeyId), func(key openpgp.Key) bool {
		return len(sig.IssuerFingerprint) > 0 && !bytes.Equal(sig.IssuerFingerprint, key.PublicKey.Fingerprint)
	})
	if len(keys) == 0 {
		return unsigned(proviso.CodeGitUnknownKey, "the OpenPGP key %016X that signed the commit is not in the keyring", *sig.IssuerKeyId)
	}
	if !slices.Contains(pgpHashes, sig.Hash) {
		return unsigned(proviso.CodeGitSignerClass, "the signature uses the hash %v, which is too weak", sig.Hash)
	}
	var key *openpgp.Key
	for i := range keys { // a key id is short enough for two keys to share it
		h, err := sig.PrepareVerify()
		if err != nil {
			continue
		}
		h.Write(c.payload)
		if keys[i].PublicKey.VerifySignature(h, sig) == nil {
			key = &keys[i]
			break
		}
	}
	if key == nil {
		return unsigned(proviso.CodeGitSignature, "the signature by %016X does not fit the commit", *sig.IssuerKeyId)
	}
	until, no := checkPGPKey(key, sig, c, now)
	if no != nil {
		return *no
	}
	email, ok := ownerOf(key.Entity, c.committer.email, now)
	if !ok && !anyIdentity {
		return unsigned(proviso.CodeGitIdentityMismatch, "the commit names %q as its committer, and the key that signed it belongs to somebody else", clip(c.committer.email))
	}
	return verdict{signed: true, kind: "openpgp", signer: email, until: until,
		key: strings.ToUpper(hex.EncodeToString(key.PublicKey.Fingerprint))}
}

// checkPGPKey judges the key whose signature fits: its strength, its use, its
// revocations, and its times. It gives the time until which all of that holds.
func checkPGPKey(key *openpgp.Key, sig *packet.Signature, c *commit, now time.Time) (until time.Time, no *verdict) {
	say := func(code proviso.Code, why string, args ...any) (time.Time, *verdict) {
		v := unsigned(code, why, args...)
		return time.Time{}, &v
	}
	name := fmt.Sprintf("%016X", key.PublicKey.KeyId)
	primary, owner := key.Entity.PrimarySelfSignature()
	isSubkey := key.PublicKey != key.Entity.PrimaryKey
	switch key.PublicKey.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly, packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoEd25519, packet.PubKeyAlgoEd448:
	default:
		return say(proviso.CodeGitSignerClass, "the OpenPGP key %s is of a kind that is not taken", name)
	}
	if bits, err := key.PublicKey.BitLength(); err != nil ||
		bits < minRSABits && (key.PublicKey.PubKeyAlgo == packet.PubKeyAlgoRSA || key.PublicKey.PubKeyAlgo == packet.PubKeyAlgoRSASignOnly) {
		return say(proviso.CodeGitSignerClass, "the OpenPGP key %s is too weak: RSA below %d bits", name, minRSABits)
	}
	if curve, err := key.PublicKey.Curve(); err == nil && curve == packet.CurveSecP256k1 {
		return say(proviso.CodeGitSignerClass, "the OpenPGP key %s is on a curve that is not taken", name)
	}
	if primary == nil || key.SelfSignature == nil || !key.SelfSignature.FlagsValid || !key.SelfSignature.FlagSign {
		return say(proviso.CodeGitSubkey, "the OpenPGP key %s is not one for signing", name)
	}
	if isSubkey && (key.SelfSignature.EmbeddedSignature == nil || !slices.Contains(pgpHashes, key.SelfSignature.Hash)) {
		return say(proviso.CodeGitSubkey, "the OpenPGP subkey %s is not soundly bound to its primary key", name)
	}
	// A revocation counts whatever its date: the date of a signature is its
	// maker's word, and so is the reason.
	if len(key.Entity.Revocations) > 0 || isSubkey && len(key.Revocations) > 0 || owner != nil && len(owner.Revocations) > 0 {
		return say(proviso.CodeGitKeyRevoked, "the OpenPGP key %s is revoked", name)
	}
	for _, s := range []*packet.Signature{sig, primary, key.SelfSignature} {
		for _, n := range s.Notations {
			if n.IsCritical {
				return say(proviso.CodeGitSignature, "the signature or its key has a condition (critical notation) that is not known here")
			}
		}
	}
	if sig.CreationTime.Sub(now) > clockSkew {
		return say(proviso.CodeGitKeyTime, "the signature claims to be made at %s, which is in the future", sig.CreationTime.UTC().Format(time.RFC3339))
	}
	spans := []span{spanOf(key.Entity.PrimaryKey, primary), spanOf(key.PublicKey, key.SelfSignature), lifeOf(primary), lifeOf(key.SelfSignature), lifeOf(sig)}
	if isSubkey {
		spans = append(spans, lifeOf(key.SelfSignature.EmbeddedSignature))
	}
	for _, s := range spans {
		if !s.end.IsZero() {
			if !now.Before(s.end) {
				return say(proviso.CodeGitKeyExpired, "the OpenPGP key %s, or its signature, expired at %s", name, s.end.UTC().Format(time.RFC3339))
			}
			if until.IsZero() || s.end.Before(until) {
				until = s.end
			}
		}
	}
	for _, s := range spans[:2] { // the keys
		for _, t := range []time.Time{sig.CreationTime, c.committer.at} {
			if t.Before(s.begin) {
				return say(proviso.CodeGitKeyTime, "the commit or its signature claims the time %s, before the OpenPGP key %s was made", t.UTC().Format(time.RFC3339), name)
			}
		}
	}
	return until, nil
}

// span is a time of validity; a zero end is none.
type span struct{ begin, end time.Time }

func spanOf(key *packet.PublicKey, self *packet.Signature) span {
	s := span{begin: key.CreationTime}
	if self.KeyLifetimeSecs != nil && *self.KeyLifetimeSecs != 0 {
		s.end = key.CreationTime.Add(time.Duration(*self.KeyLifetimeSecs) * time.Second)
	}
	return s
}

func lifeOf(sig *packet.Signature) span {
	s := span{begin: sig.CreationTime}
	if sig.SigLifetimeSecs != nil && *sig.SigLifetimeSecs != 0 {
		s.end = sig.CreationTime.Add(time.Duration(*sig.SigLifetimeSecs) * time.Second)
	}
	return s
}

// ownerOf looks for an identity of the key with this e-mail address, bound by
// the key itself, not revoked and not expired. Without one it gives the primary
// identity's address.
func ownerOf(e *openpgp.Entity, email string, now time.Time) (string, bool) {
	for _, id := range e.Identities {
		if id.UserId.Email != email || email == "" || len(id.Revocations) > 0 || id.SelfSignature == nil || id.SelfSignature.SigExpired(now) {
			continue
		}
		return email, true
	}
	if id := e.PrimaryIdentity(); id != nil {
		return id.UserId.Email, false
	}
	return "", false
}
