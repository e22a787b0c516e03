package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
)

// GitConfig is how commits are verified.
type GitConfig struct {
	// Dir is where the broker keeps its mirrors: bare repositories with the
	// branches and tags that jobs have named. It can be deleted at any time.
	Dir string `yaml:"dir" json:"dir"`
	// Repositories say where the repository of a job is to be had. The first
	// entry that fits a job counts; a job that fits none has no commit facts.
	Repositories []RepositoryConfig `yaml:"repositories" json:"repositories"`
	// AllowedSigners is a file in the format of ssh-keygen(1), as git's
	// gpg.ssh.allowedSignersFile: principals, options, key.
	AllowedSigners string `yaml:"allowed_signers,omitempty" json:"allowed_signers,omitempty"`
	// RevokedKeys is a file of revoked SSH keys: a fingerprint (SHA256:...) or a
	// public key per line.
	RevokedKeys string `yaml:"revoked_keys,omitempty" json:"revoked_keys,omitempty"`
	// OpenPGPKeyring is a file of OpenPGP public keys (gpg --export, armored or not).
	OpenPGPKeyring string `yaml:"openpgp_keyring,omitempty" json:"openpgp_keyring,omitempty"`
	// Signer is committer (the default: the commit's committer must be a
	// principal of the key that signed) or any (any allowed signer will do, as for
	// a forge that signs what it merges).
	Signer string `yaml:"signer,omitempty" json:"signer,omitempty"`
	// Ancestors is note (the default: commits without a good signature that a
	// merge brought in are counted), require (then the merge doesn't count as signed).
	Ancestors string `yaml:"ancestors,omitempty" json:"ancestors,omitempty"`
	// MaxAge is how old the broker's knowledge of a branch may be before it asks
	// again. A commit that was pushed away from a branch stays on it for so long. Default 30s.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
	// FetchTimeout of one fetch; a first fetch goes on after the request that
	// began it has been answered. Default 2m.
	FetchTimeout time.Duration `yaml:"fetch_timeout,omitempty" json:"fetch_timeout,omitempty"`
	// MaxBytes of one mirror. Default 1073741824.
	MaxBytes int64 `yaml:"max_bytes,omitempty" json:"max_bytes,omitempty"`
	// Binary is git itself. Default: git, from the PATH.
	Binary string `yaml:"binary,omitempty" json:"binary,omitempty"`
}

// RepositoryConfig says where repositories are to be had.
type RepositoryConfig struct {
	// Issuer is the name of the issuer (issuers[].name) whose jobs this is for: a
	// repository's name means something only together with who says it.
	Issuer string `yaml:"issuer" json:"issuer"`
	// RepositoryID restricts the entry to one repository, by the platform's
	// immutable identifier. Default: every repository of this issuer.
	RepositoryID string `yaml:"repository_id,omitempty" json:"repository_id,omitempty"`
	// URL with places for verified values, as
	// https://git.acme.example/{identity.repository}.git. https, or file for a mirror
	// that something else keeps on this machine.
	URL string `yaml:"url" json:"url"`
	// TokenFile holds a token for reading; it is sent as HTTP basic
	// authentication and read for every fetch.
	TokenFile string `yaml:"token_file,omitempty" json:"token_file,omitempty"`
	// TokenUser is the user name beside the token. Default x-access-token.
	TokenUser string `yaml:"token_user,omitempty" json:"token_user,omitempty"`
	// CAFile has the authorities (PEM) of the server's certificate. Default: the system's.
	CAFile string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
}

func (c *GitConfig) check(bad func(path, message string, args ...any)) {
	if c.Dir == "" {
		bad("git.dir", "is missing: the mirrors need a directory of their own")
	}
	if c.AllowedSigners == "" && c.OpenPGPKeyring == "" {
		bad("git", "has neither allowed_signers nor openpgp_keyring, so no commit could count as signed")
	}
	if c.Signer != "" && c.Signer != "committer" && c.Signer != "any" {
		bad("git.signer", "is %q; write committer or any", c.Signer)
	}
	if c.Ancestors != "" && c.Ancestors != "note" && c.Ancestors != "require" {
		bad("git.ancestors", "is %q; write note or require", c.Ancestors)
	}
	if c.MaxAge < 0 || c.MaxAge > time.Hour {
		bad("git.max_age", "is %s; write a time up to 1h", c.MaxAge)
	}
	if c.FetchTimeout < 0 || c.FetchTimeout > time.Hour {
		bad("git.fetch_timeout", "is %s; write a time up to 1h", c.FetchTimeout)
	}
	if c.MaxBytes < 0 {
		bad("git.max_bytes", "is negative")
	}
	if len(c.Repositories) == 0 {
		bad("git.repositories", "is missing: the broker has to know where repositories are to be had")
	}
	for i, r := range c.Repositories {
		at := fmt.Sprintf("git.repositories[%d]", i)
		if r.Issuer == "" {
			bad(at+".issuer", "is missing: two platforms can have a repository of one name")
		}
		t, err := parseTemplate(r.URL, "https", "file", "http")
		if err != nil {
			bad(at+".url", "%v", err)
			continue
		}
		if strings.Contains(r.URL, "{intent.") {
			bad(at+".url", "names a declared value; a job must not choose the repository that it is checked against")
		}
		if strings.Contains(r.URL, "?") {
			bad(at+".url", "has a query, which a repository's URL has not")
		}
		u, err := url.Parse(t.parts[0].literal)
		if err == nil && u.Scheme == "http" {
			if ip, err := netip.ParseAddr(u.Hostname()); err != nil || !ip.IsLoopback() {
				bad(at+".url", "is plain HTTP to another machine; use https")
			}
		}
		if r.TokenFile != "" && err == nil && u.Scheme == "file" {
			bad(at+".token_file", "has no use for a local mirror")
		}
	}
}

// gitSource answers the commit facts.
type gitSource struct {
	cfg       GitConfig
	settings  gitSettings
	urls      []*urlTemplate // of cfg.Repositories
	ancestors bool           // required

	mu      sync.Mutex
	mirrors map[string]*mirror
	trust   *trust
	files   [3][]byte // as they were read last
	looked  time.Time
	problem error
}

const (
	maxMirrors      = 1024
	maxMerged       = 200
	trustCheck      = 2 * time.Second
	defaultMaxAge   = 30 * time.Second
	defaultFetch    = 2 * time.Minute
	defaultMaxBytes = 1 << 30
)

var gitReads = []string{
	"context.commit_author", "context.commit_committer", "context.commit_on_branch", "context.commit_problem",
	"context.commit_signature_kind", "context.commit_signed", "context.commit_signer", "context.commit_signer_key",
	"context.commit_unsigned_ancestors",
}

func newGit(c GitConfig, opt Options) (source, error) {
	s := &gitSource{cfg: c, ancestors: c.Ancestors == "require", mirrors: map[string]*mirror{}}
	s.settings = gitSettings{binary: c.Binary, dir: c.Dir, wait: c.FetchTimeout, maxBytes: c.MaxBytes, now: opt.Now, log: opt.Log}
	if s.settings.wait == 0 {
		s.settings.wait = defaultFetch
	}
	if s.settings.maxBytes == 0 {
		s.settings.maxBytes = defaultMaxBytes
	}
	if s.cfg.MaxAge == 0 {
		s.cfg.MaxAge = defaultMaxAge
	}
	if c.Binary == "" {
		path, err := exec.LookPath("git")
		if err != nil {
			return source{}, Problem{"git.binary", "is not set, and no git is in the PATH"}
		}
		s.settings.binary = path
	}
	for i, r := range c.Repositories {
		t, err := parseTemplate(r.URL, "https", "file", "http")
		if err != nil {
			return source{}, Problem{fmt.Sprintf("git.repositories[%d].url", i), err.Error()} // checked before
		}
		s.urls = append(s.urls, t)
		if r.TokenFile != "" {
			if _, _, err := readSecret(r.TokenFile, "x"); err != nil {
				return source{}, Problem{fmt.Sprintf("git.repositories[%d].token_file", i), err.Error()}
			}
		}
	}
	if _, err := s.trusted(); err != nil {
		return source{}, Problem{"git", err.Error()}
	}
	s.settings.closing = make(chan struct{})
	return source{name: "git", reads: gitReads, ask: s.ask, close: sync.OnceFunc(func() { close(s.settings.closing) })}, nil
}

// trusted gives who may sign. The files are read again when they change; a file
// that can't be read takes the trust away until it can: it may have been changed to
// say that a key is no longer trusted.
func (s *gitSource) trusted() (*trust, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.settings.now()
	if !s.looked.IsZero() && now.Sub(s.looked) < trustCheck && now.Sub(s.looked) >= 0 {
		return s.trust, s.problem
	}
	s.looked = now
	var files [3][]byte
	for i, path := range []string{s.cfg.AllowedSigners, s.cfg.RevokedKeys, s.cfg.OpenPGPKeyring} {
		if path == "" {
			continue
		}
		data, err := readTrustFile(path)
		if err != nil {
			return s.distrust(err)
		}
		files[i] = data
	}
	if s.trust != nil && bytes.Equal(files[0], s.files[0]) && bytes.Equal(files[1], s.files[1]) && bytes.Equal(files[2], s.files[2]) {
		return s.trust, nil
	}
	t := &trust{signers: map[string][]allowedSigner{}, anyIdentity: s.cfg.Signer == "any"}
	signers, err := parseAllowedSigners(files[0])
	if err != nil {
		return s.distrust(fmt.Errorf("%s %w", s.cfg.AllowedSigners, err))
	}
	for _, a := range signers {
		t.signers[a.blob] = append(t.signers[a.blob], a)
	}
	if t.revoked, err = parseRevoked(files[1]); err != nil {
		return s.distrust(fmt.Errorf("%s %w", s.cfg.RevokedKeys, err))
	}
	if s.cfg.OpenPGPKeyring != "" {
		if t.keyring, err = parseKeyring(files[2]); err != nil {
			return s.distrust(fmt.Errorf("%s %w", s.cfg.OpenPGPKeyring, err))
		}
	}
	s.settings.log.Info("the allowed signers of commits are in use", "ssh", len(signers), "revoked", len(t.revoked), "openpgp", len(t.keyring.entities))
	s.trust, s.files, s.problem = t, files, nil
	return t, nil
}

// distrust is called with mu held.
func (s *gitSource) distrust(err error) (*trust, error) {
	if s.problem == nil || s.problem.Error() != err.Error() {
		s.settings.log.Error("the allowed signers of commits can't be read: no commit counts as signed until they can", "error", err)
	}
	s.trust, s.problem = nil, err
	return nil, err
}

func readTrustFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyring {
		return nil, fmt.Errorf("%s is no regular file of at most %d bytes", path, maxKeyring)
	}
	return os.ReadFile(path)
}

// mirrorOf finds or makes the mirror for a job's repository.
func (s *gitSource) mirrorOf(asked Asked, id identity.Identity) (*mirror, *Absence) {
	for i, r := range s.cfg.Repositories {
		if r.Issuer != asked.Job.Issuer() || r.RepositoryID != "" && r.RepositoryID != id.RepositoryID {
			continue
		}
		address, why := s.urls[i].expand(asked.values())
		if why != nil {
			return nil, why
		}
		var secret []string
		token := ""
		if r.TokenFile != "" {
			var err error
			if _, token, err = readSecret(r.TokenFile, "x"); err != nil {
				return nil, &Absence{Code: proviso.CodeGitFetch, Why: "the broker has no access to its mirror's origin", Err: err}
			}
		}
		user := r.TokenUser
		if user == "" {
			user = "x-access-token"
		}
		secret = secretSettings(user, token, r.CAFile)
		key := fmt.Sprint(len(id.Commit), " ", address, " ", strings.Join(secret, "\n"))
		s.mu.Lock()
		defer s.mu.Unlock()
		m := s.mirrors[key]
		if m == nil {
			if len(s.mirrors) >= maxMirrors {
				clear(s.mirrors) // the directories stay; only what is remembered goes
			}
			m = newMirror(&s.settings, address, len(id.Commit) == 64, secret)
			s.mirrors[key] = m
		}
		return m, nil
	}
	return nil, &Absence{Code: proviso.CodeGitFetch, Why: "no mirror is configured for this repository"}
}

// ask verifies the commit that the job's token names.
func (s *gitSource) ask(ctx context.Context, asked Asked, wanted func(string) bool) answer {
	l := look{source: s, wanted: wanted, ctx: ctx}
	l.run(asked)
	return l.answer
}

// look is one look at one commit.
type look struct {
	source *gitSource
	ctx    context.Context
	wanted func(string) bool
	answer answer
}

// add adds a fact, read or not: what one look shows is in the record as a whole.
func (l *look) add(key string, v document.Value, at time.Time) {
	if !v.IsAbsent() {
		l.answer.facts = append(l.answer.facts, fact{source: "git", key: key, value: v, at: at})
	}
}

// lack reports one key as absent, if the policy reads it.
func (l *look) lack(key string, why Absence) {
	if l.wanted(key) {
		why.Key, why.Source = "context."+key, "git"
		l.answer.absent = append(l.answer.absent, why)
	}
}

// unknown: nothing can be said about the commit.
func (l *look) unknown(why Absence) {
	for _, path := range gitReads {
		if key := strings.TrimPrefix(path, "context."); key != "commit_problem" {
			l.lack(key, why)
		}
	}
}

func (l *look) run(asked Asked) {
	id := asked.Job.Identity()
	if !isObjectID(id.Commit) {
		l.unknown(Absence{Code: proviso.CodeGitRef, Why: "the job's token names no commit, so no commit could be verified"})
		return
	}
	ref := refOf(id)
	if ref == "" {
		l.unknown(Absence{Code: proviso.CodeGitRef, Why: "the job's token names no branch or tag that the commit could be on"})
		return
	}
	trust, err := l.source.trusted()
	if err != nil {
		l.unknown(Absence{Code: proviso.CodeGitTrustStore, Why: "the broker's list of allowed signers can't be read", Err: err})
		return
	}
	m, why := l.source.mirrorOf(asked, id)
	if why != nil {
		l.unknown(*why)
		return
	}
	on, at, err := l.find(m, ref, id.Commit)
	if err != nil {
		l.unknown(fetchAbsence(err))
		return
	}
	l.add("commit_on_branch", document.BoolOf(on), at)
	if !on {
		code, text := proviso.CodeGitNotOnBranch, "the commit is not on the branch "+clip(id.Branch)+" that the job's token names"
		if id.Branch == "" {
			code, text = proviso.CodeGitTagMoved, "the commit is not the one of the tag "+clip(id.Tag)+" that the job's token names"
		}
		l.refuse(code, text, nil, at)
		return
	}
	commits, err := m.load(l.ctx, id.Commit)
	if errors.Is(err, errMalformed) {
		l.refuse(proviso.CodeGitMalformedObject, "the commit object can be read in several ways", err, at)
		return
	}
	if err != nil {
		l.unknown(fetchAbsence(err))
		return
	}
	c := commits[0]
	l.add("commit_author", document.StringOf(c.author.email), at)
	l.add("commit_committer", document.StringOf(c.committer.email), at)
	l.judge(m, trust, c, at)
}

// judge verifies the signature, and those of what the commit merged in.
func (l *look) judge(m *mirror, trust *trust, c *commit, at time.Time) {
	now := l.source.settings.now()
	v := trust.judge(c, now)
	if l.source.ancestors || l.wanted("commit_unsigned_ancestors") {
		count, err := l.unsignedAncestors(m, trust, c, now)
		switch {
		case err != nil:
			why := fetchAbsence(err)
			l.lack("commit_unsigned_ancestors", why)
			if l.source.ancestors && v.signed {
				l.lack("commit_signed", why)
				return
			}
		default:
			l.add("commit_unsigned_ancestors", document.IntOf(int64(count)), at)
			if l.source.ancestors && v.signed && count > 0 {
				v = unsigned(proviso.CodeGitUnsignedAncestor, "the commit merges %d commits without a good signature", count)
			}
		}
	}
	if !v.signed {
		l.refuse(v.code, v.why, v.err, at)
		return
	}
	l.add("commit_signed", document.BoolOf(true), at)
	l.add("commit_signer", document.StringOf(v.signer), at)
	l.add("commit_signer_key", document.StringOf(v.key), at)
	l.add("commit_signature_kind", document.StringOf(v.kind), at)
}

// refuse says that commit_signed is false, and why.
func (l *look) refuse(code proviso.Code, why string, err error, at time.Time) {
	l.add("commit_signed", document.BoolOf(false), at)
	l.add("commit_problem", document.StringOf(string(code)), at)
	l.answer.remarks = append(l.answer.remarks, Remark{Key: "context.commit_signed", Source: "git", Code: code, Why: why, Err: err})
}

// find says whether the commit is on the ref, and when that was so. If it isn't,
// the ref is asked for again: the job may be younger than what is known.
func (l *look) find(m *mirror, ref, id string) (on bool, at time.Time, err error) {
	asked := l.source.settings.now()
	for _, notBefore := range []time.Time{{}, asked} {
		tip, fetched, err := m.tip(l.ctx, ref, l.source.cfg.MaxAge, notBefore)
		if err != nil {
			return false, time.Time{}, err
		}
		on, at = false, fetched
		switch {
		case tip == "": // no such ref
		case strings.HasPrefix(ref, "refs/tags/"):
			on = tip == id
		default:
			if _, err := m.load(l.ctx, id); err == nil || errors.Is(err, errMalformed) {
				if on, err = m.contains(l.ctx, ref, tip, id); err != nil {
					return false, time.Time{}, err
				}
			} else if !errors.Is(err, errNoCommit) && !errors.Is(err, errNotCommit) {
				return false, time.Time{}, err
			}
		}
		if on {
			return true, at, nil
		}
		if !at.Before(asked) {
			break
		}
	}
	return false, at, nil
}

// unsignedAncestors counts the commits without a good signature that c merged in.
func (l *look) unsignedAncestors(m *mirror, trust *trust, c *commit, now time.Time) (int, error) {
	ids, more, err := m.merged(l.ctx, c, maxMerged)
	if err != nil {
		return 0, err
	}
	if more {
		return 0, errTooMany
	}
	count := 0
	for _, id := range ids {
		commits, err := m.load(l.ctx, id)
		switch {
		case errors.Is(err, errMalformed):
			count++
		case err != nil:
			return 0, err
		case !trust.judge(commits[0], now).signed:
			count++
		}
	}
	return count, nil
}

var errTooMany = fmt.Errorf("the merge brought in more than %d commits", maxMerged)

// fetchAbsence turns an error of the mirror into what the job may read of it.
func fetchAbsence(err error) Absence {
	switch {
	case errors.Is(err, errTooLarge):
		return Absence{Code: proviso.CodeLimitsGit, Why: "the repository is larger than the broker's mirror may be", Err: err}
	case errors.Is(err, errTooMany):
		return Absence{Code: proviso.CodeLimitsGit, Why: errTooMany.Error(), Err: err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Absence{Code: proviso.CodeGitFetch, Why: "the broker's mirror of the repository is still being brought up to date; try again in a moment", Err: err}
	}
	return Absence{Code: proviso.CodeGitFetch, Why: "the broker could not bring its mirror of the repository up to date", Err: err}
}

// refOf gives the full name of the branch or tag that the token names, "" if
// there is none or if its name is none that git has.
func refOf(id identity.Identity) string {
	switch {
	case id.Branch != "" && isRefName(id.Branch):
		return "refs/heads/" + id.Branch
	case id.Branch == "" && id.Tag != "" && isRefName(id.Tag):
		return "refs/tags/" + id.Tag
	}
	return ""
}

// isRefName holds the rules of git-check-ref-format(1), and no leading dash.
func isRefName(s string) bool {
	if s == "" || len(s) > 250 || s == "@" || s[0] == '-' || strings.HasSuffix(s, ".") ||
		strings.Contains(s, "..") || strings.Contains(s, "@{") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || strings.IndexByte("~^:?*[\\", c) >= 0 {
			return false
		}
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}
