package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/store"
)

// holdings are what the clients of a broker know: which token bought what, and
// which tokens were sent without an answer.
type holdings struct {
	mu     sync.Mutex
	bought map[string]*proviso.TokenResponse // by job token
	lost   []string
}

func (h *holdings) buy(t *testing.T, token string, answer *proviso.TokenResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bought[token] != nil {
		t.Errorf("one job token bought two credentials, by the decisions %s and %s", h.bought[token].Proviso.Decision, answer.Proviso.Decision)
	}
	h.bought[token] = answer
}

// A broker is killed in the middle of a load of exchanges, again and again.
// Whatever a client holds is in the log, with a receipt that the final log
// agrees with, and no token ever buys two credentials: one that was answered is
// a replay, one that wasn't is a replay or buys exactly one.
func TestKilledInTheMiddleOfALoad(t *testing.T) {
	t.Parallel()
	const rounds, workers, eachRound = 4, 16, 48
	s := newSite(t, plan{})
	known := &holdings{bought: map[string]*proviso.TokenResponse{}}
	unanswered := 0
	for range rounds {
		p := s.spawn()
		s.settle(known)
		s.load(p, known, workers, eachRound)
		unanswered += len(known.lost)
	}
	if unanswered == 0 {
		t.Error("no request was under way at any of the kills: this test has looked at nothing")
	}
	p := s.spawn()
	replays := s.settle(known)
	t.Logf("%d credentials are held; of %d requests without an answer %d had been decided", len(known.bought), unanswered, replays)
	s.eachOf(workers, keys(known.bought), func(token string) {
		if again := s.ask(exchangeForm(token, "deploy")); again.refused.Code != proviso.CodeReplay {
			t.Errorf("a token that had bought a credential got this after the restarts: %s", again)
		}
	})
	p.signal(syscall.SIGTERM)
	if code := p.ended(30 * time.Second); code != exitDone {
		t.Errorf("the last broker ended with %d: %s", code, p.log.String())
	}
	s.audit(known)
}

// load asks with many workers at once, kills the broker once it has granted so
// many, and notes what every client then knows.
func (s *site) load(p *process, known *holdings, workers, grants int) {
	s.t.Helper()
	var granted atomic.Int64
	enough := make(chan struct{})
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			defer client.CloseIdleConnections()
			for {
				token, err := s.github.Token(lab.Job{}, s.url)
				if err != nil {
					s.t.Error(err)
					return
				}
				r, err := s.askWith(client, exchangeForm(token, "deploy"))
				if err != nil { // the broker is dead, and this client knows nothing
					known.mu.Lock()
					known.lost = append(known.lost, token)
					known.mu.Unlock()
					return
				}
				if r.granted == nil {
					s.t.Errorf("a good request was refused: %s", r)
					return
				}
				known.buy(s.t, token, r.granted)
				if granted.Add(1) == int64(grants) {
					close(enough)
				}
			}
		})
	}
	select {
	case <-enough:
		p.signal(syscall.SIGKILL)
	case <-p.exited:
		s.t.Errorf("the broker ended by itself: %s", p.log.String())
	}
	if code := p.ended(30 * time.Second); code != -1 {
		s.t.Errorf("the broker was to be killed and ended with %d", code)
	}
	wg.Wait()
}

// settle asks again with every token that got no answer, twice: together they
// buy at most one credential, and none if the lost request had bought it. It
// gives the number of those.
func (s *site) settle(known *holdings) (replays int64) {
	s.t.Helper()
	var n atomic.Int64
	s.eachOf(16, known.lost, func(token string) {
		switch r := s.ask(exchangeForm(token, "deploy")); {
		case r.granted != nil:
			known.buy(s.t, token, r.granted)
		case r.refused.Code == proviso.CodeReplay:
			n.Add(1)
		default:
			s.t.Errorf("a token whose request got no answer is neither used nor good: %s", r)
		}
		if r := s.ask(exchangeForm(token, "deploy")); r.refused.Code != proviso.CodeReplay {
			s.t.Errorf("the second time after a restart: %s", r)
		}
	})
	known.lost = nil
	return n.Load()
}

// eachOf does something with each item, so many at a time.
func (s *site) eachOf(workers int, items []string, do func(string)) {
	next := make(chan string)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for item := range next {
				do(item)
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	wg.Wait()
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// audit holds what the clients know against the log that is left.
func (s *site) audit(known *holdings) {
	s.t.Helper()
	db := made(store.OpenReadOnly(filepath.Join(s.dir, "data")))(s.t)
	defer db.Close()
	decisions, sold := map[string]string{}, map[string]int{} // credential by decision; allowed by token
	for e, err := range audit.Search(s.t.Context(), db, audit.Query{Result: "allowed"}) {
		noError(s.t, err)
		decisions[e.Decision] = e.Credential
		token, _ := e.Document.Get("token_hash").Text()
		if sold[token]++; token == "" || sold[token] > 1 {
			s.t.Errorf("the log has allowed %d credentials for the token %q", sold[token], token)
		}
	}
	key := strings.TrimSpace(string(made(os.ReadFile(filepath.Join(s.dir, "data", audit.VKeyFile)))(s.t)))
	var receipts audit.Known
	for _, answer := range known.bought {
		if id := answer.Proviso.Credential.ID; id == "" || decisions[answer.Proviso.Decision] != id {
			s.t.Errorf("a client holds the credential %s, and the log has %q for its decision", id, decisions[answer.Proviso.Decision])
		}
		receipts.Receipts = append(receipts.Receipts, made(audit.ParseReceipt(answer.Proviso.Receipt))(s.t))
	}
	report := made(audit.VerifyLog(s.t.Context(), audit.StoreSource(db), key, receipts))(s.t)
	if report.Allowed < int64(len(known.bought)) || report.Known != len(known.bought) || len(known.bought) == 0 {
		s.t.Errorf("%d credentials are held, the log has %d and agrees with %d receipts", len(known.bought), report.Allowed, report.Known)
	}
}

// A thousand copies of one token, sent while the broker is killed and started
// again: exactly one is decided, at most one is held (the answer may have died
// with the broker), and every other copy is a replay.
func TestCopiesAcrossRestarts(t *testing.T) {
	t.Parallel()
	const copies, workers, kills = 1000, 32, 3
	s := newSite(t, plan{})
	form := exchangeForm(s.token(lab.Job{}), "deploy")
	var won, replays, unanswered, answers atomic.Int64
	p := s.spawn()
	var killing sync.WaitGroup
	next := make(chan struct{}, kills)
	killing.Go(func() {
		for range next {
			p.signal(syscall.SIGKILL)
			p.ended(30 * time.Second)
			p = s.spawn()
		}
	})
	s.eachOf(workers, make([]string, copies), func(string) {
		for { // a copy is sent until it gets an answer
			r, err := s.askWith(s.client, form)
			switch {
			case err != nil:
				unanswered.Add(1)
				wait := time.NewTimer(20 * time.Millisecond)
				<-wait.C
				continue
			case r.granted != nil:
				won.Add(1)
			case r.refused.Code == proviso.CodeReplay:
				replays.Add(1)
			default:
				t.Errorf("a copy got %s", r)
			}
			if n := answers.Add(1); n%(copies/(kills+1)) == 0 && n < copies {
				next <- struct{}{}
			}
			return
		}
	})
	close(next)
	killing.Wait()
	if r := s.ask(form); r.refused.Code != proviso.CodeReplay {
		t.Errorf("one more copy got %s", r)
	}
	p.signal(syscall.SIGTERM)
	p.ended(30 * time.Second)
	db := made(store.OpenReadOnly(filepath.Join(s.dir, "data")))(t)
	defer db.Close()
	allowed := 0
	for _, err := range audit.Search(t.Context(), db, audit.Query{Result: "allowed"}) {
		noError(t, err)
		allowed++
	}
	if allowed != 1 || won.Load() > 1 || won.Load()+replays.Load() != copies {
		t.Errorf("%d were decided, %d are held, %d were replays, of %d copies", allowed, won.Load(), replays.Load(), copies)
	}
	if unanswered.Load() == 0 {
		t.Error("no copy was under way at any of the kills: this test has looked at nothing")
	}
}
