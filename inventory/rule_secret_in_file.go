package inventory

import "fmt"

var ruleSecretInFile = Rule{
	Name:  "secret-in-file",
	Title: "A secret stands in the file in clear",
	What: "The definition holds a value in the documented form of a credential, or a random-looking literal behind a name such as `API_TOKEN`. Everybody who may read the repository, now or in its history, has it. " +
		"The value is never printed: only its form, its length, and four hex digits of its hash to tell two apart. Ciphertext of the platform (Travis `secure:`), vendors' examples, checksums, and passwords of a job's own services are left out.",
	Remedy:     "Revoke it first: it is in the history. Then issue a new one into the platform's secrets or a vault, or better use a credential that isn't stored at all.",
	References: []string{credHygiene, nistCommits},
	check: func(s *subject) {
		for _, f := range findSecrets(s.file.CI, s.text()) {
			behind := ""
			if f.key != "" {
				behind = " (" + f.key + ")"
			}
			s.report(found{
				line: f.line, severity: f.severity, about: f.what + " " + f.mark,
				message: fmt.Sprintf("The file holds %s%s in clear: %d characters, hash %s...", f.what, behind, f.length, f.mark),
				fix:     "Revoke it, then replace it; deleting the line doesn't take it out of the history.",
			})
		}
	},
}
