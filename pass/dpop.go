package pass

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// ProofTyp is the typ of a DPoP proof (RFC 9449 section 4.2).
const ProofTyp = "dpop+jwt"

// ProofAlgorithms are what a proof may be signed with; they are published as
// dpop_signing_alg_values_supported.
var ProofAlgorithms = []jose.Alg{jose.ES256, jose.EdDSA, jose.ES384, jose.PS256, jose.RS256}

const maxProofBytes = 4 << 10

// Prover is the client's half: it holds a fresh key and proves it.
type Prover struct {
	signer *jose.Signer
	now    func() time.Time
}

// NewProver makes a P-256 key that lives and dies with the Prover.
func NewProver() (*Prover, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return NewProverWithKey(private, jose.ES256, time.Now)
}

// NewProverWithKey is for a key that lies elsewhere, or a clock of one's own.
func NewProverWithKey(key crypto.Signer, alg jose.Alg, now func() time.Time) (*Prover, error) {
	s, err := jose.NewSigner(key, alg, "", ProofTyp, true)
	if err != nil {
		return nil, err
	}
	return &Prover{s, now}, nil
}

// Thumbprint is what a token's cnf.jkt names.
func (p *Prover) Thumbprint() string { return p.signer.Key().Thumbprint() }

// Proof makes the value of one request's DPoP header. token is the access token
// that goes with it, "" at a token endpoint; nonce is what the server demanded
// last, or "".
func (p *Prover) Proof(method, url, token, nonce string) (string, error) {
	htu, err := targetURI(url)
	if err != nil {
		return "", err
	}
	b := []byte{'{'}
	if token != "" {
		b = appendText(b, `"ath":`, tokenHash(token))
	}
	b = appendText(b, `"htm":`, method)
	b = appendText(b, `"htu":`, htu)
	b = append(b, `"iat":`...)
	b = append(strconv.AppendInt(b, p.now().Unix(), 10), ',')
	b = appendText(b, `"jti":`, rand.Text())
	if nonce != "" {
		b = appendText(b, `"nonce":`, nonce)
	}
	b[len(b)-1] = '}'
	return p.signer.Sign(b)
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// NonceMode says when a server demands its own nonce in a proof (RFC 9449
// sections 8 and 9).
type NonceMode string

// The modes.
const (
	// NonceNever trusts clocks alone.
	NonceNever NonceMode = ""
	// NonceAtStart demands one only until every proof made before the start has
	// run out. The replay cache doesn't survive a restart; this closes the gap.
	NonceAtStart NonceMode = "start"
	// NonceAlways also defeats proofs made in advance.
	NonceAlways NonceMode = "always"
)

// ProofConfig configures a ProofChecker.
type ProofConfig struct {
	// MaxAge is how old a proof may be; 0 means 60 s.
	MaxAge time.Duration
	// Nonce is when a nonce is demanded.
	Nonce NonceMode
	// Remember is how many proofs are remembered within the window, so that each
	// is good once; 0 means 1,048,576. When it is full, proofs are refused: a
	// cache that forgets under load is a replay waiting for load.
	Remember int
	// Stage is the stage of its refusals; "" means StageAccess.
	Stage proviso.Stage
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ProofChecker is the server's half. It may be used by many goroutines.
type ProofChecker struct {
	cfg     ProofConfig
	started time.Time
	secret  [32]byte
	seen    [16]seenProofs // by the first byte of the key
}

// NewProofChecker makes a ProofChecker that has seen no proof.
func NewProofChecker(cfg ProofConfig) *ProofChecker {
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Minute
	}
	if cfg.Remember == 0 {
		cfg.Remember = 1 << 20
	}
	if cfg.Stage == "" {
		cfg.Stage = StageAccess
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &ProofChecker{cfg: cfg, started: cfg.Now()}
	rand.Read(c.secret[:])
	return c
}

// ProofRequest is the request that a proof must be for.
type ProofRequest struct {
	Method string
	URL    string // as the client sees it
	Token  string // the access token shown with the proof; "" at a token endpoint
	// Thumbprint is the key that the proof must be of; "" takes any, at a token
	// endpoint, where the proof says which.
	Thumbprint string
}

// Check verifies a proof, once, and gives the thumbprint of its key. The error
// is a *proviso.Refusal; with code dpop_nonce, the answer carries Nonce() in
// its DPoP-Nonce header.
//
// A proof costs a place in the cache, so a token endpoint checks it after the
// caller has shown that it is one of ours.
func (c *ProofChecker) Check(proof string, r ProofRequest) (thumbprint string, err error) {
	if proof == "" {
		return "", c.refuse("there is no DPoP proof; send it in the DPoP header")
	}
	t, err := jose.Parse(proof, jose.Profile{MaxBytes: maxProofBytes, Typ: []string{ProofTyp}, AllowJWK: true})
	if err != nil {
		return "", c.malformed(err)
	}
	key := t.Header.JWK
	if !slices.Contains(ProofAlgorithms, t.Header.Alg) {
		return "", c.refuse("the proof is signed with %s, which is not taken", t.Header.Alg)
	}
	thumbprint = key.Thumbprint()
	if r.Thumbprint != "" && !equal(thumbprint, r.Thumbprint) {
		return "", proviso.Refuse(c.cfg.Stage, proviso.CodeTokenBinding, "the proof is of another key than the one the token is bound to")
	}
	if err := t.Verify(key); err != nil {
		return "", c.malformed(err)
	}
	if err := c.checkClaims(t.Claims, r); err != nil {
		return "", err
	}
	jti, _ := t.Claims.Get("jti").Text()
	return thumbprint, c.once(thumbprint, jti)
}

func (c *ProofChecker) checkClaims(o document.Value, r ProofRequest) error {
	if jti, _ := o.Get("jti").Text(); jti == "" || len(jti) > 256 {
		return c.refuse("the proof's jti is not a text of 1 to 256 bytes")
	}
	if htm, _ := o.Get("htm").Text(); htm != r.Method {
		return c.refuse("the proof's htm is not this request's method, %s", r.Method)
	}
	want, err := targetURI(r.URL)
	if err != nil {
		return c.refuse("this request's own URL can't be compared with a proof's").Because(err)
	}
	htu, _ := o.Get("htu").Text()
	if got, err := targetURI(htu); err != nil || got != want {
		return c.refuse("the proof's htu is not this request's URL, %s", want)
	}
	if r.Token != "" {
		if ath, _ := o.Get("ath").Text(); !equal(ath, tokenHash(r.Token)) {
			return c.refuse("the proof's ath is not the hash of the token it came with")
		}
	}
	now := c.cfg.Now()
	iat, present, err := jose.Time(o, "iat")
	if err != nil || !present {
		return c.refuse("the proof's iat is not an integer number of seconds")
	}
	// The nonce comes before the age: it is how a client whose clock is off learns
	// the server's time (RFC 9449 section 8).
	if err := c.checkNonce(o.Get("nonce"), now); err != nil {
		return err
	}
	if iat.After(now.Add(MaxSkew)) || iat.Before(now.Add(-c.cfg.MaxAge)) {
		return c.refuse("the proof was made at %s, which is more than %v ago or in the future; make one for each request, and compare the clocks",
			iat.UTC().Format(time.RFC3339), c.cfg.MaxAge)
	}
	return nil
}

func (c *ProofChecker) refuse(public string, args ...any) *proviso.Refusal {
	return proviso.Refuse(c.cfg.Stage, proviso.CodeDPoPProof, public, args...)
}

// malformed keeps one code for all that can be wrong with a proof's form: the
// client has one thing to do about it, and the message says which part.
func (c *ProofChecker) malformed(err error) error {
	var e *jose.Error
	if errors.As(err, &e) {
		return c.refuse("DPoP proof: %s", e.Msg).Because(err)
	}
	return c.refuse("the DPoP proof can't be read").Because(err)
}

// A nonce is the number of its time slot and an HMAC of it, so that nothing is
// kept. Each restart has a new secret, which voids all nonces from before.
const nonceSlot = 2 * time.Minute

// Nonce is what the DPoP-Nonce header says now.
func (c *ProofChecker) Nonce() string {
	return c.nonceOf(c.cfg.Now().Unix() / int64(nonceSlot/time.Second))
}

func (c *ProofChecker) nonceOf(slot int64) string {
	var raw [24]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(slot))
	mac := hmac.New(sha256.New, c.secret[:])
	mac.Write(raw[:8])
	copy(raw[8:], mac.Sum(nil))
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// demandsNonce: a proof without one may have been shown before the start for as
// long as its iat could be before the start.
func (c *ProofChecker) demandsNonce(now time.Time) bool {
	return c.cfg.Nonce == NonceAlways || c.cfg.Nonce == NonceAtStart && now.Before(c.started.Add(c.window()))
}

// window is how long a proof can be accepted, from the earliest to the latest
// moment: it may be made MaxSkew ahead and shown MaxAge late.
func (c *ProofChecker) window() time.Duration { return c.cfg.MaxAge + MaxSkew }

func (c *ProofChecker) checkNonce(v document.Value, now time.Time) error {
	if !c.demandsNonce(now) {
		return nil
	}
	nonce, _ := v.Text()
	slot := now.Unix() / int64(nonceSlot/time.Second)
	if equal(nonce, c.nonceOf(slot)) || equal(nonce, c.nonceOf(slot-1)) {
		return nil
	}
	return proviso.Refuse(c.cfg.Stage, proviso.CodeDPoPNonce, "the proof needs the nonce of this answer's DPoP-Nonce header; make a new proof with it")
}

// seenProofs remembers proofs in two generations, each as long as the window:
// what falls out of the older one can't be accepted any more.
type seenProofs struct {
	mu         sync.Mutex // held for two map operations
	generation int64
	current    map[[16]byte]struct{}
	previous   map[[16]byte]struct{}
}

// once refuses a proof that was seen. The key of the cache is the pair of key
// and jti: another client may use the same jti.
func (c *ProofChecker) once(thumbprint, jti string) error {
	sum := sha256.Sum256([]byte(thumbprint + "." + jti))
	key := [16]byte(sum[:16])
	s := &c.seen[key[0]%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	// Generations only go forward. A caller that read the clock before the turn of
	// a generation and came here after it, or a clock that was set back, would else
	// make a cache of what was seen empty, while those proofs are still accepted.
	if generation := c.cfg.Now().UnixNano() / int64(c.window()); generation > s.generation {
		s.previous = s.current
		if s.generation != generation-1 {
			s.previous = nil
		}
		s.current, s.generation = make(map[[16]byte]struct{}), generation
	}
	_, now := s.current[key]
	if _, before := s.previous[key]; now || before {
		return c.refuse("this DPoP proof was used before; make one for each request")
	}
	if len(s.current)+len(s.previous) >= max(1, c.cfg.Remember/len(c.seen)) {
		return proviso.Refuse(c.cfg.Stage, proviso.CodeReplayStoreFull, "more DPoP proofs are under way than can be remembered; try again in a minute")
	}
	s.current[key] = struct{}{}
	return nil
}
