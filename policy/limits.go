package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Limits narrow what an allowed request gets. Broker takes the smaller of each
// of them and the grant's own.
type Limits struct {
	// TTL is the longest lifetime; 0 is "no limit of the policy's".
	TTL time.Duration `json:"ttl,omitempty"`
	// Scope is what may be granted at most; nil is "no limit of the policy's",
	// an empty list allows no scope at all.
	Scope []string `json:"scope,omitempty"`
	// Approvals is how many people have to approve; 0 is "none".
	Approvals int `json:"approvals,omitempty"`
}

// maxTTL is the longest lifetime that a policy may write down: what is longer is
// a mistake of unit, milliseconds for seconds.
const maxTTL = 365 * 24 * time.Hour

// parseLimits reads the object that a policy calls limits. A member that is
// unknown, misspelt or of another type is an error: ignored, it would be a
// limit that is not held.
func parseLimits(t *ast.Term) (Limits, error) {
	if t == nil {
		return Limits{}, errors.New("limits has no value for this input; write a default for it")
	}
	obj, ok := t.Value.(ast.Object)
	if !ok {
		return Limits{}, fmt.Errorf("limits is %s, it must be an object", typeName(t))
	}
	var out Limits
	err := obj.Iter(func(k, v *ast.Term) error {
		name, _ := k.Value.(ast.String)
		switch name {
		case "ttl":
			n, err := positive(v, "limits.ttl", int(maxTTL/time.Second))
			out.TTL = time.Duration(n) * time.Second
			return err
		case "approvals":
			n, err := positive(v, "limits.approvals", 100)
			out.Approvals = n
			return err
		case "scope":
			s, err := scopes(v)
			out.Scope = s
			return err
		}
		return fmt.Errorf("limits has a member %s; it may have ttl (seconds), scope (a list) and approvals (a number)", clip(k.String(), 40))
	})
	if err != nil {
		return Limits{}, err
	}
	return out, nil
}

func positive(t *ast.Term, what string, most int) (int, error) {
	n, ok := t.Value.(ast.Number)
	if !ok {
		return 0, fmt.Errorf("%s is %s, it must be a whole number from 1 to %d", what, typeName(t), most)
	}
	i, ok := n.Int()
	if !ok || i < 1 || i > most {
		return 0, fmt.Errorf("%s is %s, it must be a whole number from 1 to %d", what, clip(n.String(), 24), most)
	}
	return i, nil
}

// scopes reads a list or set of scope tokens (RFC 6749 section 3.3).
func scopes(t *ast.Term) ([]string, error) {
	var items []*ast.Term
	switch v := t.Value.(type) {
	case *ast.Array:
		v.Foreach(func(e *ast.Term) { items = append(items, e) })
	case ast.Set:
		items = v.Slice()
	default:
		return nil, fmt.Errorf("limits.scope is %s, it must be a list of strings", typeName(t))
	}
	out := make([]string, 0, len(items))
	for _, e := range items {
		s, ok := e.Value.(ast.String)
		if !ok || !isScope(string(s)) {
			return nil, fmt.Errorf("limits.scope holds %s, which is no scope", clip(e.String(), 40))
		}
		out = append(out, string(s))
	}
	return out, nil
}

func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || r > '~' })
}
