package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
	"github.com/proviso-ci/proviso/lab"
	"github.com/proviso-ci/proviso/pass"
)

// scene is one request of the demo: who asks, for what, and what must come of it.
type scene struct {
	title  string
	asked  string // in words, for the table
	issuer func(*world) *lab.Issuer
	job    lab.Job
	edits  []lab.Edit
	// audience of the job token; empty is the broker's.
	audience string
	// runner is the SPIFFE path of the runner, empty for none; rogue means that
	// another authority vouches for it under the same trust domain's name.
	runner string
	rogue  bool
	grant  string
	intent proviso.Intent
	// want is the code of the refusal, empty for a grant.
	want proviso.Code
	// then is what happens with the credential, or with the same token again.
	then func(context.Context, *world, *performance) error
}

// act groups scenes under a heading.
type act struct {
	title  string
	scenes []scene
}

// performance is what came of a scene.
type performance struct {
	scene   scene
	token   string // the job's, for what comes after
	answer  *proviso.TokenResponse
	refusal *proviso.TokenError
	prover  *pass.Prover
	then    string // what the resource said
	// afterwards is an attack with what was granted, and how it was refused.
	afterwards struct{ asked, why string }
	took       time.Duration
}

func github(w *world) *lab.Issuer { return w.github }
func gitlab(w *world) *lab.Issuer { return w.gitlab }

// acts are the seed's six policies, each allowed and refused, and the main
// attacks.
func acts(w *world) []act {
	main := lab.Job{Commit: w.signed}
	return []act{
		{"The six policies", []scene{
			{title: "deployment approval", asked: "deploy from main, signed, in office hours", issuer: github, job: main, grant: "deploy-production", then: deploys},
			{title: "", asked: "the same from branch release/1.2", issuer: github, job: lab.Job{Commit: w.release, Branch: "release/1.2"}, grant: "deploy-production", want: proviso.CodePolicyDenied},
			{title: "", asked: "the same with an unsigned commit", issuer: github, job: lab.Job{Commit: w.bare}, grant: "deploy-production", want: proviso.CodePolicyDenied},
			{title: "ticket for critical services", asked: "deploy with ticket CHG-42 (approved)", issuer: github, job: main, grant: "deploy-critical", intent: proviso.Intent{TicketID: "CHG-42"}},
			{title: "", asked: "the same with ticket CHG-43 (unknown)", issuer: github, job: main, grant: "deploy-critical", intent: proviso.Intent{TicketID: "CHG-43"}, want: proviso.CodePolicyDenied},
			{title: "tenant isolation", asked: "acme's job, acme's data", issuer: github, job: main, grant: "read-tenant-data"},
			{title: "", asked: "globex's job, acme's data", issuer: gitlab, job: main, grant: "read-tenant-data", want: proviso.CodePolicyDenied},
			{title: "runner trust", asked: "from trusted-runner-1 in us-west-2", issuer: github, job: main, runner: trustedRunner, grant: "deploy-from-fleet"},
			{title: "", asked: "from lab-runner-9 in eu-north-1", issuer: github, job: main, runner: strayRunner, grant: "deploy-from-fleet", want: proviso.CodePolicyDenied},
			{title: "temporary debug access", asked: "Dana, on call, 20 minutes, purpose debug", issuer: github, job: main, grant: "debug", intent: proviso.Intent{Purpose: "debug", RequestedTTL: 20}},
			{title: "", asked: "Sam, not on call, 45 minutes", issuer: github, job: lab.Job{Commit: w.signed, Actor: "sam-sleeper"}, grant: "debug", intent: proviso.Intent{Purpose: "debug", RequestedTTL: 45}, want: proviso.CodePolicyDenied},
			{title: "annotated hotfix", asked: "hotfix, annotation \"approved by ticket CHG-42\"", issuer: github, job: main, grant: "hotfix", intent: proviso.Intent{Action: "deploy_hotfix", Annotation: "approved by ticket CHG-42", TicketID: "CHG-42"}},
			{title: "", asked: "hotfix without an annotation", issuer: github, job: main, grant: "hotfix", intent: proviso.Intent{Action: "deploy_hotfix"}, want: proviso.CodePolicyDenied},
		}},
		{"The main attacks", []scene{
			{title: "replay", asked: "a job's token", issuer: github, job: main, grant: "read-tenant-data", then: replays},
			{title: "wrong audience", asked: "a job token that was meant for a cloud's STS", issuer: github, job: main, audience: "sts.amazonaws.com", grant: "read-tenant-data", want: proviso.CodeAudMismatch},
			{title: "fork's pull request", asked: "pull_request_target: looks like main", issuer: github, job: lab.Job{Event: "pull_request_target", Fork: true, HeadBranch: "evil"}, grant: "read-tenant-data", want: "event_not_allowed"},
			{title: "unknown runner", asked: "an SVID of somebody else's authority", issuer: github, job: main, runner: trustedRunner, rogue: true, grant: "deploy-from-fleet", want: proviso.CodeJWTUnknownKID},
			{title: "no runner", asked: "a stolen job token on a laptop", issuer: github, job: main, grant: "deploy-from-fleet", want: proviso.CodeRunnerRequired},
			{title: "stolen bound token", asked: "a job asks for a bound credential", issuer: github, job: main, grant: "deploy-production", then: steals},
			{title: "forged token", asked: "alg none", issuer: github, job: main, edits: []lab.Edit{lab.Unsigned()}, grant: "read-tenant-data", want: proviso.CodeJWTAlgNotAllowed},
			{title: "policy error", asked: "a grant whose policy fails", issuer: github, job: main, grant: "broken", want: proviso.CodePolicyError},
		}},
	}
}

// play performs a scene against the broker. Its error means that the world
// itself failed, or that what came is not what had to come.
func (w *world) play(ctx context.Context, s scene) (*performance, error) {
	p := &performance{scene: s}
	audience := s.audience
	if audience == "" {
		audience = w.url
	}
	var err error
	if p.token, err = s.issuer(w).Token(s.job, audience, s.edits...); err != nil {
		return nil, err
	}
	if s.then != nil {
		if p.prover, err = pass.NewProver(); err != nil {
			return nil, err
		}
	}
	begun := time.Now()
	p.answer, err = w.exchange(ctx, s, p.token, p.prover)
	p.took = time.Since(begun)
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused):
		p.refusal = &refused.Answer
		if p.refusal.Code != s.want {
			return p, fmt.Errorf("%s: refused with %s (%s), wanted %q", s.asked, p.refusal.Code, p.refusal.Description, s.want)
		}
	case err != nil:
		return p, err
	case s.want != "":
		return p, fmt.Errorf("%s: granted, and had to be refused with %s", s.asked, s.want)
	}
	if s.then != nil {
		return p, s.then(ctx, w, p)
	}
	return p, nil
}

func (w *world) exchange(ctx context.Context, s scene, token string, prover *pass.Prover) (*proviso.TokenResponse, error) {
	c, err := client.New(client.Config{BrokerURL: w.url, Prover: prover})
	if err != nil {
		return nil, err
	}
	req := client.Request{Grant: s.grant, SubjectToken: token, Intent: s.intent}
	if s.runner != "" {
		authority := w.runners
		if s.rogue {
			authority = w.rogue
		}
		if req.ActorToken, err = authority.JWTSVID(s.runner, w.url); err != nil {
			return nil, err
		}
	}
	return c.Exchange(ctx, req)
}

// deploys shows the credential to the resource, as its holder does.
func deploys(ctx context.Context, w *world, p *performance) error {
	status, err := w.visit(ctx, p.answer.AccessToken, p.prover)
	if err != nil {
		return err
	}
	p.then = fmt.Sprintf("the resource takes it: %d %s", status, http.StatusText(status))
	if status != http.StatusOK {
		return fmt.Errorf("the resource answered %d to the credential's holder", status)
	}
	return nil
}

// steals shows somebody else's bound credential: first plainly, then with a
// proof of another key.
func steals(ctx context.Context, w *world, p *performance) error {
	plain, err := w.visit(ctx, p.answer.AccessToken, nil)
	if err != nil {
		return err
	}
	thief, err := pass.NewProver()
	if err != nil {
		return err
	}
	proved, err := w.visit(ctx, p.answer.AccessToken, thief)
	if err != nil {
		return err
	}
	p.afterwards.asked = "a thief shows it to the resource"
	p.afterwards.why = fmt.Sprintf("by the resource: %d without a proof, %d with a proof of the thief's own key", plain, proved)
	if plain != http.StatusUnauthorized || proved != http.StatusUnauthorized {
		return fmt.Errorf("a thief got %d and %d, both had to be 401", plain, proved)
	}
	return nil
}

// replays asks again with a token that has bought its credential.
func replays(ctx context.Context, w *world, p *performance) error {
	_, err := w.exchange(ctx, p.scene, p.token, nil)
	var again *client.RefusedError
	if !errors.As(err, &again) || again.Answer.Code != proviso.CodeReplay {
		return fmt.Errorf("a replayed token got %w, it had to be refused with %s", err, proviso.CodeReplay)
	}
	p.afterwards.asked = "the same token, a second time"
	p.afterwards.why = string(again.Answer.Code) + ": " + again.Answer.Description
	return nil
}

// visit asks the resource to deploy.
func (w *world) visit(ctx context.Context, token string, prover *pass.Prover) (int, error) {
	url := w.resource.URL() + "/deploy"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return 0, err
	}
	scheme := "Bearer "
	if prover != nil {
		proof, err := prover.Proof(http.MethodPost, url, token, "")
		if err != nil {
			return 0, err
		}
		req.Header.Set("DPoP", proof)
		scheme = "DPoP "
	}
	req.Header.Set("Authorization", scheme+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
