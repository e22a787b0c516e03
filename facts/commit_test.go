package facts_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/facts"
)

const tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

func raw(extra string) string {
	return "tree " + tree + "\nauthor " + dana + " 1795426200 +0100\ncommitter " + dana + " 1795426200 +0100\n" + extra + "\nmessage\n"
}

// What is signed is the object without its signatures, byte for byte.
func TestPayloadIsTheRawObject(t *testing.T) {
	const signature = "gpgsig -----BEGIN X-----\n \n abc\n -----END X-----\n"
	for name, extra := range map[string]string{
		"nothing else":     "",
		"before it":        "encoding latin1\n",
		"folded before it": "mergetag object " + tree + "\n type commit\n \n gpgsig no\n",
		"the other hash":   "gpgsig-sha256 x\n y\n",
	} {
		object := raw(extra + signature + "x-after 1\n")
		payload, sig, err := facts.ReadCommit(facts.CommitID([]byte(object), 40), []byte(object))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := raw(extra + "x-after 1\n")
		if strings.HasPrefix(extra, "gpgsig-sha256") {
			want = raw("x-after 1\n")
		}
		if string(payload) != want || string(sig) != "-----BEGIN X-----\n\nabc\n-----END X-----" {
			t.Errorf("%s: signs %q with %q", name, payload, sig)
		}
	}
}

func TestCommitObjectsRefused(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(raw(""), old, new, 1) }
	for name, object := range map[string]string{
		"empty":                  "",
		"no end of the header":   "tree " + tree + "\n",
		"no tree":                replace("tree "+tree+"\n", ""),
		"short tree":             replace(tree, tree[:39]),
		"tree in capitals":       replace(tree, strings.ToUpper(tree)),
		"two trees":              replace("author", "tree "+tree+"\nauthor"),
		"parent before the tree": "parent " + tree + "\n" + raw(""),
		"bad parent":             replace("author", "parent x\nauthor"),
		"no author":              replace("author "+dana+" 1795426200 +0100\n", ""),
		"committer first":        replace("author", "committer"),
		"no committer":           replace("committer "+dana+" 1795426200 +0100\n", ""),
		"leading zero":           replace("1795426200", "01795426200"),
		"time with a sign":       replace("1795426200", "+1795426200"),
		"time too far":           replace("1795426200", "999999999999"),
		"no time":                replace(" 1795426200 +0100", ""),
		"zone without sign":      replace("+0100", "00100"),
		"zone in letters":        replace("+0100", "+CEST"),
		"no brackets":            replace("<dana@acme.example>", "dana@acme.example"),
		"bracket in the name":    replace("Dana", "Da>na"),
		"continued author":       replace("+0100\ncommitter", "+0100\n more\ncommitter"),
		"second gpgsig":          raw("gpgsig x\ngpgsig y\n"),
		"gpgsig in capitals":     raw("GPGSIG x\n"),
		"two encodings":          raw("encoding a\nencoding b\n"),
		"empty signature":        raw("gpgsig\n"),
		"NUL":                    raw("") + "\x00",
		"late author":            raw("author " + dana + " 1 +0000\n"),
		"space first":            raw(" x\n")[1:],
	} {
		if _, _, err := facts.ReadCommit(facts.CommitID([]byte(object), 40), []byte(object)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	good := raw("")
	for _, id := range []string{"", strings.Repeat("0", 40), strings.ToUpper(facts.CommitID([]byte(good), 40)), facts.CommitID([]byte(good), 40)[:39], facts.CommitID([]byte(good), 64)} {
		if _, _, err := facts.ReadCommit(id, []byte(good)); err == nil {
			t.Errorf("taken under the id %q", id)
		}
	}
	huge := raw("") + strings.Repeat("x", 1<<20)
	if _, _, err := facts.ReadCommit(facts.CommitID([]byte(huge), 40), []byte(huge)); err == nil {
		t.Error("a huge commit was taken")
	}
}

// Whatever is taken is what git reads too: the same id, and every line of the
// payload a line of the object.
func FuzzCommit(f *testing.F) {
	f.Add([]byte(raw("")))
	f.Add([]byte(raw("gpgsig a\n b\n\n")))
	f.Add([]byte(raw("parent " + tree + "\n")))
	f.Add([]byte(raw("encoding x\nmergetag a\n b\ngpgsig-sha256 z\n")))
	f.Fuzz(func(t *testing.T, object []byte) {
		payload, signature, err := facts.ReadCommit(facts.CommitID(object, 40), object)
		if err != nil {
			return
		}
		if signature == nil && !bytes.Contains(object, []byte("\ngpgsig-sha256 ")) && !bytes.Equal(payload, object) {
			t.Fatalf("an unsigned object signs %q", payload)
		}
		header, _, _ := bytes.Cut(object, []byte("\n\n"))
		if bytes.Count(header, []byte("\ntree ")) > 0 || bytes.Count(header, []byte("\nauthor ")) != 1 || bytes.Count(header, []byte("\ncommitter ")) != 1 {
			t.Fatalf("taken: %q", object)
		}
		if bytes.Contains(payload, []byte("\ngpgsig ")) && !bytes.Contains(object[len(header):], []byte("\ngpgsig ")) {
			t.Fatalf("the signature signs itself: %q", payload)
		}
	})
}

// git hashes and takes what ReadCommit takes.
func TestCommitIDsAreGits(t *testing.T) {
	r := newRepo(t, "sha1")
	for _, object := range []string{raw(""), raw("gpgsig a\n b\n"), raw("HG:extra x\n y\n")} {
		cmd := exec.Command("git", "hash-object", "-t", "commit", "--stdin")
		cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(object)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.trust}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if id := facts.CommitID([]byte(object), 40); strings.TrimSpace(string(out)) != id {
			t.Errorf("git says %s, we say %s", out, id)
		}
	}
}
