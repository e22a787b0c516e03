package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretsIn gives the finds of one workflow whose step runs the lines.
func secretsIn(lines string) []secretFind {
	return findSecrets(GitHub, "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          "+strings.ReplaceAll(lines, "\n", "\n          ")+"\n")
}

func TestTheRulesOfGitleaksAreAllThere(t *testing.T) {
	rules := leakRules()
	if len(rules.list) < 190 {
		t.Errorf("%d rules are used, expected about 200: has the library's text changed?", len(rules.list))
	}
	for _, r := range rules.list {
		if _, err := regexp.Compile(r.Regex); err != nil {
			t.Errorf("the rule %s: %v", r.ID, err)
		}
		for _, w := range r.Keywords {
			if w != strings.ToLower(w) {
				t.Errorf("the rule %s has the word %q, and the text is lowered before it is looked for", r.ID, w)
			}
		}
		for _, a := range r.Allowlists {
			for _, re := range a.Regexes {
				if _, err := regexp.Compile(re); err != nil {
					t.Errorf("the rule %s: %v", r.ID, err)
				}
			}
		}
	}
}

// Values in the forms of vendors, put together here so that no scanner of this
// repository takes them for real.
func TestSecretsOfManyVendorsAreFound(t *testing.T) {
	const hex40, hex32 = "9f2c71d8a4b65e03" + "c8d17fa2" + "36e94b0d" + "5a71c2e8", "9f2c71d8a4b65e03" + "c8d17fa236e94b0d"
	for _, c := range []struct{ line, value string }{
		{"ghp_" + "w7Kq2LxV9bTz4RmN8cYd3PfG6hJs1QaE5uZo", ""},
		{"export SNYK_TOKEN=4f8a1c2e-" + "7b3d-4e9f-a1c6-d82e5b90f7a3", "4f8a1c2e-" + "7b3d-4e9f-a1c6-d82e5b90f7a3"},
		{"heroku_api_key = '4f8a1c2e-" + "7b3d-4e9f-a1c6-d82e5b90f7a3'", "4f8a1c2e-" + "7b3d-4e9f-a1c6-d82e5b90f7a3"},
		{"curl -H 'Authorization: Bearer " + hex40 + "' https://api.acme.io", hex40},
		{"LAUNCHDARKLY_TOKEN=" + "w7kq2lxv9btz4rmn8cyd3pfg6hjs1qae5uzo4xvm", "w7kq2lxv9btz4rmn8cyd3pfg6hjs1qae5uzo4xvm"},
		{"PMAK-" + "9f2c71d8a4b65e03c8d17fa2-36e94b0d5a71c2e89f2c71d8a4b65e03c8", ""},
		{"dt0c01." + "W7KQ2LXV9BTZ4RMN8CYD3PFG.6HJS1QAE5UZO4XVMW7KQ2LXV9BTZ4RMN8CYD3PFG6HJS1QAE5UZO4XVMW7KQ2LXV", ""},
		{"shpat_" + hex32, ""},
		{"DD_DATADOG_API_KEY: " + hex40, hex40},
	} {
		value := c.value
		if value == "" {
			value = c.line
		}
		found := secretsIn(c.line)
		if len(found) != 1 || found[0].length != len(value) {
			t.Errorf("%s...: found %+v, expected one value of %d characters", c.line[:12], found, len(value))
		}
		for _, f := range found {
			if strings.Contains(fmt.Sprintf("%+v", f), value) {
				t.Errorf("the find holds the value: %+v", f)
			}
		}
	}
}

// What vendors print in their manuals, what a run puts in, and what only looks random is no secret.
func TestExamplesVariablesAndChecksumsAreNoSecrets(t *testing.T) {
	for _, line := range []string{
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE",
		"AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
		"GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"SLACK_TOKEN=xoxb-your-token-here",
		"API_KEY=your_api_key_goes_here_1234567890",
		"NPM_TOKEN: ${{ secrets.NPM_TOKEN }}",
		`curl -u "$NEXUS_USER:$NEXUS_PASSWORD" https://nexus.acme.io`,
		`curl -u ${USER}:${PASSWORD} https://nexus.acme.io`,
		`curl -H "Authorization: Bearer $TOKEN" https://api.acme.io`,
		`curl -H "Authorization: token ${{ secrets.TOKEN }}" https://api.acme.io`,
		`curl -u admin:changeme http://localhost:8081`,
		"psql postgres://postgres:postgres@localhost:5432/test",
		"psql postgres://app:${DB_PASSWORD}@db.acme.io/shop",
		"uses: actions/checkout@b4ffde65f46336ab88eb53be808477a3936bae11",
		"uses: codecov/codecov-action@b9fd7d16f6d7d1b5d2bec1a2887e65ceed900238 # v4",
		"image: nginx@sha256:9f2c71d8a4b65e03c8d17fa236e94b0d5a71c2e89f2c71d8a4b65e03c8d17fa2",
		"SHA256=9f2c71d8a4b65e03c8d17fa236e94b0d5a71c2e89f2c71d8a4b65e03c8d17fa2",
		"CACHE_KEY: v1-deps-9f2c71d8a4b65e03",
		"role-to-assume: arn:aws:iam::123456789012:role/deploy",
		"client-id: 4f8a1c2e-7b3d-4e9f-a1c6-d82e5b90f7a3",
		"tenant-id: 4f8a1c2e-7b3d-4e9f-a1c6-d82e5b90f7a3",
		"STRIPE_KEY=sk_test_4eC39HqLyjWDarjtT1zdp7dc",
		"TOKEN=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
		"echo '-----BEGIN PRIVATE KEY-----' | grep -q BEGIN",
		"ssh-keyscan: ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDNO8s1vUvqgmSwP6BJwT0w",
		"vault write auth/approle/login role_id=\"$VAULT_ROLE_ID\" secret_id=\"$VAULT_SECRET_ID\"",
		"twilio_sid: ACxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
	} {
		if found := secretsIn(line); len(found) > 0 {
			t.Errorf("%s: found %+v", line, found)
		}
	}
}

// The truth's files hold no secrets in clear, but for those in directories called
// clear, which do on purpose; each other find is a false one.
func TestTheTruthHasNoSecretsInClear(t *testing.T) {
	n := 0
	err := filepath.WalkDir("testdata/truth", func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		n++
		found := findSecrets(recognise(p, string(data)), string(data))
		if clear := strings.Contains(filepath.ToSlash(p), "/clear/"); clear && !strings.HasSuffix(p, ".want") {
			if len(found) == 0 {
				t.Errorf("%s: its secret in clear is not found", p)
			}
			return err
		}
		for _, f := range found {
			t.Errorf("%s:%d: %s %s", p, f.line, f.what, f.key)
		}
		return err
	})
	if err != nil || n < 40 {
		t.Fatalf("%d files, %v", n, err)
	}
}
