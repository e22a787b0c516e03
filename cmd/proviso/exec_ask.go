package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/client"
	"github.com/proviso-ci/proviso/evidence"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/runner"
)

// asking is what exec and token have in common: which grant, from which broker,
// with which proof of who asks.
type asking struct {
	grant, broker, audience string
	scope                   []string
	intent                  proviso.Intent
	ttl                     string
	platform, variable      string
	runner, workload        string
	evidence, machineKey    string
	caFile, logKey          string
	dpop, x509              bool
	quiet                   bool
}

func (a *asking) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.grant, "grant", "", "the grant to ask for (required)")
	f.StringVar(&a.broker, "broker", os.Getenv("PROVISO_URL"), "the broker's URL (default: the variable PROVISO_URL)")
	f.StringVar(&a.audience, "audience", "", "whom the job's token is for, if not the broker's URL")
	f.StringSliceVar(&a.scope, "scope", nil, "narrow the credential to these scopes")
	f.StringVar(&a.intent.Action, "action", "", "what you want to do, as deploy or deploy_hotfix")
	f.StringVar(&a.intent.Purpose, "purpose", "", "what for, as debug")
	f.StringVar(&a.intent.Annotation, "annotation", "", "a sentence for the record")
	f.StringVar(&a.intent.TicketID, "ticket", "", "the ticket's id")
	f.StringVar(&a.ttl, "ttl", "", "how long you need it: minutes (30) or a duration (30m, 1h); the grant and the policy may give less")
	f.StringVar(&a.platform, "ci", os.Getenv("PROVISO_CI"), "the CI platform, if its variables don't tell (default: the variable PROVISO_CI): "+strings.Join(client.PlatformNames(), ", "))
	f.StringVar(&a.variable, "token-variable", "", "the variable that holds the job's token, where the pipeline's file names it (GitLab, Jenkins, Harness; default "+client.DefaultTokenVariable+")")
	f.StringVar(&a.runner, "runner", "auto", "the runner's evidence from the SPIFFE Workload API at "+client.SocketVariable+": auto (a JWT-SVID when there is a socket), jwt, x509 (mutual TLS), none")
	f.StringVar(&a.workload, "workload", "", "ask for this workload itself, which runs no job, by its SVID from the Workload API at "+client.SocketVariable+": x509 (mutual TLS), or jwt, of which each buys a grant once")
	f.StringVar(&a.evidence, "evidence", os.Getenv("PROVISO_EVIDENCE"), "the machine's own evidence, where there is no SPIFFE identity: auto, "+strings.Join(evidence.Kinds, ", ")+", attestation (default: the variable PROVISO_EVIDENCE, else none)")
	f.StringVar(&a.machineKey, "machine-key", os.Getenv("PROVISO_MACHINE_KEY"), "a file with the key that this machine keeps, made when it isn't there: the request proves it, and evidence is tied to it (default: the variable PROVISO_MACHINE_KEY)")
	f.StringVar(&a.caFile, "ca", "", "PEM file with the authorities that certify the broker, instead of the system's")
	f.StringVar(&a.logKey, "log-key", os.Getenv("PROVISO_LOG_KEY"), "the log's public key, or a file with it: use the credential only if its receipt proves the decision (default: the variable PROVISO_LOG_KEY)")
	f.BoolVarP(&a.quiet, "quiet", "q", false, "print refusals and failures only")
}

// asker asks, as often as it takes to keep a credential alive.
type asker struct {
	asking
	source *client.Source // of the job's token; nil for a workload without a job
	client *client.Client
	socket string                    // of the Workload API, for a JWT-SVID; "" asks without
	strict bool                      // no JWT-SVID is an error, not a note
	svid   *client.RunnerCertificate // for mutual TLS; nil without
	held   *tls.Certificate          // the one of the request that is made now
	shows  string                    // the kind of the machine's own evidence; "" shows none
	proves string                    // thumbprint of the key that the request proves; "" without
	req    client.Request
	key    *ecdsa.PrivateKey // for x509 and dpop
	used   [32]byte          // hash of the last job token that was sent
	stderr io.Writer
	close  func()
}

// open checks what can be checked before anybody is asked. Its errors are
// misuse: nothing has been refused yet.
func (a *asking) open(ctx context.Context, stderr io.Writer) (*asker, error) {
	k := &asker{asking: *a, stderr: stderr, close: func() {}}
	if err := k.complete(); err != nil {
		return nil, err
	}
	var err error
	if k.workload == "" {
		if k.source, err = client.Find(client.Lookup{Audience: k.audience, Platform: k.platform, Variable: k.variable}); err != nil {
			return nil, err
		}
	}
	k.req = client.Request{Grant: k.grant, Scope: k.scope, Intent: k.intent}
	conf := client.Config{BrokerURL: k.broker}
	if k.caFile != "" {
		data, err := os.ReadFile(k.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("--ca: %s holds no certificate in PEM", k.caFile)
		}
	}
	if k.logKey != "" {
		if conf.CheckReceipt, err = receiptCheck(k.logKey, k.grant); err != nil {
			return nil, err
		}
	}
	if err := k.makeKey(&conf); err != nil {
		return nil, err
	}
	if err := k.findRunner(ctx, &conf); err != nil {
		return nil, err
	}
	if k.client, err = client.New(conf); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// complete fills in what follows from the rest.
func (a *asking) complete() error {
	switch {
	case a.grant == "":
		return errors.New("--grant is missing: name the grant that you want")
	case a.broker == "":
		return errors.New("--broker is missing: give the broker's URL, or set PROVISO_URL")
	case a.dpop && a.x509:
		return errors.New("--dpop binds a token and --x509 is none: a certificate is bound to its key anyway")
	}
	switch {
	case a.workload != "" && a.workload != "jwt" && a.workload != "x509":
		return fmt.Errorf("--workload %q: write jwt or x509", a.workload)
	case a.workload != "" && (a.runner != "auto" || a.evidence != "" || a.variable != ""):
		return errors.New("--workload asks without a job and without a runner: leave --runner, --evidence and --token-variable out")
	case a.evidence != "" && a.evidence != "auto" && !evidence.IsKind(a.evidence):
		return fmt.Errorf("--evidence %q: write auto, %s or attestation", a.evidence, strings.Join(evidence.Kinds, ", "))
	case a.evidence != "" && (a.runner == "jwt" || a.runner == "x509"):
		return fmt.Errorf("--evidence and --runner %s are two kinds of proof, and a request has one: leave one of them out", a.runner)
	case a.evidence != "" && evidence.NeedsKey(a.evidence) && a.machineKey == "":
		return fmt.Errorf("--evidence %s counts only with the key that this machine keeps: name its file with --machine-key", a.evidence)
	}
	if a.audience == "" {
		a.audience = a.broker
	}
	var scope []string
	for _, s := range a.scope {
		scope = append(scope, strings.Fields(s)...)
	}
	a.scope = scope
	if a.ttl == "" {
		return nil
	}
	minutes, err := strconv.Atoi(a.ttl)
	if err != nil {
		d, err := time.ParseDuration(a.ttl)
		if err != nil || d%time.Minute != 0 {
			return fmt.Errorf("--ttl %q is no whole number of minutes, as 30, 30m or 1h", a.ttl)
		}
		minutes = int(d / time.Minute)
	}
	if minutes < 1 || minutes > 1440 {
		return fmt.Errorf("--ttl: %d minutes can't be asked for, 1 to 1440 can", minutes)
	}
	a.intent.RequestedTTL = minutes
	return nil
}

// makeKey makes the key that the credential is bound to. It stays the same when
// the credential is renewed, so that a certificate's file and its key's file
// fit together at every moment.
func (k *asker) makeKey(conf *client.Config) error {
	if k.machineKey != "" {
		key, err := machineKey(k.machineKey)
		if err != nil {
			return fmt.Errorf("--machine-key: %w", err)
		}
		if conf.Prover, err = pass.NewProverWithKey(key, jose.ES256, time.Now); err != nil {
			return fmt.Errorf("--machine-key: %w", err)
		}
		k.proves = conf.Prover.Thumbprint()
		if !k.x509 {
			k.key = key // what is issued is bound to it; CMD is told where it lies if --dpop says so
			return nil
		}
	}
	if !k.dpop && !k.x509 {
		return nil
	}
	var err error
	if k.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	if k.dpop {
		if conf.Prover, err = pass.NewProverWithKey(k.key, jose.ES256, time.Now); err == nil {
			k.proves = conf.Prover.Thumbprint()
		}
		return err
	}
	// The request names nobody: a certificate's names come from the grant.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.key)
	if err != nil {
		return err
	}
	k.req.CSR = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	k.req.RequestedTokenType = proviso.TokenTypeX509
	return nil
}

func (k *asker) keyPEM() ([]byte, error) { return pass.MarshalPrivateKey(crypto.Signer(k.key)) }

// findRunner decides how the runner is proved. Without --runner a missing SVID
// is a note and not an end: the grant may not need one, and if it does, the
// broker refuses. Absence never gives more.
func (k *asker) findRunner(ctx context.Context, conf *client.Config) error {
	if k.evidence != "" {
		if k.shows = k.evidence; k.shows == "auto" {
			k.shows = evidence.Find(ctx)
		}
		switch {
		case k.shows == "":
			return errors.New("--evidence auto: this machine has no TPM, no projected service-account token, and no cloud's metadata service answers")
		case evidence.NeedsKey(k.shows) && k.machineKey == "":
			return fmt.Errorf("--evidence auto: this machine's evidence is %s, which counts only with the key that it keeps: name its file with --machine-key", k.shows)
		}
		return nil
	}
	socket := os.Getenv(client.SocketVariable)
	wanted, flag := k.runner, "--runner"
	if k.workload != "" {
		wanted, flag = k.workload, "--workload"
	}
	switch wanted {
	case "none":
		return nil
	case "auto":
		k.socket = socket
		return nil
	case "jwt", "x509":
		if socket == "" {
			return fmt.Errorf("%s %s: %s is not set; it names the socket of the SPIFFE Workload API, as unix:///run/spire/agent.sock", flag, wanted, client.SocketVariable)
		}
	default:
		return fmt.Errorf("--runner %q: write auto, jwt, x509 or none", k.runner)
	}
	if wanted == "jwt" {
		k.socket, k.strict = socket, true
		return nil
	}
	cert, err := client.OpenRunnerCertificate(ctx, socket)
	if err != nil {
		return refused(err)
	}
	k.svid = cert
	conf.Certificate = func() (*tls.Certificate, error) { return k.held, nil }
	k.close = func() { _ = cert.Close() }
	return nil
}

// bind holds on to one X.509-SVID for one request, and makes the job's token
// serve together with its key only, where the job can ask for such a token: a
// copy of it is then useless on any other machine.
func (k *asker) bind() (source *client.Source, err error) {
	if k.svid == nil {
		return k.source, nil
	}
	if k.held, err = k.svid.Certificate(); err != nil {
		return nil, err
	}
	jkt := runner.KeyThumbprint(k.held.Leaf)
	if jkt == "" || !k.source.Asks() {
		return k.source, nil
	}
	return k.source.For(proviso.KeyedAudience(k.audience, jkt)), nil
}

// The source gave again what was already used.
var (
	errSameToken = errors.New("the platform gives the same job token again, and it has been used: one token buys one credential per grant")
	errSameSVID  = errors.New("the Workload API gives the same JWT-SVID again, and it has been used: one buys one credential per grant, and by mutual TLS (--workload x509) there is no such limit")
)

// renewable reports whether another credential can be asked for later.
func (k *asker) renewable() bool { return k.workload != "" || k.source.Renewable() }

// ask asks once. When the outcome of an attempt is unknown and the platform can
// give another job token, it asks once more with that: a fresh token is a
// decision of its own, and what the first may have bought ends by itself.
func (k *asker) ask(ctx context.Context) (*proviso.TokenResponse, error) {
	resp, err := k.askOnce(ctx)
	unknown := new(client.UnknownOutcomeError)
	if errors.As(err, &unknown) && k.renewable() && ctx.Err() == nil {
		fresh := "job token"
		if k.workload != "" {
			fresh = "proof of the workload"
		}
		k.note("%v; asking once more with a fresh %s", err, fresh)
		return k.askOnce(ctx)
	}
	return resp, err
}

func (k *asker) askOnce(ctx context.Context) (*proviso.TokenResponse, error) {
	if k.workload != "" {
		return k.askForItself(ctx)
	}
	source, err := k.bind()
	if err != nil {
		return nil, err
	}
	token, err := source.Token(ctx)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(token))
	if hash == k.used {
		return nil, errSameToken
	}
	req := k.req
	req.SubjectToken = token
	if k.socket != "" {
		req.ActorToken, err = client.RunnerToken(ctx, k.socket, k.audience)
		if err != nil && k.strict {
			return nil, err
		} else if err != nil {
			k.note("%v; asking without the runner's evidence", err)
		}
	}
	if k.shows != "" {
		if err := k.show(ctx, &req); err != nil {
			return nil, err
		}
	}
	k.used = hash
	return k.client.Exchange(ctx, req)
}

// askForItself asks as a workload that runs no job.
func (k *asker) askForItself(ctx context.Context) (_ *proviso.TokenResponse, err error) {
	req := k.req
	if k.workload == "x509" {
		if k.held, err = k.svid.Certificate(); err != nil {
			return nil, err
		}
		if len(k.held.Leaf.URIs) != 1 {
			return nil, errors.New("the Workload API gave an X.509-SVID that isn't of one SPIFFE ID")
		}
		req.ClientID = k.held.Leaf.URIs[0].String()
		return k.client.Exchange(ctx, req)
	}
	if req.SubjectToken, err = client.RunnerToken(ctx, k.socket, k.audience); err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(req.SubjectToken))
	if hash == k.used {
		return nil, errSameSVID
	}
	req.SubjectTokenType, k.used = proviso.TokenTypeJWTSVID, hash
	return k.client.Exchange(ctx, req)
}

// show puts the machine's own evidence into a request. It is made anew each
// time, over a fresh challenge where its kind takes one.
func (k *asker) show(ctx context.Context, req *client.Request) (err error) {
	challenge := ""
	if evidence.NeedsChallenge(k.shows) {
		if challenge, err = k.client.Challenge(ctx); err != nil {
			return err
		}
	}
	made, err := evidence.Make(ctx, k.shows, strings.TrimSuffix(k.broker, "/"), challenge, k.proves)
	if err != nil {
		return err
	}
	req.ActorToken, req.ActorTokenType = made.Text, made.TokenType
	return nil
}

// machineKey reads the key that this machine keeps, or makes it.
func machineKey(path string) (*ecdsa.PrivateKey, error) {
	signer, err := pass.KeptKey(path, func(data []byte) error { return writeNew(path, data) })
	if err != nil {
		return nil, err
	}
	key, ok := signer.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s holds no key on P-256; remove it, and it is made anew", path)
	}
	return key, nil
}

// note prints a line for people.
func (k *asker) note(format string, args ...any) {
	if !k.quiet {
		say(k.stderr, format, args...)
	}
}

// say prints a line for people, harmless for a terminal and for a CI platform.
func say(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "proviso: %s\n", client.Printable(fmt.Sprintf(format, args...)))
}
