package facts

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/proviso-ci/proviso"
)

// verdict is what became of looking at one commit's signature.
type verdict struct {
	signed bool
	// When it is not: the cause, a sentence about it, and more for the log.
	code proviso.Code
	why  string
	err  error
	// When it is.
	signer string // principal
	key    string // fingerprint
	kind   string // ssh or openpgp
	// until is when the verdict has to be found anew; zero: never.
	until time.Time
}

func unsigned(code proviso.Code, why string, args ...any) verdict {
	return verdict{code: code, why: fmt.Sprintf(why, args...)}
}

// clockSkew is how far in the future a commit's or signature's time may lie.
const clockSkew = 5 * time.Minute

// trust is one reading of the operator's files: who may sign.
type trust struct {
	signers map[string][]allowedSigner // by the key's wire form
	revoked map[string]bool            // SSH fingerprints (SHA256:...)
	keyring keyring
	// anyIdentity: the signer need not be the committer.
	anyIdentity bool
}

// goodVerdict is a verdict that stays good as long as the same people may sign,
// until its own end.
type goodVerdict struct {
	by *trust
	v  verdict
}

// judge verifies a commit's signature. A verdict is about the bytes of the
// commit and the files of the operator; nothing that git would look up (its
// configuration, a keyring in a home directory, gpg's trust database) takes part.
//
// Validity counts twice: at the time that the commit claims, because a key signs
// only in its own time, and now, because the claimed time is the signer's word
// and whoever finds an expired key can write an older one.
func (t *trust) judge(c *commit, now time.Time) verdict {
	if g := c.good.Load(); g != nil && g.by == t && (g.v.until.IsZero() || now.Before(g.v.until)) {
		return g.v
	}
	v := t.verify(c, now)
	if v.signed {
		c.good.Store(&goodVerdict{t, v})
	}
	return v
}

func (t *trust) verify(c *commit, now time.Time) verdict {
	if c.signature == nil {
		return unsigned(proviso.CodeGitUnsigned, "the commit has no signature")
	}
	if c.committer.at.Sub(now) > clockSkew {
		return unsigned(proviso.CodeGitKeyTime, "the commit claims to be made at %s, which is in the future", c.committer.at.Format(time.RFC3339))
	}
	text := string(c.signature)
	switch {
	case strings.HasPrefix(text, sshBegin):
		return t.judgeSSH(c, now)
	case strings.HasPrefix(text, pgpBegin):
		return t.keyring.judge(c, now, t.anyIdentity)
	case strings.HasPrefix(text, "-----BEGIN SIGNED MESSAGE-----"):
		return unsigned(proviso.CodeGitSignerClass, "the commit has an X.509 signature; SSH and OpenPGP signatures are taken")
	}
	return unsigned(proviso.CodeGitSignature, "the commit's signature is in no known format")
}

const (
	sshBegin = "-----BEGIN SSH SIGNATURE-----\n"
	sshEnd   = "\n-----END SSH SIGNATURE-----"
	pgpBegin = "-----BEGIN PGP SIGNATURE-----\n"
	// gitNamespace is what git signs for; a signature for another purpose (a
	// file, an e-mail) that somebody moved into a commit is none.
	gitNamespace = "git"
	minRSABits   = 2048
)

// parseSSHSignature reads the armor as ssh-keygen writes it: nothing before,
// nothing after, nothing between but base64.
func parseSSHSignature(text string) (*sshsig.Signature, error) {
	body, ok := strings.CutPrefix(text, sshBegin)
	if !ok {
		return nil, fmt.Errorf("no SSH signature")
	}
	body, ok = strings.CutSuffix(strings.TrimSuffix(body, "\n"), sshEnd)
	if !ok {
		return nil, fmt.Errorf("the SSH signature has no end, or something after it")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(strings.ReplaceAll(body, "\n", ""))
	if err != nil {
		return nil, err
	}
	sig, err := sshsig.ParseSignature(blob)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(sig.Marshal(), blob) {
		return nil, fmt.Errorf("the SSH signature can be read in two ways")
	}
	return sig, nil
}

func (t *trust) judgeSSH(c *commit, now time.Time) verdict {
	sig, err := parseSSHSignature(string(c.signature))
	if err != nil {
		v := unsigned(proviso.CodeGitSignature, "the commit's SSH signature is malformed")
		v.err = err
		return v
	}
	fingerprint := ssh.FingerprintSHA256(sig.PublicKey)
	if sig.Namespace != gitNamespace {
		return unsigned(proviso.CodeGitNamespace, "the signature was made for the namespace %q, not for git", clip(sig.Namespace))
	}
	if _, isCertificate := sig.PublicKey.(*ssh.Certificate); isCertificate {
		return unsigned(proviso.CodeGitSignerClass, "the commit is signed with an SSH certificate; keys of the allowed signers are taken")
	}
	if t.revoked[fingerprint] {
		return unsigned(proviso.CodeGitKeyRevoked, "the key %s that signed the commit is revoked", fingerprint)
	}
	lines := t.signers[string(sig.PublicKey.Marshal())]
	if len(lines) == 0 {
		return unsigned(proviso.CodeGitUnknownKey, "the key %s that signed the commit is none of the allowed signers'", fingerprint)
	}
	if err := strongSSHKey(sig.PublicKey); err != nil {
		return unsigned(proviso.CodeGitSignerClass, "the key %s that signed the commit is too weak: %v", fingerprint, err)
	}
	if err := sshsig.Verify(bytes.NewReader(c.payload), sig, lines[0].key, sig.HashAlgorithm, gitNamespace); err != nil {
		v := unsigned(proviso.CodeGitSignature, "the signature by %s does not fit the commit", fingerprint)
		v.err = err
		return v
	}
	// One key may stand in several lines; the commit is signed if one of them
	// allows it, and the last line's complaint is as good as another's.
	var no verdict
	for i := range lines {
		v := lines[i].judge(c, now, t.anyIdentity)
		if v.signed {
			v.key, v.kind = fingerprint, "ssh"
			return v
		}
		no = v
	}
	return no
}

// judge holds one line of the allowed signers against a commit whose signature fits.
func (s *allowedSigner) judge(c *commit, now time.Time, anyIdentity bool) verdict {
	if s.namespaces != nil {
		if !matchList(s.namespaces, gitNamespace) {
			return unsigned(proviso.CodeGitNamespace, "the key that signed the commit is not allowed for git")
		}
	}
	switch {
	case !s.before.IsZero() && !now.Before(s.before):
		return unsigned(proviso.CodeGitKeyExpired, "the key that signed the commit is allowed only until %s", s.before.Format(time.RFC3339))
	case !s.validAt(now):
		return unsigned(proviso.CodeGitKeyTime, "the key that signed the commit is allowed only from %s", s.after.Format(time.RFC3339))
	case !s.validAt(c.committer.at):
		return unsigned(proviso.CodeGitKeyTime, "the commit claims to be made at %s, when the key that signed it was not allowed", c.committer.at.Format(time.RFC3339))
	}
	v := verdict{signed: true, until: s.before, signer: s.name()}
	switch {
	case matchList(s.principals, c.committer.email):
		v.signer = c.committer.email
	case !anyIdentity:
		return unsigned(proviso.CodeGitIdentityMismatch, "the commit names %q as its committer, and the key that signed it belongs to somebody else", clip(c.committer.email))
	}
	return v
}

// name gives the first principal that is not an exclusion.
func (s *allowedSigner) name() string {
	for _, p := range s.principals {
		if !strings.HasPrefix(p, "!") {
			return p
		}
	}
	return ""
}

// strongSSHKey refuses what ssh itself no longer signs with.
func strongSSHKey(key ssh.PublicKey) error {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256:
		return nil
	case ssh.KeyAlgoRSA:
		if ck, ok := key.(ssh.CryptoPublicKey); ok {
			if pub, ok := ck.CryptoPublicKey().(*rsa.PublicKey); ok && pub.N.BitLen() >= minRSABits {
				return nil
			}
		}
		return fmt.Errorf("RSA below %d bits", minRSABits)
	}
	return fmt.Errorf("%s is not taken", clip(key.Type()))
}

// parseRevoked reads a list of revoked SSH keys: one fingerprint (SHA256:...) or
// public key per line.
func parseRevoked(data []byte) (map[string]bool, error) {
	revoked := map[string]bool{}
	n := 0
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		n++
		text := strings.TrimSpace(string(line))
		switch {
		case text == "" || text[0] == '#':
		case strings.HasPrefix(text, "SHA256:"):
			if raw, err := base64.RawStdEncoding.Strict().DecodeString(text[len("SHA256:"):]); err != nil || len(raw) != 32 {
				return nil, fmt.Errorf("line %d has no whole fingerprint", n)
			}
			revoked[text] = true
		default:
			key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("line %d is neither a fingerprint (SHA256:...) nor a public key", n)
			}
			revoked[ssh.FingerprintSHA256(key)] = true
		}
	}
	return revoked, nil
}
