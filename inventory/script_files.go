package inventory

import "strings"

// What a script writes into a file is used where a command takes the file:
// echo $KEY | base64 -d > key.json; gcloud auth activate-service-account --key-file key.json.
// A variable that is itself a part of such a name is no credential.

// isFileName reports whether the variable that begins at word[i] names a file: it
// follows a slash of a path on this machine. What follows a host may be a secret.
func isFileName(word string, i int) bool {
	if i < 1 || word[i-1] != '/' || strings.HasSuffix(word[:i], "//") {
		return false
	}
	before := word[:i]
	if j := strings.LastIndexAny(before, "=:"); j >= 0 && !strings.Contains(before, "://") {
		before = before[j+1:]
	}
	if strings.ContainsAny(before, "$@ ?") || strings.Contains(before, "://") {
		return false
	}
	first, _, _ := strings.Cut(before, "/")
	return first == "" || first == "." || first == ".." || first == "~" || !strings.Contains(first, ".")
}

// fileNames gives the variables of a word that only name a file in it.
func fileNames(c *command, word string) map[string]bool {
	switch c.name() {
	case "sed", "gsed", "perl", "awk", "gawk":
		return nil // s/this/$THAT/
	}
	var out map[string]bool
	for _, v := range shellVars(word) {
		file := isFileName(word, v.start)
		if out == nil && file {
			out = make(map[string]bool)
		}
		if before, seen := out[v.name]; out != nil {
			out[v.name] = file && (before || !seen)
		}
	}
	return out
}

// fileMark begins the names under which the files that scripts write are kept beside their variables.
const fileMark = "\x00file:"

// fileKey gives the name of a file that a word says; "" when it says none.
func fileKey(word string) string {
	word = strings.Trim(strings.TrimPrefix(word, "@"), `"'`)
	for _, dir := range []string{"$(pwd)/", "$PWD/", "${PWD}/", "$CI_PROJECT_DIR/", "${CI_PROJECT_DIR}/", "$BITBUCKET_CLONE_DIR/", "${BITBUCKET_CLONE_DIR}/", "./"} {
		word = strings.TrimPrefix(word, dir)
	}
	if word == "" || len(word) > 200 || strings.HasPrefix(word, "/dev/") || strings.ContainsAny(word, "$` \n&") {
		return ""
	}
	return fileMark + word
}

// writes remembers the file that a command prints one variable into; what holds
// more than one is a text whose parts only say what they are by their names.
func (r *scriptReader) writes(c *command) {
	switch c.name() {
	case "echo", "printf", "base64", "cat":
	default:
		return
	}
	key := fileKey(c.to)
	if key == "" {
		return
	}
	src := c.text()
	if in := inputOf(c); in != "" {
		src = in
	}
	vars := shellVars(src)
	if len(vars) != 1 {
		delete(r.alias, key)
		return
	}
	made := r.resolve(vars[0].name)
	r.alias[key] = made
	if r.facts.sets == nil {
		r.facts.sets = make(map[string][]string)
	}
	r.facts.sets[key] = made
}

// valueOfFile records what is in a file that a command takes as a credential.
func (r *scriptReader) valueOfFile(text string, line int, u use) {
	if u.nature != NatureCredential {
		return
	}
	key := fileKey(text)
	if key == "" {
		return
	}
	made, ok := r.alias[key]
	if !ok {
		made = r.outer[key]
	}
	for _, name := range made {
		r.mention(name, line, u, true)
	}
}
