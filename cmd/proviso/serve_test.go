package main

import (
	"errors"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/lab"
)

// cli runs the real program to its end, and gives its exit code and what it said.
func cli(t *testing.T, args ...string) (int, string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "proviso", args...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode(), string(out)
	}
	noError(t, err)
	return 0, string(out)
}

// SIGTERM: what has begun is finished, nothing new is taken, the exit code is 0.
// Afterwards the store is free for the next one, and meanwhile for nobody else.
func TestDrain(t *testing.T) {
	t.Parallel()
	k := newTickets(t)
	s := newSite(t, plan{server: "drain: 30s", sections: k.facts(), grants: deployOnly + ticketGrant,
		policies: map[string]string{"open.rego": openPolicy, "ticket.rego": ticketPolicy}})
	p := s.spawn()
	if status, text := s.get("/readyz"); status != 200 {
		t.Errorf("a broker that serves is not ready: %d %s", status, text)
	}
	if code, said := cli(t, "serve", "--config", s.file); code != exitRefused || !strings.Contains(said, "the store is in use by another process") {
		t.Errorf("a second broker on one store ended with %d: %s", code, said)
	}
	answers := make(chan reply, 3)
	for n := range cap(answers) {
		intent := strings.Replace(ticketIntent, "42", strconv.Itoa(42+n), 1) // one question for one ticket
		go func() {
			answers <- s.ask(exchangeForm(s.token(lab.Job{}), "change", "authorization_details", intent))
		}()
		k.wait(t)
	}
	p.signal(syscall.SIGTERM)
	eventually(t, "the broker says that it drains", func() bool {
		status, text := s.get("/readyz")
		return status == 503 && text == "draining\n"
	})
	eventually(t, "new connections are refused", func() bool {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	close(k.free)
	for range cap(answers) {
		if r := <-answers; r.granted == nil {
			t.Errorf("a request that had begun before the signal got %s", r)
		}
	}
	if code := p.ended(20 * time.Second); code != exitDone {
		t.Errorf("a drained broker ended with %d: %s", code, p.log.String())
	}
	s.spawn()
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
		t.Errorf("after a second start: %s", r)
	}
}

// A request that doesn't end in the time for draining is cut off: the broker
// ends all the same and says so, nothing was granted, and the token is not used.
func TestDrainEndsInTime(t *testing.T) {
	t.Parallel()
	k := newTickets(t)
	s := newSite(t, plan{server: "drain: 500ms", sections: k.facts(), grants: ticketGrant, policies: map[string]string{"ticket.rego": ticketPolicy}})
	p := s.spawn()
	form := exchangeForm(s.token(lab.Job{}), "change", "authorization_details", ticketIntent)
	lost := make(chan error, 1)
	go func() {
		_, err := s.askWith(s.client, form)
		lost <- err
	}()
	k.wait(t)
	p.signal(syscall.SIGINT)
	if code := p.ended(10 * time.Second); code != exitRefused || !strings.Contains(p.log.String(), "requests were still running after 500ms and were cut off") {
		t.Errorf("the broker ended with %d: %s", code, p.log.String())
	}
	if err := <-lost; err == nil {
		t.Error("a request that was cut off got an answer")
	}
	close(k.free)
	s.spawn()
	if r := s.ask(form); r.granted == nil {
		t.Errorf("the token of a request that was cut off is used up: %s", r)
	}
}

// Policies are replaced while the broker runs: valid ones within seconds;
// others are refused loudly and the older ones go on deciding.
func TestPoliciesAreReplacedWhileRunning(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{})
	b, log := s.serve()
	asks := func() reply { return s.ask(exchangeForm(s.token(lab.Job{}), "deploy")) }
	if r := asks(); r.granted == nil {
		t.Fatalf("at the start: %s", r)
	}
	s.write("policy/open.rego", "package open\n\nallow if input.context.branch == \"release\"\n")
	eventually(t, "the new policy decides", func() bool { return s.metric("proviso_policy_revision") == "2" })
	if r := asks(); r.refused.Code != proviso.CodePolicyDenied || r.refused.Reasons[0].Message != "branch is main, policy wants release" {
		t.Errorf("under the new policy: %s", r)
	}
	s.write("policy/open.rego", "package open\n\nallow if input.identity.rolle == \"ci\"\n")
	eventually(t, "a policy that doesn't compile is refused", func() bool { return s.metric("proviso_policy_rejected") == "1" })
	keeps := func(name, says string) {
		t.Helper()
		if r := asks(); r.refused.Code != proviso.CodePolicyDenied || s.metric("proviso_policy_revision") != "2" {
			t.Errorf("under %s: %s", name, r)
		}
		if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "the older policies still decide") || !strings.Contains(text, says) {
			t.Errorf("the log says nothing of %s:\n%s", name, text)
		}
		if code, said := cli(t, "doctor", "--config", s.file); code != exitRefused || !strings.Contains(said, "WRONG  policies") || !strings.Contains(said, says) {
			t.Errorf("doctor says nothing of %s (%d):\n%s", name, code, said)
		}
	}
	keeps("a policy that doesn't compile", "rolle")
	// Watch has done its part; the others are looked at when we say so.
	for _, bad := range []struct{ name, text, says string }{
		{"policies without a grant's package", "package other\n\nallow if input.identity.role == \"ci\"\n", "open"},
		{"a policy that allows everything", "package open\n\nallow := true\n", "allow"},
	} {
		s.write("policy/open.rego", bad.text)
		if err := b.parts.Policies.Reload(t.Context()); err == nil || s.metric("proviso_policy_rejected") != "1" {
			t.Errorf("%s became active", bad.name)
		}
		keeps(bad.name, bad.says)
	}
	s.write("policy/open.rego", openPolicy)
	noError(t, b.parts.Policies.Reload(t.Context()))
	if r := asks(); r.granted == nil || s.metric("proviso_policy_rejected") != "0" {
		t.Errorf("after the repair: %s", r)
	}
}

// One decision is of one revision, also when another becomes active while facts
// are gathered for it.
func TestOneRevisionWithinOneDecision(t *testing.T) {
	t.Parallel()
	k := newTickets(t)
	s := newSite(t, plan{sections: k.facts(), grants: ticketGrant, policies: map[string]string{"ticket.rego": ticketPolicy}})
	b, _ := s.serve()
	form := func() (f []string) { return []string{"authorization_details", ticketIntent} }
	answer := make(chan reply, 1)
	go func() { answer <- s.ask(exchangeForm(s.token(lab.Job{}), "change", form()...)) }()
	k.wait(t)
	s.write("policy/ticket.rego", "package ticket\n\nallow if {\n\tinput.context.ticket_approved == true\n\tinput.context.branch == \"release\"\n}\n")
	noError(t, b.parts.Policies.Reload(t.Context()))
	close(k.free)
	r := <-answer
	if r.granted == nil {
		t.Fatalf("a request that began under the first policy: %s", r)
	}
	entries := made(audit.Find(t.Context(), b.db, r.granted.Proviso.Decision))(t)
	if revision, _ := entries[0].Document.At("policy", "revision").Text(); revision != "1" {
		t.Errorf("the record says that revision %q decided", revision)
	}
	if r := s.ask(exchangeForm(s.token(lab.Job{}), "change", form()...)); r.refused.Code != proviso.CodePolicyDenied {
		t.Errorf("a request that began under the second policy: %s", r)
	}
}

// A broker that can't keep what its configuration promises doesn't start.
func TestStartRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		plan plan
		code int
		says string
	}{
		{"a grant whose policy isn't there", plan{grants: strings.Replace(deployOnly, "policy: open", "policy: opne", 1)}, exitMisuse,
			`proviso.yaml:20:20: grants.deploy.policy is "opne", and no package of that name has a rule allow`},
		{"policies that don't compile", plan{policies: map[string]string{"open.rego": "package open\n\nallow if {"}}, exitRefused, "open.rego:3"},
		{"no policies", plan{policies: map[string]string{"README.md": "none yet"}}, exitMisuse, "grants.deploy.policy"},
		{"a certificate that isn't there", plan{server: "tls: {cert: nowhere.crt, key: nowhere.key}"}, exitMisuse, "proviso.yaml:5:3: server.tls can't be used"},
	} {
		s := newSite(t, c.plan)
		if code, said := cli(t, "serve", "--config", s.file); code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: ended with %d, want %d and %q:\n%s", c.name, code, c.code, c.says, said)
		}
	}
}
