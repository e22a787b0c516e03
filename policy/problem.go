package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso"
)

// Codes of problems that a directory of policies can have beside those of
// package proviso.
const (
	// CodeLintAllow: allow, deny or limits is written so that it can't be what
	// this package reads (a default of true, an unconditional true, a value of
	// another type).
	CodeLintAllow proviso.Code = "policy_lint_allow"
	// CodeLintTime: a time of day or a date is compared with text that is none.
	CodeLintTime proviso.Code = "policy_lint_time"
	// CodeLintEnum: a value is compared with a word that it never has.
	CodeLintEnum proviso.Code = "policy_lint_enum"
	// CodeLintPattern: a pattern matches more than it seems to.
	CodeLintPattern proviso.Code = "policy_lint_pattern"
	// CodeLintDeclared: an allow rule rests on the request's own words alone.
	CodeLintDeclared proviso.Code = "policy_lint_declared"
	// CodeLintUntested: a package has no tests of its own.
	CodeLintUntested proviso.Code = "policy_lint_untested"
	// CodeTypeCheck: the compiler refuses the policy: an unknown field of the
	// input, an unknown function, an unsafe variable, a conflict.
	CodeTypeCheck proviso.Code = "policy_type"
	// CodeFile: a file can't be loaded: unreadable, a link out of the tree, not
	// UTF-8, data that is no JSON object.
	CodeFile proviso.Code = "policy_file"
)

// Problem is one thing that is wrong with a directory of policies, at its
// place, with what to do about it.
type Problem struct {
	Code proviso.Code `json:"code"`
	// Warning: the revision may become active all the same.
	Warning bool `json:"warning,omitempty"`
	// File is the path below the directory, with slashes. Line and Column
	// count from 1; 0 is "the whole file".
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Message says what is wrong, Source is the line of the file, Hint what to
	// write instead.
	Message string `json:"message"`
	Source  string `json:"source,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

// String gives the problem as text of one to four lines.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
			if p.Column > 0 {
				fmt.Fprintf(&b, ":%d", p.Column)
			}
		}
		b.WriteString(": ")
	}
	if p.Warning {
		b.WriteString("warning: ")
	}
	fmt.Fprintf(&b, "%s (%s)", p.Message, p.Code)
	if p.Source != "" {
		fmt.Fprintf(&b, "\n    | %s", p.Source)
		if p.Column > 0 {
			fmt.Fprintf(&b, "\n    | %s^", pad(p.Source, p.Column-1))
		}
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "\n    hint: %s", p.Hint)
	}
	return b.String()
}

// pad keeps tabs, so that the mark stands under its column.
func pad(source string, n int) string {
	var b strings.Builder
	for i := 0; i < n; i++ {
		if i < len(source) && source[i] == '\t' {
			b.WriteByte('\t')
		} else {
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// Problems is a list of them, errors first, then in the order of files and
// lines. As an error it holds at least one that is no warning.
type Problems []Problem

// Error gives all problems, one after the other.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Errors gives those that keep a revision from becoming active.
func (ps Problems) Errors() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return p.Warning })
}

// Warnings gives the others.
func (ps Problems) Warnings() Problems {
	return slices.DeleteFunc(slices.Clone(ps), func(p Problem) bool { return !p.Warning })
}

func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if a.Warning != b.Warning {
			if b.Warning {
				return -1
			}
			return 1
		}
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.Compact(ps)
}

// refusal turns the errors among ps into the refusal to activate, nil if there
// are none. The code is the first error's.
func (ps Problems) refusal(dir string) error {
	errs := ps.sorted().Errors()
	if len(errs) == 0 {
		return nil
	}
	first := errs[0]
	where := first.File
	if where == "" {
		where = "the directory of policies"
	} else if first.Line > 0 {
		where = fmt.Sprintf("%s:%d", where, first.Line)
	}
	more := ""
	if n := len(errs) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return proviso.Refuse(proviso.StagePolicy, first.Code, "the policies can't be used: %s: %s%s", where, first.Message, more).
		Because(fmt.Errorf("policies in %s:\n%w", dir, errs))
}
