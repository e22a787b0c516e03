package credential

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
)

// DomainConfig is the section "trust_domain" of the configuration: the SPIFFE
// trust domain in which the broker itself issues SVIDs, to jobs by grants of the
// kinds x509-svid and jwt-svid and to the runners of its own fleet.
type DomainConfig struct {
	// Name is the trust domain, as "ci.acme.example". It can't change later:
	// everybody who trusts the domain knows it by this name. A domain has one
	// authority: never write the name of one that SPIRE already serves.
	Name string `yaml:"name,omitempty"`
	// Rotate is how long a key of the authority signs before the next one takes
	// over: 1 hour to 1 year, by default 30 days.
	Rotate time.Duration `yaml:"rotate,omitempty"`
	// RefreshHint is how often others are asked to fetch the bundle: 10 seconds
	// to a day, by default 5 minutes. A new key is published three times as long
	// before it signs.
	RefreshHint time.Duration `yaml:"refresh_hint,omitempty"`
	// BundleListen is the address, host:port, of a listener that serves the
	// bundle by the profile https_spiffe: it shows an SVID of the domain,
	// spiffe://NAME/bundle-endpoint, in place of a web certificate. Off when empty.
	// The profile https_web is always served, at /spiffe/bundle of the door.
	BundleListen string `yaml:"bundle_listen,omitempty"`
}

func (c DomainConfig) withDefaults() DomainConfig {
	if c.Rotate == 0 {
		c.Rotate = 30 * day
	}
	if c.RefreshHint == 0 {
		c.RefreshHint = min(5*time.Minute, c.Rotate/12)
	}
	return c
}

// IsZero reports whether the broker has no trust domain of its own.
func (c DomainConfig) IsZero() bool { return c == DomainConfig{} }

// Validate gives what is wrong, by the path of the member.
func (c DomainConfig) Validate() []Problem {
	if c.IsZero() {
		return nil
	}
	c = c.withDefaults()
	var out []Problem
	if err := checkDomainName(c.Name); err != nil {
		out = append(out, problem("name", "%v", err))
	}
	if c.Rotate < time.Hour || c.Rotate > 366*day {
		out = append(out, problem("rotate", "%v is not between 1h and 8784h (a year); write 720h for 30 days", c.Rotate))
	}
	if c.RefreshHint < 10*time.Second || c.RefreshHint > day || c.RefreshHint%time.Second != 0 || c.RefreshHint > c.Rotate/12 {
		out = append(out, problem("refresh_hint", "%v is not a whole number of seconds between 10s and 24h, and at most a twelfth of rotate; write 5m", c.RefreshHint))
	}
	return out
}

// keepKeys is how long a key that signs no more stays published: until the last
// SVID that it can have signed has ended. It is a constant for the reason that
// pass.MaxTTL is one.
const keepKeys = pass.MaxTTL + 2*pass.MaxSkew

// Domain is the authority of the broker's own trust domain. Signing and
// publishing take no lock: both read one immutable set, which Maintain replaces.
type Domain struct {
	cfg DomainConfig
	dir string
	now func() time.Time

	maintain sync.Mutex // held by Maintain alone, while it writes files
	set      atomic.Pointer[domainSet]
}

// domainSet is what is true until the next Maintain.
type domainSet struct {
	x509, jwt []*domainKey // each sorted by from
	bundle    []byte       // as it is published
	sequence  int64
}

// OpenDomain reads the authority's keys in dir, makes what is missing, and
// publishes the bundle.
func OpenDomain(dir string, cfg DomainConfig, now func() time.Time) (*Domain, error) {
	if problems := cfg.Validate(); len(problems) > 0 || cfg.IsZero() {
		return nil, fmt.Errorf("trust_domain: %v", problems)
	}
	if now == nil {
		now = time.Now
	}
	d := &Domain{cfg: cfg.withDefaults(), dir: dir, now: now}
	if err := d.checkName(); err != nil {
		return nil, err
	}
	if err := d.Maintain(); err != nil {
		return nil, fmt.Errorf("the trust domain's keys in %s: %w", dir, err)
	}
	return d, nil
}

const domainNameFile = "name"

// checkName holds the configured name to the one that the keys were made for:
// with another name over the same keys, either domain could speak for the other.
func (d *Domain) checkName() error {
	name, err := pass.ReadSecret(filepath.Join(d.dir, domainNameFile))
	if errors.Is(err, os.ErrNotExist) {
		return pass.WriteSecret(d.dir, domainNameFile, []byte(d.cfg.Name))
	}
	if err == nil && string(name) != d.cfg.Name {
		err = fmt.Errorf("trust_domain.name is %q, and the keys in %s are those of %q: write the old name, or move the directory away for a new authority", d.cfg.Name, d.dir, name)
	}
	return err
}

// Name is the trust domain's name.
func (d *Domain) Name() string { return d.cfg.Name }

// ID gives the SPIFFE ID of a path, which begins with a slash.
func (d *Domain) ID(path string) string { return "spiffe://" + d.cfg.Name + path }

// RefreshHint is how often others are asked to fetch the bundle.
func (d *Domain) RefreshHint() time.Duration { return d.cfg.RefreshHint }

// Bundle is the published bundle, in SPIFFE's format.
func (d *Domain) Bundle() []byte { return d.set.Load().bundle }

// Sequence is the bundle's spiffe_sequence.
func (d *Domain) Sequence() int64 { return d.set.Load().sequence }

// lead is how long a key is published before it signs: whoever follows the
// refresh hint has missed it twice, and still knows it in time.
func (d *Domain) lead() time.Duration { return 3*d.cfg.RefreshHint + pass.MaxSkew }

// signing gives the key whose time it is: the newest whose time has come.
func (d *Domain) signing(keys []*domainKey) (*domainKey, error) {
	now := d.now()
	for i := len(keys) - 1; i >= 0; i-- {
		if !keys[i].from.After(now) {
			return keys[i], nil
		}
	}
	return nil, fault("the trust domain's keys", errors.New("no key's time has come; the broker's clock was set back"))
}

// Maintain makes the next keys when their time is near, deletes those whose last
// SVID has ended, and publishes the result. Run calls it; tests may.
func (d *Domain) Maintain() error {
	d.maintain.Lock()
	defer d.maintain.Unlock()
	now := d.now()
	old, err := d.readBundle()
	if err != nil {
		return err
	}
	next := &domainSet{}
	for _, r := range []struct {
		use  string
		into *[]*domainKey
	}{{useX509, &next.x509}, {useJWT, &next.jwt}} {
		keys, err := d.loadKeys(r.use)
		if err != nil {
			return err
		}
		if keys, err = d.dropUnpublished(keys, old, now); err != nil {
			return err
		}
		if keys, err = d.extend(r.use, keys, now); err != nil {
			return err
		}
		if *r.into, err = d.prune(keys, now); err != nil {
			return err
		}
	}
	if err := d.publish(next, old, now); err != nil {
		return err
	}
	d.set.Store(next)
	return nil
}

// Run maintains the keys until ctx ends. A failure is given to report and tried
// again: the keys that are there go on signing.
func (d *Domain) Run(ctx context.Context, report func(error)) {
	tick := time.NewTicker(max(d.cfg.RefreshHint/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := d.Maintain(); err != nil {
				report(err)
			}
		}
	}
}

// extend makes the first key, which signs at once because nobody has a bundle
// yet, and the next one, which signs only when everybody has heard of it.
func (d *Domain) extend(use string, keys []*domainKey, now time.Time) ([]*domainKey, error) {
	from := now
	if n := len(keys); n > 0 {
		due := keys[n-1].from.Add(d.cfg.Rotate)
		if now.Before(due.Add(-2 * d.lead())) {
			return keys, nil
		}
		from = now.Add(d.lead() + time.Second) // the name of its file has whole seconds
		if due.After(from) {
			from = due
		}
	}
	key, err := d.createKey(use, from)
	if err != nil {
		return nil, err
	}
	return append(keys, key), nil
}

// dropUnpublished deletes a next key that a crash kept from being published: it
// never signed, and by its name it would soon, known to nobody.
func (d *Domain) dropUnpublished(keys []*domainKey, old document.Value, now time.Time) ([]*domainKey, error) {
	n := len(keys)
	if old.IsAbsent() || n < 2 || keys[n-1].from.Sub(now) >= d.lead() {
		return keys, nil
	}
	entry := keys[n-1].entry()
	for _, published := range old.Get("keys").Items() {
		if bytes.Equal(document.AppendCanonical(nil, published), document.AppendCanonical(nil, entry)) {
			return keys, nil
		}
	}
	return keys[:n-1], d.removeKey(keys[n-1])
}

// prune deletes the keys that no living SVID can have been signed with.
func (d *Domain) prune(keys []*domainKey, now time.Time) ([]*domainKey, error) {
	for len(keys) > 1 && keys[1].from.Add(keepKeys).Before(now) {
		if err := d.removeKey(keys[0]); err != nil {
			return nil, err
		}
		keys = keys[1:]
	}
	return keys, nil
}

const bundleFile = "bundle.json"

// readBundle reads what was published last, absent at first start.
func (d *Domain) readBundle() (document.Value, error) {
	data, err := os.ReadFile(filepath.Join(d.dir, bundleFile))
	if errors.Is(err, os.ErrNotExist) {
		return document.Value{}, nil
	}
	if err != nil {
		return document.Value{}, err
	}
	doc, err := document.Parse(data, document.Limits{Bytes: 1 << 20, Depth: 8, Members: 16384})
	if _, ok := doc.Get("spiffe_sequence").Integer(); err == nil && !ok {
		err = errors.New("it has no spiffe_sequence")
	}
	if err != nil {
		return document.Value{}, fmt.Errorf("%s is not the bundle that was published last; restore it from a backup, so that its spiffe_sequence never falls: %w", bundleFile, err)
	}
	return doc, nil
}

// publish writes the bundle, with a new sequence if anything in it has changed.
// The sequence only grows, also where the file was lost: it is the time in
// seconds wherever that is more than the last one plus one.
func (d *Domain) publish(next *domainSet, old document.Value, now time.Time) error {
	var keys []document.Value
	for _, k := range next.x509 {
		keys = append(keys, k.entry())
	}
	for _, k := range next.jwt {
		keys = append(keys, k.entry())
	}
	last, _ := old.Get("spiffe_sequence").Integer()
	compose := func(sequence int64) []byte {
		return document.AppendCanonical(nil, document.ObjectOf(
			document.Member("keys", document.ListOf(keys...)),
			document.Member("spiffe_refresh_hint", document.IntOf(int64(d.cfg.RefreshHint/time.Second))),
			document.Member("spiffe_sequence", document.IntOf(sequence))))
	}
	next.sequence, next.bundle = last, compose(last)
	if !old.IsAbsent() && bytes.Equal(next.bundle, document.AppendCanonical(nil, old)) {
		return nil
	}
	next.sequence = max(last+1, now.Unix())
	next.bundle = compose(next.sequence)
	return replaceFile(d.dir, bundleFile, next.bundle)
}

// entry is the key as the bundle has it (SPIFFE Trust Domain and Bundle, section 4.2).
func (k *domainKey) entry() document.Value {
	jwk := k.public.BareJWK().With(document.Member("use", document.StringOf(k.use)))
	if k.use == useX509 {
		return jwk.With(document.Member("x5c", document.ListOf(document.StringOf(base64.StdEncoding.EncodeToString(k.cert.Raw)))))
	}
	return jwk.With(document.Member("kid", document.StringOf(k.public.KeyID())), document.Member("alg", document.StringOf(string(jose.ES256))))
}

// X509Authorities are the roots as they are published now.
func (d *Domain) X509Authorities() []*x509.Certificate {
	var all []*x509.Certificate
	for _, k := range d.set.Load().x509 {
		all = append(all, k.cert)
	}
	return all
}

// checkDomainName holds a trust domain's name to SPIFFE-ID section 2.1.
func checkDomainName(name string) error {
	ok := only(name, func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_'
	})
	if name == "" || len(name) > 255 || !ok {
		return fmt.Errorf("%q is no trust domain's name: lower-case letters, digits, dots, dashes and underscores, as ci.acme.example", name)
	}
	return nil
}

// maxSPIFFEID is the longest SPIFFE ID (SPIFFE-ID section 2.3).
const maxSPIFFEID = 2048

// checkSPIFFEID holds a text to the SPIFFE ID of a workload in a trust domain:
// a path of plain segments, nothing percent-encoded, no dot segments.
func checkSPIFFEID(id, domain string) error {
	path, ok := strings.CutPrefix(id, "spiffe://"+domain+"/")
	if !ok || len(id) > maxSPIFFEID {
		return fmt.Errorf("%q is no SPIFFE ID with a path in the trust domain %s, of at most %d bytes", shorten(id), domain, maxSPIFFEID)
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." || !only(segment, isPathChar) {
			return fmt.Errorf("%q: a segment of a SPIFFE ID's path is of letters, digits, dots, dashes and underscores, and is neither empty nor a dot segment", shorten(id))
		}
	}
	return nil
}

func isPathChar(c byte) bool { return isAlnum(c) || c == '-' || c == '.' || c == '_' }
