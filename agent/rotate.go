package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/pass"
)

// renewAfter says when of the life that is left an SVID is renewed: between 30
// and 40 hundredths of it, so that many agents that began together don't come
// together, and a broker that is away for a while is noticed before half is over.
func renewAfter(left time.Duration) time.Duration {
	return left*3/10 + rand.N(left/10+1) // #nosec G404 -- so that agents come apart; no secret
}

// rotate does what is due until ctx ends.
func (a *Agent) rotate(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		wait, err := a.step(ctx)
		if err != nil && ctx.Err() == nil {
			failures++
			wait = a.backoff(failures)
			a.say(err, wait)
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-a.wake:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// backoff grows from a quarter of a second to half a minute, but never beyond an
// eighth of what is left of the runner's SVID.
func (a *Agent) backoff(failures int) time.Duration {
	wait := 250 * time.Millisecond << min(failures-1, 7)
	a.mu.Lock()
	if a.own != nil {
		if left := a.own.cert.NotAfter.Sub(a.now()); left > 0 {
			wait = min(wait, max(left/8, 250*time.Millisecond))
		}
	}
	a.mu.Unlock()
	return wait + rand.N(wait/4+1) // #nosec G404 -- as above
}

// say tells the operator what did not work, and what that means for the jobs.
func (a *Agent) say(err error, wait time.Duration) {
	a.mu.Lock()
	own := a.own
	a.mu.Unlock()
	if own == nil {
		a.log.Error("the runner has no SVID, and its jobs get none", "error", err, "next_try", wait.Round(time.Millisecond).String())
		return
	}
	a.log.Error("not renewed; what is there serves until it ends", "error", err, "next_try", wait.Round(time.Millisecond).String(), "ends", own.cert.NotAfter)
}

// step does what is due now and says how long there is nothing to do.
func (a *Agent) step(ctx context.Context) (time.Duration, error) {
	a.mu.Lock()
	own, trust := a.own, a.trust
	a.mu.Unlock()
	now := a.now()
	switch {
	case own == nil || !now.Before(own.cert.NotAfter):
		fresh, err := a.join(ctx)
		if err != nil {
			a.give(nil, err)
			return 0, err
		}
		own = fresh
	case !now.Before(own.renewAt):
		fresh, err := a.broker.fetch(ctx, "/runner/renew", map[string]string{}, own.tls(), a.now)
		if err != nil {
			return 0, a.noteRefusal(err)
		}
		if fresh.id != own.id {
			return 0, fmt.Errorf("the broker renewed %s as %s", own.id, fresh.id)
		}
		if err := a.adopt(fresh); err != nil {
			return 0, err
		}
		own = fresh
	}
	if trust == nil || !now.Before(trust.again) || trust.domain != own.id.TrustDomain() {
		if err := a.refreshBundle(ctx, own); err != nil {
			return 0, err
		}
	}
	for _, w := range a.cfg.Workloads {
		if err := a.renewWorkload(ctx, own, w.Name); err != nil {
			return 0, a.noteRefusal(err)
		}
	}
	return a.nextStep(), nil
}

// join gets the first SVID, by the join token or by evidence.
func (a *Agent) join(ctx context.Context) (*svid, error) {
	body, used, err := a.joinBody()
	if err != nil {
		return nil, err
	}
	key, err := a.joinKey(body["kind"])
	if err != nil {
		return nil, err
	}
	fresh, err := a.broker.fetchFor(ctx, key, "/runner/join", body, nil, a.now)
	if err != nil {
		if no := new(refusal); errors.As(err, &no) && used != [32]byte{} {
			a.usedToken = used // it would be refused again
		}
		return nil, err
	}
	a.usedToken = used
	a.log.Info("joined", "spiffe_id", fresh.id.String(), "until", fresh.cert.NotAfter)
	a.mu.Lock()
	a.trust, a.workloads, a.tokens = nil, map[string]*svid{}, map[string]jwt{}
	a.mu.Unlock()
	return fresh, a.adopt(fresh)
}

func (a *Agent) joinBody() (body map[string]string, used [32]byte, err error) {
	if a.cfg.Evidence.Kind != "" && a.cfg.Evidence.File == "" {
		return map[string]string{"kind": a.cfg.Evidence.Kind}, used, nil // made for the key of the SVID
	}
	if a.cfg.Evidence.Kind != "" {
		data, err := os.ReadFile(a.cfg.Evidence.File)
		if err != nil {
			return nil, used, fmt.Errorf("evidence.file: %w", err)
		}
		return map[string]string{"kind": a.cfg.Evidence.Kind, "evidence": string(bytes.TrimSpace(data))}, used, nil
	}
	if a.cfg.JoinTokenFile == "" {
		return nil, used, errNoEvidence
	}
	data, err := pass.ReadSecret(a.cfg.JoinTokenFile)
	if err != nil {
		return nil, used, fmt.Errorf("join_token_file: %w", err)
	}
	token := bytes.TrimSpace(data)
	if used = sha256.Sum256(token); used == a.usedToken {
		return nil, used, fmt.Errorf("the join token in %s has been used or refused; let the operator make a new one (proviso runner token create), and write it there", a.cfg.JoinTokenFile)
	}
	return map[string]string{"token": string(token)}, used, nil
}

// adopt takes over the runner's own SVID, on the disk first.
func (a *Agent) adopt(fresh *svid) error {
	if err := a.saveState(fresh); err != nil {
		return err
	}
	a.give(fresh, nil)
	return nil
}

// give says what the agent has, or why it has nothing.
func (a *Agent) give(own *svid, refused error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own, a.refused = own, refused
	if own == nil {
		a.workloads, a.tokens = map[string]*svid{}, map[string]jwt{}
	}
	a.notify()
}

// final are the refusals after which what the agent holds is worth nothing.
var final = map[proviso.Code]bool{"runner_banned": true, "runner_must_join": true, "runner_superseded": true}

// noteRefusal gives up what the broker says is worth nothing, and its file: the
// way back is a new join.
func (a *Agent) noteRefusal(err error) error {
	no := new(refusal)
	if errors.As(err, &no) && final[no.code] {
		a.give(nil, err)
		select {
		case a.wake <- struct{}{}:
		default:
		}
		return errors.Join(err, a.dropState())
	}
	return err
}

func (a *Agent) refreshBundle(ctx context.Context, own *svid) error {
	fresh, err := a.broker.fetchBundle(ctx, own.id.TrustDomain(), a.now())
	if err != nil {
		return err
	}
	if _, _, err := x509svid.Verify([]*x509.Certificate{own.cert}, fresh.parsed.X509Bundle(), x509svid.WithTime(a.now())); err != nil {
		return fmt.Errorf("the trust domain's bundle doesn't vouch for the runner's own SVID: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := fresh.follows(a.trust); err != nil {
		return err
	}
	changed := a.trust == nil || !fresh.parsed.Equal(a.trust.parsed)
	a.trust = fresh
	if changed {
		a.notify()
	}
	return nil
}

func (a *Agent) renewWorkload(ctx context.Context, own *svid, name string) error {
	a.mu.Lock()
	have := a.workloads[name]
	a.mu.Unlock()
	if have != nil && a.now().Before(have.renewAt) {
		return nil
	}
	fresh, err := a.broker.fetch(ctx, "/runner/renew", map[string]string{"workload": name}, own.tls(), a.now)
	if err != nil {
		return fmt.Errorf("workload %s: %w", name, err)
	}
	if fresh.id.String() != own.id.String()+"/workload/"+name {
		return fmt.Errorf("the broker gave the workload %s the name %s", name, fresh.id)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.workloads[name] = fresh
	a.notify()
	a.log.Info("rotated", "spiffe_id", fresh.id.String(), "until", fresh.cert.NotAfter)
	return nil
}

// nextStep is the time until the earliest thing is due.
func (a *Agent) nextStep() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.own == nil || a.trust == nil {
		return 0 // a caller has heard meanwhile that it is worth nothing
	}
	next := a.trust.again
	for _, s := range a.workloads {
		if s.renewAt.Before(next) {
			next = s.renewAt
		}
	}
	if a.own.renewAt.Before(next) {
		next = a.own.renewAt
	}
	return max(next.Sub(a.now()), 10*time.Millisecond)
}
