package facts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Defaults and bounds of an HTTP source.
const (
	defaultHTTPTimeout = 2 * time.Second
	defaultHTTPBytes   = 256 << 10
	maxHTTPBytes       = 4 << 20
	maxHTTPCache       = 15 * time.Minute
	maxCachedAnswers   = 1024
	maxConnections     = 32
	maxSecret          = 16 << 10
)

// httpSource asks one system. Its answers are cached by URL, and requests for
// one URL that come together share one question.
type httpSource struct {
	name   string
	url    *urlTemplate
	header http.Header
	secret func() (name, value string, err error) // nil without one
	keys   []jsonKey
	client *http.Client
	limit  int
	ttl    time.Duration // of the cache
	wait   time.Duration
	now    func() time.Time

	mu      sync.Mutex
	answers map[string]*httpAnswer // by URL
}

// httpAnswer is one answer, or one that is being waited for.
type httpAnswer struct {
	done chan struct{} // closed when the rest is set
	doc  document.Value
	at   time.Time
	why  *Absence
}

func newHTTP(c HTTPConfig, where string, opt Options, extra map[string]string) (source, error) {
	t, err := parseTemplate(c.URL, "https", "http")
	if err != nil {
		return source{}, Problem{where + ".url", err.Error()} // checked before
	}
	s := &httpSource{name: c.Name, url: t, limit: c.MaxBytes, ttl: c.Cache, wait: c.Timeout, now: opt.Now,
		header: http.Header{"Accept": {"application/json"}, "User-Agent": {opt.UserAgent}}, answers: map[string]*httpAnswer{}}
	if s.limit == 0 {
		s.limit = defaultHTTPBytes
	}
	if s.wait == 0 {
		s.wait = defaultHTTPTimeout
	}
	for name, value := range c.Headers {
		s.header.Set(name, value)
	}
	if c.BearerFile != "" {
		s.secret = func() (string, string, error) { return readSecret(c.BearerFile, c.SecretHeader) }
		if _, _, err := s.secret(); err != nil {
			return source{}, Problem{where + ".bearer_file", err.Error()}
		}
	}
	roots, err := readRoots(c.CAFile)
	if err != nil {
		return source{}, Problem{where + ".ca_file", err.Error()}
	}
	s.client = newClient(roots, c.AllowPrivate, s.wait)
	src := source{name: c.Name, ask: s.ask, close: s.client.CloseIdleConnections}
	for _, name := range sortedKeys(c.Keys) {
		k := newJSONKey(name, c.Keys[name])
		s.keys = append(s.keys, k)
		src.reads = append(src.reads, "context."+name)
		if name == "on_call" {
			src.reads = append(src.reads, "identity.on_call")
		}
		if top, _, nested := strings.Cut(name, "."); knownFacts[top] == "" {
			extra[top] = k.kind
			if nested {
				extra[top] = "object"
			}
		}
	}
	return src, nil
}

// newClient makes a client that talks to the configured host and nobody else: no
// proxy, no redirect, and an address check where the name is already resolved,
// so that a name that changes its address meanwhile gains nothing.
func newClient(roots *x509.CertPool, allowPrivate bool, wait time.Duration) *http.Client {
	dialer := &net.Dialer{Timeout: wait, Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !mayDial(ap.Addr(), allowPrivate) {
			return fmt.Errorf("the name led to %s, which is no public address; set allow_private if it is meant to be a private one", ap.Addr())
		}
		return nil
	}}
	return &http.Client{
		Timeout:       wait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			DisableCompression:     true, // a bounded body must not unfold
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        time.Minute,
			TLSHandshakeTimeout:    wait,
			ResponseHeaderTimeout:  wait,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// special are addresses that netip takes for ordinary ones and that are none
// (IANA's registries, RFC 6890); some carry an IPv4 address inside.
var special = func() (out []netip.Prefix) {
	for _, p := range []string{
		"0.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}()

var shared = netip.MustParsePrefix("100.64.0.0/10")

// mayDial says which addresses a source may have: public ones, and with
// allow_private those of private networks and of this machine. Link-local ones,
// where clouds keep their metadata, are nobody's ticket system.
func mayDial(a netip.Addr, allowPrivate bool) bool {
	a = a.Unmap()
	if a.IsLoopback() || a.IsPrivate() || shared.Contains(a) {
		return allowPrivate
	}
	if !a.IsGlobalUnicast() || a.Zone() != "" {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (s *httpSource) ask(ctx context.Context, asked Asked, wanted func(string) bool) answer {
	address, why := s.url.expand(asked.values())
	if why == nil {
		var got *httpAnswer
		if got, why = s.get(ctx, address); why == nil {
			return s.read(got, wanted)
		}
	}
	var a answer
	for _, k := range s.keys {
		if wanted(k.name) {
			a.absent = append(a.absent, s.absent(k.name, *why))
		}
	}
	return a
}

func (s *httpSource) absent(key string, why Absence) Absence {
	why.Key, why.Source = "context."+key, s.name
	why.Why = "the source " + s.name + " gave no value: " + why.Why
	return why
}

// read takes the wanted keys from an answer.
func (s *httpSource) read(got *httpAnswer, wanted func(string) bool) answer {
	var a answer
	for _, k := range s.keys {
		if !wanted(k.name) {
			continue
		}
		v, why := k.value(got.doc)
		if why != nil {
			a.absent = append(a.absent, s.absent(k.name, *why))
			continue
		}
		a.facts = append(a.facts, fact{source: s.name, key: k.name, value: v, at: got.at})
	}
	return a
}

// get gives the answer of an address: from the cache while it is fresh, from a
// question that is already under way, or from a new one. A failure is shared by
// those who wait for it, and then forgotten.
func (s *httpSource) get(ctx context.Context, address string) (*httpAnswer, *Absence) {
	s.mu.Lock()
	got, known := s.answers[address]
	if known {
		select {
		case <-got.done:
			known = s.now().Sub(got.at) < s.ttl
		default: // under way
		}
	}
	if !known {
		got = &httpAnswer{done: make(chan struct{})}
		s.makeRoom()
		s.answers[address] = got
		// Detached: who asks next must not suffer from the first one's hurry.
		go s.fetch(context.WithoutCancel(ctx), address, got)
	}
	s.mu.Unlock()
	select {
	case <-got.done:
		return got, got.why
	case <-ctx.Done():
		return nil, unavailable("it did not answer in time", ctx.Err())
	}
}

// makeRoom forgets answers that are out of date, or any if there are too many.
func (s *httpSource) makeRoom() {
	if len(s.answers) < maxCachedAnswers {
		return
	}
	now := s.now()
	for address, got := range s.answers {
		select {
		case <-got.done:
			if now.Sub(got.at) >= s.ttl || len(s.answers) >= maxCachedAnswers {
				delete(s.answers, address)
			}
		default:
		}
	}
}

func (s *httpSource) fetch(ctx context.Context, address string, got *httpAnswer) {
	defer func() {
		if p := recover(); p != nil {
			got.why = unavailable("it could not be asked", fmt.Errorf("panic: %v", p))
		}
		s.mu.Lock()
		if (got.why != nil || s.ttl == 0) && s.answers[address] == got {
			delete(s.answers, address)
		}
		s.mu.Unlock()
		close(got.done)
	}()
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	got.at = s.now() // the age counts from the question, never from later
	got.doc, got.why = s.question(ctx, address)
}

// question sends one GET and reads its JSON.
func (s *httpSource) question(ctx context.Context, address string) (document.Value, *Absence) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return document.Value{}, unavailable("it could not be asked", withoutURL(err))
	}
	req.Header = s.header.Clone()
	if s.secret != nil {
		name, value, err := s.secret()
		if err != nil {
			return document.Value{}, unavailable("it could not be asked", err)
		}
		req.Header.Set(name, value)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return document.Value{}, unavailable("it could not be reached in time", withoutURL(err))
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		return document.Value{}, &Absence{Code: proviso.CodeEnrichmentUnavailable, Why: "it doesn't know what it was asked about",
			Err: fmt.Errorf("status %d", res.StatusCode)}
	case res.StatusCode != http.StatusOK:
		return document.Value{}, unavailable("it has no usable answer", fmt.Errorf("status %d", res.StatusCode))
	case res.Header.Get("Content-Encoding") != "":
		return document.Value{}, unavailable("it has no usable answer", errors.New("the answer is compressed, which was not asked for"))
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return document.Value{}, unavailable("it has no usable answer", fmt.Errorf("content type %q is not JSON", kind))
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(s.limit)+1))
	if err != nil {
		return document.Value{}, unavailable("its answer broke off", withoutURL(err))
	}
	if len(body) > s.limit {
		return document.Value{}, unavailable("its answer is too long", fmt.Errorf("more than %d bytes", s.limit))
	}
	doc, err := document.Parse(body, document.Limits{Bytes: s.limit, Depth: 32, Members: 1 << 16})
	if err != nil {
		return document.Value{}, unavailable("it has no usable answer", err)
	}
	return doc, nil
}

func unavailable(why string, err error) *Absence {
	return &Absence{Code: proviso.CodeEnrichmentUnavailable, Why: why, Err: err}
}

// withoutURL drops the address from net/http's errors: it may hold what the
// operator wrote into a query.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// readSecret reads a secret anew for every question, so that it can be rotated.
// Its errors never quote the file's content.
func readSecret(path, header string) (name, value string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", "", err
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(data) > maxSecret || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", fmt.Errorf("%s holds no secret: one line of printable ASCII without spaces is expected", path)
	}
	if header == "" {
		return "Authorization", "Bearer " + text, nil
	}
	return header, text, nil
}

// readRoots reads the authorities that a server's certificate must come from;
// without a file they are the system's.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return pool, nil
}
