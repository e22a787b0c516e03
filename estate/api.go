package estate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Bounds of a talk with an API.
const (
	maxAnswer    = 16 << 20         // of one page
	maxPages     = 2000             // of one listing
	maxTries     = 6                // of one page, for faults of the server
	maxLimits    = 30               // waits for one page, for limits
	answerTime   = 60 * time.Second // of one try
	maxRedirects = 3                // all on the same host
	firstBackoff = time.Second
	// secondaryPause is what GitHub asks for when a secondary limit says no time.
	secondaryPause = time.Minute
	// longestWait is more than the hour after which rate limits begin anew.
	longestWait = 70 * time.Minute
)

// api talks to one host, which alone sees the token.
type api struct {
	what   string // "GitHub", for messages
	base   *url.URL
	header http.Header
	// tokenFrom names the variable that the token came from, for messages.
	tokenFrom string
	client    *http.Client
	clock     Clock
	say       func(string)
}

// Clock is how waits pass: time itself, or a test's. It is the one thing that
// tests of an hour's limit replace.
type Clock struct {
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration) error
}

// wallClock is the real one.
func wallClock() Clock {
	return Clock{Now: time.Now, Wait: func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// newAPI checks the base address of an API.
func newAPI(what, base string, say func(string), clock Clock) (*api, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	switch {
	case err != nil || u.Host == "":
		return nil, fmt.Errorf("estate: the API address %q is no URL; write https://host/path", shown(base))
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("estate: the API address holds a user, a query or a fragment; it has none of them")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u)):
		return nil, fmt.Errorf("estate: the API address %q is not https: the token would be readable on the way", shown(base))
	}
	if clock.Wait == nil {
		clock = wallClock()
	}
	if say == nil {
		say = func(string) {}
	}
	a := &api{what: what, base: u, header: http.Header{}, clock: clock, say: say}
	a.header.Set("User-Agent", "proviso-inventory")
	a.client = &http.Client{Timeout: answerTime, CheckRedirect: a.redirect}
	return a, nil
}

// errElsewhere says that an answer led to another host.
var errElsewhere = errors.New("it leads to another host, which was not named and must not see the token")

// redirect follows within the host, where a renamed organisation moves; never to another, nor down to plain http.
func (a *api) redirect(req *http.Request, via []*http.Request) error {
	if !sameOrigin(req.URL, a.base) {
		return errElsewhere
	}
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

// pages gets a listing page by page, following the Link header of RFC 8288.
// each gets the address of the page too, so that a caller can remember it.
func (a *api) pages(ctx context.Context, first *url.URL, each func(body []byte) error) error {
	seen := make(map[string]bool)
	for at := first; at != nil; {
		if seen[at.String()] {
			return fmt.Errorf("estate: %s sent the same page twice as the next one: its listing never ends", a.what)
		}
		if seen[at.String()] = true; len(seen) > maxPages {
			return fmt.Errorf("estate: %s listed more than %d pages", a.what, maxPages)
		}
		body, header, err := a.get(ctx, at)
		if err != nil {
			return err
		}
		if err := each(body); err != nil {
			return err
		}
		if at, err = a.next(at, header); err != nil {
			return err
		}
	}
	return nil
}

var nextLink = regexp.MustCompile(`<([^<>]+)>\s*;[^,]*\brel="?next"?`)

// next gives the address of the next page, nil at the end.
func (a *api) next(at *url.URL, header http.Header) (*url.URL, error) {
	m := nextLink.FindStringSubmatch(strings.Join(header.Values("Link"), ", "))
	if m == nil {
		return nil, nil
	}
	u, err := at.Parse(m[1])
	if err != nil {
		return nil, fmt.Errorf("estate: the next page of %s is no URL", a.what)
	}
	if !sameOrigin(u, a.base) {
		return nil, fmt.Errorf("estate: the next page of %s is at %s: %w", a.what, shown(u.Host), errElsewhere)
	}
	return u, nil
}

// statusError is an answer that no repetition changes.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// get asks for one page until it is there, or will never be. Limits are waited
// for as long as the server says, faults are tried again after longer and longer pauses.
func (a *api) get(ctx context.Context, at *url.URL) (body []byte, header http.Header, err error) {
	tries, limits := 0, 0
	for {
		res, body, err := a.once(ctx, at) //nolint:bodyclose // once has read and closed it
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case errors.Is(err, errElsewhere):
			return nil, nil, fmt.Errorf("estate: %s redirects: %w", a.what, errElsewhere)
		case err == nil && res.StatusCode == http.StatusOK:
			return body, res.Header, a.isJSON(res)
		}
		var pause time.Duration
		if err == nil {
			var limited bool
			if pause, limited = a.limit(res, body, limits); limited {
				if limits++; limits > maxLimits || pause > longestWait {
					return nil, nil, fmt.Errorf("estate: %s limits the rate and asks to wait %s; the run can be started again later and goes on", a.what, pause.Round(time.Second))
				}
				a.say(fmt.Sprintf("%s limits the rate: waiting %s", a.what, pause.Round(time.Second)))
				if err := a.clock.Wait(ctx, pause); err != nil {
					return nil, nil, err
				}
				continue
			}
			if res.StatusCode < 500 {
				return nil, nil, a.refusal(res, body)
			}
			err = fmt.Errorf("it answers %s", res.Status)
		}
		if tries++; tries >= maxTries {
			return nil, nil, fmt.Errorf("estate: %s can't be asked: %w (%d tries)", a.what, withoutURL(err), tries)
		}
		pause = firstBackoff << (tries - 1)
		a.say(fmt.Sprintf("%s fails: trying again in %s", a.what, pause))
		if err := a.clock.Wait(ctx, pause); err != nil {
			return nil, nil, err
		}
	}
}

// withoutURL drops the address from an error of net/http: it may be long, and is known.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// once sends one request and reads its answer within the bounds.
func (a *api) once(ctx context.Context, at *url.URL) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header = a.header.Clone()
	res, err := a.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, nil, err
	case len(body) > maxAnswer:
		return nil, nil, fmt.Errorf("a page has more than %d bytes", maxAnswer)
	}
	return res, body, nil
}

func (a *api) isJSON(res *http.Response) error {
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return fmt.Errorf("estate: %s answers with %q instead of JSON; is the API address right? For GitHub Enterprise it ends with /api/v3, for GitLab with /api/v4", a.what, shown(res.Header.Get("Content-Type")))
	}
	return nil
}

// limit says whether an answer is a limit of the rate, and how long it asks to
// wait: Retry-After counts first, then the time at which the window ends, then
// a minute that doubles, as both platforms ask for.
func (a *api) limit(res *http.Response, body []byte, before int) (time.Duration, bool) {
	h := res.Header
	after := h.Get("Retry-After")
	left := first(h.Get("X-RateLimit-Remaining"), h.Get("RateLimit-Remaining"))
	secondary := res.StatusCode == http.StatusForbidden && strings.Contains(strings.ToLower(string(body[:min(len(body), 4096)])), "rate limit")
	limited := res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusForbidden && (after != "" || left == "0" || secondary)
	if !limited {
		return 0, false
	}
	if s, err := strconv.Atoi(after); err == nil && s >= 0 {
		return time.Duration(s)*time.Second + time.Second, true
	}
	if t, err := http.ParseTime(after); err == nil {
		return max(t.Sub(a.clock.Now()), 0) + time.Second, true
	}
	if reset, err := strconv.ParseInt(first(h.Get("X-RateLimit-Reset"), h.Get("RateLimit-Reset")), 10, 64); err == nil && left == "0" {
		return max(time.Unix(reset, 0).Sub(a.clock.Now()), 0) + time.Second, true
	}
	return secondaryPause << min(before, 5), true
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// refusal explains an answer that stays what it is.
func (a *api) refusal(res *http.Response, body []byte) error {
	var said struct{ Message, Error string }
	_ = json.Unmarshal(body, &said) // the text is only for people
	why := shown(first(said.Message, said.Error))
	if why != "" {
		why = " (" + why + ")"
	}
	text := fmt.Sprintf("estate: %s answers %s%s", a.what, res.Status, why)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		text = fmt.Sprintf("estate: %s does not accept the token of %s%s; is it expired, or for another host?", a.what, a.tokenFrom, why)
	case http.StatusForbidden:
		text = fmt.Sprintf("estate: %s does not let the token of %s list this%s; it needs to read the organisation's repositories", a.what, a.tokenFrom, why)
	}
	return &statusError{res.StatusCode, text}
}

// decode reads a page that must be a list.
func decode[T any](a *api, body []byte) ([]T, error) {
	var list []T
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("estate: a page of %s is not the list of repositories that was expected: %w", a.what, err)
	}
	return list, nil
}
