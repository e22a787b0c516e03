package credential

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
)

// Kind jwt: Proviso's own token, signed by package pass.
var jwtKind = kind{
	name:  "jwt",
	takes: []string{"audience", "scope", "algorithm", "subject", "binding"},
	check: checkJWT,
	prepare: func(m *Minter, o *Offer) error {
		if m.opt.Keys == nil {
			return fmt.Errorf("kind: this broker has no keys to sign tokens with")
		}
		j := &jwtOffer{Offer: o, alg: jose.Alg(o.cfg.Algorithm)}
		if j.alg == "" {
			j.alg = jose.ES256
		}
		if o.cfg.Subject != "" {
			var err error
			if j.subject, err = parseTemplate(o.cfg.Subject, formSubject); err != nil {
				return fmt.Errorf("subject: %w", err)
			}
		}
		o.plan, o.mint = j.plan, j.mint
		return nil
	},
}

// The values of Config.Binding.
const (
	bindOffered = "offered"
	bindDPoP    = "dpop"
	bindMTLS    = "mtls"
	bindAny     = "any"
)

func checkJWT(c Config) []Problem {
	var out []Problem
	if c.Audience == "" || len(c.Audience) > 255 || !isPrintableASCII(c.Audience) || strings.Contains(c.Audience, " ") {
		out = append(out, problem("audience", "%s", "a token needs exactly one audience of at most 255 plain characters: write the resource's URL"))
	}
	for i, s := range c.Scope {
		if !pass.ValidScope(s) || slices.Contains(c.Scope[:i], s) {
			out = append(out, problem(fmt.Sprintf("scope[%d]", i), "%q is empty, there twice, or has a space, quote or backslash (RFC 6749 section 3.3)", s))
		}
	}
	if c.Algorithm != "" && !slices.Contains(pass.Algorithms, jose.Alg(c.Algorithm)) {
		out = append(out, problem("algorithm", "%q is not ES256 or EdDSA", c.Algorithm))
	}
	if c.Subject != "" {
		if _, err := parseTemplate(c.Subject, formSubject); err != nil {
			out = append(out, problem("subject", "%s", err.Error()))
		}
	}
	if !slices.Contains([]string{"", bindOffered, bindDPoP, bindMTLS, bindAny}, c.Binding) {
		out = append(out, problem("binding", "%q is not one of offered, dpop, mtls, any", c.Binding))
	}
	return out
}

type jwtOffer struct {
	*Offer
	alg     jose.Alg
	subject template
}

func (o *jwtOffer) plan(_ context.Context, r *PlanRequest, t *audit.Terms) error {
	if len(r.CSR) > 0 {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeCSRRejected, "this grant gives a token, which certifies no key; leave out the csr")
	}
	holder, err := o.bind(r.Holder)
	if err != nil {
		return err
	}
	if t.Subject, err = o.subjectOf(r); err != nil {
		return err
	}
	t.ID, t.Audience = newID(), o.cfg.Audience
	t.JKT, t.X5T = holder.JKT, holder.X5TS256
	t.Claims = document.ObjectOf(
		document.Member("act", actorOf(r.Runner)),
		document.Member("authorization_details", detailsOf(r.Intent)),
		document.Member("proviso", o.about(r)))
	return nil
}

// bind chooses the key that the holder must prove, out of those that it proved.
func (o *jwtOffer) bind(proved pass.Confirmation) (pass.Confirmation, error) {
	dpop, mtls := pass.Confirmation{JKT: proved.JKT}, pass.Confirmation{X5TS256: proved.X5TS256}
	switch o.cfg.Binding {
	case bindDPoP:
		if dpop.IsZero() {
			return dpop, constraint("this grant's token is bound to a DPoP key, and the request has no DPoP proof; send one in the DPoP header")
		}
		return dpop, nil
	case bindMTLS:
		if mtls.IsZero() {
			return mtls, constraint("this grant's token is bound to the TLS client certificate, and the request came without one")
		}
		return mtls, nil
	case bindAny:
		if dpop.IsZero() && mtls.IsZero() {
			return dpop, constraint("this grant's token is bound to a key of its holder; send a DPoP proof, or use a TLS client certificate")
		}
		if dpop.IsZero() {
			return mtls, nil
		}
	}
	return dpop, nil
}

func constraint(public string) *proviso.Refusal {
	return proviso.Refuse(proviso.StageCredential, proviso.CodeConstraintRequired, "%s", public)
}

func actorOf(runner string) document.Value {
	if runner == "" {
		return document.Value{}
	}
	return document.ObjectOf(document.Member("sub", document.StringOf(runner)))
}

// detailsOf writes the intent as RFC 9396 section 7 wants it in a token. An
// intent that declares nothing is left out.
func detailsOf(i proviso.Intent) document.Value {
	i.Type = ""
	if i == (proviso.Intent{}) {
		return document.Value{}
	}
	return document.ListOf(i.Document())
}

// carried are the members of the job's identity that a resource may want to
// log or check. All of them are the platform's ids and names; none is personal.
var carried = []string{"commit", "environment", "ref", "repository", "repository_id", "run_id", "tenant"}

func (o *jwtOffer) about(r *PlanRequest) document.Value {
	fields := make([]document.Field, 0, len(carried)+4)
	for _, name := range carried {
		fields = append(fields, document.Member(name, r.Job.Get(name)))
	}
	return document.ObjectOf(append(fields,
		document.Member("decision", document.StringOf(r.Decision)),
		document.Member("grant", document.StringOf(o.grant)),
		document.Member("issuer", document.StringOf(r.Issuer)),
		document.Member("policy", document.StringOf(r.Policy)))...)
}

func (o *jwtOffer) subjectOf(r *PlanRequest) (string, error) {
	v := values{issuer: r.Issuer, grant: o.grant, runner: r.Runner, job: r.Job}
	if len(o.subject.parts) > 0 {
		return o.subject.expand(v)
	}
	return defaultSubject(v)
}

// defaultSubject is the job's stable name, as the package comment has it.
func defaultSubject(v values) (string, error) {
	if v.get("kind") == "spiffe" { // a workload has a stable name already
		return v.get("subject"), nil
	}
	tenant := "-"
	if text := v.get("tenant"); text == "-" {
		tenant = "%2D"
	} else if text != "" {
		tenant = encodeSubject(text)
	}
	what := encodeSubject(v.get("repository_id"))
	if what == "" {
		if name := v.get("repository"); name != "" {
			what = "name:" + encodeSubject(name)
		}
	}
	if v.issuer == "" || what == "" {
		return "", proviso.Refuse(proviso.StageCredential, proviso.CodeTemplateValue,
			"the job's identity has neither a repository id nor a repository to name the credential by; the grant can name it by a subject template")
	}
	subject := "job:" + encodeSubject(v.issuer) + ":" + tenant + ":" + what
	if len(subject) > formSubject.limit() {
		return "", proviso.Refuse(proviso.StageCredential, proviso.CodeTemplateValue, "the job's stable name is longer than %d characters", formSubject.limit())
	}
	return subject, nil
}

func (o *jwtOffer) mint(_ context.Context, t *audit.Terms, _ Material) (Credential, error) {
	if t.Audience != o.cfg.Audience || len(t.Names) > 0 || t.KeyHash != "" || t.CSRHash != "" {
		return Credential{}, mismatch("the recorded terms are not those of this grant's token")
	}
	for _, s := range t.Scope {
		if !slices.Contains(o.cfg.Scope, s) {
			return Credential{}, mismatch("the recorded scope is beyond this grant's")
		}
	}
	signer, err := o.m.opt.Keys.Signer(o.alg)
	if err != nil {
		return Credential{}, err
	}
	actor, _ := t.Claims.At("act", "sub").Text()
	c := pass.Claims{
		Issuer: o.m.opt.Issuer, Subject: t.Subject, Audience: t.Audience, ID: t.ID, ClientID: t.Subject, Scope: t.Scope,
		IssuedAt: t.NotBefore, Expires: t.Expires, Actor: actor, Confirmation: pass.Confirmation{JKT: t.JKT, X5TS256: t.X5T},
		Details: t.Claims.Get("authorization_details"), Proviso: t.Claims.Get("proviso"),
	}
	token, err := signer.Sign(&c, o.maxTTL)
	if err != nil {
		return Credential{}, err
	}
	tokenType := pass.SchemeBearer
	if t.JKT != "" {
		tokenType = pass.SchemeDPoP
	}
	return Credential{
		Info:      proviso.CredentialInfo{Kind: t.Kind, ID: t.ID, Audience: t.Audience, Expires: t.Expires.Unix()},
		TokenType: tokenType, IssuedTokenType: proviso.TokenTypeAccessToken, IssuedAt: t.NotBefore, Scope: t.Scope,
		Details: c.Details, secret: token,
	}, nil
}
