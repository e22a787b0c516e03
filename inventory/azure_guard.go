package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// azGuard are conditions that a pull request of an outsider can't meet.
var azGuard = regexp.MustCompile(`(?i)(ne\(\s*variables(\.|\[['"])Build\.Reason(['"]\])?,\s*'PullRequest'|notin\(\s*variables\[?['".]+Build\.Reason['"\]]*,[^)]*'PullRequest'|eq\(\s*variables(\.|\[['"])Build\.SourceBranch(Name)?(['"]\])?,\s*['"](refs/heads/)?[a-z0-9/._-]+['"]|startsWith\(\s*variables(\.|\[['"])Build\.SourceBranch(['"]\])?,\s*['"]refs/(tags|heads)/|eq\(\s*variables(\.|\[['"])Build\.Reason(['"]\])?,\s*'(Schedule|Manual|IndividualCI|BatchedCI)'|eq\(\s*variables(\.|\[['"])isMain(Branch)?(['"]\])?\s*,\s*'?true|ne\(\s*variables(\.|\[['"])System\.TeamProject(['"]\])?,\s*'public')`)

// guard closes a reach when a condition keeps outsiders out; only a plain AND
// of conditions counts, an OR may have another way in.
func guard(reach Reach, cond string) Reach {
	if reach.Trust != Protected && cond != "" && azGuard.MatchString(cond) && !strings.Contains(strings.ToLower(cond), "or(") && !strings.Contains(strings.ToLower(cond), "not(") {
		reach.Trust = Protected
		reach.Events = slices.DeleteFunc(slices.Clone(reach.Events), func(e string) bool { return e == "pull_request" })
	}
	return reach
}

// azFlag matches a condition that a variable holds.
var azFlag = regexp.MustCompile(`(?i)eq\(\s*variables(?:\.(\w+)|\[\s*['"]([\w.]+)['"]\s*\])\s*,\s*'?true'?\s*\)`)

// condition puts the expressions of variables into a condition that asks whether they hold.
func (c azCtx) condition(cond string) string {
	return azFlag.ReplaceAllStringFunc(cond, func(m string) string {
		g := azFlag.FindStringSubmatch(m)
		text := c.vars[strings.ToLower(firstOf(g[1], g[2]))].text
		for _, open := range []string{"$[", "${{"} {
			if inner, ok := strings.CutPrefix(text, open); ok {
				return strings.TrimSpace(strings.TrimRight(inner, "]} "))
			}
		}
		return m
	})
}
