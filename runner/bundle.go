package runner

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// Limits of a bundle. SPIRE's bundles hold a handful of keys; these leave room
// for a hundred, and bound what a broken file can cost.
const (
	maxBundle     = 1 << 20
	maxBundleKeys = 256
	minRSABits    = 2048
)

// bundle is one immutable reading of a trust domain's keys. What was verified
// with it is remembered in it, so that nothing outlives a change of the keys.
type bundle struct {
	doc         document.Value
	parsed      *spiffebundle.Bundle
	sequence    int64
	hasSequence bool
	hint        time.Duration // how often its readers are asked to look; 0 without
	x509        *x509bundle.Bundle
	jwt         map[string][]*jose.Key // by kid; an RSA key once for each algorithm
	keys        map[[32]byte]bool      // SHA-256 of each key's SPKI, of both uses
	chains      chainCache
}

// GetX509BundleForTrustDomain makes a bundle go-spiffe's x509bundle.Source. It
// answers for its own trust domain only.
func (b *bundle) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return b.x509.GetX509BundleForTrustDomain(td)
}

// bundleError is what is wrong with a bundle; its text is for the operator.
type bundleError struct {
	code proviso.Code
	text string
}

func (e *bundleError) Error() string { return string(e.code) + ": " + e.text }

func malformed(format string, args ...any) error {
	return &bundleError{proviso.CodeBundleMalformed, fmt.Sprintf(format, args...)}
}

// parseBundle reads a bundle in SPIFFE's format (Trust Domain and Bundle,
// section 4). It is read twice: strictly by our own reader, which holds what
// go-spiffe leaves open (members named twice, a sequence or hint that is no
// positive integer, a kid that names two keys, private keys), and then by
// go-spiffe, which makes the keys.
func parseBundle(td spiffeid.TrustDomain, data []byte) (*bundle, error) {
	doc, err := document.Parse(data, document.Limits{Bytes: maxBundle, Depth: 8, Members: 16384})
	if err != nil {
		return nil, malformed("%v", err)
	}
	if doc.Kind() != document.Object {
		return nil, malformed("a bundle is a JSON object, this is %s", doc.Kind())
	}
	b := &bundle{doc: doc, jwt: map[string][]*jose.Key{}, keys: map[[32]byte]bool{}}
	if v := doc.Get("spiffe_sequence"); !v.IsAbsent() {
		n, ok := v.Integer()
		if !ok || n < 0 {
			return nil, malformed("spiffe_sequence is no integer from 0 on")
		}
		b.sequence, b.hasSequence = n, true
	}
	if v := doc.Get("spiffe_refresh_hint"); !v.IsAbsent() {
		n, ok := v.Integer()
		if !ok || n <= 0 {
			return nil, malformed("spiffe_refresh_hint is no positive integer")
		}
		b.hint = time.Duration(min(n, int64(longestRefresh/time.Second))) * time.Second
	}
	list := doc.Get("keys")
	if list.Kind() != document.Array {
		return nil, malformed("keys is missing or no array")
	}
	if len(list.Items()) > maxBundleKeys {
		return nil, malformed("%d keys, at most %d are taken", len(list.Items()), maxBundleKeys)
	}
	kids := map[string]bool{}
	for i, key := range list.Items() {
		if err := checkBundleKey(key, kids); err != nil {
			return nil, malformed("key %d: %v", i, err)
		}
	}
	parsed, err := spiffebundle.Parse(td, data)
	if err != nil {
		return nil, malformed("%v", err)
	}
	return b, b.fill(parsed)
}

// checkBundleKey holds what SPIFFE asks of one entry. An entry whose use is
// absent or unknown is not ours to read (section 4.2.2) and never becomes a key.
func checkBundleKey(key document.Value, kids map[string]bool) error {
	if key.Kind() != document.Object {
		return fmt.Errorf("is %s, not an object", key.Kind())
	}
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if !key.Get(private).IsAbsent() {
			return errors.New("holds a private or symmetric key; replace that key, it has been published")
		}
	}
	use, _ := key.Get("use").Text()
	switch use {
	case "x509-svid":
		chain := key.Get("x5c")
		if chain.Kind() != document.Array || len(chain.Items()) != 1 {
			return errors.New("x509-svid wants exactly one certificate in x5c")
		}
		text, _ := chain.Items()[0].Text()
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return errors.New("x5c is not canonical base64")
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("x5c: %w", err)
		}
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return errors.New("the certificate in x5c is no CA")
		}
		return checkStrength(cert.PublicKey)
	case "jwt-svid":
		kid, _ := key.Get("kid").Text()
		if kid == "" {
			return errors.New("jwt-svid wants a kid")
		}
		if kids[kid] {
			return errors.New("its kid names another key too")
		}
		kids[kid] = true
	}
	return nil
}

// fill takes over what go-spiffe made, and checks each key's strength.
func (b *bundle) fill(parsed *spiffebundle.Bundle) error {
	b.parsed, b.x509 = parsed, parsed.X509Bundle()
	for _, ca := range b.x509.X509Authorities() {
		b.keys[sha256.Sum256(ca.RawSubjectPublicKeyInfo)] = true
	}
	for kid, public := range parsed.JWTAuthorities() {
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return malformed("jwt-svid key: %v", err)
		}
		b.keys[sha256.Sum256(spki)] = true
		if b.jwt[kid], err = jwtKeys(kid, b.algOf(kid), public); err != nil {
			return malformed("jwt-svid key: %v", err)
		}
	}
	return nil
}

// jwtAlgs are the algorithms of JWT-SVID section 2.1.
var jwtAlgs = []jose.Alg{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.PS256, jose.PS384, jose.PS512}

// jwtKeys makes the key for each algorithm that it may be used with: the one
// that its JWK names, or else those that fit its type. For an EC key that is
// one; for RSA it is safe to let the token choose, because none of the six can
// be mistaken for another.
func jwtKeys(kid string, named jose.Alg, public crypto.PublicKey) ([]*jose.Key, error) {
	var keys []*jose.Key
	var problem error
	for _, alg := range jwtAlgs {
		if named != "" && named != alg {
			continue
		}
		key, err := jose.NewKey(kid, alg, public)
		if err != nil {
			problem = err
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		if problem == nil {
			problem = fmt.Errorf("its alg is none of %v", jwtAlgs)
		}
		return nil, problem
	}
	return keys, nil
}

// algOf gives the alg of the JWT authority kid, "" if its JWK names none.
func (b *bundle) algOf(kid string) jose.Alg {
	for _, key := range b.doc.Get("keys").Items() {
		use, _ := key.Get("use").Text()
		name, _ := key.Get("kid").Text()
		if use == "jwt-svid" && name == kid {
			alg, _ := key.Get("alg").Text()
			return jose.Alg(alg)
		}
	}
	return ""
}

// jwtKey finds the authority that a JWT-SVID names.
func (b *bundle) jwtKey(kid string, alg jose.Alg) *jose.Key {
	for _, key := range b.jwt[kid] {
		if key.Alg() == alg {
			return key
		}
	}
	return nil
}

func checkStrength(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits, at least %d are wanted", k.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return errors.New("elliptic curve below P-256")
		}
	}
	return nil
}

// same reports whether two bundles say the same, in whatever order.
func (b *bundle) same(other *bundle) bool {
	return b.parsed.Equal(other.parsed) && maps.EqualFunc(b.jwt, other.jwt, func(mine, theirs []*jose.Key) bool {
		return slices.EqualFunc(mine, theirs, func(a, b *jose.Key) bool { return a.Alg() == b.Alg() })
	})
}

// follows reports whether b may take the place of the older bundle: the
// sequence never falls, never disappears, and never stands for two sets of keys.
// What else a bundle says may differ: SPIRE's server prints a bundle without the
// refresh hint that its endpoint adds, under one sequence.
func (b *bundle) follows(old *bundle) error {
	if !old.hasSequence {
		return nil
	}
	return b.notBefore(old.sequence, old.keysHash())
}

// notBefore is follows for what is known of an older bundle.
func (b *bundle) notBefore(sequence int64, keys [32]byte) error {
	switch {
	case !b.hasSequence:
		return &bundleError{proviso.CodeBundleRollback,
			fmt.Sprintf("spiffe_sequence is gone, it was %d", sequence)}
	case b.sequence < sequence:
		return &bundleError{proviso.CodeBundleRollback,
			fmt.Sprintf("spiffe_sequence %d is lower than the last one, %d", b.sequence, sequence)}
	case b.sequence == sequence && b.keysHash() != keys:
		return &bundleError{proviso.CodeBundleSequenceReused,
			fmt.Sprintf("spiffe_sequence %d stands for two different sets of keys; raise it with every change", b.sequence)}
	}
	return nil
}

// keysHash names the bundle's keys as they were written, in whatever order.
func (b *bundle) keysHash() [32]byte {
	var texts []string
	for _, key := range b.doc.Get("keys").Items() {
		texts = append(texts, string(document.AppendCanonical(nil, key)))
	}
	slices.Sort(texts)
	return sha256.Sum256([]byte(strings.Join(texts, "\n"))) // canonical JSON has no line feed
}

// sharesKeyWith reports whether two bundles hold one key: then the owner of
// either could issue in the other's name.
func (b *bundle) sharesKeyWith(other *bundle) bool {
	small, large := b.keys, other.keys
	if len(small) > len(large) {
		small, large = large, small
	}
	for k := range small {
		if large[k] {
			return true
		}
	}
	return false
}
