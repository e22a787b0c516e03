package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proviso-ci/proviso/lab"
)

var update = flag.Bool("update", false, "write what is generated or said now, to be read and committed")

// workshop is a directory with everything that testdata/config/good.yaml names.
func workshop(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	authority := made(lab.NewSPIFFE("runners.acme.example", "", lab.SPIFFEOptions{}))(t)
	defer authority.Close()
	for name, data := range map[string][]byte{
		"bundle.json": made(os.ReadFile(authority.BundleFile()))(t), "tickets.token": []byte("secret-of-the-tickets"),
		"signers":                     []byte("dana@acme.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1GrtTNCV5fR3GsbwQmJU0ITLEKxh7mVBfuZ1F0cNaE\n"),
		"policy/production.rego":      []byte("package production\n\nallow if input.context.branch == \"main\"\n"),
		"policy/production_test.rego": []byte("package production_test\n\nimport data.production\n\ntest_main if production.allow with input.context as {\"branch\": \"main\"}\n"),
	} {
		path := filepath.Join(dir, name)
		noError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		noError(t, os.WriteFile(path, data, 0o600))
	}
	return dir
}

// checked runs config check on a text, and gives what it says without the
// directory's name, and whether the broker would start.
func checked(t *testing.T, dir, text string) (string, bool) {
	t.Helper()
	file := filepath.Join(dir, "proviso.yaml")
	noError(t, os.WriteFile(file, []byte(text), 0o600))
	var out bytes.Buffer
	root := newRootCommand()
	root.SetArgs([]string{"config", "check", "--config", file})
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.Execute()
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return strings.ReplaceAll(out.String(), dir+"/", ""), err == nil
}

// Every mistake of the table is named at its place, with what to write instead,
// word for word; and none of them starts a broker.
func TestConfigCheck(t *testing.T) {
	dir := workshop(t)
	good := string(made(os.ReadFile("testdata/config/good.yaml"))(t))
	always, ok := checked(t, dir, good)
	if !ok || !strings.Contains(always, "ok: 2 issuers, 1 trust domain, 2 grants") {
		t.Fatalf("the good configuration: %s", always)
	}
	table := string(made(os.ReadFile("testdata/config/bad.txt"))(t))
	head, blocks, _ := strings.Cut(table, "\n\n= ")
	var out strings.Builder
	out.WriteString(head + "\n")
	cases := 0
	for block := range strings.SplitSeq(blocks, "\n\n= ") {
		cases++
		lines := strings.Split(strings.TrimSuffix(block, "\n"), "\n")
		if len(lines) < 3 {
			t.Fatalf("this is no block: %q", block)
		}
		old, is := strings.CutPrefix(lines[1], "< ")
		change, also := strings.CutPrefix(lines[2], ">")
		old, change = strings.ReplaceAll(old, `\n`, "\n"), strings.ReplaceAll(strings.TrimPrefix(change, " "), `\n`, "\n")
		if !is || !also || !strings.Contains(good, old) {
			t.Fatalf("%s: %q is not in the good configuration", lines[0], old)
		}
		said, ok := checked(t, dir, strings.Replace(good, old, change, 1))
		finding := strings.HasPrefix(lines[0], "finding, ")
		if ok != finding {
			t.Errorf("%s: would a broker start? %v: %s", lines[0], ok, said)
		}
		var errs []string
		for line := range strings.Lines(said) {
			if strings.HasPrefix(line, "finding: ") == finding && !strings.HasSuffix(line, "can't be used:\n") && !strings.Contains(always, line[strings.Index(line, " ")+1:]) {
				errs = append(errs, strings.TrimRight(strings.TrimPrefix(line, "  "), "\n"))
			}
		}
		if want := lines[3:]; !*update && !cmp.Equal(want, errs) {
			t.Errorf("%s:\n%s", lines[0], cmp.Diff(want, errs))
		}
		fmt.Fprintf(&out, "\n= %s\n%s\n%s\n%s\n", lines[0], lines[1], lines[2], strings.Join(errs, "\n"))
	}
	if cases < 60 {
		t.Errorf("only %d mistakes were tried", cases)
	}
	if *update {
		noError(t, os.WriteFile("testdata/config/bad.txt", []byte(out.String()), 0o644))
	}
}

// A file that nests without end is refused before it costs anything, whoever
// wrote it.
func TestEndlessNestingIsRefusedAtOnce(t *testing.T) {
	for name, text := range map[string]string{
		"lists": strings.Repeat("[", 1<<20), "mappings": strings.Repeat("{a: ", 1<<18), "dashes": strings.Repeat("- ", 1<<20),
		"questions": strings.Repeat("? ", 1<<20), "lines of lists": strings.Repeat("[\n", 1<<20), "indentation": "a:\n" + strings.Repeat(" ", 1<<20) + "b: c",
	} {
		begun := time.Now()
		if _, _, err := parseConfig("proviso.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "is nested deeper than any key") || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(begun))
		}
	}
}

// The gate's own file is read as strictly.
func TestGateConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gate.yaml")
	good := "listen: 127.0.0.1:9000\nissuer: https://proviso.acme.example\nproxy: nginx\nproxies: [127.0.0.1]\nrules:\n  - {path: /deploy, methods: [POST], audience: https://deploy.acme.example, scope: [deploy]}\n"
	for _, c := range []struct{ name, old, change, says string }{
		{"a good one", "", "", ""},
		{"no listen", "listen: 127.0.0.1:9000\n", "", "gate.yaml:1:1: listen is missing; write where the web server asks, as 127.0.0.1:9000"},
		{"an unknown key", "proxies:", "proxys:", "gate.yaml:4:1: proxys is no key that there is"},
		{"an issuer over http", "https://proviso", "http://proviso", `gate.yaml:2:9: issuer "http://proviso.acme.example" is not an https URL`},
		{"a rule without an audience", "audience: https://deploy.acme.example, ", "", "gate.yaml:6:5: rules[0].audience no audience"},
		{"a method in small letters", "POST", "post", `gate.yaml:6:31: rules[0].methods[0] "post" is not a method in upper case`},
		{"nobody to believe", "proxies: [127.0.0.1]\n", "", "gate.yaml:1:1: proxies no address"},
	} {
		noError(t, os.WriteFile(file, []byte(strings.Replace(good, c.old, c.change, 1)), 0o600))
		_, err := readGateConfig(file)
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}
