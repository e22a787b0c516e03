package lab

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// IssuerOptions are ready for use when zero.
type IssuerOptions struct {
	// TLS serves HTTPS under this authority; nil serves plain HTTP.
	TLS *CA
	// Now is the issuer's clock, for iat, nbf and exp; nil is the real one.
	Now func() time.Time
	// Keys sign tokens, the last one first; nil makes one RS256 key. Making an
	// RSA key takes a tenth of a second, so a test with many issuers shares one.
	Keys []*Key
	// Owner is in the issuer's URL on platforms with an issuer per organisation.
	Owner string
	// Life overrides how long the platform's tokens live.
	Life time.Duration
}

// Issuer is a CI platform's OIDC provider: discovery, key set, and the endpoint
// at which a job gets its token, where the platform has one.
type Issuer struct {
	platform Platform
	row      platform
	now      func() time.Time
	url      string
	server   *server

	mu      sync.Mutex // guards everything below
	keys    []*Key     // published; the last one signs
	spare   *Key       // another key, for faults
	faults  Faults
	left    int // answers for which faults with Times still apply
	fetches map[string]int
	runs    map[string]*Run // by request token
}

// NewIssuer starts an issuer that signs as the platform does.
func NewIssuer(p Platform, o IssuerOptions) (*Issuer, error) {
	row, err := rowOf(p, Job{Owner: o.Owner}.filled())
	if err != nil {
		return nil, err
	}
	row.life = cmp.Or(o.Life, row.life)
	i := &Issuer{platform: p, row: row, now: o.Now, keys: slices.Clone(o.Keys), fetches: map[string]int{}, runs: map[string]*Run{}}
	if i.now == nil {
		i.now = time.Now
	}
	if len(i.keys) == 0 {
		key, err := NewKey("RS256")
		if err != nil {
			return nil, err
		}
		i.keys = []*Key{key}
	}
	if i.spare, err = NewKey("ES256"); err != nil {
		return nil, err
	}
	conf, err := o.TLS.serverTLS()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+row.path+"/.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET "+row.path+"/.well-known/jwks", i.jwks)
	i.tokenEndpoints(mux)
	if i.server, err = serve(mux, conf); err != nil {
		return nil, err
	}
	i.url = i.server.url + row.path
	return i, nil
}

// URL is the issuer's identifier, byte for byte as tokens carry it.
func (i *Issuer) URL() string { return i.url }

// JWKSURL is where its keys are.
func (i *Issuer) JWKSURL() string { return i.url + "/.well-known/jwks" }

// Platform says as what it signs.
func (i *Issuer) Platform() Platform { return i.platform }

// Close ends the issuer.
func (i *Issuer) Close() error { return i.server.Close() }

// Token signs a job's token for an audience. On platforms whose audience is
// fixed the given one is ignored, as the platform does.
func (i *Issuer) Token(job Job, audience string, edits ...Edit) (string, error) {
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	return sealed(key, "JWT", i.claims(job, audience), edits)
}

// Key gives the key that signs now, to sign what no Edit can make.
func (i *Issuer) Key() *Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// Claims gives what Token would sign.
func (i *Issuer) Claims(job Job, audience string) map[string]any { return i.claims(job, audience) }

func (i *Issuer) claims(job Job, audience string) map[string]any {
	now := i.now().Truncate(time.Second)
	c := i.row.claims(job.filled(), i.url)
	c["iss"] = i.url
	c["iat"], c["exp"] = now.Unix(), now.Add(i.row.life).Unix()
	if i.row.backdate >= 0 {
		c["nbf"] = now.Add(-i.row.backdate).Unix()
	}
	if i.row.jti {
		c["jti"] = randomID()
	}
	switch {
	case i.row.audience == "ISSUER":
		audience = i.url
	case i.row.audience == "HOST":
		audience = strings.SplitN(i.url, "://", 2)[1]
	case i.row.audience != "":
		audience = i.row.audience
	}
	c["aud"] = audience
	switch i.platform {
	case Jenkins:
		c["aud"] = []string{audience}
	case Codefresh:
		c["auth_time"] = now.Unix()
		c["aud"] = cmp.Or(audience, "https://g.codefresh.io")
	}
	return c
}

// Rotate adds a key and signs with it from now on; the older ones stay published.
func (i *Issuer) Rotate() error {
	key, err := NewKey(i.Key().Alg)
	if err != nil {
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
	return nil
}

// Retire withdraws every key but the one that signs.
func (i *Issuer) Retire() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = i.keys[len(i.keys)-1:]
}

// SetFaults makes the issuer misbehave from now on; the zero value ends it.
func (i *Issuer) SetFaults(f Faults) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.faults, i.left = f, f.Times
}

// Fetches counts the requests for a kind of document ("discovery", "jwks",
// "token") since the start, also those that were answered badly.
func (i *Issuer) Fetches(kind string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches[kind]
}

// begin counts a request and gives the faults that concern it.
func (i *Issuer) begin(kind string) (Faults, []*Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches[kind]++
	f := i.faults
	if !f.concerns(kind) {
		return Faults{}, i.keys
	}
	if f.Times > 0 {
		if i.left == 0 {
			return Faults{}, i.keys
		}
		i.left--
	}
	return f, i.keys
}

func (i *Issuer) discovery(w http.ResponseWriter, r *http.Request) {
	f, _ := i.begin("discovery")
	f.answer(w, r, map[string]any{
		"issuer":                                cmp.Or(f.Issuer, i.url),
		"jwks_uri":                              cmp.Or(f.JWKSURI, i.JWKSURL()),
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{i.Key().Alg},
		"scopes_supported":                      []string{"openid"},
	})
}

func (i *Issuer) jwks(w http.ResponseWriter, r *http.Request) {
	f, keys := i.begin("jwks")
	doc, err := i.keySet(f, keys)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	f.answer(w, r, doc)
}

// keySet lists the keys, or what the faults make of them.
func (i *Issuer) keySet(f Faults, keys []*Key) ([]byte, error) {
	list := []map[string]any{}
	for _, k := range keys {
		m := k.JWK()
		if f.PrivateKey {
			m = k.privateJWK()
		}
		list = append(list, m)
	}
	signing := keys[len(keys)-1]
	other := func(kid string) map[string]any {
		m := i.spare.JWK()
		m["kid"] = kid
		return m
	}
	switch {
	case f.DuplicateKID:
		list = append(list, other(signing.ID))
	case f.ReusedKID:
		list = []map[string]any{other(signing.ID)}
	case f.Symmetric:
		list = append(list, map[string]any{"kty": "oct", "kid": "shared", "k": b64([]byte("not a secret at all, it is public"))})
	case f.Empty:
		list = list[:0]
	case f.WeakKey:
		weak, err := weakKey()
		if err != nil {
			return nil, err
		}
		list = []map[string]any{weak.JWK()}
	}
	for n := range f.ManyKeys {
		list = append(list, other(fmt.Sprintf("key-%d", n)))
	}
	for _, m := range list {
		if f.WrongUse {
			m["use"] = "enc"
		}
		if f.NoKID {
			delete(m, "kid")
		}
	}
	doc, err := json.Marshal(map[string]any{"keys": list})
	if err == nil && f.DuplicateName {
		doc = append([]byte(`{"keys":[],`), doc[1:]...)
	}
	return doc, err
}

// weakKey makes an RSA key that nobody should accept. Go refuses to make one
// unless it is told to, so its modulus is that of a good key, cut short.
func weakKey() (*Key, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, errors.New("lab: no key")
	}
	key.N.Rsh(key.N, 1024)
	key.N.SetBit(key.N, 0, 1)
	return &Key{ID: randomID(), Alg: "RS256", signer: key}, nil
}
