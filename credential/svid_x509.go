package credential

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/audit"
)

// Kind x509-svid: an X.509-SVID of the broker's own trust domain, for a key that
// the caller made and proves by signing its request with it.
var x509SVIDKind = kind{
	name:  "x509-svid",
	takes: []string{"uri"},
	check: checkSVID,
	prepare: func(m *Minter, o *Offer) error {
		x, err := m.svidOffer(o)
		if err != nil {
			return err
		}
		o.plan, o.mint = x.planX509, x.mintX509
		return nil
	},
}

// checkSVID holds the template of a SPIFFE ID to what is known without the
// trust domain's name.
func checkSVID(c Config) []Problem {
	if c.URI == "" {
		return []Problem{problem("uri", "is missing: it is the template of the SPIFFE ID, as spiffe://ci.acme.example/job/{issuer}/{repository_id}")}
	}
	if _, err := parseTemplate(c.URI, formSPIFFE); err != nil {
		return []Problem{problem("uri", "%v", err)}
	}
	return nil
}

// svidOffer is what both kinds of SVID have in common: whose name, by which authority.
type svidOffer struct {
	*Offer
	domain *Domain
	id     template // empty: the verified runner's own SPIFFE ID
}

func (m *Minter) svidOffer(o *Offer) (*svidOffer, error) {
	x := &svidOffer{Offer: o, domain: m.opt.Domain}
	if x.domain == nil {
		return nil, errors.New("kind: this broker has no trust domain of its own; give it one in the section trust_domain")
	}
	var err error
	if x.id, err = parseTemplate(o.cfg.URI, formSPIFFE); err != nil {
		return nil, fmt.Errorf("uri: %w", err)
	}
	if err := checkSPIFFEID(x.id.write(func(string) string { return "x" }), x.domain.Name()); err != nil {
		return nil, fmt.Errorf("uri: %w", err)
	}
	return x, nil
}

// RunnerOffer is what the runners of the own trust domain get: an SVID of the
// given kind under the SPIFFE ID that the broker verified as theirs
// (PlanRequest.Runner), never another.
func (m *Minter) RunnerOffer(kindName string, maxTTL time.Duration) (*Offer, error) {
	if m.opt.Domain == nil {
		return nil, errors.New("the broker has no trust domain of its own")
	}
	o := &Offer{grant: "(runner)", cfg: Config{Kind: kindName}, maxTTL: maxTTL, m: m}
	x := &svidOffer{Offer: o, domain: m.opt.Domain}
	switch kindName {
	case "x509-svid":
		o.plan, o.mint = x.planX509, x.mintX509
	case "jwt-svid":
		o.plan, o.mint = x.planJWT, x.mintJWT
	default:
		return nil, fmt.Errorf("%q is no kind of SVID", kindName)
	}
	return o, nil
}

// name gives the SPIFFE ID, of verified values only.
func (o *svidOffer) name(r *PlanRequest) (string, error) {
	id := r.Runner
	if len(o.id.parts) > 0 {
		var err error
		if id, err = o.id.expand(values{issuer: r.Issuer, grant: o.grant, runner: r.Runner, job: r.Job}); err != nil {
			return "", err
		}
	}
	if err := checkSPIFFEID(id, o.domain.Name()); err != nil {
		return "", proviso.Refuse(proviso.StageCredential, proviso.CodeTemplateValue, "the SPIFFE ID can't be issued: %v", err)
	}
	return id, nil
}

func (o *svidOffer) planX509(_ context.Context, r *PlanRequest, t *audit.Terms) error {
	if len(r.CSR) == 0 {
		return proviso.Refuse(proviso.StageCredential, CodeCSRMissing,
			"this grant gives an X.509-SVID, which certifies a key of yours; send a certificate signing request (PEM) as csr")
	}
	req, err := readCSR(r.CSR)
	if err != nil {
		return err
	}
	id, err := o.name(r)
	if err != nil {
		return err
	}
	t.Subject, t.Names = id, []string{"uri:" + id}
	for _, asked := range req.names {
		if !slices.Contains(t.Names, asked) {
			return badNames("it asks for the name %q, and it gets %s; leave names out of the request", shorten(asked), id)
		}
	}
	t.ID, t.KeyHash, t.CSRHash = newID(), req.keyHash, req.hash
	t.NotBefore = t.NotBefore.Add(-backdate)
	return nil
}

func (o *svidOffer) mintX509(_ context.Context, t *audit.Terms, material Material) (Credential, error) {
	req, err := readCSR(material.CSR)
	if err != nil {
		return Credential{}, err
	}
	if req.hash != t.CSRHash || req.keyHash != t.KeyHash {
		return Credential{}, mismatch("the certificate signing request is not the recorded one")
	}
	der, err := o.domain.SignX509(t, req.public)
	if err != nil {
		return Credential{}, err
	}
	return Credential{
		Info:      proviso.CredentialInfo{Kind: t.Kind, ID: t.ID, Expires: t.Expires.Unix()},
		TokenType: "N_A", IssuedTokenType: proviso.TokenTypeX509, IssuedAt: t.NotBefore.Add(backdate),
		// The leaf alone: roots are trusted by the bundle, never by the chain.
		secret: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}, nil
}

// SignX509 signs the X.509-SVID of the terms. The very bytes that are about to
// be signed are linted first, inside of the signature: no key of the authority
// ever signs anything else (docs/decisions/0012).
func (d *Domain) SignX509(t *audit.Terms, public crypto.PublicKey) ([]byte, error) {
	k, err := d.signing(d.set.Load().x509)
	if err != nil {
		return nil, err
	}
	template, err := certificateOf(t, public)
	if err != nil {
		return nil, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	return d.signTemplate(k, template, t, public)
}

func (d *Domain) signTemplate(k *domainKey, template *x509.Certificate, t *audit.Terms, public crypto.PublicKey) ([]byte, error) {
	signer := &lintedSigner{Signer: k.key, lint: func(tbs []byte) error { return d.lintSVID(tbs, t, k) }}
	der, err := x509.CreateCertificate(rand.Reader, template, k.cert, public, signer)
	if refusal := new(proviso.Refusal); errors.As(err, &refusal) {
		return nil, refusal
	} else if err != nil {
		return nil, fault("the X.509-SVID can't be signed", err)
	}
	return der, nil
}

// lintedSigner signs a message only after its lint has passed. It signs no bare
// digest: what is behind one can't be linted.
type lintedSigner struct {
	crypto.Signer
	lint func(message []byte) error
}

// Sign refuses.
func (s *lintedSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("this key signs no digest of something that it can't read")
}

// SignMessage is crypto.MessageSigner's, which crypto/x509 prefers.
func (s *lintedSigner) SignMessage(random io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := s.lint(message); err != nil {
		return nil, err
	}
	h := opts.HashFunc().New()
	h.Write(message)
	return s.Signer.Sign(random, h.Sum(nil), opts)
}

// unsigned is a certificate as crypto/x509 reads it, around what will be signed.
type unsigned struct {
	TBS       asn1.RawValue
	Algorithm asn1.RawValue
	Signature asn1.BitString
}
