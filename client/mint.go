package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
)

const (
	spaceliftFile  = "/mnt/workspace/spacelift.oidc"
	maxTokenBytes  = 16 << 10
	requestTimeout = 15 * time.Second
	requestTries   = 3
)

// fromVariable reads a token that the platform has put into a variable.
func fromVariable(name string) func(*Source, context.Context) (string, error) {
	return func(s *Source, _ context.Context) (string, error) {
		if s.env[name] == "" {
			return "", s.missing("%s is not set", name)
		}
		return s.env[name], nil
	}
}

// fromNamed reads the variable, or the file, whose name the pipeline chose.
func (s *Source) fromNamed(context.Context) (string, error) {
	token, path := s.env[s.variable], s.env[s.variable+"_FILE"]
	switch {
	case token != "" && path != "":
		return "", s.missing("both %s and %s_FILE are set; leave one", s.variable, s.variable)
	case token != "":
		return token, nil
	case path != "":
		return s.readFile(path)
	}
	return "", s.missing("%s is not set", s.variable)
}

func (s *Source) fromTerraform(context.Context) (string, error) {
	name := s.variable
	if name == DefaultTokenVariable {
		name = "TFC_WORKLOAD_IDENTITY_TOKEN"
	}
	if s.env[name] == "" {
		return "", s.missing("%s is not set", name)
	}
	return s.env[name], nil
}

func (s *Source) fromSpacelift(context.Context) (string, error) {
	if token := s.env["SPACELIFT_OIDC_TOKEN"]; token != "" {
		return token, nil
	}
	return s.readFile(spaceliftFile)
}

func (s *Source) fromFile(context.Context) (string, error) { return s.readFile(s.env[envFile]) }

func (s *Source) readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", s.missing("the file with the token can't be read: %v", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxTokenBytes+1))
	if err != nil {
		return "", s.missing("the file with the token can't be read: %v", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// fromActions asks GitHub's or Forgejo's endpoint.
func (s *Source) fromActions(ctx context.Context) (string, error) {
	u, err := withQuery(s.env["ACTIONS_ID_TOKEN_REQUEST_URL"], "audience", s.audience)
	if err != nil {
		return "", s.missing("ACTIONS_ID_TOKEN_REQUEST_URL: %v", err)
	}
	return s.ask(ctx, http.MethodGet, u, "Bearer "+s.env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], "value")
}

// fromAzure asks without a service connection: such tokens are the pipeline's
// own, not an Entra application's.
func (s *Source) fromAzure(ctx context.Context) (string, error) {
	u, err := withQuery(s.env["SYSTEM_OIDCREQUESTURI"], "api-version", "7.1-preview.1")
	if err != nil {
		return "", s.missing("SYSTEM_OIDCREQUESTURI: %v", err)
	}
	return s.ask(ctx, http.MethodPost, u, "Bearer "+s.env["SYSTEM_ACCESSTOKEN"], "oidcToken")
}

// fromCodefresh sends the request token bare, as Codefresh documents it.
func (s *Source) fromCodefresh(ctx context.Context) (string, error) {
	u, err := withQuery(s.env["CF_OIDC_REQUEST_URL"], "audience", s.audience)
	if err != nil {
		return "", s.missing("CF_OIDC_REQUEST_URL: %v", err)
	}
	return s.ask(ctx, http.MethodGet, u, s.env["CF_OIDC_REQUEST_TOKEN"], "id_token")
}

// withQuery sets a parameter of a URL that already has others.
func withQuery(raw, name, value string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return nil, errors.New("it is no URL")
	}
	if err := checkScheme(u); err != nil {
		return nil, err
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u, nil
}

// ask asks a platform's endpoint, which gives the token in a member of JSON.
// Asking again is harmless here, so a fault that may pass is tried again.
func (s *Source) ask(ctx context.Context, method string, u *url.URL, authorization, member string) (string, error) {
	for try := 1; ; try++ {
		body, status, err := s.fetch(ctx, method, u, http.Header{"Authorization": {authorization}})
		if (err != nil || status >= 500 || status == http.StatusTooManyRequests) && try < requestTries && sleep(ctx, backoff(try)) {
			continue
		}
		switch {
		case err != nil:
			return "", s.missing("its token endpoint can't be asked: %v", err)
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return "", s.missing("its token endpoint refuses this job (status %d)", status)
		case status != http.StatusOK:
			return "", s.missing("its token endpoint answers with status %d", status)
		}
		var doc map[string]json.RawMessage
		var token string
		if json.Unmarshal(body, &doc) != nil || json.Unmarshal(doc[member], &token) != nil || token == "" {
			return "", s.missing("its token endpoint answers without a token in %q", member)
		}
		return token, nil
	}
}

// fetch makes one bounded request and follows no redirect: the request token
// goes to the host that the platform named.
func (s *Source) fetch(ctx context.Context, method string, u *url.URL, header http.Header) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, 0, errors.New("the URL can't be asked")
	}
	req.Header = header
	req.Header.Set("User-Agent", "proviso")
	req.Header.Set("Accept", "application/json")
	resp, err := newHTTPClient(newTransport(u.Scheme == "http" && isLoopbackName(u.Hostname()))).Do(req)
	if err != nil {
		return nil, 0, cause(err) // without the URL: its query may be a secret
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4*maxTokenBytes+1))
	if err != nil {
		return nil, 0, err
	}
	if len(body) > 4*maxTokenBytes {
		return nil, 0, fmt.Errorf("the answer is longer than %d bytes", 4*maxTokenBytes)
	}
	if resp.Header.Get("Metadata-Flavor") != "" {
		header.Set("Metadata-Flavor", resp.Header.Get("Metadata-Flavor"))
	} else {
		header.Del("Metadata-Flavor")
	}
	return body, resp.StatusCode, nil
}

// fromMetadata asks Google's metadata server, which speaks plain HTTP on the
// machine's own link. Its Metadata-Flavor header says that it is one.
func (s *Source) fromMetadata(ctx context.Context) (string, error) {
	host := s.env["GCE_METADATA_HOST"] // Google's own libraries' override
	if host == "" {
		host = "metadata.google.internal"
	}
	u := &url.URL{Scheme: "http", Host: host, Path: "/computeMetadata/v1/instance/service-accounts/default/identity",
		RawQuery: url.Values{"audience": {s.audience}, "format": {"full"}}.Encode()}
	if name := u.Hostname(); name != "metadata.google.internal" && name != "169.254.169.254" && !isLoopbackName(name) {
		return "", s.missing("GCE_METADATA_HOST names %s, which is not the metadata server of this machine", Printable(name))
	}
	header := http.Header{"Metadata-Flavor": {"Google"}}
	body, status, err := s.fetch(ctx, http.MethodGet, u, header)
	switch {
	case err != nil:
		return "", s.missing("the metadata server can't be asked: %v", err)
	case status != http.StatusOK || header.Get("Metadata-Flavor") != "Google":
		return "", s.missing("the metadata server answers with status %d", status)
	}
	return strings.TrimSpace(string(body)), nil
}

// fromBuildkite asks for the identifiers that never change, which Buildkite
// leaves out unless told: all organisations share one issuer.
func (s *Source) fromBuildkite(ctx context.Context) (string, error) {
	return s.run(ctx, "buildkite-agent", "oidc", "request-token", "--audience", s.audience, "--claim", "organization_id,pipeline_id")
}

// fromCircleCI asks for the broker's audience; the token in the environment has
// the organisation's own, which any other party of it accepts too.
func (s *Source) fromCircleCI(ctx context.Context) (string, error) {
	claims, err := json.Marshal(map[string]string{"aud": s.audience})
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("circleci"); err != nil {
		if token := s.env["CIRCLE_OIDC_TOKEN_V2"]; token != "" {
			return token, nil // look says whom it is for
		}
		return "", s.missing("neither the command circleci nor CIRCLE_OIDC_TOKEN_V2 is there")
	}
	return s.run(ctx, "circleci", "run", "oidc", "get", "--claims", string(claims))
}

func (s *Source) fromCommand(ctx context.Context) (string, error) {
	return s.run(ctx, "/bin/sh", "-c", s.env[envCommand])
}

// run takes a token from a command's output. What the command says beside is
// shown in an error only as far as it can't be a token.
func (s *Source) run(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	for k, v := range s.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	slices.Sort(cmd.Env)
	cmd.WaitDelay = time.Second
	var stdout, stderr boundedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := stderr.String()
		for _, secret := range s.secrets {
			if v := s.env[secret]; len(v) >= 8 {
				said = strings.ReplaceAll(said, v, "***")
			}
		}
		return "", s.missing("%s gives no token: %v: %s", name, err, Printable(withoutTokens(said)))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// withoutTokens drops every word that is long enough to be a secret.
func withoutTokens(s string) string {
	words := strings.Fields(s)
	for i, w := range words {
		if len(w) > 60 {
			words[i] = "***"
		}
	}
	return strings.Join(words, " ")
}

// boundedBuffer keeps the first bytes and lets a chatty command go on.
type boundedBuffer struct{ buf bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := 2*maxTokenBytes - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (b *boundedBuffer) String() string { return b.buf.String() }

// look reads what a job's token says about itself, to fail early and in words.
func (s *Source) look(token string) error {
	if len(token) > maxTokenBytes {
		return s.missing("the token is longer than %d bytes", maxTokenBytes)
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 || slices.Contains(parts, "") {
		return s.missing("what is there is no signed token (three parts with dots between)")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return s.missing("the token can't be read")
	}
	claims, err := document.Parse(payload, document.Limits{})
	if err != nil {
		return s.missing("the token can't be read")
	}
	if exp, ok := claims.Get("exp").Integer(); ok && time.Now().After(time.Unix(exp, 0)) {
		return s.missing("the token expired at %s: it is older than the job's platform lets it be", time.Unix(exp, 0).UTC().Format(time.RFC3339))
	}
	aud := claims.Get("aud")
	one, _ := aud.Text()
	if list := aud.Items(); len(list) == 1 {
		one, _ = list[0].Text()
	}
	if s.chooses && s.audience != "" && one != s.audience {
		found := "several audiences"
		if one != "" {
			found = Printable(one)
		}
		return s.missing("the token is for %s, not for the broker %s, and is not sent", found, s.audience)
	}
	return nil
}
