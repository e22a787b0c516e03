package trust

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of place where a trust is written.
type Kind string

// The kinds.
const (
	AWSRole         Kind = "aws-role"                   // one statement of a role's trust policy
	GCPProvider     Kind = "gcp-provider"               // a provider of a workload identity pool
	GCPBinding      Kind = "gcp-binding"                // who of a pool may act as a service account
	AzureCredential Kind = "azure-federated-credential" // of an application or a managed identity
	VaultRole       Kind = "vault-role"                 // a role of a JWT auth method, of Vault or OpenBao
	OctoSTS         Kind = "octo-sts"                   // a .sts.yaml
	Kubernetes      Kind = "kubernetes-issuer"          // an issuer of an AuthenticationConfiguration
	KubernetesRole  Kind = "kubernetes-binding"         // an RBAC binding of a user of such an issuer
	ProvisoGrant    Kind = "proviso-grant"              // a grant and an issuer of a Proviso configuration
)

// Trust says that tokens which meet all conditions are accepted for a target.
type Trust struct {
	// ID is stable: it depends on file, target and conditions, not on the line.
	ID   string `json:"id"`
	File string `json:"file"`
	Line int    `json:"line"`
	Kind Kind   `json:"kind"`
	// Target is what the token is exchanged for.
	Target Target `json:"target"`
	// Gives are the permissions or policies that come with it, as far as the file says.
	Gives []string `json:"gives,omitempty"`
	// Issuer is the URL of the tokens' issuer; empty when the file doesn't tell.
	Issuer string `json:"issuer,omitempty"`
	// Audiences are the accepted audiences; empty when none is asked for.
	Audiences []string `json:"audiences,omitempty"`
	// Conditions must all hold.
	Conditions []Condition `json:"conditions"`
	// Unresolved are parts that only an apply, another file or a person can tell.
	Unresolved []Part `json:"unresolved,omitempty"`

	// AudienceLine is where the audience stands, or would.
	AudienceLine int `json:"-"`
	// NoAudience is true when a token of any audience is taken: Audiences is
	// empty and nothing by default takes its place.
	NoAudience bool `json:"any_audience,omitempty"`

	// PoolID is the id of Google's workload identity pool; bindings and providers of one pool belong together.
	PoolID string `json:"pool,omitempty"`
}

// Target is what is opened. Kind is that of the inventory's resources:
// "cloud/aws", "cloud/gcp", "secrets-manager/vault", ...
type Target struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Match says how a condition compares.
type Match string

// The ways to compare.
const (
	Exact      Match = "exact"
	Glob       Match = "glob"       // * is any text, also none; ? is one character
	Regex      Match = "regex"      // RE2; finds, unless the pattern is anchored
	Expression Match = "expression" // text in a language that is not evaluated here
)

// Condition is one condition over a claim.
type Condition struct {
	// Claim is the claim's name; empty for an expression over several.
	Claim string `json:"claim"`
	Match Match  `json:"match"`
	// Values are alternatives: one of them must match.
	Values []string `json:"values"`
	Line   int      `json:"line"`
	// Not turns the condition around: none of the values may match.
	Not bool `json:"not,omitempty"`
	// Inherited is set on a condition that another file states: a binding has
	// those of the provider behind it. Line is a line of that file.
	Inherited bool `json:"inherited,omitempty"`
	// AbsentPasses says that a token without the claim passes.
	AbsentPasses bool `json:"absent_passes,omitempty"`
}

// Part is a part that could not be evaluated.
type Part struct {
	Line int    `json:"line"`
	Why  string `json:"why"`
}

// Problem is a file, or a part of one, that could not be read.
type Problem struct {
	File string
	Line int
	Why  string
}

// open records a part that could not be evaluated, once.
func (t *Trust) open(line int, why string) {
	for _, p := range t.Unresolved {
		if p.Why == why {
			return
		}
	}
	t.Unresolved = append(t.Unresolved, Part{max(line, 1), why})
}

// add records a condition; an audience is kept apart from the claims.
func (t *Trust) add(c Condition) {
	c.Line = max(c.Line, 1)
	if c.Claim == "aud" && !c.Not && c.Match != Regex && c.Match != Expression && !c.AbsentPasses {
		t.Audiences = append(t.Audiences, c.Values...)
		t.AudienceLine = c.Line
		return
	}
	t.Conditions = append(t.Conditions, c)
}

// finish makes the id and what follows from the rest.
func (t *Trust) finish() {
	t.Line = max(t.Line, 1)
	if t.AudienceLine == 0 {
		t.AudienceLine = t.Line
	}
	if t.Conditions == nil {
		t.Conditions = []Condition{}
	}
	if t.Target.Name == "" {
		t.Target.Name = "unknown"
	}
	for _, c := range t.Conditions {
		for _, v := range c.Values {
			if hole(v) && c.Match != Expression {
				t.open(c.Line, "what "+v+" is can't be told from the files")
			}
		}
	}
	parts := []string{t.File, string(t.Kind), t.Target.Kind, t.Target.Name, t.Issuer}
	parts = append(parts, t.Audiences...)
	for _, c := range t.Conditions {
		parts = append(parts, c.Claim, string(c.Match))
		parts = append(parts, c.Values...)
	}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	t.ID = "trust-" + hex.EncodeToString(sum[:8])
}

// condition gives the condition on a claim, nil when there is none.
func (t *Trust) condition(claims ...string) *Condition {
	for i := range t.Conditions {
		if c := &t.Conditions[i]; slices.Contains(claims, c.Claim) && !c.Not {
			return c
		}
	}
	return nil
}

// Condition gives the condition that asks for a claim of one of these names; nil when none does.
func (t *Trust) Condition(claims ...string) *Condition { return t.condition(claims...) }

// hole reports whether a value has a part that could not be evaluated.
func hole(v string) bool { return strings.Contains(v, "${") }

// order puts trusts in their canonical order and gives ids that are alike a number.
func order(list []Trust) {
	slices.SortStableFunc(list, func(a, b Trust) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return cmp.Or(strings.Compare(a.Target.Name, b.Target.Name), strings.Compare(a.ID, b.ID)) // a module that is called twice has one line for both
	})
	seen := make(map[string]int)
	for i := range list {
		id := list[i].ID
		if seen[id]++; seen[id] > 1 {
			list[i].ID += "-" + strconv.Itoa(seen[id])
		}
	}
}
