package main

import (
	"context"
	"errors"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
)

// keepAlive renews a credential in its file until ctx ends, which is when CMD
// has ended. It asks when two thirds of the life are over; each renewal is a
// decision of its own, so what has changed since (a window that closed, a
// ticket that was taken back) ends the access. A "no" is asked about again
// until the credential ends, a fault for as long as CMD runs.
func (k *asker) keepAlive(ctx context.Context, d *delivery, resp *proviso.TokenResponse, granted time.Time) {
	if !d.renewable() || !k.renewable() {
		return
	}
	complained := false
	for next := dueAt(granted, resp); pauseUntil(ctx, next); {
		asked := time.Now()
		ends := granted.Add(life(resp))
		renewed, err := k.ask(ctx)
		if err == nil {
			mask(k.stderr, renewed)
			err = d.replace(renewed.AccessToken)
		}
		if err == nil {
			resp, granted, complained = renewed, asked, false
			next = dueAt(granted, resp)
			k.note("%s renewed until %s; decision %s", k.grant, granted.Add(life(resp)).UTC().Format("15:04:05Z"), resp.Proviso.Decision)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if !complained {
			complained = true
			k.complain(k.stderr, err)
			say(k.stderr, "%s was not renewed; what CMD has ends at %s", k.grant, ends.UTC().Format("15:04:05Z"))
		}
		next = asked.Add(min(max(life(resp)/12, time.Second), 5*time.Minute))
		if final(err) && next.After(ends) || errors.Is(err, errSameToken) {
			return
		}
	}
}

func life(r *proviso.TokenResponse) time.Duration { return time.Duration(r.ExpiresIn) * time.Second }

func dueAt(granted time.Time, r *proviso.TokenResponse) time.Time {
	return granted.Add(life(r) * 2 / 3)
}

// final reports whether an error is a considered "no" rather than a fault that
// passes.
func final(err error) bool {
	refusal, none := new(client.RefusedError), new(client.NoTokenError)
	return errors.As(err, &refusal) && refusal.Status < 500 && refusal.Status != 429 || errors.As(err, &none)
}

func pauseUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
