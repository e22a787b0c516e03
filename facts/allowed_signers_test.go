package facts_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"

	"github.com/proviso-ci/proviso/facts"
)

func TestAllowedSignersFile(t *testing.T) {
	p := newPerson(t)
	kind, key, _ := strings.Cut(p.line, " ")
	for line, want := range map[string]int{ // -1 = refused
		"": 0, "# comment": 0, "  \t ": 0,
		"a@b.example " + p.line:                                                           1,
		"a@b.example " + p.line + " a comment with \"quotes\"":                            1,
		"a@b.example,*@c.example,!x@c.example " + p.line:                                  1,
		`"a b@c.example" ` + p.line:                                                       1,
		"a@b.example\t" + kind + "\t" + key:                                               1,
		`a@b.example namespaces="git" ` + p.line:                                          1,
		`a@b.example NAMESPACES="git,file" ` + p.line:                                     1,
		`a@b.example namespaces="git",valid-after="20260101" ` + p.line:                   1,
		`a@b.example valid-after="202601011200Z",valid-before="20270101000000" ` + p.line: 1,
		"a@b.example " + p.line + "\r\nb@b.example " + p.line + "\n":                      2,

		"a@b.example":                                                          -1,
		p.line:                                                                 -1,
		"a@b.example " + kind:                                                  -1,
		"a@b.example " + kind + " !!!!":                                        -1,
		"a@b.example " + kind + " " + key[:20]:                                 -1,
		"a@b.example ssh-rsa " + key:                                           -1,
		"a@b.example unknown-option " + p.line:                                 -1,
		"a@b.example cert-authority " + p.line:                                 -1,
		`a@b.example cert-authority,namespaces="git" ` + p.line:                -1,
		`a@b.example namespaces=git ` + p.line:                                 -1,
		`a@b.example namespaces="" ` + p.line:                                  -1,
		`a@b.example namespaces="git",namespaces="file" ` + p.line:             -1,
		`a@b.example namespaces="git", ` + p.line:                              -1,
		`a@b.example ,namespaces="git" ` + p.line:                              -1,
		`a@b.example namespaces="git ` + p.line:                                -1,
		`a@b.example valid-after="2026" ` + p.line:                             -1,
		`a@b.example valid-after="20261301" ` + p.line:                         -1,
		`a@b.example valid-after="20260101+0200" ` + p.line:                    -1,
		`a@b.example valid-after ` + p.line:                                    -1,
		`a@b.example valid-after="20270101",valid-before="20260101" ` + p.line: -1,
		"* " + p.line:                                         -1,
		"*@* " + p.line:                                       -1,
		"a@b.example,* " + p.line:                             -1,
		"!a@b.example " + p.line:                              -1,
		"a@b.example,,c " + p.line:                            -1,
		`"a@b.example ` + p.line:                              -1,
		`a"b@c.example ` + p.line:                             -1,
		"a@b.example " + p.line + "\nrubbish":                 -1,
		"a@b.example\x00 " + p.line:                           -1,
		"a@b.example " + strings.Repeat(" ", 40<<10) + p.line: -1,
	} {
		n, err := facts.ReadSigners([]byte(line))
		if want < 0 && err == nil || want >= 0 && (err != nil || n != want) {
			t.Errorf("%.80q: %d, %v; want %d", line, n, err, want)
		}
		if err != nil && strings.Contains(err.Error(), key) {
			t.Errorf("the error quotes the whole key: %v", err)
		}
	}
}

func TestPrincipalPatterns(t *testing.T) {
	for _, c := range []struct {
		list, text string
		want       bool
	}{
		{"a@b", "a@b", true}, {"a@b", "A@b", false}, {"a@b", "a@b ", false}, {"a@b", "", false},
		{"*@b", "x@b", true}, {"*@b", "@b", true}, {"*@b", "x@bc", false}, {"?@b", "x@b", true}, {"?@b", "xy@b", false},
		{"*@b,!eve@b", "dana@b", true}, {"*@b,!eve@b", "eve@b", false}, {"!eve@b,*@b", "eve@b", false}, {"a,b,c", "b", true},
		{"a*b*c", "aXbYc", true}, {"a*b*c", "abc", true}, {"a*b*c", "acb", false}, {"**", "", true},
		{strings.Repeat("*a", 50) + "b", strings.Repeat("a", 5000), false}, // no explosion
	} {
		if got := facts.MatchPrincipals(c.list, c.text); got != c.want {
			t.Errorf("%.40q with %.40q: %t", c.list, c.text, got)
		}
	}
}

// ssh-keygen itself verifies with the same files what Proviso verifies.
func TestAllowedSignersAgreeWithSSHKeygen(t *testing.T) {
	p := newPerson(t)
	dir := t.TempDir()
	sig, err := sshsig.Sign(strings.NewReader("text"), p.signer, sshsig.HashSHA512, "git")
	if err != nil {
		t.Fatal(err)
	}
	armored := filepath.Join(dir, "sig")
	if err := os.WriteFile(armored, sshsig.Armor(sig), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t, "sha1")
	id := r.onMain(made{sign: p.sign})
	for i, line := range []string{
		"dana@acme.example " + p.line,
		`dana@acme.example namespaces="git" ` + p.line,
		`dana@acme.example namespaces="file,g*" ` + p.line,
		`dana@acme.example namespaces="file" ` + p.line,
		`*@acme.example ` + p.line,
		`*@acme.example,!dana@acme.example ` + p.line,
		`eve@acme.example ` + p.line,
		`dana@acme.example valid-after="20200101Z",valid-before="20990101Z" ` + p.line,
		`dana@acme.example valid-before="20200101Z" ` + p.line,
		`dana@acme.example valid-after="20990101Z" ` + p.line,
		`"dana@acme.example,eve@acme.example" namespaces="git" ` + p.line + " comment",
	} {
		file := filepath.Join(dir, fmt.Sprint("signers", i))
		if err := os.WriteFile(file, []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("ssh-keygen", "-Y", "verify", "-f", file, "-I", "dana@acme.example", "-n", "git", "-s", armored)
		cmd.Stdin = bytes.NewReader([]byte("text"))
		theirs := cmd.Run() == nil
		k := look(t, newGatherer(t, r.config(line+"\n")), id)
		if got := k.Input().At("context", "commit_signed").String() == "true"; got != theirs {
			t.Errorf("%s: ssh-keygen says %t, Proviso %t (%+v)", line, theirs, got, k.Absent())
		}
	}
}

// No file makes the parser panic or hang, and what it takes has a key per line.
func FuzzAllowedSigners(f *testing.F) {
	p := newPerson(f)
	f.Add([]byte("a@b.example " + p.line + "\n"))
	f.Add([]byte(`"a,b" namespaces="git",valid-after="20260101Z" ` + p.line + "\n# x\n"))
	f.Add([]byte(`* cert-authority ` + p.line))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := facts.ReadSigners(data)
		if err != nil && n != 0 {
			t.Fatalf("an error and %d signers", n)
		}
		if n > bytes.Count(data, []byte("ssh-"))+bytes.Count(data, []byte("ecdsa-sha2-")) {
			t.Fatalf("%d signers in %q", n, data)
		}
	})
}
