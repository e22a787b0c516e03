package facts_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/lab"
)

// repo is a repository in which a test writes commit objects byte by byte: git
// itself refuses to make most of what an attacker would.
type repo struct {
	t      testing.TB
	dir    string
	format string
	tree   string
	trust  string // directory of the trust files
}

func newRepo(t testing.TB, format string) *repo {
	t.Helper()
	r := &repo{t: t, dir: filepath.Join(t.TempDir(), "origin.git"), format: format, trust: t.TempDir()}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.git("", "init", "--quiet", "--bare", "--object-format="+format, ".")
	r.tree = r.git("", "hash-object", "-t", "tree", "-w", "--stdin")
	return r
}

// git runs git for the test, with nothing of the machine's configuration.
func (r *repo) git(stdin string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.trust, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull}
	cmd.Stdin = strings.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %v: %v: %s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// made says how a commit is made; the zero value is a good one of dana's.
type made struct {
	parents   []string
	author    string // "Name <email>"
	committer string
	at        time.Time
	extra     string // header lines before the signature
	message   string
	sign      func(payload string) string // armored
	lie       func(raw string) string     // changes the bytes at the end
}

const (
	dana = "Dana Deployer <dana@acme.example>"
	eve  = "Eve Else <eve@evil.example>"
)

// commit writes a commit object and gives its id.
func (r *repo) commit(m made) string {
	r.t.Helper()
	if m.author == "" {
		m.author = dana
	}
	if m.committer == "" {
		m.committer = dana
	}
	if m.at.IsZero() {
		m.at = now.Add(-time.Hour)
	}
	if m.message == "" {
		m.message = "Change\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", r.tree)
	for _, p := range m.parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	fmt.Fprintf(&b, "author %s %d +0000\ncommitter %s %d +0000\n%s", m.author, m.at.Unix(), m.committer, m.at.Unix(), m.extra)
	header := b.String()
	raw := header + "\n" + m.message
	if m.sign != nil {
		name := "gpgsig"
		if r.format == "sha256" {
			name = "gpgsig-sha256"
		}
		folded := strings.ReplaceAll(strings.TrimSuffix(m.sign(raw), "\n"), "\n", "\n ")
		raw = header + name + " " + folded + "\n\n" + m.message
	}
	if m.lie != nil {
		raw = m.lie(raw)
	}
	return r.git(raw, "hash-object", "-t", "commit", "-w", "--literally", "--stdin")
}

func (r *repo) ref(name, id string) { r.t.Helper(); r.git("", "update-ref", name, id) }

// onMain puts a commit onto main, on top of what is there.
func (r *repo) onMain(m made) string {
	r.t.Helper()
	if out, err := exec.Command("git", "--git-dir", r.dir, "rev-parse", "--verify", "--quiet", "refs/heads/main").Output(); err == nil {
		m.parents = append([]string{strings.TrimSpace(string(out))}, m.parents...)
	}
	id := r.commit(m)
	r.ref("refs/heads/main", id)
	return id
}

// person signs with an SSH key.
type person struct {
	signer ssh.Signer
	line   string // key type and key
}

func newPerson(t testing.TB) *person {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return personOf(t, key)
}

func personOf(t testing.TB, key any) *person {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &person{signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))}
}

// sign signs for git; signFor for something else.
func (p *person) sign(payload string) string { return p.signFor("git")(payload) }

func (p *person) signFor(namespace string) func(string) string {
	return func(payload string) string {
		sig, err := sshsig.Sign(strings.NewReader(payload), p.signer, sshsig.HashSHA512, namespace)
		if err != nil {
			panic(err)
		}
		return string(sshsig.Armor(sig))
	}
}

func (r *repo) file(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.trust, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// config has the repository mirrored, with these allowed signers.
func (r *repo) config(signers string, edits ...func(*facts.GitConfig)) facts.Config {
	r.t.Helper()
	c := &facts.GitConfig{
		Dir:          filepath.Join(r.trust, "mirrors"),
		Repositories: []facts.RepositoryConfig{{Issuer: "github", URL: "file://" + r.dir}},
	}
	if signers != "" {
		c.AllowedSigners = r.file("allowed_signers", signers)
	}
	for _, e := range edits {
		e(c)
	}
	return facts.Config{Git: c, Timeout: 30 * time.Second}
}

var commitKeys = []string{"context.commit_signed", "context.commit_signer", "context.commit_signer_key", "context.commit_signature_kind", "context.commit_problem",
	"context.commit_on_branch", "context.commit_author", "context.commit_committer"}

// look gathers the commit facts for a job of this commit on main.
func look(t testing.TB, g *facts.Gatherer, id string, edits ...func(*lab.Job)) facts.Known {
	t.Helper()
	job := lab.Job{Commit: id, Branch: "main"}
	for _, e := range edits {
		e(&job)
	}
	return lookAs(t, g, jobOf(t, job))
}

func lookAs(t testing.TB, g *facts.Gatherer, job identity.Job) facts.Known {
	t.Helper()
	return gather(t, g, facts.Asked{Job: job, Resource: shipping}, commitKeys...)
}
