package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// Options are what a Verifier needs beside the issuers. Only Audience must be
// set.
type Options struct {
	// Audience is the broker's own URL: the one audience that tokens must have
	// where jobs choose it.
	Audience string
	// Dir is where relative file names of the configuration begin; the working
	// directory if empty.
	Dir string
	// Proxy is the HTTP proxy on the way to the issuers; nil means none.
	Proxy *url.URL
	// MaxStale is how long the last good keys serve while an issuer can't be
	// reached; 0 means the default of package keyset, a day.
	MaxStale time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets what an operator should know of the issuers' keys; nil means nowhere.
	Log *slog.Logger
}

// Verifier verifies job tokens of the configured issuers. It can be used by
// many goroutines, and doesn't change once it is made, apart from the issuers'
// keys.
type Verifier struct {
	issuers map[string]*issuer // by URL
	ordered []*issuer
	now     func() time.Time
}

// profile is the form of a job's token: a JWT, or a token that doesn't say what
// it is. Platforms may add to the header what has no influence.
var profile = jose.Profile{Typ: []string{"JWT", ""}, IgnoreUnknown: true}

// New checks the configuration and makes a Verifier. An error is all Problems
// that were found. Nothing is fetched before Start or the first token.
func New(confs []IssuerConfig, o Options) (*Verifier, error) {
	issuers, problems, _ := checkAll(confs, o.Audience)
	if len(problems) > 0 {
		return nil, problems
	}
	v := &Verifier{issuers: make(map[string]*issuer, len(issuers)), ordered: issuers, now: o.Now}
	if v.now == nil {
		v.now = time.Now
	}
	for n, i := range issuers {
		if err := i.openKeys(i.conf, o); err != nil {
			v.Close()
			return nil, Problems{{fmt.Sprintf("issuers[%d]", n), CodeConfigIssuer, err.Error()}}
		}
		v.issuers[i.url] = i
	}
	return v, nil
}

// openKeys makes the source of the issuer's keys.
func (i *issuer) openKeys(conf IssuerConfig, o Options) error {
	if conf.JWKSFile != "" {
		data, err := readFile(o.Dir, conf.JWKSFile)
		if err != nil {
			return fmt.Errorf("jwks_file: %w", err)
		}
		set, err := jose.ParseKeySet(data, i.algorithms)
		if err != nil {
			return fmt.Errorf("jwks_file %s: %w", conf.JWKSFile, err)
		}
		i.keys = keyset.Fixed(i.url, set, false)
		return nil
	}
	u, err := url.Parse(i.url)
	if err != nil {
		return err
	}
	cfg := keyset.Config{Issuer: i.url, JWKSURL: conf.JWKSURL, Algorithms: i.algorithms, AllowKIDReuse: i.row.kidIsNoKey,
		AllowPrivate: conf.AllowPrivate, AllowLoopback: conf.AllowPrivate && isLoopback(u.Hostname()),
		Proxy: o.Proxy, MaxStale: o.MaxStale, Now: o.Now, Log: o.Log}
	if cfg.JWKSURL == "" && !cfg.AllowLoopback {
		cfg.JWKSURL = i.row.jwksURL
	}
	if jwks, err := url.Parse(conf.JWKSURL); err == nil && conf.AllowPrivate && isLoopback(jwks.Hostname()) {
		cfg.AllowLoopback = true
	}
	if conf.CAFile != "" {
		pem, err := readFile(o.Dir, conf.CAFile)
		if err != nil {
			return fmt.Errorf("ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("ca_file: there is no PEM certificate in %s", conf.CAFile)
		}
	}
	i.keys, err = keyset.New(cfg)
	return err
}

func readFile(dir, name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	return os.ReadFile(name)
}

// Start fetches the issuers' keys and keeps them fresh until Close. An issuer
// that can't be reached is no error: its jobs are refused until it can.
func (v *Verifier) Start(ctx context.Context) {
	for _, i := range v.ordered {
		i.keys.Start(ctx)
	}
}

// Refresh asks every issuer for its keys now and waits for all of them. How it
// went is in Status.
func (v *Verifier) Refresh(ctx context.Context) {
	var wg sync.WaitGroup
	for _, i := range v.ordered {
		wg.Go(func() { _ = i.keys.Refresh(ctx) }) // Status has the failure
	}
	wg.Wait()
}

// Close ends what Start began.
func (v *Verifier) Close() {
	for _, i := range v.ordered {
		if i.keys != nil {
			i.keys.Close()
		}
	}
}

// Status says of one issuer how its keys are.
type Status struct {
	Name, URL, Platform string
	Keys                keyset.Status
}

// Status gives the issuers in the order of the configuration.
func (v *Verifier) Status() []Status {
	out := make([]Status, len(v.ordered))
	for n, i := range v.ordered {
		out[n] = Status{Name: i.name, URL: i.url, Platform: i.row.name, Keys: i.keys.Status()}
	}
	return out
}

// Verify proves who asks. Every error is a *proviso.Refusal of stage job.
func (v *Verifier) Verify(ctx context.Context, compact string) (Job, error) {
	tok, err := jose.Parse(compact, profile)
	if err != nil {
		return Job{}, refusal(err)
	}
	iss, _ := tok.Claims.Get("iss").Text()
	i := v.issuers[iss]
	if i == nil {
		// Nothing of an unverified token is repeated, and nothing is fetched for it.
		return Job{}, refuse(proviso.CodeIssuerUnknown,
			"the token is not from an issuer that this broker knows; its operator lists the exact iss of each CI platform under issuers")
	}
	if !slices.Contains(i.algorithms, tok.Header.Alg) {
		return Job{}, refuse(proviso.CodeJWTAlgNotAllowed, "the token is signed with %s; from this issuer only %s is taken", tok.Header.Alg, algNames(i.algorithms))
	}
	key, err := i.keys.Key(ctx, tok.Header.Kid, tok.Header.Alg)
	if err != nil {
		return Job{}, refusal(err)
	}
	if err := tok.Verify(key); err != nil {
		return Job{}, refusal(err)
	}
	j, err := i.admit(tok, v.now())
	if err != nil {
		hash := tok.SignedHash()
		return Job{}, &Refused{Refusal: refusal(err), Issuer: i.name, Hash: hex.EncodeToString(hash[:]), Claims: tok.Claims}
	}
	return j, nil
}

// Refused is the refusal of a token whose signature holds. What it says of
// itself is for the record, so that an attempt has a name: it is nobody's
// identity, and nothing is decided on it.
type Refused struct {
	*proviso.Refusal
	Issuer string // the issuer's name in the configuration
	Hash   string // as Job.TokenHash
	Claims document.Value
}

// Unwrap gives the refusal.
func (r *Refused) Unwrap() error { return r.Refusal }

func algNames(algs []jose.Alg) string {
	names := make([]string, len(algs))
	for n, a := range algs {
		names[n] = string(a)
	}
	return strings.Join(names, " or ")
}

// refusal turns an error of jose and keyset, whose messages are for the caller,
// into one of this stage.
func refusal(err error) *proviso.Refusal {
	var e *jose.Error
	if errors.As(err, &e) {
		return refuse(e.Code, "%s", e.Msg).Because(e.Err)
	}
	return proviso.AsRefusal(err, proviso.StageJob, proviso.CodeDiscoveryUnavailable)
}

// admit judges a token whose signature holds.
func (i *issuer) admit(tok *jose.Token, now time.Time) (Job, error) {
	j := &job{issuer: i.name, claims: tok.Claims, hash: tok.SignedHash(), replay: i.replay}
	c := &claims{doc: tok.Claims, issuer: i.url}
	if i.checkTimes(c, j, now); c.bad != nil {
		return Job{}, c.bad
	}
	i.checkAudience(c)
	i.checkJob(c)
	i.checkPins(c)
	i.checkReplay(c, j)
	if c.bad != nil {
		return Job{}, c.bad
	}
	if j.jkt = c.confirmation(); c.key != "" {
		if j.jkt != "" && j.jkt != c.key {
			return Job{}, refuse(proviso.CodeCnfMismatch, "the token names one key in its cnf and another in its audience")
		}
		j.jkt = c.key
	}
	j.identity = i.identify(c)
	i.checkTrigger(c, &j.identity)
	if i.row.agree != nil && c.bad == nil {
		i.row.agree(c, &j.identity)
	}
	if c.bad != nil {
		return Job{}, c.bad
	}
	j.document = j.identity.Document()
	return Job{j}, nil
}

// checkTimes: expired is expired; what lies ahead may do so by ClockSkew.
func (i *issuer) checkTimes(c *claims, j *job, now time.Time) {
	exp, hasExp, errExp := jose.Time(c.doc, "exp")
	iat, hasIat, errIat := jose.Time(c.doc, "iat")
	nbf, hasNbf, errNbf := jose.Time(c.doc, "nbf")
	for _, err := range []error{errExp, errIat, errNbf} {
		if err != nil {
			c.bad = refusal(err)
			return
		}
	}
	latest := now.Add(ClockSkew)
	const again = "ask the platform for a new token right before the exchange"
	switch {
	case !hasExp:
		c.refuse(proviso.CodeExpMissing, "the token has no exp, so it would never expire")
	case !hasIat:
		c.refuse(proviso.CodeIatMissing, "the token has no iat, so its age can't be known")
	case !now.Before(exp):
		c.refuse(proviso.CodeTokenExpired, "the token expired %v ago, at %s; %s", elapsed(exp, now), stamp(exp), again)
	case iat.After(latest):
		c.refuse(proviso.CodeIatFuture, "the token was made at %s, which is %v ahead of the broker's clock; one of the two clocks is wrong", stamp(iat), elapsed(now, iat))
	case hasNbf && nbf.After(latest):
		c.refuse(proviso.CodeNbfFuture, "the token is good only from %s on, which is in %v", stamp(nbf), elapsed(now, nbf))
	case !exp.After(iat) || exp.Sub(iat) > i.row.maxLife:
		c.refuse(proviso.CodeTokenLifetime, "the token lives for %v; a token of %s lives for at most %v", exp.Sub(iat), i.row.title, i.row.maxLife)
	case now.Sub(iat) > i.maxAge:
		c.refuse(CodeTokenTooOld, "the token was made %v ago, and from this issuer the broker takes tokens for %v (max_age); %s, or exchange it at the start of the job",
			elapsed(iat, now), i.maxAge, again)
	}
	j.issued, j.expires = iat, exp
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func elapsed(from, to time.Time) time.Duration { return to.Sub(from).Round(time.Second) }

// checkAudience wants exactly one audience, and exactly the wanted one: a token
// with a second audience can be shown here by whoever else it was made for.
func (i *issuer) checkAudience(c *claims) {
	v := c.doc.Get("aud")
	list := v.Items()
	if v.Kind() == document.String {
		list = []document.Value{v}
	}
	if !has(v) || v.Kind() == document.Array && len(list) == 0 {
		c.refuse(proviso.CodeAudMissing, "the token has no aud, so it would be good anywhere; %s", i.howToAsk())
		return
	}
	for _, item := range list {
		if _, isText := item.Text(); !isText {
			list = nil
		}
	}
	switch {
	case len(list) == 0:
		c.refuse(proviso.CodeAudInvalid, "the token's aud is %s; it must be one text", quote(v))
	case len(list) > 1:
		c.refuse(proviso.CodeAudMultiple, "the token has %d audiences, so each of them could use it here; %s", len(list), i.howToAsk())
	default:
		aud, _ := list[0].Text()
		if aud == i.audience {
			return
		}
		// Only narrower: the job asked for a token that needs the proof of a key.
		if !i.audienceFixed {
			c.key = proviso.AudienceKey(aud, i.audience)
		}
		if c.key == "" {
			c.refuse(proviso.CodeAudMismatch, "the token's aud is %s, and must be %s; %s", quoted(aud), quoted(i.audience), i.howToAsk())
		}
	}
}

func (i *issuer) howToAsk() string {
	return strings.ReplaceAll(i.row.audience.ask, "AUDIENCE", i.audience)
}

// checkReplay makes the key by which the token is recognised a second time.
func (i *issuer) checkReplay(c *claims, j *job) {
	v := c.doc.Get("jti")
	jti, ok := textOf(v)
	switch {
	case ok:
		j.jti = jti
	case has(v):
		c.refuse(proviso.CodeJTIInvalid, "the token's jti is %s; it must be %s", quote(v), classes[text].want)
	case i.replay == ReplayJTI:
		c.refuse(proviso.CodeJTIMissing, "the token has no jti, by which a second use is recognised")
	}
	switch i.replay {
	case ReplayJTI:
		j.replayKey = keyOf("jti", i.url, jti)
	case ReplayToken:
		// Of the signed bytes, never of the token: one token has several spellings.
		j.replayKey = keyOf("token", i.url, string(j.hash[:]))
	}
}

// keyOf hashes parts so that no two lists of parts give one text.
func keyOf(parts ...string) [32]byte {
	buf := make([]byte, 0, 512)
	for _, p := range parts {
		buf = strconv.AppendInt(buf, int64(len(p)), 10)
		buf = append(buf, ':')
		buf = append(buf, p...)
	}
	return sha256.Sum256(buf)
}

func (j *job) tokenHash() string { return hex.EncodeToString(j.hash[:]) }
