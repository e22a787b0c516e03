// Package evidence is a machine's side of its own proof: it gets what a machine
// can show of itself beside a SPIFFE identity, and nothing of it is believed
// here. Package runner is the other side, and docs/runners.md says what each
// kind proves.
//
// The clouds' metadata services are asked as they want to be, with the header
// that keeps a forwarded request out, without a proxy and without following a
// redirect. A TPM's attestation key is made anew from its seed each time: it is
// always the same, and lies nowhere. Every answer is bounded in size and time.
//
// What is made over a nonce is made over proviso.EvidenceNonce: the broker, its
// challenge, and the key that the request will prove. No evidence is ever part
// of an error.
package evidence

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
)

// Variables of the evidence that a runner shows beside SPIFFE's.
const (
	// MetadataVariable is the address of the cloud's metadata service, for a lab
	// or a proxy on this machine; by default it is where all clouds have it.
	MetadataVariable = "PROVISO_METADATA_URL"
	// KubernetesVariable names the file of the projected service-account token.
	KubernetesVariable = "PROVISO_KUBERNETES_TOKEN"
	// AttestationVariable names the file with an attestation verifier's result.
	AttestationVariable = "PROVISO_ATTESTATION"
	// AppraisalVariable names, in its place, a program that has the machine
	// appraised each time anew and prints the verifier's result. It finds the nonce
	// in NonceVariable.
	AppraisalVariable = "PROVISO_ATTESTATION_PROGRAM"
	// NonceVariable is the nonce as a result has it in eat_nonce: base64url.
	NonceVariable = "PROVISO_NONCE"
)

const (
	metadataURL     = "http://169.254.169.254"
	kubernetesToken = "/var/run/secrets/proviso/token" // #nosec G101 -- a file's name
	maxBytes        = 32 << 10
	timeout         = 5 * time.Second
	appraisalTime   = 30 * time.Second
	azureVersion    = "2021-02-01"
)

// Kinds are the kinds that a runner can show, in the order in which
// Find looks for them: the strongest first.
var Kinds = []string{"tpm", "azure", "kubernetes", "gcp", "aws"}

// Evidence is one piece of evidence, ready to be sent: as actor_token with its
// type, or with its kind.
type Evidence struct {
	Text, TokenType string
}

// Type gives the actor_token_type of a kind, "" for none.
func Type(kind string) string {
	for name, k := range proviso.EvidenceKinds {
		if k == kind {
			return name
		}
	}
	return ""
}

// NeedsChallenge reports whether a kind is made over a nonce of the broker.
func NeedsChallenge(kind string) bool {
	return kind == "tpm" || kind == "azure" || kind == "attestation" && os.Getenv(AppraisalVariable) != ""
}

// NeedsKey reports whether a kind counts only with a key that the request proves.
func NeedsKey(kind string) bool { return kind == "aws" }

// Find says which kind of evidence this machine seems to have, "" for
// none: a TPM or a token's file that is there, or else a metadata service that
// answers as its cloud's does.
func Find(ctx context.Context) string {
	for _, is := range []struct{ kind, path string }{{"tpm", tpmPath()}, {"kubernetes", tokenPath()}} {
		info, err := os.Stat(is.path)
		if err != nil || info.IsDir() {
			continue
		}
		if info.Mode()&os.ModeSocket != 0 {
			return is.kind
		}
		if f, err := os.Open(is.path); err == nil {
			_ = f.Close()
			return is.kind
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, probe := range []struct {
		kind string
		ask  metadataRequest
	}{
		{"gcp", metadataRequest{http.MethodGet, "/computeMetadata/v1/instance/id", nil, map[string]string{"Metadata-Flavor": "Google"}}},
		{"azure", metadataRequest{http.MethodGet, "/metadata/instance/compute/vmId", url.Values{"api-version": {azureVersion}, "format": {"text"}}, map[string]string{"Metadata": "true"}}},
		{"aws", metadataRequest{http.MethodPut, "/latest/api/token", nil, map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"}}},
	} {
		if _, err := probe.ask.do(ctx); err == nil {
			return probe.kind
		}
	}
	return ""
}

func tpmPath() string { return cmp.Or(os.Getenv(TPMVariable), defaultTPM) }

func tokenPath() string { return cmp.Or(os.Getenv(KubernetesVariable), kubernetesToken) }

// Make gets a machine's evidence of a kind for a broker. challenge is
// the broker's, "" where the kind takes none; thumbprint is that of the key
// that the request will prove, "" without one.
func Make(ctx context.Context, kind, broker, challenge, thumbprint string) (Evidence, error) {
	most := timeout
	if kind == "attestation" {
		most = appraisalTime
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	nonce := proviso.EvidenceNonce(broker, challenge, thumbprint)
	var text string
	var err error
	switch kind {
	case "aws":
		text, err = awsDocument(ctx)
	case "gcp":
		text, err = metadataRequest{http.MethodGet, "/computeMetadata/v1/instance/service-accounts/default/identity",
			url.Values{"audience": {broker}, "format": {"full"}}, map[string]string{"Metadata-Flavor": "Google"}}.do(ctx)
	case "azure":
		text, err = azureDocument(ctx, challenge, nonce)
	case "kubernetes":
		text, err = readToken(tokenPath(), "the pod has no projected service-account token; mount one whose audience is "+broker)
	case "attestation":
		if program := os.Getenv(AppraisalVariable); program != "" {
			text, err = appraise(ctx, program, challenge, nonce)
			break
		}
		text, err = readToken(os.Getenv(AttestationVariable), "no attestation result: "+AttestationVariable+" names its file, or "+AppraisalVariable+" the program that gets one")
	case "tpm":
		text, err = tpmQuote(challenge, nonce)
	default:
		return Evidence{}, fmt.Errorf("there is no evidence of the kind %q; write %s or attestation", kind, strings.Join(Kinds, ", "))
	}
	if err != nil {
		return Evidence{}, fmt.Errorf("the runner's evidence (%s): %w", kind, err)
	}
	return Evidence{text, Type(kind)}, nil
}

func tpmQuote(challenge string, nonce [32]byte) (_ string, err error) {
	t, err := OpenTPM("")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return t.Quote(challenge, nonce)
}

// appraise has a program get the verifier's result over a nonce. What it prints
// is evidence, and part of no error.
func appraise(ctx context.Context, program, challenge string, nonce [32]byte) (string, error) {
	cmd := exec.CommandContext(ctx, program) // #nosec G204 G702 -- the machine's own variable names it
	cmd.Env = append(os.Environ(), NonceVariable+"="+base64.RawURLEncoding.EncodeToString(nonce[:]))
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("%s can't be run: %w", AppraisalVariable, err)
	}
	data, err := io.ReadAll(io.LimitReader(out, maxBytes+1))
	if len(data) > maxBytes {
		err = fmt.Errorf("it prints more than %d bytes", maxBytes)
		_ = cmd.Process.Kill() // it may go on for ever
	}
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return "", fmt.Errorf("the program %s: %w", program, err)
	}
	text := strings.TrimSpace(string(data))
	if strings.HasPrefix(text, "{") {
		return text, nil // an in-toto statement, which has no place for a nonce
	}
	return marshal(map[string]string{"challenge": challenge, "result": text})
}

func readToken(path, absent string) (string, error) {
	if path == "" {
		return "", errors.New(absent)
	}
	f, err := os.Open(path) // #nosec G703 -- the machine's own variable names it
	if errors.Is(err, os.ErrNotExist) {
		return "", errors.New(absent)
	} else if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("%s has more than %d bytes", path, maxBytes)
	}
	return strings.TrimSpace(string(data)), err
}

func awsDocument(ctx context.Context) (string, error) {
	session, err := metadataRequest{http.MethodPut, "/latest/api/token", nil, map[string]string{"X-aws-ec2-metadata-token-ttl-seconds": "60"}}.do(ctx)
	if err != nil {
		return "", err
	}
	text, err := metadataRequest{http.MethodGet, "/latest/dynamic/instance-identity/rsa2048", nil, map[string]string{"X-aws-ec2-metadata-token": session}}.do(ctx)
	return strings.ReplaceAll(text, "\n", ""), err
}

func azureDocument(ctx context.Context, challenge string, nonce [32]byte) (string, error) {
	text, err := metadataRequest{http.MethodGet, "/metadata/attested/document",
		url.Values{"api-version": {azureVersion}, "nonce": {hex.EncodeToString(nonce[:16])}}, map[string]string{"Metadata": "true"}}.do(ctx)
	if err != nil {
		return "", err
	}
	var answer struct{ Encoding, Signature string }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Encoding != "pkcs7" || answer.Signature == "" {
		return "", errors.New("the metadata service gives no document signed with PKCS#7")
	}
	return marshal(map[string]string{"challenge": challenge, "signature": answer.Signature})
}

func marshal(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

// metadataRequest asks a cloud's metadata service.
type metadataRequest struct {
	method, path string
	query        url.Values
	header       map[string]string
}

// do asks without any proxy and follows nothing: what is there is for this
// machine alone.
func (m metadataRequest) do(ctx context.Context) (string, error) {
	base := cmp.Or(os.Getenv(MetadataVariable), metadataURL)
	u, err := url.Parse(base + m.path)
	if err != nil {
		return "", fmt.Errorf("%s is no URL", MetadataVariable)
	}
	u.RawQuery = m.query.Encode()
	r, err := http.NewRequestWithContext(ctx, m.method, u.String(), nil) // #nosec G704 -- the machine's own variable names it
	if err != nil {
		return "", fmt.Errorf("%s is no URL", MetadataVariable)
	}
	for name, value := range m.header {
		r.Header.Set(name, value)
	}
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10}
	client := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r) // #nosec G704 -- as above
	if err != nil {
		return "", fmt.Errorf("the metadata service at %s: %w", u.Host, unwrapped(err))
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBytes+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("the metadata service at %s: %w", u.Host, err)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("the metadata service at %s answers %s to %s", u.Host, resp.Status, m.path)
	case len(data) > maxBytes:
		return "", fmt.Errorf("the metadata service at %s answers more than %d bytes", u.Host, maxBytes)
	}
	return strings.TrimSpace(string(data)), nil
}

// IsKind reports whether there is evidence of a kind.
func IsKind(kind string) bool {
	return kind == "attestation" || slices.Contains(Kinds, kind)
}

// unwrapped takes off the wrapper that repeats method and URL.
func unwrapped(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}
