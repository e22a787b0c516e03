package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"slices"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Key is one public key with the one algorithm that it is used with. It can't
// be changed, and can't hold a weak or private key.
type Key struct {
	kid   string
	alg   Alg
	pub   crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	print [sha256.Size]byte
}

// Bounds of keys. A larger RSA key is a cheap way to make a verifier slow.
const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 65537
	maxKID         = 256
)

// NewKey makes a key from a public key of the standard library.
func NewKey(kid string, alg Alg, pub crypto.PublicKey) (*Key, error) {
	if err := checkPublic(pub); err != nil {
		return nil, err
	}
	if len(kid) > maxKID {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "a kid has %d bytes, at most %d are taken", len(kid), maxKID)
	}
	if !slices.Contains(algsFor(pub), alg) {
		return nil, refuse(proviso.CodeJWTKeyAlgMismatch, "a key of this type and size can't be used with %s", shown(string(alg)))
	}
	k := &Key{kid: kid, alg: alg, pub: pub}
	k.print = sha256.Sum256(document.AppendCanonical(nil, k.required()))
	return k, nil
}

// KeyID is the key's name within its set, "" if it has none.
func (k *Key) KeyID() string { return k.kid }

// Alg is the one algorithm that the key is used with.
func (k *Key) Alg() Alg { return k.alg }

// Public is the key itself; not to be changed.
func (k *Key) Public() crypto.PublicKey { return k.pub }

// Thumbprint is the key's SHA-256 thumbprint in base64url (RFC 7638), which is
// the same whatever kid and alg it is published under.
func (k *Key) Thumbprint() string { return base64.RawURLEncoding.EncodeToString(k.print[:]) }

// Equal reports whether both are the same key, whatever their kid and alg.
func (k *Key) Equal(other *Key) bool { return k.print == other.print }

// JWK is the public key as RFC 7517 writes it, for publishing: with use, and
// with kid and alg where it has them.
func (k *Key) JWK() document.Value {
	return k.required().With(document.Member("kid", document.StringOf(k.kid)),
		document.Member("alg", document.StringOf(string(k.alg))), document.Member("use", document.StringOf("sig")))
}

// BareJWK is the public key without anything said about it: a DPoP proof's
// header, and what a thumbprint is made of.
func (k *Key) BareJWK() document.Value { return k.required() }

// AppendJWK appends the key as RFC 7517 writes it.
func AppendJWK(dst []byte, k *Key) []byte { return document.AppendCanonical(dst, k.JWK()) }

// required are the members that RFC 7638 section 3.2 and RFC 8037 section 2
// make a thumbprint of; canonical JSON writes them in the order it wants.
func (k *Key) required() document.Value {
	text := func(b []byte) document.Value { return document.StringOf(base64.RawURLEncoding.EncodeToString(b)) }
	switch pub := k.pub.(type) {
	case *rsa.PublicKey:
		return document.ObjectOf(document.Member("kty", document.StringOf("RSA")),
			document.Member("n", text(pub.N.Bytes())), document.Member("e", text(big.NewInt(int64(pub.E)).Bytes())))
	case *ecdsa.PublicKey:
		point, err := pub.Bytes() // checked when the key was made
		if err != nil {
			return document.Value{}
		}
		size := (len(point) - 1) / 2
		return document.ObjectOf(document.Member("kty", document.StringOf("EC")), document.Member("crv", document.StringOf(pub.Params().Name)),
			document.Member("x", text(point[1:1+size])), document.Member("y", text(point[1+size:])))
	case ed25519.PublicKey:
		return document.ObjectOf(document.Member("kty", document.StringOf("OKP")), document.Member("crv", document.StringOf("Ed25519")),
			document.Member("x", text(pub)))
	}
	return document.Value{}
}

// algsFor are the algorithms that a key can be used with at all.
func algsFor(pub crypto.PublicKey) []Alg {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return []Alg{RS256, RS384, RS512, PS256, PS384, PS512}
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			return []Alg{ES256}
		case elliptic.P384():
			return []Alg{ES384}
		case elliptic.P521():
			return []Alg{ES512}
		}
	case ed25519.PublicKey:
		return []Alg{EdDSA}
	}
	return nil
}

func checkPublic(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return checkRSA(pub)
	case *ecdsa.PublicKey:
		if algsFor(pub) == nil {
			return refuse(proviso.CodeJWKSKeyRejected, "an EC key is on a curve that is not taken; P-256, P-384 and P-521 are")
		}
		if _, err := pub.Bytes(); err != nil {
			return refuse(proviso.CodeJWKSKeyRejected, "an EC key is not a point of its curve")
		}
		return nil
	case ed25519.PublicKey:
		if len(pub) != ed25519.PublicKeySize {
			return refuse(proviso.CodeJWKSKeyRejected, "an Ed25519 key has %d bytes instead of %d", len(pub), ed25519.PublicKeySize)
		}
		return nil
	}
	return refuse(proviso.CodeJWKSKeyRejected, "a key is none of RSA, EC and Ed25519")
}

func checkRSA(pub *rsa.PublicKey) error {
	switch bits := pub.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return refuse(proviso.CodeJWKSKeyRejected, "an RSA key has %d bits, %d to %d are taken", bits, minRSABits, maxRSABits)
	case pub.E < minRSAExponent || pub.E&1 == 0 || pub.E > 1<<31-1:
		return refuse(proviso.CodeJWKSKeyRejected, "an RSA key's exponent is %d; odd ones from %d to 2^31-1 are taken", pub.E, minRSAExponent)
	}
	fromROCA := true
	for _, p := range smallPrimes {
		rest := int(new(big.Int).Mod(pub.N, big.NewInt(int64(p))).Int64())
		if rest == 0 {
			return refuse(proviso.CodeJWKSKeyRejected, "an RSA key's modulus can be divided by %d", p)
		}
		fromROCA = fromROCA && isPowerOf65537(rest, p)
	}
	if fromROCA {
		return refuse(proviso.CodeJWKSKeyRejected, "an RSA key was made by a broken generator (CVE-2017-15361) and can be factored")
	}
	return nil
}

// smallPrimes are enough to tell ROCA's moduli, which are powers of 65537 modulo
// each of them, from others, of which one in more than 2^27 looks so too.
var smallPrimes = []int{2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
	101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

func isPowerOf65537(n, p int) bool {
	for power, i := 1, 0; i < p; i++ {
		if power == n {
			return true
		}
		power = power * 65537 % p
	}
	return false
}

// privateMembers are the secret members of all key types (RFC 7518 sections
// 6.2.2, 6.3.2, 6.4.1). Whoever publishes one has lost the key.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}

func headerKey(jwk document.Value, alg Alg) (*Key, error) {
	if jwk.Kind() != document.Object {
		return nil, refuse(proviso.CodeJWTMalformed, "the proof's header has no jwk with the public key")
	}
	if name := privateMember(jwk); name != "" {
		return nil, refuse(proviso.CodeJWTHeaderNotAllowed, "the proof's jwk has the private member %s; send the public key only, and make a new key", name)
	}
	k, err := keyOf(jwk, []Alg{alg})
	if err != nil {
		return nil, err
	}
	return k, nil
}

// ParseJWK reads one public key that another document names, a cnf (RFC 7800):
// what counts is its thumbprint.
func ParseJWK(jwk document.Value) (*Key, error) {
	if jwk.Kind() != document.Object {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "the key is no JWK")
	}
	if name := privateMember(jwk); name != "" {
		return nil, refuse(proviso.CodeJWKSPrivateKey, "the JWK has the private member %s", name)
	}
	pub, err := publicOf(jwk)
	if err != nil {
		return nil, err
	}
	return NewKey("", algOf(pub), pub)
}

func privateMember(jwk document.Value) string {
	for _, name := range privateMembers {
		if !jwk.Get(name).IsAbsent() {
			return name
		}
	}
	return ""
}

// keyOf makes a key of a JWK for one of the allowed algorithms.
func keyOf(jwk document.Value, allowed []Alg) (*Key, error) {
	if err := checkUse(jwk); err != nil {
		return nil, err
	}
	kid, err := optionalText(jwk, "kid")
	if err != nil {
		return nil, err
	}
	named, err := optionalText(jwk, "alg")
	if err != nil {
		return nil, err
	}
	pub, err := publicOf(jwk)
	if err != nil {
		return nil, err
	}
	if err := checkPublic(pub); err != nil {
		return nil, err
	}
	alg := Alg(named)
	if named == "" {
		fits := algsFor(pub)
		fits = slices.DeleteFunc(fits, func(a Alg) bool { return !slices.Contains(allowed, a) })
		if len(fits) > 1 {
			return nil, refuse(proviso.CodeJWKSKeyRejected, "a key names no algorithm and several allowed ones fit it; allow one of %v only", fits)
		}
		if len(fits) == 1 {
			alg = fits[0]
		}
	}
	if !slices.Contains(allowed, alg) {
		if named == "" {
			return nil, refuse(proviso.CodeJWTAlgNotAllowed, "a key of this type fits none of the allowed algorithms %v", allowed)
		}
		return nil, refuse(proviso.CodeJWTAlgNotAllowed, "a key is for the algorithm %s, allowed are %v", shown(named), allowed)
	}
	return NewKey(kid, alg, pub)
}

// checkUse honours use and key_ops (RFC 7517 sections 4.2 and 4.3): a key that
// is published for encryption verifies no signature.
func checkUse(jwk document.Value) error {
	use, err := optionalText(jwk, "use")
	if err != nil {
		return err
	}
	if use != "" && use != "sig" {
		return refuse(proviso.CodeJWTKeyUse, "the key is published for use %s, not for signatures", shown(use))
	}
	ops := jwk.Get("key_ops")
	if ops.IsAbsent() {
		return nil
	}
	if ops.Kind() != document.Array {
		return refuse(proviso.CodeJWKSKeyRejected, "a key's key_ops is not a list")
	}
	verify := false
	for i, op := range ops.Items() {
		text, ok := op.Text()
		if !ok || slices.ContainsFunc(ops.Items()[:i], func(v document.Value) bool { s, _ := v.Text(); return s == text }) {
			return refuse(proviso.CodeJWKSKeyRejected, "a key's key_ops is not a list of different texts")
		}
		verify = verify || text == "verify"
	}
	if !verify {
		return refuse(proviso.CodeJWTKeyUse, "the key's key_ops does not have verify")
	}
	return nil
}

func optionalText(jwk document.Value, name string) (string, error) {
	v := jwk.Get(name)
	if v.IsAbsent() {
		return "", nil
	}
	s, ok := v.Text()
	if !ok || s == "" {
		return "", refuse(proviso.CodeJWKSKeyRejected, "a key's %s is not a text", name)
	}
	return s, nil
}

func publicOf(jwk document.Value) (crypto.PublicKey, error) {
	kty, err := optionalText(jwk, "kty")
	if err != nil {
		return nil, err
	}
	switch kty {
	case "RSA":
		return rsaOf(jwk)
	case "EC":
		return ecOf(jwk)
	case "OKP":
		if crv, _ := jwk.Get("crv").Text(); crv != "Ed25519" {
			return nil, refuse(proviso.CodeJWKSKeyRejected, "a key is on the curve %s, which is not taken", shown(crv))
		}
		x, err := octets(jwk, "x", ed25519.PublicKeySize)
		return ed25519.PublicKey(x), err
	}
	return nil, refuse(proviso.CodeJWKSKeyRejected, "a key has the type %s, which is not taken; RSA, EC and OKP are", shown(kty))
}

func rsaOf(jwk document.Value) (crypto.PublicKey, error) {
	n, err := octets(jwk, "n", 0)
	if err != nil {
		return nil, err
	}
	e, err := octets(jwk, "e", 0)
	if err != nil {
		return nil, err
	}
	// RFC 7518 section 2: a Base64urlUInt has the least number of octets.
	if n[0] == 0 || e[0] == 0 {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "an RSA key's n or e begins with a zero octet")
	}
	if len(n) > maxRSABits/8 || len(e) > 4 {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "an RSA key's modulus or exponent is too long")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
}

func ecOf(jwk document.Value) (crypto.PublicKey, error) {
	var curve elliptic.Curve
	switch crv, _ := jwk.Get("crv").Text(); crv {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, refuse(proviso.CodeJWKSKeyRejected, "a key is on the curve %s, which is not taken", shown(crv))
	}
	size := (curve.Params().BitSize + 7) / 8
	x, err := octets(jwk, "x", size)
	if err != nil {
		return nil, err
	}
	y, err := octets(jwk, "y", size)
	if err != nil {
		return nil, err
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curve, bytes.Join([][]byte{{4}, x, y}, nil))
	if err != nil {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "an EC key is not a point of its curve")
	}
	return pub, nil
}

// octets decodes a member in canonical base64url of exactly size bytes, or of
// at least one where size is 0.
func octets(jwk document.Value, name string, size int) ([]byte, error) {
	text, _ := jwk.Get(name).Text()
	data, _, err := decodeSegment(nil, []byte(text), name)
	if err != nil || len(data) == 0 {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "a key's %s is absent or not canonical base64url without padding", name)
	}
	if size != 0 && len(data) != size {
		return nil, refuse(proviso.CodeJWKSKeyRejected, "a key's %s has %d bytes instead of %d", name, len(data), size)
	}
	return data, nil
}
