package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso/lab"
)

func TestRecordsWantTheirBearer(t *testing.T) {
	tickets := must[*lab.Records](t)(lab.NewRecords(lab.RecordsOptions{}))
	tickets.Approve("OPS-1", "shipping", "olga")
	plan := must[*lab.Records](t)(lab.NewRecords(lab.RecordsOptions{Bearer: "plan"}))
	plan.OnCall("dana", time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	plan.OnCall("erik", time.Time{})
	for _, c := range []struct{ url, bearer, want string }{
		{tickets.URL() + "/OPS-1", "", "401"},
		{tickets.URL() + "/OPS-1", "wrong", "401"},
		{tickets.URL() + "/OPS-2", tickets.Bearer(), "404"},
		{tickets.URL() + "/OPS-1", tickets.Bearer(), `"approved":true`},
		{plan.URL() + "/dana", "plan", `"on_call":true,"until":"2030-01-01T00:00:00Z"`},
		{plan.URL() + "/erik", "plan", `"on_call":false}`},
	} {
		if got := get(t, &http.Transport{}, c.url, c.bearer); !strings.Contains(got, c.want) {
			t.Errorf("%s with %q: %s, want %s", c.url, c.bearer, got, c.want)
		}
	}
	tickets.SetFaults(lab.Faults{Status: 503})
	if got := get(t, &http.Transport{}, tickets.URL()+"/OPS-1", tickets.Bearer()); !strings.HasPrefix(got, "503") {
		t.Error(got)
	}
	tickets.SetFaults(lab.Faults{})
	tickets.Put("OPS-1", nil)
	if got := get(t, &http.Transport{}, tickets.URL()+"/OPS-1", tickets.Bearer()); !strings.HasPrefix(got, "404") {
		t.Error(got)
	}
}

func TestResourceBehindAGuard(t *testing.T) {
	ca := need[*lab.CA](t)(lab.NewCA("web"))
	r := must[*lab.Resource](t)(lab.NewResource(lab.ResourceOptions{TLS: ca, Guard: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if len(req.TLS.PeerCertificates) == 0 {
				http.Error(w, "show a certificate", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, req)
		})
	}}))
	conf := &tls.Config{RootCAs: ca.Pool()}
	if got := get(t, &http.Transport{TLSClientConfig: conf}, r.URL()+"/", ""); !strings.HasPrefix(got, "401") || r.Served() != 0 {
		t.Errorf("%s, served %d", got, r.Served())
	}
	cert := need[tls.Certificate](t)(ca.ClientCertificate("dana"))
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	conf = conf.Clone()
	conf.Certificates = []tls.Certificate{cert}
	if got := get(t, &http.Transport{TLSClientConfig: conf}, r.URL()+"/", ""); !strings.Contains(got, "healthy") || r.Served() != 1 {
		t.Errorf("%s, served %d", got, r.Served())
	}
}

func get(t *testing.T, tr *http.Transport, url, bearer string) string {
	t.Helper()
	tr.DisableKeepAlives = true
	req := need[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	resp := need[*http.Response](t)((&http.Client{Transport: tr}).Do(req))
	defer func() { _ = resp.Body.Close() }()
	body := need[[]byte](t)(io.ReadAll(resp.Body))
	return resp.Status + " " + string(body)
}

// git itself says which commits are signed, and by whom.
func TestRepositoryHasSignedAndUnsignedCommits(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	r := must[*lab.Repository](t)(lab.NewRepository(ctx, dir))
	dana := need[*lab.Person](t)(r.NewPerson(ctx, "Dana", "dana@acme.example", true))
	mallory := need[*lab.Person](t)(r.NewPerson(ctx, "Mallory", "mallory@evil.example", false))
	at := time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)

	good := need[string](t)(r.Commit(ctx, lab.Commit{Signer: dana, At: at}))
	unsigned := need[string](t)(r.Commit(ctx, lab.Commit{Branch: "feature", Author: dana}))
	stranger := need[string](t)(r.Commit(ctx, lab.Commit{Branch: "feature", Signer: mallory}))
	impersonated := need[string](t)(r.Commit(ctx, lab.Commit{Author: dana, Signer: mallory}))

	for commit, want := range map[string]string{good: "G", unsigned: "N", stranger: "U", impersonated: "U"} {
		got := need[string](t)(r.Git(ctx, "-c", "gpg.ssh.allowedSignersFile="+r.AllowedSigners(), "log", "-1", "--format=%G?", commit))
		if got != want {
			t.Errorf("%s is %s, want %s", commit, got, want)
		}
	}
	if parents := need[string](t)(r.Git(ctx, "rev-list", "--count", "feature")); parents != "3" {
		t.Errorf("the branch has %s commits", parents)
	}
	if _, err := r.Commit(ctx, lab.Commit{Branch: "bad name"}); err == nil {
		t.Error("a bad branch name was accepted")
	}
	cloneOverHTTP(ctx, t, r, good)
}

// The repository can be cloned by git over HTTP, the exact commit included.
func cloneOverHTTP(ctx context.Context, t *testing.T, r *lab.Repository, commit string) {
	url := need[string](t)(r.Serve(ctx, nil))
	into := filepath.Join(t.TempDir(), "clone")
	for _, args := range [][]string{
		{"init", "-q", into},
		{"-C", into, "fetch", "-q", url, commit},
		{"-C", into, "cat-file", "-e", commit},
	} {
		cmd := exec.CommandContext(ctx, "git", args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
}
