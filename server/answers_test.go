package server

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso"
)

// A code's comment says what it becomes on the wire. The comments of all
// packages whose refusals reach this door are held against what the door does.
func TestCodesBecomeWhatTheirCommentsSay(t *testing.T) {
	code := regexp.MustCompile(`(?m)Code[A-Za-z0-9]*\s+(?:proviso\.)?Code\s*=\s*"([a-z0-9_]+)"\s*//\s*(.*)$`)
	wire := regexp.MustCompile(`\b([1-5][0-9][0-9]) ([a-z_]+)`)
	// Where the vocabulary names a cause and RFC 6749 section 5.2 the error, and
	// where an answer is another door's.
	oauth := map[string]string{"timeout_body": "invalid_request", "host": "invalid_request", "context_malformed": "invalid_authorization_details"}
	elsewhere := map[string]bool{"token_binding": true, "scope_insufficient": true, "enrichment_unavailable": true}
	seen := 0
	for _, pattern := range []string{"*.go", "server/*.go", "identity/*.go", "runner/*.go", "credential/*.go", "pass/*.go", "broker/*.go", "facts/*.go", "fleet/*.go"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllStringSubmatch(string(text), -1) {
				says := wire.FindStringSubmatch(m[2])
				if says == nil || elsewhere[m[1]] || strings.HasSuffix(name, "_test.go") {
					continue // a configuration's, a bundle's, a policy's problem
				}
				seen++
				status, _ := strconv.Atoi(says[1])
				want := answer{status, says[2]}
				if o := oauth[m[1]]; o != "" {
					want.oauth = o
				}
				if got := answerFor(proviso.Code(m[1])); got != want {
					t.Errorf("%s: %s says %d %s, and is answered with %d %s", name, m[1], want.status, want.oauth, got.status, got.oauth)
				}
			}
		}
	}
	if seen < 80 {
		t.Errorf("only %d codes were found: this test looks at too little", seen)
	}
}

// What mends itself says when to ask again, and nothing else does: a client
// that retries a "no" is a nuisance.
func TestOnlyPassingFaultsAskToComeBack(t *testing.T) {
	for code, seconds := range passing {
		if n, err := strconv.Atoi(seconds); err != nil || n < 1 {
			t.Errorf("%s: Retry-After %q", code, seconds)
		}
		if a := answerFor(code); a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests {
			t.Errorf("%s is answered with %d and says when to come back", code, a.status)
		}
	}
	if _, ok := passing[proviso.CodePolicyError]; ok {
		t.Error("a policy that fails is said to mend itself")
	}
}
