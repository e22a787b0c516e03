package inventory

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scanKept scans a tree with the results of earlier scans, as the command does.
func scanKept(t *testing.T, dir, root string) (doc []byte, same, of int) {
	t.Helper()
	k, err := OpenKeep(dir, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	doc = scanWith(t, root, Options{Keep: k})
	if err := k.Save(); err != nil {
		t.Fatal(err)
	}
	same, of = k.Same()
	return doc, same, of
}

// scanWith gives the whole document of a scan.
func scanWith(t *testing.T, root string, opt Options) []byte {
	t.Helper()
	inv, err := Scan(t.Context(), root, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), inv, root, opt); err != nil {
		t.Fatal(err)
	}
	doc, err := json.MarshalIndent(Merge([]*Inventory{inv}), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// plantTruth copies the truth files into one tree: a repository for each case.
func plantTruth(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir("testdata/truth", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, ".want") {
			return err
		}
		rel, err := filepath.Rel("testdata/truth", p)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		files = append(files, rel)
		return writeTree(root, rel, string(text))
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func writeTree(root, rel, text string) error {
	full := filepath.Join(root, rel)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(text), 0o644)
}

// A scan that remembers prints the same bytes as one that doesn't, whatever
// happens to the tree in between. That is the whole promise.
func TestKeptResultsAreThoseOfANewScan(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	files := plantTruth(t, root)
	doc, same, of := scanKept(t, dir, root)
	if same != 0 || of < len(files) {
		t.Fatalf("the first scan took %d of %d files from an earlier one", same, of)
	}
	if again, same, of := scanKept(t, dir, root); same != of || !bytes.Equal(doc, again) {
		t.Fatalf("nothing changed, and %d of %d files count again; same bytes: %v", same, of, bytes.Equal(doc, again))
	}
	r := rand.New(rand.NewPCG(1, 2))
	const rounds = 60
	reused := 0
	for round := range rounds {
		var did []string
		for range 1 + r.IntN(3) {
			did = append(did, disturb(t, r, root, files))
		}
		got, same, of := scanKept(t, dir, root)
		if want := scanWith(t, root, Options{}); !bytes.Equal(got, want) {
			t.Fatalf("round %d, after %v: the kept results differ from those of a new scan:\n%s", round, did, firstDifference(got, want))
		}
		if of-same > 60 {
			t.Errorf("round %d, after %v: %d of %d files were read anew", round, did, of-same, of)
		}
		reused += same
	}
	if reused < rounds*len(files)/2 {
		t.Errorf("only %d results counted again in %d rounds", reused, rounds)
	}
}

// disturb changes something of the tree, and says what.
func disturb(t *testing.T, r *rand.Rand, root string, files []string) string {
	t.Helper()
	file := files[r.IntN(len(files))]
	full := filepath.Join(root, file)
	text, err := os.ReadFile(full)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(string(text), "\n")
	switch what := r.IntN(7); {
	case err != nil: // it was removed: now it is there again, as it was
		original, err := os.ReadFile(filepath.Join("testdata/truth", file))
		must(err)
		must(os.RemoveAll(full))
		must(writeTree(root, file, string(original)))
		return "restored " + file
	case what == 0:
		must(os.Remove(full))
		return "removed " + file
	case what == 1:
		at := r.IntN(len(lines))
		must(writeTree(root, file, strings.Join(slices.Delete(lines, at, at+1), "\n")))
		return "a line less in " + file
	case what == 2:
		must(writeTree(root, file, "# a line more\n"+string(text)))
		return "a line more in " + file
	case what == 3:
		other, err := os.ReadFile(filepath.Join("testdata/truth", files[r.IntN(len(files))]))
		must(err)
		must(writeTree(root, file, string(other)))
		return "another's text in " + file
	case what == 4:
		repository := filepath.Dir(filepath.Dir(file))
		must(writeTree(root, filepath.Join(repository, ".git", "config"), "[remote \"origin\"]\n\turl = https://github.com/acme/r"+string(rune('a'+r.IntN(26)))+"\n"))
		return "another name for " + repository
	case what == 5:
		must(writeTree(root, file, string(text)+"\xff\xfe\xff"))
		return "no UTF-8 in " + file
	default:
		must(os.Remove(full))
		must(os.Symlink("nowhere", full))
		return "a link to nowhere for " + file
	}
}

func firstDifference(a, b []byte) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from := max(0, i-300)
	return "kept: ..." + string(a[from:min(len(a), i+300)]) + "\nnew: ..." + string(b[from:min(len(b), i+300)])
}

// What a reader looked for and did not find belongs to its result as well.
func TestKeptResultsSeeWhatWasAbsent(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	plant := func(rel, text string) {
		if err := writeTree(root, rel, text); err != nil {
			t.Fatal(err)
		}
	}
	plant("a/.gitlab-ci.yml", "include:\n  - local: ci/deploy.yml\n  - local: ci/more/*.yml\ntest:\n  script: [make]\n")
	scanKept(t, dir, root)
	for _, step := range []struct{ file, text, wants string }{
		{"a/ci/deploy.yml", "deploy:\n  script: ['curl -H \"Authorization: Bearer $FIRST_TOKEN\" https://api.example.org']\n", "FIRST_TOKEN"},
		{"a/ci/more/x.yml", "more:\n  script: ['curl -H \"Authorization: Bearer $SECOND_TOKEN\" https://api.example.org']\n", "SECOND_TOKEN"},
		{"a/ci/deploy.yml", "deploy:\n  script: ['curl -H \"Authorization: Bearer $THIRD_TOKEN\" https://api.example.org']\n", "THIRD_TOKEN"},
	} {
		plant(step.file, step.text)
		doc, _, _ := scanKept(t, dir, root)
		if !bytes.Contains(doc, []byte(step.wants)) {
			t.Errorf("after %s came, %s is not seen", step.file, step.wants)
		}
	}
	if doc, _, _ := scanKept(t, dir, root); bytes.Contains(doc, []byte("FIRST_TOKEN")) {
		t.Error("FIRST_TOKEN is still seen, and is gone")
	}
}

// Results count only from a file that this program wrote whole, for this tree,
// into a directory that nobody else can write.
func TestKeptResultsOfOthersDoNotCount(t *testing.T) {
	root := t.TempDir()
	plantTruth(t, root)
	kept := func(t *testing.T) (dir, file string) {
		dir = t.TempDir()
		scanKept(t, dir, root)
		found, err := filepath.Glob(filepath.Join(dir, "*.results"))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		return dir, found[0]
	}
	for name, damage := range map[string]func([]byte) []byte{
		"another program": func(b []byte) []byte { b[0] ^= 1; return b },
		"a changed byte":  func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"cut off":         func(b []byte) []byte { return b[:len(b)/2] },
		"empty":           func([]byte) []byte { return nil },
		"a name removed":  func(b []byte) []byte { return bytes.Replace(b, []byte("SONAR_TOKEN"), []byte("SONAR_TOKFN"), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, file := kept(t)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, same, _ := scanKept(t, dir, root); same != 0 {
				t.Errorf("%d results counted", same)
			}
		})
	}
	t.Run("another limit", func(t *testing.T) {
		dir, _ := kept(t)
		k, err := OpenKeep(dir, root, Options{MaxBytes: 100})
		if err != nil || k.old != nil {
			t.Errorf("results of another limit counted: %v", err)
		}
	})
	t.Run("a directory of everybody", func(t *testing.T) {
		dir, _ := kept(t)
		if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // what is refused
			t.Fatal(err)
		}
		if _, err := OpenKeep(dir, root, Options{}); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
			t.Errorf("a directory that everybody can write was taken: %v", err)
		}
	})
	t.Run("readable only by its owner", func(t *testing.T) {
		_, file := kept(t)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	})
}

// Which of several configurations that include each other stands by itself
// must not depend on which was read first.
func TestPartsAreTheSameEachTime(t *testing.T) {
	root := t.TempDir()
	job := func(name string) string {
		return name + ":\n  script: ['npm publish']\n  variables: {NODE_AUTH_TOKEN: $NPM_TOKEN}\n"
	}
	for rel, text := range map[string]string{
		"a/.gitlab-ci.yml":         "include:\n  - local: service/.gitlab-ci.yml\n" + job("top"),
		"a/service/.gitlab-ci.yml": job("service"),
		"b/ci/one.gitlab-ci.yml":   "include:\n  - local: two.gitlab-ci.yml\n" + job("one"),
		"b/ci/two.gitlab-ci.yml":   "include:\n  - local: one.gitlab-ci.yml\n" + job("two"),
	} {
		if err := writeTree(root, rel, text); err != nil {
			t.Fatal(err)
		}
	}
	first := scanWith(t, root, Options{})
	for range 20 {
		if again := scanWith(t, root, Options{Workers: 8}); !bytes.Equal(first, again) {
			t.Fatal(firstDifference(again, first))
		}
	}
	inv, err := Scan(t.Context(), root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range inv.Files {
		part := f.Detail == "read as part of the file that includes it"
		if want := f.File == "a/service/.gitlab-ci.yml" || f.File == "b/ci/one.gitlab-ci.yml"; part != want {
			t.Errorf("%s is read as a part: %v (%s %s)", f.File, part, f.Status, f.Detail)
		}
	}
}
