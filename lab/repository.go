package lab

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Repository is a git repository whose commits are signed with SSH keys, or
// not, by people who are trusted, or not. It is made and changed by git and
// ssh-keygen themselves, with no configuration of the machine or of a user.
type Repository struct {
	dir     string // holds repo/, keys/ and allowed_signers
	servers []*server
}

// Person makes commits.
type Person struct {
	Name, Email string
	key         string // path of the private SSH key
	PublicKey   string // as authorized_keys has it, without a comment
}

// Commit says how a commit is made. The zero value is an unsigned commit of the
// maintainer on main.
type Commit struct {
	Branch  string  // default main; made from main when it is new
	Message string  // default "Change"
	Author  *Person // default the signer, else a person without a key
	Signer  *Person // nil: unsigned
	At      time.Time
}

// NewRepository makes an empty repository below dir.
func NewRepository(ctx context.Context, dir string) (*Repository, error) {
	r := &Repository{dir: dir}
	for _, d := range []string{r.Dir(), filepath.Join(dir, "keys")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
	}
	if err := os.WriteFile(r.AllowedSigners(), nil, 0o644); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "main"},
		{"config", "gpg.format", "ssh"},
		{"config", "uploadpack.allowAnySHA1InWant", "true"}, // a broker asks for the commit that a token names
	} {
		if _, err := r.git(ctx, nil, args...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Dir is the repository's directory, which git also takes as its URL.
func (r *Repository) Dir() string { return filepath.Join(r.dir, "repo") }

// AllowedSigners is the file that names the trusted people's keys.
func (r *Repository) AllowedSigners() string { return filepath.Join(r.dir, "allowed_signers") }

// Close ends what Serve started. The directory stays: it is the caller's.
func (r *Repository) Close() error {
	for _, s := range r.servers {
		if err := s.Close(); err != nil {
			return err
		}
	}
	r.servers = nil
	return nil
}

// NewPerson makes a person with an Ed25519 key. Trusted people are added to the
// allowed signers, for the namespace git.
func (r *Repository) NewPerson(ctx context.Context, name, email string, trusted bool) (*Person, error) {
	p := &Person{Name: name, Email: email, key: filepath.Join(r.dir, "keys", randomID())}
	cmd := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", p.key)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab: ssh-keygen: %w: %s", err, out)
	}
	public, err := os.ReadFile(p.key + ".pub")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	p.PublicKey = strings.TrimSpace(string(public))
	if !trusted {
		return p, nil
	}
	return p, r.Trust(p, `namespaces="git"`)
}

// Trust adds a person's key to the allowed signers under the given options, as
// `namespaces="git",valid-before="20270101Z"`.
func (r *Repository) Trust(p *Person, options string) error {
	f, err := os.OpenFile(r.AllowedSigners(), os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	line := p.Email + " " + strings.TrimSpace(options+" "+p.PublicKey) + "\n"
	_, err = f.WriteString(line)
	return cmp.Or(err, f.Close())
}

// Commit makes a commit and gives its id.
func (r *Repository) Commit(ctx context.Context, c Commit) (string, error) {
	branch := cmp.Or(c.Branch, "main")
	if head, err := r.git(ctx, nil, "symbolic-ref", "--short", "HEAD"); err != nil {
		return "", err
	} else if head != branch {
		args := []string{"checkout", "-q", branch}
		if _, err := r.git(ctx, nil, "rev-parse", "-q", "--verify", "refs/heads/"+branch); err != nil {
			args = []string{"checkout", "-q", "-b", branch, "main"}
		}
		if _, err := r.git(ctx, nil, args...); err != nil {
			return "", err
		}
	}
	change := []byte(randomID() + "\n")
	if err := os.WriteFile(filepath.Join(r.Dir(), "change"), change, 0o644); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if _, err := r.git(ctx, nil, "add", "change"); err != nil {
		return "", err
	}
	author := c.Author
	if author == nil {
		author = c.Signer
	}
	if author == nil {
		author = &Person{Name: "Nobody", Email: "nobody@acme.example"}
	}
	at := c.At
	if at.IsZero() {
		at = time.Now()
	}
	when := fmt.Sprintf("%d +0000", at.Unix())
	env := []string{
		"GIT_AUTHOR_NAME=" + author.Name, "GIT_AUTHOR_EMAIL=" + author.Email, "GIT_AUTHOR_DATE=" + when,
		"GIT_COMMITTER_NAME=" + author.Name, "GIT_COMMITTER_EMAIL=" + author.Email, "GIT_COMMITTER_DATE=" + when,
	}
	args := []string{"commit", "-q", "-m", cmp.Or(c.Message, "Change")}
	if c.Signer != nil {
		args = append(args, "-S"+c.Signer.key)
	}
	if _, err := r.git(ctx, env, args...); err != nil {
		return "", err
	}
	return r.git(ctx, nil, "rev-parse", "HEAD")
}

// Serve starts git's own smart HTTP server for the repository, readable by
// everybody, and gives the repository's URL.
func (r *Repository) Serve(ctx context.Context, ca *CA) (string, error) {
	exe, err := r.git(ctx, nil, "--exec-path")
	if err != nil {
		return "", err
	}
	backend := &cgi.Handler{
		Path: filepath.Join(exe, "git-http-backend"), Dir: r.Dir(), Logger: silent,
		Env: append(gitEnvironment(r.dir), "GIT_PROJECT_ROOT="+r.dir, "GIT_HTTP_EXPORT_ALL=1"),
	}
	conf, err := ca.serverTLS()
	if err != nil {
		return "", err
	}
	s, err := serve(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b := *backend // one per request: Stderr is not for sharing
		b.Stderr = new(bytes.Buffer)
		b.ServeHTTP(w, req)
	}), conf)
	if err != nil {
		return "", err
	}
	r.servers = append(r.servers, s)
	return s.url + "/repo/.git", nil
}

// Git runs git in the repository, for what Commit can't do: tags, merges,
// pushes by force.
func (r *Repository) Git(ctx context.Context, args ...string) (string, error) {
	return r.git(ctx, nil, args...)
}

func (r *Repository) git(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.Dir()
	cmd.Env = append(gitEnvironment(r.dir), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("lab: git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// gitEnvironment hides the machine's and the user's own configuration.
func gitEnvironment(home string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "GIT_") || strings.HasPrefix(kv, "HOME=") || strings.HasPrefix(kv, "SSH_")
	})
	return append(env, "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=lab", "GIT_AUTHOR_EMAIL=lab@acme.example", "GIT_COMMITTER_NAME=lab", "GIT_COMMITTER_EMAIL=lab@acme.example")
}
