package main

import (
	"time"

	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/server"
)

// measure registers what the parts know of themselves. The server counts the
// requests; these are the states that an operator is woken by.
func measure(m *server.Metrics, b *broker.Broker, log *audit.Log, policies *policy.Engine, identities *identity.Verifier) {
	m.Counter("proviso_unrecorded_refusals_total", "Refusals of callers that proved nothing, or asked too often, beyond what is recorded.",
		func() float64 { return float64(b.Unrecorded()) })
	m.Gauge("proviso_log_entries", "Entries in the record.", func() float64 { return float64(log.Status().Size) })
	m.Gauge("proviso_log_waiting", "Requests that wait for the disk.", func() float64 { return float64(log.Status().Waiting) })
	m.Gauge("proviso_log_failed", "1 when the record takes nothing more: restart the broker.", func() float64 { return truth(log.Status().Err != nil) })
	m.Gauge("proviso_replay_keys", "Replay keys that are kept.", func() float64 { return float64(log.Status().Keys) })
	m.Gauge("proviso_policy_revision", "The active revision of the policies.", func() float64 { return float64(policies.Status().Revision) })
	m.Gauge("proviso_policy_rejected", "1 while the policy directory holds something that can't be activated.",
		func() float64 { return truth(policies.Status().Rejected != nil) })
	m.Gauge("proviso_trust_domains_refused", "Trust domains whose SVIDs are refused, because their keys could not be had or are too old.", func() float64 {
		refused := 0
		for _, s := range b.Runners.Status() {
			if !s.Usable {
				refused++
			}
		}
		return float64(refused)
	})
	for _, s := range identities.Status() {
		name := s.Name
		m.IssuerGauge("proviso_issuer_keys_age_seconds", "How long ago the issuer's keys were fetched.", name, func() float64 {
			for _, s := range identities.Status() {
				if s.Name == name && !s.Keys.Fetched.IsZero() {
					return time.Since(s.Keys.Fetched).Seconds()
				}
			}
			return -1
		})
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
