package jose

import (
	"crypto"
	"errors"
	"slices"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Bounds of a key set. The largest that are published have about twenty keys.
const (
	MaxSetBytes = 512 << 10
	maxSetKeys  = 64
)

// KeySet is a set of keys with different names. It can't be changed; a newer
// set replaces it, and the two are never merged.
type KeySet struct {
	keys     []*Key
	byKID    map[string]*Key
	rejected map[string]*Error // by kid: why this key is not used
	problems []string
}

// ParseKeySet reads a JWK set (RFC 7517 section 5) for the allowed algorithms.
//
// A key that can't be used (for encryption, of an unknown type, weak, for
// another algorithm) is left out, as that section advises, and a token that
// names it is told why. The set as a whole is refused when it can't be trusted:
// a private member, one kid twice, too many keys, or something that isn't a set.
func ParseKeySet(data []byte, allowed []Alg) (*KeySet, error) {
	v, err := document.Parse(data, document.Limits{Bytes: MaxSetBytes, Depth: 6, Members: maxSetKeys * 64})
	if err != nil {
		if errors.Is(err, document.ErrDuplicate) {
			return nil, refuse(CodeJWKSMalformed, "the key set names a member twice")
		}
		return nil, refuse(CodeJWKSMalformed, "the key set is not acceptable: %v", err)
	}
	list := v.Get("keys")
	if list.Kind() != document.Array {
		return nil, refuse(CodeJWKSMalformed, "the key set has no list named keys")
	}
	items := list.Items()
	if len(items) > maxSetKeys {
		return nil, refuse(proviso.CodeJWKSTooManyKeys, "the key set has %d keys, at most %d are taken", len(items), maxSetKeys)
	}
	s := newKeySet(len(items))
	// What condemns the set is looked for in all keys, used or not, before any
	// of them is.
	if err := condemned(items); err != nil {
		return nil, err
	}
	for _, item := range items {
		if err := s.add(item, allowed); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// condemned finds the published private keys, and says which they are: a key
// whose private half was public once is not to be trusted ever again, also when
// its issuer takes that half out of the set.
func condemned(items []document.Value) error {
	var found *Error
	for _, item := range items {
		if item.Kind() != document.Object {
			return refuse(CodeJWKSMalformed, "the key set has an element that is not an object")
		}
		name := privateMember(item)
		if name == "" {
			continue
		}
		if found == nil {
			found = refuse(proviso.CodeJWKSPrivateKey, "the key set publishes the private member %s of a key; its issuer has lost that key", name)
		}
		if pub, err := publicOf(item); err == nil {
			if k, err := NewKey("", algOf(pub), pub); err == nil {
				found.Leaked = append(found.Leaked, k.Thumbprint())
			}
		}
	}
	if found != nil {
		return found
	}
	return nil
}

// algOf is any algorithm that fits a key.
func algOf(pub crypto.PublicKey) Alg {
	if fits := algsFor(pub); len(fits) > 0 {
		return fits[0]
	}
	return ""
}

// NewKeySet makes a set of keys that the caller has; their names differ.
func NewKeySet(keys ...*Key) (*KeySet, error) {
	s := newKeySet(len(keys))
	for _, k := range keys {
		if s.has(k.kid) {
			return nil, refuse(proviso.CodeJWKSDuplicateKID, "the key set has two keys with the kid %s", shown(k.kid))
		}
		s.put(k)
	}
	return s, nil
}

func newKeySet(n int) *KeySet {
	return &KeySet{keys: make([]*Key, 0, n), byKID: make(map[string]*Key, n), rejected: map[string]*Error{}}
}

func (s *KeySet) has(kid string) bool {
	if kid == "" {
		return false
	}
	_, used := s.byKID[kid]
	_, rejected := s.rejected[kid]
	return used || rejected
}

func (s *KeySet) put(k *Key) {
	s.keys = append(s.keys, k)
	if k.kid != "" {
		s.byKID[k.kid] = k
	}
}

func (s *KeySet) add(item document.Value, allowed []Alg) error {
	kid, _ := item.Get("kid").Text()
	if s.has(kid) {
		return refuse(proviso.CodeJWKSDuplicateKID, "the key set has two keys with the kid %s", shown(kid))
	}
	k, err := keyOf(item, allowed)
	if err == nil {
		s.put(k)
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		e = refuse(proviso.CodeJWKSKeyRejected, "a key could not be read")
	}
	s.problems = append(s.problems, "kid "+shown(kid)+": "+e.Msg)
	if kid != "" && len(kid) <= maxKID {
		s.rejected[kid] = e
	}
	return nil
}

// Find gives the key with this name for this algorithm. A token without a name
// finds none: see Sole.
func (s *KeySet) Find(kid string, alg Alg) (*Key, error) {
	if kid == "" {
		return nil, refuse(proviso.CodeJWTKIDMissing, "the token's header has no kid, so it does not say which of the issuer's keys signed it")
	}
	k, ok := s.byKID[kid]
	if !ok {
		if why := s.rejected[kid]; why != nil {
			return nil, why
		}
		return nil, refuse(proviso.CodeJWTUnknownKID, "the issuer publishes no key with the token's kid %s", shown(kid))
	}
	if k.alg != alg {
		return nil, refuse(proviso.CodeJWTKeyAlgMismatch, "the token says %s, but the key %s is for %s", shown(string(alg)), shown(kid), k.alg)
	}
	return k, nil
}

// Sole gives the one key of the set for this algorithm, for tokens without a
// kid where the operator allowed them. With two there is no telling which
// signed, and a verifier that tries all accepts more than it means to.
func (s *KeySet) Sole(alg Alg) (*Key, error) {
	var found *Key
	for _, k := range s.keys {
		if k.alg != alg {
			continue
		}
		if found != nil {
			return nil, refuse(proviso.CodeJWTKIDMissing, "the token's header has no kid, and the issuer has several keys for %s", alg)
		}
		found = k
	}
	if found == nil {
		return nil, refuse(proviso.CodeJWTUnknownKID, "the issuer publishes no key for %s", alg)
	}
	return found, nil
}

// Keys are the usable keys, in the order of the set; not to be changed.
func (s *KeySet) Keys() []*Key { return slices.Clip(s.keys) }

// Problems says for each key that is not used why, for the operator.
func (s *KeySet) Problems() []string { return slices.Clip(s.problems) }

// AppendJSON appends the set as it is published.
func (s *KeySet) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"keys":[`...)
	for i, k := range s.keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJWK(dst, k)
	}
	return append(dst, "]}"...)
}
