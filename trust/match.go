package trust

import (
	"regexp"
	"slices"
	"strings"
)

// Answer is what a comparison came to.
type Answer string

// The answers.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown" // it depends on what the files don't say
)

// Identity is what is known of a job's token: for each claim the values that it
// can have. A value may hold * for what only a run can tell. A claim that is
// not there is unknown, unless it is in Absent.
type Identity struct {
	Issuer    string              `json:"issuer,omitempty"`
	Audiences []string            `json:"audiences,omitempty"`
	Claims    map[string][]string `json:"claims"`
	// Absent are claims that the token certainly doesn't have.
	Absent []string `json:"absent,omitempty"`
}

// Verdict is an answer with the conditions that decided it.
type Verdict struct {
	Answer Answer
	// Why names what is refused, or what is not known.
	Why []Reason
}

// Reason is one condition that doesn't hold, or of which it isn't known.
type Reason struct {
	Claim string
	// Wants are the values of the trust, Has those of the job; empty when nobody knows.
	Wants, Has []string
	Line       int
}

// Accepts reports whether a token of this identity can be accepted: no when a
// condition fails for every value that the claim can have, unknown when one
// depends on what isn't known. The issuer has been compared by the caller.
func (t *Trust) Accepts(id Identity) Verdict {
	v := Verdict{Answer: Yes}
	note := func(a Answer, r Reason) {
		switch {
		case a == Yes || v.Answer == No && a == Unknown:
			return
		case a == No && v.Answer != No:
			v.Why = nil // what is refused counts, not what is unknown beside it
		}
		v.Answer = a
		v.Why = append(v.Why, r)
	}
	if len(t.Audiences) > 0 {
		a := Unknown
		if len(id.Audiences) > 0 {
			c := Condition{Match: Glob, Values: t.Audiences}
			a = c.accepts(id.Audiences)
		}
		note(a, Reason{Claim: "aud", Wants: t.Audiences, Has: id.Audiences, Line: t.AudienceLine})
	}
	for i := range t.Conditions {
		c := &t.Conditions[i]
		has := id.Claims[c.Claim]
		a := Unknown
		switch {
		case c.Match == Expression || c.Claim == "":
		case slices.Contains(id.Absent, c.Claim):
			a = No
			if c.AbsentPasses || c.Not {
				a = Yes
			}
		case len(has) > 0:
			a = c.accepts(has)
		}
		note(a, Reason{Claim: c.Claim, Wants: c.Values, Has: has, Line: c.Line})
	}
	if v.Answer == Yes && len(t.Unresolved) > 0 {
		v.Answer = Unknown
		v.Why = append(v.Why, Reason{Wants: []string{t.Unresolved[0].Why}, Line: t.Unresolved[0].Line})
	}
	return v
}

// accepts compares one condition with the values that a claim can have.
func (c *Condition) accepts(has []string) Answer {
	out := No
	for _, want := range c.Values {
		for _, h := range has {
			a := c.one(want, h)
			if c.Not {
				continue
			}
			if a == Yes {
				return Yes
			}
			if a == Unknown {
				out = Unknown
			}
		}
	}
	if !c.Not {
		return out
	}
	// Turned around: a value that certainly matches is refused; any other may pass.
	for _, h := range has {
		refused := false
		for _, want := range c.Values {
			refused = refused || !strings.Contains(h, "*") && c.one(want, h) == Yes
		}
		if !refused {
			return Yes
		}
	}
	return No
}

// one compares one wanted value with one that the claim can have.
func (c *Condition) one(want, has string) Answer {
	if hole(want) {
		if !overlap(holesAsStars(want), has) {
			return No
		}
		return Unknown
	}
	switch c.Match {
	case Exact:
		if overlap(escapeGlob(want), has) {
			return Yes
		}
		return No
	case Glob:
		if overlap(want, has) {
			return Yes
		}
		return No
	case Regex:
		re, err := regexp.Compile(want)
		if err != nil {
			return Unknown
		}
		if !strings.Contains(has, "*") {
			if re.MatchString(has) {
				return Yes
			}
			return No
		}
		// What only a run can tell: what the expression says at large can rule it out; else the usual values are tried.
		if g := globOf(want); !strings.ContainsAny(g, `|?+{}()[]^$\`) && !overlap(g, has) {
			return No
		}
		for _, try := range []string{"main", "master", "v1.0.0", "1", "production"} {
			if re.MatchString(strings.ReplaceAll(has, "*", try)) {
				return Yes
			}
		}
		return Unknown
	case Expression: // not evaluated
	}
	return Unknown
}

// escapeGlob makes a literal value of one that may hold the signs of a pattern.
// The two signs become characters that no claim has.
func escapeGlob(s string) string {
	return strings.NewReplacer("*", "\x01", "?", "\x02").Replace(s)
}

// holesAsStars puts * in the place of each ${...}.
func holesAsStars(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			return b.String() + s
		}
		b.WriteString(s[:i] + "*")
		depth, j := 1, i+2
		for ; j < len(s) && depth > 0; j++ {
			switch s[j] {
			case '{':
				depth++
			case '}':
				depth--
			}
		}
		s = s[j:]
	}
}

// overlap reports whether two patterns with * and ? have a text in common. The
// patterns are short; a table of their lengths keeps the cost at their product.
func overlap(a, b string) bool {
	if len(a) > 2048 || len(b) > 2048 {
		return false
	}
	for i := 0; ; i++ { // most pairs differ in what stands before the first sign of a pattern
		if i == len(a) || i == len(b) || a[i] == '*' || b[i] == '*' {
			a, b = a[i:], b[i:]
			break
		}
		if a[i] != b[i] && a[i] != '?' && b[i] != '?' {
			return false
		}
	}
	// can[j] says that a[i:] and b[j:] have a text in common, for the row i.
	next := make([]bool, len(b)+1)
	row := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				row[j] = true
			case i < len(a) && a[i] == '*':
				row[j] = next[j] || j < len(b) && row[j+1]
			case j < len(b) && b[j] == '*':
				row[j] = row[j+1] || i < len(a) && next[j]
			case i < len(a) && j < len(b):
				row[j] = (a[i] == b[j] || a[i] == '?' || b[j] == '?') && next[j+1]
			default:
				row[j] = false
			}
		}
		row, next = next, row
	}
	return next[0]
}
