package runner

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"

	"github.com/proviso-ci/proviso"
)

// Refusals of challenges.
const (
	// CodeNonceMissing: evidence that has to be made over a challenge names none.
	CodeNonceMissing proviso.Code = "nonce_missing" // 400 invalid_request
	// CodeNonceInvalid: the challenge isn't this broker's, or the evidence was not
	// made over it.
	CodeNonceInvalid proviso.Code = "nonce_invalid" // 400 invalid_request
	// CodeNonceExpired: the challenge is too old.
	CodeNonceExpired proviso.Code = "nonce_expired" // 400 invalid_request
	// CodeNonceUsed: the challenge was answered before.
	CodeNonceUsed proviso.Code = "nonce_used" // 400 invalid_request
	// CodeNonceStoreFull: more answers than can be remembered.
	CodeNonceStoreFull proviso.Code = "nonce_store_full" // 503 server_error
)

const (
	// challengeLife is how long a challenge can be answered: a TPM needs a second
	// or two, an attestation verifier a few.
	challengeLife = 2 * time.Minute
	// maxChallenges bounds the answered challenges that are remembered. Only
	// evidence whose signature holds is counted, so strangers can't fill it.
	maxChallenges  = 1 << 16
	challengeBytes = 16 + 8 + 16
)

// challenges are the broker's nonces for evidence. Giving one out costs no
// memory: it carries its own end and a MAC under a key of this process, so that
// asking for millions of them is no attack. Only an answered one is remembered,
// until its end, so that it is answered once. After a restart the key is
// another one, and the evidence has to be made anew.
type challenges struct {
	key [32]byte
	now func() time.Time

	mu   sync.Mutex
	used map[[16]byte]time.Time // until when
}

func newChallenges(now func() time.Time) *challenges {
	c := &challenges{now: now, used: map[[16]byte]time.Time{}}
	_, _ = rand.Read(c.key[:]) // never fails (crypto/rand)
	return c
}

// Challenge gives a fresh nonce for evidence that is made over one, and how
// long it can be answered.
func (v *Verifier) Challenge() (nonce string, life time.Duration) {
	return v.challenges.issue(), challengeLife
}

func (c *challenges) issue() string {
	var b [challengeBytes]byte
	_, _ = rand.Read(b[:16]) // never fails (crypto/rand)
	binary.BigEndian.PutUint64(b[16:], uint64(c.now().Add(challengeLife).Unix()))
	copy(b[24:], c.mac(b[:24]))
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func (c *challenges) mac(b []byte) []byte {
	m := hmac.New(sha256.New, c.key[:])
	m.Write(b)
	return m.Sum(nil)[:16]
}

// challenge is one that was given out here and hasn't ended.
type challenge struct {
	text string
	id   [16]byte
	end  time.Time
}

// check looks whether a challenge is ours and in time. It isn't used up yet:
// whether the evidence over it holds is looked at first.
func (c *challenges) check(text string) (challenge, error) {
	if text == "" {
		return challenge{}, refuse(CodeNonceMissing, "the evidence names no challenge of this broker: get one from its challenge endpoint first")
	}
	var b [challengeBytes]byte
	n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(text))
	if len(text) != base64.RawURLEncoding.EncodedLen(challengeBytes) || err != nil || n != challengeBytes || !hmac.Equal(b[24:], c.mac(b[:24])) {
		return challenge{}, refuse(CodeNonceInvalid, "the challenge was not given out by this broker since its last start; get a fresh one from its challenge endpoint")
	}
	end := time.Unix(int64(binary.BigEndian.Uint64(b[16:])), 0) // #nosec G115 -- our own, the MAC holds
	if !c.now().Before(end) {
		return challenge{}, refuse(CodeNonceExpired, "the challenge could be answered until %s, it is %s; get a fresh one and make the evidence anew", stamp(end), stamp(c.now()))
	}
	return challenge{text, [16]byte(b[:16]), end}, nil
}

// use uses a challenge up. Of two that come at the same time one is refused.
func (c *challenges) use(ch challenge) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, again := c.used[ch.id]; again {
		return refuse(CodeNonceUsed, "the challenge was answered before: evidence over it is good once; get a fresh one")
	}
	if len(c.used) >= maxChallenges {
		now := c.now()
		for id, end := range c.used {
			if !now.Before(end) {
				delete(c.used, id)
			}
		}
		if len(c.used) >= maxChallenges {
			return refuse(CodeNonceStoreFull, "more evidence was shown in two minutes than the broker can remember; try again in a moment")
		}
	}
	c.used[ch.id] = ch.end
	return nil
}
