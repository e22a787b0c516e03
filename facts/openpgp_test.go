package facts_test

import (
	"bytes"
	"crypto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/facts"
)

// gpg is a GnuPG home of its own.
type gpg struct {
	t    *testing.T
	home string
}

func newGPG(t *testing.T) *gpg {
	t.Helper()
	home, err := os.MkdirTemp("", "g") // the agent's socket wants a short path
	if err != nil {
		t.Fatal(err)
	}
	g := &gpg{t, home}
	t.Cleanup(func() {
		cmd := exec.Command("gpgconf", "--kill", "all")
		cmd.Env = append(os.Environ(), "GNUPGHOME="+home)
		_ = cmd.Run()
		_ = os.RemoveAll(home)
	})
	return g
}

func (g *gpg) run(stdin string, args ...string) string {
	g.t.Helper()
	cmd := exec.Command("gpg", append([]string{"--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+g.home)
	cmd.Stdin = strings.NewReader(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		g.t.Fatalf("gpg %v: %v: %s", args, err, errs.String())
	}
	return string(out)
}

// key makes a key, as of a faked time if one is given, and gives its fingerprint.
func (g *gpg) key(uid, expires string, at time.Time) string {
	g.t.Helper()
	return g.keyOf("ed25519", uid, expires, at)
}

func (g *gpg) keyOf(algorithm, uid, expires string, at time.Time) string {
	g.t.Helper()
	args := append(faked(at), "--quick-gen-key", uid, algorithm, "sign", expires)
	g.run("", args...)
	for _, line := range strings.Split(g.run("", "--with-colons", "--list-keys", "="+uid), "\n") {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	g.t.Fatal("no key")
	return ""
}

func faked(at time.Time) []string {
	if at.IsZero() {
		return nil
	}
	return []string{"--faked-system-time", at.UTC().Format("20060102T150405") + "!"}
}

func (g *gpg) sign(key string, at time.Time) func(string) string {
	return func(payload string) string {
		return g.run(payload, append(faked(at), "--armor", "--detach-sign", "-u", key)...)
	}
}

// Keys and signatures that the real GnuPG makes.
func TestGnuPGSignatures(t *testing.T) {
	g := newGPG(t)
	past := now.Add(-2 * 365 * 24 * time.Hour)
	good := g.key("Dana Deployer <dana@acme.example>", "2y", now.Add(-48*time.Hour))
	g.run("", append(faked(now.Add(-47*time.Hour)), "--quick-add-key", good, "ed25519", "sign", "1y")...)
	expired := g.key("Dana Old <dana@acme.example>", "1y", past)
	revoked := g.key("Dana Lost <dana@acme.example>", "2y", now.Add(-48*time.Hour))
	other := g.key("Eve Else <eve@evil.example>", "2y", now.Add(-48*time.Hour))
	rsa := g.keyOf("rsa2048", "Dana RSA <dana@acme.example>", "2y", now.Add(-48*time.Hour))
	stranger := newGPG(t)
	unknown := stranger.key("Dana Deployer <dana@acme.example>", "2y", now.Add(-48*time.Hour))
	revocation, err := os.ReadFile(filepath.Join(g.home, "openpgp-revocs.d", revoked+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	thief := newGPG(t)
	thief.run(g.run("", "--armor", "--export-secret-keys", revoked), "--import")
	g.run(strings.ReplaceAll(string(revocation), ":-----BEGIN", "-----BEGIN"), "--import")

	r := newRepo(t, "sha1")
	keyring := r.file("keyring.asc", g.run("", "--armor", "--export"))
	gatherer := newGatherer(t, r.config("", func(c *facts.GitConfig) { c.OpenPGPKeyring = keyring }))
	for name, c := range map[string]struct {
		made made
		code proviso.Code
	}{
		"good, by its subkey":      {made{sign: g.sign(good, time.Time{})}, ""},
		"good, by its primary key": {made{sign: g.sign(good+"!", time.Time{})}, ""},
		"good, RSA":                {made{sign: g.sign(rsa, time.Time{})}, ""},
		"SHA-1": {made{sign: func(p string) string {
			return g.run(p, "--armor", "--digest-algo", "SHA1", "--detach-sign", "-u", rsa)
		}}, proviso.CodeGitSignerClass},
		"for another commit":            {made{sign: func(string) string { return g.sign(good, time.Time{})("else") }}, proviso.CodeGitSignature},
		"unknown key":                   {made{sign: stranger.sign(unknown, time.Time{})}, proviso.CodeGitUnknownKey},
		"somebody else's key":           {made{sign: g.sign(other, time.Time{})}, proviso.CodeGitIdentityMismatch},
		"revoked key":                   {made{sign: thief.sign(revoked, now.Add(-40*time.Hour)), at: now.Add(-40 * time.Hour)}, proviso.CodeGitKeyRevoked},
		"expired key, in its time":      {made{sign: g.sign(expired, past.Add(24*time.Hour)), at: past.Add(24 * time.Hour)}, proviso.CodeGitKeyExpired},
		"before the key was made":       {made{sign: g.sign(good, time.Time{}), at: now.Add(-72 * time.Hour)}, proviso.CodeGitKeyTime},
		"clear text instead":            {made{sign: func(p string) string { return g.run(p, "--clear-sign", "-u", good) }}, proviso.CodeGitSignature},
		"two signatures in one block":   {made{sign: func(p string) string { return g.run(p, "--armor", "--detach-sign", "-u", good, "-u", other) }}, proviso.CodeGitSignature},
		"two blocks":                    {made{sign: func(p string) string { s := g.sign(good, time.Time{})(p); return s + s }}, proviso.CodeGitSignature},
		"a whole message, not detached": {made{sign: func(p string) string { return g.run(p, "--armor", "--sign", "-u", good) }}, proviso.CodeGitSignature},
		"as text":                       {made{sign: func(p string) string { return g.run(p, "--armor", "--textmode", "--detach-sign", "-u", good) }}, proviso.CodeGitSignature},
	} {
		t.Run(name, func(t *testing.T) {
			k := look(t, gatherer, r.onMain(c.made))
			if c.code != "" {
				wantValue(t, k, "false", "context", "commit_signed")
				wantValue(t, k, `"`+string(c.code)+`"`, "context", "commit_problem")
				return
			}
			wantValue(t, k, "true", "context", "commit_signed")
			wantValue(t, k, `"dana@acme.example"`, "context", "commit_signer")
			wantValue(t, k, `"openpgp"`, "context", "commit_signature_kind")
			if key := k.Input().At("context", "commit_signer_key").String(); len(key) != 42 {
				t.Errorf("the key is %s", key)
			}
		})
	}

	// Binary, and several exports one after the other.
	binary := r.file("keyring.gpg", g.run("", "--export", good))
	several := r.file("several.asc", g.run("", "--armor", "--export", other)+"\n"+g.run("", "--armor", "--export", good))
	id := r.onMain(made{sign: g.sign(good, time.Time{})})
	for _, file := range []string{binary, several} {
		wantValue(t, look(t, newGatherer(t, r.config("", func(c *facts.GitConfig) { c.OpenPGPKeyring = file })), id), "true", "context", "commit_signed")
	}
	// Keyrings that are refused.
	for name, content := range map[string]string{
		"a key twice":   g.run("", "--armor", "--export", good) + g.run("", "--armor", "--export", good),
		"a private key": g.run("", "--armor", "--export-secret-keys", good),
		"no key":        "hello",
		"cut off":       g.run("", "--armor", "--export", good)[:200],
		"text before":   "-----BEGIN NOTHING-----\n" + g.run("", "--armor", "--export", good),
	} {
		file := r.file("bad.asc", content)
		_, err := facts.New(r.config("", func(c *facts.GitConfig) { c.OpenPGPKeyring = file }), facts.Options{Log: quiet})
		if err == nil {
			t.Errorf("%s: taken", name)
		} else if strings.Contains(err.Error(), "PRIVATE KEY") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}

// pgpKey is a key whose signatures a test makes packet by packet.
type pgpKey struct{ *openpgp.Entity }

func newPGPKey(t *testing.T, edits ...func(*packet.Config)) pgpKey {
	t.Helper()
	c := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-48 * time.Hour) }}
	for _, e := range edits {
		e(c)
	}
	e, err := openpgp.NewEntity("Dana", "", "dana@acme.example", c)
	if err != nil {
		t.Fatal(err)
	}
	return pgpKey{e}
}

func (k pgpKey) armored(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

// sign makes any signature packet with any of the entity's keys.
func (k pgpKey) sign(t *testing.T, key *packet.PrivateKey, edits ...func(*packet.Signature)) func(string) string {
	return func(payload string) string {
		t.Helper()
		sig := &packet.Signature{Version: 4, SigType: packet.SigTypeBinary, PubKeyAlgo: key.PubKeyAlgo, Hash: crypto.SHA256,
			CreationTime: now.Add(-time.Hour), IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint}
		for _, e := range edits {
			e(sig)
		}
		h, err := sig.PrepareSign(nil)
		if err != nil {
			t.Fatal(err)
		}
		h.Write([]byte(payload))
		if err := sig.Sign(h, key, nil); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		w, err := armor.Encode(&b, "PGP SIGNATURE", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := sig.Serialize(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String() + "\n"
	}
}

// Traps that GnuPG doesn't make by itself.
func TestOpenPGPTraps(t *testing.T) {
	r := newRepo(t, "sha1")
	good := newPGPKey(t)
	short := newPGPKey(t, func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 1024 })
	revokedSubkey := newPGPKey(t)
	if err := revokedSubkey.AddSigningSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-47 * time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	sub := &revokedSubkey.Subkeys[len(revokedSubkey.Subkeys)-1]
	if err := revokedSubkey.RevokeSubkey(sub, packet.KeySuperseded, "", &packet.Config{Time: func() time.Time { return now.Add(-10 * time.Minute) }}); err != nil {
		t.Fatal(err)
	}
	oldSubkey := newPGPKey(t)
	if err := oldSubkey.AddSigningSubkey(&packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: 3600, Time: func() time.Time { return now.Add(-47 * time.Hour) }}); err != nil {
		t.Fatal(err)
	}
	encryption := newPGPKey(t, func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 2048 })
	var ring strings.Builder
	for _, k := range []pgpKey{good, short, revokedSubkey, oldSubkey, encryption} {
		ring.WriteString(k.armored(t))
	}
	file := r.file("ring.asc", ring.String())
	g := newGatherer(t, r.config("", func(c *facts.GitConfig) { c.OpenPGPKeyring = file }))
	last := func(k pgpKey) *packet.PrivateKey { return k.Subkeys[len(k.Subkeys)-1].PrivateKey }
	life := uint32(600)
	for name, c := range map[string]struct {
		sign func(string) string
		code proviso.Code
	}{
		"good":                        {good.sign(t, good.PrivateKey), ""},
		"RSA with 1,024 bits":         {short.sign(t, short.PrivateKey), proviso.CodeGitSignerClass},
		"a subkey for encryption":     {encryption.sign(t, last(encryption)), proviso.CodeGitSubkey},
		"a revoked subkey":            {revokedSubkey.sign(t, sub.PrivateKey), proviso.CodeGitKeyRevoked},
		"an expired subkey":           {oldSubkey.sign(t, last(oldSubkey), func(s *packet.Signature) { s.CreationTime = now.Add(-46*time.Hour - 30*time.Minute) }), proviso.CodeGitKeyExpired},
		"a signature that expired":    {good.sign(t, good.PrivateKey, func(s *packet.Signature) { s.SigLifetimeSecs = &life }), proviso.CodeGitKeyExpired},
		"before the key was made":     {good.sign(t, good.PrivateKey, func(s *packet.Signature) { s.CreationTime = now.Add(-72 * time.Hour) }), proviso.CodeGitKeyTime},
		"from the future":             {good.sign(t, good.PrivateKey, func(s *packet.Signature) { s.CreationTime = now.Add(time.Hour) }), proviso.CodeGitKeyTime},
		"a certification, not a file": {good.sign(t, good.PrivateKey, func(s *packet.Signature) { s.SigType = packet.SigTypeGenericCert }), proviso.CodeGitSignature},
		"critical notation, not known": {good.sign(t, good.PrivateKey, func(s *packet.Signature) {
			s.Notations = []*packet.Notation{{Name: "only-for-mail@acme.example", Value: []byte("1"), IsCritical: true}}
		}), proviso.CodeGitSignature},
	} {
		t.Run(name, func(t *testing.T) {
			k := look(t, g, r.onMain(made{sign: c.sign}))
			if c.code == "" {
				wantValue(t, k, "true", "context", "commit_signed")
				return
			}
			wantValue(t, k, "false", "context", "commit_signed")
			wantValue(t, k, `"`+string(c.code)+`"`, "context", "commit_problem")
		})
	}
}
