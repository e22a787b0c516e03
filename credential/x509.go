package credential

import (
	"context"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
)

// Kind x509: a client certificate, for a key that the caller made and proves
// by signing its request with it. The broker never sees the private key.
var x509Kind = kind{
	name:  "x509",
	takes: []string{"uri", "dns", "common_name"},
	check: checkX509,
	prepare: func(m *Minter, o *Offer) error {
		if m.opt.Authority == nil {
			return errors.New("kind: this broker has no certificate authority; give it one in the section ca")
		}
		x := &x509Offer{Offer: o}
		form, text, prefix := formURI, o.cfg.URI, "uri:"
		if o.cfg.DNS != "" {
			form, text, prefix = formDNS, o.cfg.DNS, "dns:"
		}
		var err error
		if x.name, err = parseTemplate(text, form); err != nil {
			return fmt.Errorf("%s %w", prefix, err)
		}
		x.prefix = prefix
		if o.cfg.CommonName != "" {
			if x.commonName, err = parseTemplate(o.cfg.CommonName, formPlain); err != nil {
				return fmt.Errorf("common_name: %w", err)
			}
		}
		o.plan, o.mint = x.plan, x.mint
		return nil
	},
}

type pkixExtension = pkix.Extension

func checkX509(c Config) []Problem {
	var out []Problem
	switch {
	case (c.URI == "") == (c.DNS == ""):
		out = append(out, problem("uri", "a certificate has exactly one name: set uri or dns, as spiffe://acme.example/job/{issuer}/{repository_id}"))
	case c.URI != "":
		if _, err := parseTemplate(c.URI, formURI); err != nil {
			out = append(out, problem("uri", "%v", err))
		}
	default:
		if _, err := parseTemplate(c.DNS, formDNS); err != nil {
			out = append(out, problem("dns", "%v", err))
		}
	}
	if c.CommonName != "" {
		if _, err := parseTemplate(c.CommonName, formPlain); err != nil {
			out = append(out, problem("common_name", "%v", err))
		}
	}
	return out
}

type x509Offer struct {
	*Offer
	name, commonName template
	prefix           string // of the name in the terms
}

func (o *x509Offer) plan(_ context.Context, r *PlanRequest, t *audit.Terms) error {
	if len(r.CSR) == 0 {
		return proviso.Refuse(proviso.StageCredential, CodeCSRMissing,
			"this grant gives a client certificate, which certifies a key of yours; send a certificate signing request (PEM) as csr")
	}
	req, err := readCSR(r.CSR)
	if err != nil {
		return err
	}
	v := values{issuer: r.Issuer, grant: o.grant, runner: r.Runner, job: r.Job}
	name, err := o.name.expand(v)
	if err != nil {
		return err
	}
	t.Subject, t.Names = name, []string{o.prefix + name}
	if len(o.commonName.parts) > 0 {
		cn, err := o.commonName.expand(v)
		if err != nil {
			return err
		}
		t.Names = append(t.Names, "cn:"+cn)
	}
	for _, asked := range req.names {
		if !slices.Contains(t.Names, asked) {
			return badNames("it asks for the name %q, and this grant gives %s; leave names out of the request", shorten(asked), list(t.Names))
		}
	}
	if a := o.m.opt.Authority; t.Expires.After(a.Expires()) {
		return proviso.Refuse(proviso.StageCredential, proviso.CodeTokenLifetime, "the broker's certificate authority ends at %s, before this certificate would; tell the broker's operator",
			a.Expires().UTC().Format("2006-01-02 15:04 MST"))
	}
	t.ID, t.KeyHash, t.CSRHash = newID(), req.keyHash, req.hash
	t.NotBefore = t.NotBefore.Add(-backdate)
	return nil
}

func (o *x509Offer) mint(_ context.Context, t *audit.Terms, material Material) (Credential, error) {
	req, err := readCSR(material.CSR)
	if err != nil {
		return Credential{}, err
	}
	if req.hash != t.CSRHash || req.keyHash != t.KeyHash {
		return Credential{}, mismatch("the certificate signing request is not the recorded one")
	}
	a := o.m.opt.Authority
	der, err := a.issue(t, req.public)
	if err != nil {
		return Credential{}, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return Credential{
		Info:      proviso.CredentialInfo{Kind: t.Kind, ID: t.ID, Expires: t.Expires.Unix()},
		TokenType: "N_A", IssuedTokenType: proviso.TokenTypeX509, IssuedAt: t.NotBefore.Add(backdate),
		secret: string(append(chain, a.pem...)),
	}, nil
}
