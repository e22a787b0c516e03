package facts_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/lab"
)

// The traps of commit signatures, with SSH keys. git verify-commit of git 2.39
// says "Good" to several of them.
func TestSSHSignatures(t *testing.T) {
	r := newRepo(t, "sha1")
	good, stranger, expired, early, revoked, files := newPerson(t), newPerson(t), newPerson(t), newPerson(t), newPerson(t), newPerson(t)
	wild, excluded, both := newPerson(t), newPerson(t), newPerson(t)
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024) // #nosec G403 -- it is to be refused
	if err != nil {
		t.Fatal(err)
	}
	ecdsaSigner, rsaSigner, weak := personOf(t, ecKey), personOf(t, rsaKey), personOf(t, weakKey)
	stamp := func(d time.Duration) string { return now.UTC().Add(d).Format("20060102150405") + "Z" }
	var signers strings.Builder
	allow := func(principals, options string, p *person) {
		fmt.Fprintf(&signers, "%s %s %s comment\n", principals, options, p.line)
	}
	signers.WriteString("# who may sign\n\n")
	allow("dana@acme.example", `namespaces="git"`, good)
	allow("dana@acme.example", `valid-before="`+stamp(-24*time.Hour)+`"`, expired)
	allow("dana@acme.example", `valid-after="`+stamp(-30*time.Minute)+`"`, early)
	allow("dana@acme.example", ``, revoked)
	allow("dana@acme.example", `namespaces="file,email"`, files)
	allow(`"*@acme.example,release-bot"`, `namespaces="git"`, wild)
	allow("*@acme.example,!dana@acme.example", ``, excluded)
	allow("dana@acme.example", `valid-before="`+stamp(-24*time.Hour)+`"`, both) // an old line
	allow("dana@acme.example", `valid-after="`+stamp(-48*time.Hour)+`",namespaces="git"`, both)
	allow("dana@acme.example", ``, ecdsaSigner)
	allow("dana@acme.example", ``, rsaSigner)
	allow("dana@acme.example", ``, weak)
	g := newGatherer(t, r.config(signers.String(), func(c *facts.GitConfig) {
		c.RevokedKeys = r.file("revoked", "# gone\n"+ssh.FingerprintSHA256(revoked.signer.PublicKey())+"\n")
	}))
	certificate := func(payload string) string {
		cert := &ssh.Certificate{Key: good.signer.PublicKey(), CertType: ssh.UserCert, KeyId: "dana", ValidPrincipals: []string{"dana@acme.example"}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(rand.Reader, good.signer); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, good.signer)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := sshsig.Sign(strings.NewReader(payload), signer, sshsig.HashSHA512, "git")
		if err != nil {
			t.Fatal(err)
		}
		return string(sshsig.Armor(sig))
	}
	cases := []struct {
		name string
		made made
		code proviso.Code // "" = signed
	}{
		{"good", made{sign: good.sign}, ""},
		{"good, ECDSA", made{sign: ecdsaSigner.sign}, ""},
		{"good, RSA", made{sign: rsaSigner.sign}, ""},
		{"RSA of 1024 bits", made{sign: weak.sign}, proviso.CodeGitSignerClass},
		{"good, with encoding and other headers", made{sign: good.sign, extra: "encoding ISO-8859-1\nHG:extra a\n b\nchange-id x\n"}, ""},
		{"good, message with a blank line and a fake header", made{sign: good.sign, message: "\ntree x\n\ngpgsig x\n"}, ""},
		{"good, by a pattern", made{sign: wild.sign}, ""},
		{"good, the newer line of two", made{sign: both.sign}, ""},
		{"good, author is somebody else", made{sign: good.sign, author: eve}, ""},
		{"unsigned", made{}, proviso.CodeGitUnsigned},
		{"unknown key", made{sign: stranger.sign}, proviso.CodeGitUnknownKey},
		{"for another commit", made{sign: func(string) string { return good.sign("something else") }}, proviso.CodeGitSignature},
		{"changed afterwards", made{sign: good.sign, lie: func(raw string) string { return raw + "more\n" }}, proviso.CodeGitSignature},
		{"for files", made{sign: good.signFor("file")}, proviso.CodeGitNamespace},
		{"key not for git", made{sign: files.sign}, proviso.CodeGitNamespace},
		{"expired key", made{sign: expired.sign}, proviso.CodeGitKeyExpired},
		{"expired key, backdated commit", made{sign: expired.sign, at: now.Add(-72 * time.Hour)}, proviso.CodeGitKeyExpired},
		{"before the key was allowed", made{sign: early.sign, at: now.Add(-time.Hour)}, proviso.CodeGitKeyTime},
		{"from the future", made{sign: good.sign, at: now.Add(time.Hour)}, proviso.CodeGitKeyTime},
		{"revoked key", made{sign: revoked.sign}, proviso.CodeGitKeyRevoked},
		{"in another's name", made{sign: good.sign, committer: eve}, proviso.CodeGitIdentityMismatch},
		{"in another's name, pattern", made{sign: wild.sign, committer: "Dana <dana@acme.example.evil.example>"}, proviso.CodeGitIdentityMismatch},
		{"excluded by name", made{sign: excluded.sign}, proviso.CodeGitIdentityMismatch},
		{"in another case", made{sign: good.sign, committer: "Dana <DANA@acme.example>"}, proviso.CodeGitIdentityMismatch},
		{"no e-mail address", made{sign: good.sign, committer: "Dana <>"}, proviso.CodeGitIdentityMismatch},
		{"SSH certificate", made{sign: certificate}, proviso.CodeGitSignerClass},
		{"X.509", made{sign: func(string) string { return "-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----\n" }}, proviso.CodeGitSignerClass},
		{"no format at all", made{sign: func(string) string { return "trust me" }}, proviso.CodeGitSignature},
		{"text before", made{sign: func(p string) string { return "x\n" + good.sign(p) }}, proviso.CodeGitSignature},
		{"text after", made{sign: func(p string) string { return good.sign(p) + "x\n" }}, proviso.CodeGitSignature},
		{"two signatures", made{sign: func(p string) string { return good.sign(p) + good.sign(p) }}, proviso.CodeGitSignature},
		{"cut off", made{sign: func(p string) string { return good.sign(p)[:100] }}, proviso.CodeGitSignature},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			k := look(t, g, r.onMain(c.made))
			if c.code == "" {
				wantValue(t, k, "true", "context", "commit_signed")
				wantValue(t, k, `"dana@acme.example"`, "context", "commit_signer")
				wantValue(t, k, `"ssh"`, "context", "commit_signature_kind")
				wantValue(t, k, `"fact:git"`, "origin", "commit_signed", "source")
				wantValue(t, k, "", "context", "commit_problem")
				if key := k.Input().At("context", "commit_signer_key").String(); !strings.HasPrefix(key, `"SHA256:`) {
					t.Errorf("the key is %s", key)
				}
				if len(k.Absent())+len(k.Remarks()) > 0 {
					t.Errorf("absent: %+v, remarks: %+v", k.Absent(), k.Remarks())
				}
				return
			}
			wantValue(t, k, "false", "context", "commit_signed")
			wantValue(t, k, `"`+string(c.code)+`"`, "context", "commit_problem")
			wantValue(t, k, "true", "context", "commit_on_branch")
			wantRemark(t, k, "commit_signed", c.code, "")
			for _, key := range []string{"commit_signer", "commit_signer_key", "commit_signature_kind"} {
				wantValue(t, k, "", "context", key)
			}
		})
	}
	k := look(t, g, r.onMain(made{sign: good.sign, author: eve}))
	wantValue(t, k, `"eve@evil.example"`, "context", "commit_author")
	wantValue(t, k, `"dana@acme.example"`, "context", "commit_committer")
}

// Commit objects that two readers read differently, each with a signature that
// fits one of the readings. Each stands on a branch of its own.
func TestMalformedCommitObjects(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	base := r.onMain(made{sign: good.sign})
	g := newGatherer(t, r.config("dana@acme.example "+good.line+"\n"))
	line := func(prefix string) func(raw, with string) string {
		return func(raw, with string) string {
			at := strings.Index(raw, prefix)
			end := at + strings.IndexByte(raw[at:], '\n') + 1
			return raw[:end] + with + raw[end:]
		}
	}
	after := func(prefix, with string) func(string) string {
		return func(raw string) string { return line(prefix)(raw, with) }
	}
	for name, m := range map[string]made{
		"two trees":              {lie: after("tree ", "tree "+r.tree+"\n")},
		"tree after the author":  {lie: after("author ", "tree "+r.tree+"\n")},
		"two authors":            {lie: after("author ", "author "+eve+" 1 +0000\n")},
		"two committers":         {lie: after("committer ", "committer "+eve+" 1 +0000\n")},
		"author at the end":      {lie: after("committer ", "author "+eve+" 1 +0000\n")},
		"parent after committer": {lie: after("committer ", "parent "+base+"\n")},
		"Tree in capitals":       {lie: after("committer ", "Tree "+r.tree+"\n")},
		"two signatures":         {lie: after("committer ", "gpgsig x\n")},
		"gpgsig of another kind": {lie: after("committer ", "gpgsig-sha512 x\n")},
		"NUL in the message":     {lie: func(raw string) string { return raw + "\x00more" }},
		"carriage return":        {lie: func(raw string) string { return strings.Replace(raw, "committer", "x y\r\ncommitter", 1) }},
		"line without a name":    {lie: after("committer ", "\x01 x\n")},
		"two brackets":           {committer: "Dana <dana@acme.example> <eve@evil.example>"},
		"no time zone":           {lie: func(raw string) string { return strings.Replace(raw, " +0000\ncommitter", "\ncommitter", 1) }},
		"negative time":          {at: time.Unix(-5, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			m.sign, m.parents = good.sign, []string{base}
			id := r.commit(m)
			branch := "b" + id[:8]
			r.ref("refs/heads/"+branch, id)
			k := look(t, g, id, func(j *lab.Job) { j.Branch = branch })
			if v := k.Input().At("context", "commit_signed").String(); v == "true" {
				t.Fatal("signed")
			}
			// git may already refuse to walk over it: then nothing is known.
			if v := k.Input().At("context", "commit_signed").String(); v == "false" {
				wantValue(t, k, `"git_malformed_object"`, "context", "commit_problem")
			} else if len(k.Absent()) == 0 || len(k.Remarks()) > 0 {
				t.Error("absent without a reason")
			}
		})
	}
}

// A commit counts only on the branch that the job's token names.
func TestBranch(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	g := newGatherer(t, r.config("dana@acme.example "+good.line+"\n", func(c *facts.GitConfig) { c.MaxAge = time.Minute }))
	first := r.onMain(made{sign: good.sign})
	second := r.onMain(made{sign: good.sign})
	wantValue(t, look(t, g, first), "true", "context", "commit_signed") // an ancestor of the tip
	wantValue(t, look(t, g, second), "true", "context", "commit_signed")
	third := r.onMain(made{sign: good.sign}) // pushed after the mirror was fetched, within its age
	wantValue(t, look(t, g, third), "true", "context", "commit_signed")

	imposter := r.commit(made{sign: good.sign, parents: []string{third}}) // in the repository, on another branch
	r.ref("refs/heads/other", imposter)
	for _, id := range []string{imposter, strings.Repeat("ab", 20)} {
		k := look(t, g, id)
		wantValue(t, k, "false", "context", "commit_signed")
		wantValue(t, k, "false", "context", "commit_on_branch")
		wantValue(t, k, `"git_not_on_branch"`, "context", "commit_problem")
		wantRemark(t, k, "commit_signed", proviso.CodeGitNotOnBranch, "main")
	}
	wantValue(t, look(t, g, imposter, func(j *lab.Job) { j.Branch = "other" }), "true", "context", "commit_signed")
	k := look(t, g, first, func(j *lab.Job) { j.Branch = "nowhere" })
	wantValue(t, k, `"git_not_on_branch"`, "context", "commit_problem")
}

// Names that git has not, and words that a git would take for an option, are
// asked for nowhere.
func TestRefNames(t *testing.T) {
	for name, want := range map[string]bool{"main": true, "release/1.2": true, "feature/a-b_c@d": true, "ünïcode": true,
		"": false, "--upload-pack=touch": false, "a..b": false, "a b": false, "a:b": false, "x.lock": false, "a.lock/b": false, "@": false, "@{-1}": false,
		"/a": false, "a/": false, "a//b": false, ".a": false, "a/.b": false, "a.": false, "a~1": false, "a^": false, "a?": false, "a*": false, "a[": false,
		"a\\b": false, "a\x00": false, "a\n": false, "a\x7f": false, strings.Repeat("a", 251): false} {
		if got := facts.RefName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

// A branch that was pushed by force no longer holds what it held, as soon as the
// mirror's age is up.
func TestForcePush(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	at, clock := now, sync.Mutex{}
	g, err := facts.New(r.config("dana@acme.example "+good.line+"\n"), facts.Options{Log: quiet, Now: func() time.Time { clock.Lock(); defer clock.Unlock(); return at }})
	if err != nil {
		t.Fatal(err)
	}
	base := r.onMain(made{sign: good.sign})
	gone := r.onMain(made{sign: good.sign})
	wantValue(t, look(t, g, gone), "true", "context", "commit_signed")
	r.ref("refs/heads/main", r.commit(made{sign: good.sign, parents: []string{base}, message: "instead\n"}))
	clock.Lock()
	at = at.Add(29 * time.Second)
	clock.Unlock()
	k := look(t, g, gone)
	wantValue(t, k, `{"age":29,"source":"fact:git"}`, "origin", "commit_on_branch")
	clock.Lock()
	at = at.Add(2 * time.Second)
	clock.Unlock()
	k = look(t, g, gone)
	wantValue(t, k, "false", "context", "commit_signed")
	wantValue(t, k, `"git_not_on_branch"`, "context", "commit_problem")
}

func TestTag(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	g := newGatherer(t, r.config("dana@acme.example "+good.line+"\n", func(c *facts.GitConfig) { c.MaxAge = time.Nanosecond }))
	first, second := r.onMain(made{sign: good.sign}), r.onMain(made{sign: good.sign})
	r.ref("refs/tags/v1", first)
	annotated := r.git(fmt.Sprintf("object %s\ntype commit\ntag v2\ntagger %s 1 +0000\n\nv2\n", second, dana), "hash-object", "-t", "tag", "-w", "--stdin")
	r.ref("refs/tags/v2", annotated)
	tagged := func(id, tag string) facts.Known {
		return look(t, g, id, func(j *lab.Job) { j.Branch, j.Tag = "", tag })
	}
	wantValue(t, tagged(first, "v1"), "true", "context", "commit_signed")
	wantValue(t, tagged(second, "v2"), "true", "context", "commit_signed")
	k := tagged(first, "v2") // on the branch, but not what the tag names
	wantValue(t, k, "false", "context", "commit_signed")
	wantValue(t, k, `"git_tag_moved"`, "context", "commit_problem")
}

// Nothing can be said of a job without a commit, a branch or a configured repository.
func TestNothingToLookAt(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	id := r.onMain(made{sign: good.sign})
	c := r.config("dana@acme.example " + good.line + "\n")
	k := lookAs(t, newGatherer(t, c), jobOf(t, lab.Job{Commit: id}, lab.NoClaim("sha")))
	wantAbsent(t, k, "commit_signed", proviso.CodeGitRef, "no commit")
	wantAbsent(t, k, "commit_on_branch", proviso.CodeGitRef, "no commit")
	for _, change := range []func(*facts.RepositoryConfig){
		func(r *facts.RepositoryConfig) { r.Issuer = "gitlab" },
		func(r *facts.RepositoryConfig) { r.RepositoryID = "12345" },
	} {
		other := c
		git := *c.Git
		git.Repositories = append([]facts.RepositoryConfig(nil), c.Git.Repositories...)
		change(&git.Repositories[0])
		other.Git = &git
		k := look(t, newGatherer(t, other), id)
		wantAbsent(t, k, "commit_signed", proviso.CodeGitFetch, "no mirror is configured")
	}
}

// Only a policy that reads a commit fact starts a git.
func TestGitIsNotAskedForNothing(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	c := r.config("dana@acme.example " + good.line + "\n")
	gather(t, newGatherer(t, c), facts.Asked{Job: jobOf(t, lab.Job{})}, "context.branch", "context.commit")
	if _, err := os.Stat(c.Git.Dir); !os.IsNotExist(err) {
		t.Errorf("a mirror was begun: %v", err)
	}
}

// A signed merge says nothing of what it merges.
func TestUnsignedAncestors(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	base := r.onMain(made{sign: good.sign})
	side := r.commit(made{parents: []string{base}})
	side2 := r.commit(made{parents: []string{side}, sign: good.sign})
	merge := r.onMain(made{sign: good.sign, parents: []string{side2}})
	after := r.onMain(made{sign: good.sign})
	signers := "dana@acme.example " + good.line + "\n"
	count := func(id string, g *facts.Gatherer) facts.Known {
		return gather(t, g, facts.Asked{Job: jobOf(t, lab.Job{Commit: id})}, "context.commit_signed", "context.commit_unsigned_ancestors", "context.commit_problem")
	}
	note := newGatherer(t, r.config(signers))
	for id, want := range map[string]string{base: "0", merge: "1", after: "0"} {
		k := count(id, note)
		wantValue(t, k, want, "context", "commit_unsigned_ancestors")
		wantValue(t, k, "true", "context", "commit_signed")
	}
	strict := newGatherer(t, r.config(signers, func(c *facts.GitConfig) { c.Ancestors = "require" }))
	wantValue(t, count(merge, strict), `"git_unsigned_ancestor"`, "context", "commit_problem")
	wantValue(t, count(merge, strict), "false", "context", "commit_signed")
	wantValue(t, count(after, strict), "true", "context", "commit_signed")

	tip := side
	for range 205 {
		tip = r.commit(made{parents: []string{tip}})
	}
	huge := r.onMain(made{sign: good.sign, parents: []string{tip}})
	wantAbsent(t, count(huge, strict), "commit_signed", proviso.CodeLimitsGit, "more than 200")
	k := count(huge, note)
	wantAbsent(t, k, "commit_unsigned_ancestors", proviso.CodeLimitsGit, "more than 200")
	wantValue(t, k, "true", "context", "commit_signed")
}

// signer: any waives that the signer is the committer, for a forge that merges.
func TestAnySigner(t *testing.T) {
	r := newRepo(t, "sha1")
	forge := newPerson(t)
	id := r.onMain(made{sign: forge.sign, committer: eve})
	g := newGatherer(t, r.config("!x@acme.example,forge@acme.example "+forge.line+"\n", func(c *facts.GitConfig) { c.Signer = "any" }))
	k := look(t, g, id)
	wantValue(t, k, "true", "context", "commit_signed")
	wantValue(t, k, `"forge@acme.example"`, "context", "commit_signer")
	wantValue(t, k, `"eve@evil.example"`, "context", "commit_committer")
}

func TestSHA256Repository(t *testing.T) {
	r := newRepo(t, "sha256")
	good := newPerson(t)
	g := newGatherer(t, r.config("dana@acme.example "+good.line+"\n"))
	id := r.onMain(made{sign: good.sign})
	if len(id) != 64 {
		t.Fatal(id)
	}
	wantValue(t, look(t, g, id), "true", "context", "commit_signed")
	wantValue(t, look(t, g, r.onMain(made{})), "false", "context", "commit_signed")
}

// What can't be fetched is unknown, not unsigned.
func TestFetchFails(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	id := r.onMain(made{sign: good.sign})
	signers := "dana@acme.example " + good.line + "\n"
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	for name, c := range map[string]struct {
		change func(*facts.GitConfig)
		code   proviso.Code
		word   string
	}{
		"no repository": {func(c *facts.GitConfig) { c.Repositories[0].URL += "-gone" }, proviso.CodeGitFetch, "could not bring"},
		"hangs": {func(c *facts.GitConfig) {
			c.Repositories[0].URL, c.FetchTimeout = "https://"+listener.Addr().String()+"/x.git", 300*time.Millisecond
		}, proviso.CodeGitFetch, "up to date"},
		"too large":                         {func(c *facts.GitConfig) { c.MaxBytes = 10 }, proviso.CodeLimitsGit, "larger"},
		"no git":                            {func(c *facts.GitConfig) { c.Binary = "/nowhere/git" }, proviso.CodeGitFetch, "could not bring"},
		"a program that writes without end": {func(c *facts.GitConfig) { c.Binary = "/usr/bin/yes" }, proviso.CodeGitFetch, "could not bring"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.config(signers, c.change)
			cfg.Git.Dir = filepath.Join(t.TempDir(), "mirrors")
			k := look(t, newGatherer(t, cfg), id)
			wantAbsent(t, k, "commit_signed", c.code, c.word)
			wantAbsent(t, k, "commit_on_branch", c.code, c.word)
			wantValue(t, k, "", "context", "commit_problem")
		})
	}
}

// The first fetch of a large repository goes on after the request was answered.
func TestSlowFirstFetch(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	id := r.onMain(made{sign: good.sign})
	gate := filepath.Join(r.trust, "go")
	slow := r.file("slow-git", "#!/bin/sh\ncase \"$*\" in *fetch*) while [ ! -e "+gate+" ]; do sleep 0.05; done;; esac\nexec git \"$@\"\n")
	if err := os.Chmod(slow, 0o700); err != nil {
		t.Fatal(err)
	}
	c := r.config("dana@acme.example "+good.line+"\n", func(c *facts.GitConfig) { c.Binary = slow })
	c.Timeout = 300 * time.Millisecond
	g := newGatherer(t, c)
	k := look(t, g, id)
	if v := k.Input().At("context", "commit_signed"); !v.IsAbsent() {
		t.Fatalf("commit_signed is %s", v)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 200 { // the job tries again
		if k = look(t, g, id); !k.Input().At("context", "commit_signed").IsAbsent() {
			break
		}
	}
	wantValue(t, k, "true", "context", "commit_signed")
}

// Close ends a fetch that is under way; nothing is believed after it.
func TestClose(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPerson(t)
	id := r.onMain(made{sign: good.sign})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	g := newGatherer(t, r.config("dana@acme.example "+good.line+"\n", func(c *facts.GitConfig) { c.Repositories[0].URL = "https://" + listener.Addr().String() + "/x.git" }))
	go func() {
		if conn, err := listener.Accept(); err == nil { // git has begun
			g.Close()
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	start := time.Now()
	k := look(t, g, id)
	if v := k.Input().At("context", "commit_signed"); !v.IsAbsent() || time.Since(start) > 20*time.Second {
		t.Errorf("commit_signed is %s after %s", v, time.Since(start))
	}
}

// The files of trust are read again when they change. One that can't be read
// takes the trust away: it may say that somebody has left.
func TestTrustFilesChange(t *testing.T) {
	r := newRepo(t, "sha1")
	good, other := newPerson(t), newPerson(t)
	id := r.onMain(made{sign: good.sign})
	at, clock := now, sync.Mutex{}
	later := func() { clock.Lock(); defer clock.Unlock(); at = at.Add(3 * time.Second) }
	var log bytes.Buffer
	g, err := facts.New(r.config("dana@acme.example "+good.line+"\n"), facts.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { clock.Lock(); defer clock.Unlock(); return at }})
	if err != nil {
		t.Fatal(err)
	}
	wantValue(t, look(t, g, id), "true", "context", "commit_signed")
	r.file("allowed_signers", "dana@acme.example "+other.line+"\n")
	later()
	wantValue(t, look(t, g, id), `"git_unknown_key"`, "context", "commit_problem")
	r.file("allowed_signers", "dana@acme.example what is this\n")
	later()
	k := look(t, g, id)
	wantAbsent(t, k, "commit_signed", proviso.CodeGitTrustStore, "allowed signers")
	if !strings.Contains(log.String(), "no commit counts as signed") {
		t.Error("not said loudly")
	}
	r.file("allowed_signers", "dana@acme.example "+good.line+"\n")
	later()
	wantValue(t, look(t, g, id), "true", "context", "commit_signed")
}

// Nothing of the machine's configuration reaches the broker's git: neither a
// user's rewriting of URLs, nor its credential helpers, nor variables.
func TestHardenedEnvironment(t *testing.T) {
	r, evil := newRepo(t, "sha1"), newRepo(t, "sha1")
	good := newPerson(t)
	id := r.onMain(made{sign: good.sign})
	mark := filepath.Join(r.trust, "mark")
	home := t.TempDir()
	config := "[url \"file://" + evil.dir + "\"]\n\tinsteadOf = file://" + r.dir + "\n[core]\n\tfsmonitor = touch " + mark + "\n\thooksPath = " + home + "\n[credential]\n\thelper = !touch " + mark + "\n"
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "reference-transaction"), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, ".gitconfig"))
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "url.file://"+evil.dir+".insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "file://"+r.dir)
	t.Setenv("GIT_DIR", evil.dir)
	t.Setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", evil.dir)
	t.Setenv("GIT_SSH_COMMAND", "touch "+mark)
	t.Setenv("GIT_TRACE", mark)
	k := look(t, newGatherer(t, r.config("dana@acme.example "+good.line+"\n")), id)
	wantValue(t, k, "true", "context", "commit_signed")
	if _, err := os.Stat(mark); err == nil {
		t.Error("something of the machine's configuration ran")
	}
}

// Over HTTPS with the lab's repository: git's own server, real ssh-keygen
// signatures, an authority from a file.
func TestOverHTTPS(t *testing.T) {
	ctx := context.Background()
	repo, err := lab.NewRepository(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = repo.Close() })
	trusted, err := repo.NewPerson(ctx, "Dana", "dana@acme.example", true)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := lab.NewCA("acme")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := repo.Commit(ctx, lab.Commit{Signer: trusted, At: now.Add(-time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	url, err := repo.Serve(ctx, ca)
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := ca.WriteFile(caFile); err != nil {
		t.Fatal(err)
	}
	c := facts.Config{Timeout: 30 * time.Second, Git: &facts.GitConfig{Dir: filepath.Join(t.TempDir(), "m"), AllowedSigners: repo.AllowedSigners(),
		Repositories: []facts.RepositoryConfig{{Issuer: "github", URL: url, CAFile: caFile}}}}
	wantValue(t, look(t, newGatherer(t, c), signed), "true", "context", "commit_signed")
	c.Git.Repositories[0].CAFile, c.Git.Dir = "", filepath.Join(t.TempDir(), "m")
	wantAbsent(t, look(t, newGatherer(t, c), signed), "commit_signed", proviso.CodeGitFetch, "could not bring")
}

func TestGitConfigProblems(t *testing.T) {
	good := func() facts.GitConfig {
		return facts.GitConfig{Dir: "m", AllowedSigners: "s", Repositories: []facts.RepositoryConfig{{Issuer: "github", URL: "https://g.example/{identity.repository}.git"}}}
	}
	for name, c := range map[string]struct {
		change func(c *facts.GitConfig)
		path   string
	}{
		"no dir":           {func(c *facts.GitConfig) { c.Dir = "" }, "git.dir"},
		"nobody may sign":  {func(c *facts.GitConfig) { c.AllowedSigners = "" }, "git"},
		"signer":           {func(c *facts.GitConfig) { c.Signer = "author" }, "git.signer"},
		"ancestors":        {func(c *facts.GitConfig) { c.Ancestors = "yes" }, "git.ancestors"},
		"max_age":          {func(c *facts.GitConfig) { c.MaxAge = 25 * time.Hour }, "git.max_age"},
		"fetch_timeout":    {func(c *facts.GitConfig) { c.FetchTimeout = -1 }, "git.fetch_timeout"},
		"max_bytes":        {func(c *facts.GitConfig) { c.MaxBytes = -1 }, "git.max_bytes"},
		"no repositories":  {func(c *facts.GitConfig) { c.Repositories = nil }, "git.repositories"},
		"no issuer":        {func(c *facts.GitConfig) { c.Repositories[0].Issuer = "" }, "git.repositories[0].issuer"},
		"ssh":              {func(c *facts.GitConfig) { c.Repositories[0].URL = "ssh://git@g.example/x" }, "git.repositories[0].url"},
		"ext":              {func(c *facts.GitConfig) { c.Repositories[0].URL = "ext::sh -c touch" }, "git.repositories[0].url"},
		"plain HTTP":       {func(c *facts.GitConfig) { c.Repositories[0].URL = "http://g.example/x" }, "git.repositories[0].url"},
		"declared":         {func(c *facts.GitConfig) { c.Repositories[0].URL = "https://g.example/{intent.ticket_id}" }, "git.repositories[0].url"},
		"query":            {func(c *facts.GitConfig) { c.Repositories[0].URL = "https://g.example/x?y=z" }, "git.repositories[0].url"},
		"token for a file": {func(c *facts.GitConfig) { c.Repositories[0].URL, c.Repositories[0].TokenFile = "file:///srv/x", "t" }, "git.repositories[0].token_file"},
	} {
		t.Run(name, func(t *testing.T) {
			gc := good()
			c.change(&gc)
			if p := facts.Check(facts.Config{Git: &gc}); len(p) != 1 || p[0].Path != c.path || p[0].Message == "" {
				t.Errorf("got %v, want one problem at %s", p, c.path)
			}
		})
	}
	gc := good()
	if p := facts.Check(facts.Config{Git: &gc}); len(p) > 0 {
		t.Error(p)
	}
	if _, err := facts.New(facts.Config{Git: &gc}, facts.Options{Log: quiet}); err == nil {
		t.Error("a missing allowed signers file was no problem")
	}
}
