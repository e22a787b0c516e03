package plan

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ghGHCR lets the job's own token log in to GitHub's registry.
func ghGHCR(j *ghJob, d *draft) error {
	for _, u := range j.uses(d.item.names()) {
		if u.in != "with" || !slices.Contains([]string{"docker/login-action", "redhat-actions/podman-login"}, action(j.steps[u.step])) {
			return no(u.val, "the password is used in %s; log in with docker/login-action, the user github.actor and the job's token", place(u))
		}
		if err := j.f.block(u.m, "with"); err != nil {
			return err
		}
		var err error
		switch u.key.Value {
		case "password":
			err = j.f.setValue(u.key, u.val, "${{ secrets.GITHUB_TOKEN }}")
			if k, v := find(u.m, "username"); err == nil && k != nil && text(v) != "${{ github.actor }}" {
				err = j.f.setValue(k, v, "${{ github.actor }}")
			}
		case "username": // goes with the password
		default:
			err = no(u.val, "the secret is the input %s", oneLine(u.key.Value))
		}
		if err != nil {
			return err
		}
	}
	return j.permit([2]string{"packages", "write"})
}

var npmPublish = regexp.MustCompile(`(^|[\s;&|])npm publish(\s|$)`)

// ghNPM lets npm exchange the job's identity: it does so by itself when it
// publishes with no token.
func ghNPM(j *ghJob, d *draft) error {
	if err := d.hosted(j); err != nil {
		return err
	}
	for _, u := range j.uses(d.item.names()) {
		if u.step < 0 || u.in != "env" || !u.exact {
			return no(u.val, "the token is used in %s; only a step that runs npm publish can do without", place(u))
		}
		st, err := j.step(u.step)
		if err != nil {
			return err
		}
		run := text(value(st, "run"))
		switch {
		case !npmPublish.MatchString(run):
			return no(st, "the step does not run npm publish itself: trusted publishing only publishes; a token that reads private packages stays, read-only and granular")
		case strings.Contains(run, u.key.Value):
			return no(st, "the script writes %s somewhere itself", oneLine(u.key.Value))
		}
		upgrade := []string{"name: An npm that publishes without a token", `run: npm install --global "npm@^11.5.1"`}
		if err := firstError(j.f.dropEntries(u.mapKey, u.m, u.key.Value), j.insertStep(u.step, upgrade...)); err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// ghPyPI takes the password out of the publishing action, which then exchanges the identity.
func ghPyPI(j *ghJob, d *draft) error {
	for _, u := range j.uses(d.item.names()) {
		if u.in != "with" || action(j.steps[u.step]) != "pypa/gh-action-pypi-publish" {
			return no(u.val, "the token is used in %s; publish with pypa/gh-action-pypi-publish, which needs none", place(u))
		}
		drop := []string{u.key.Value}
		if input(j.steps[u.step], "user") == "__token__" {
			drop = append(drop, "user")
		}
		if err := j.f.dropEntries(u.mapKey, u.m, drop...); err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// ghExchanged puts an action before the step that gives a short token, and the
// token in the place of the secret.
func ghExchanged(j *ghJob, d *draft, uses, output string, inputs ...string) error {
	id := d.stepID(j)
	first := -1
	if err := j.sameCondition(j.uses(d.item.names())); err != nil {
		return err
	}
	value := "${{ steps." + id + ".outputs." + output + " }}"
	var whole []string // variables of the job's environment
	for _, u := range j.uses(d.item.names()) {
		if u.step < 0 && u.in == "env" && u.exact && variableName.MatchString(u.key.Value) {
			if err := j.f.dropEntries(u.mapKey, u.m, u.key.Value); err != nil {
				return err
			}
			whole, first = append(whole, u.key.Value), 0
			continue
		}
		if err := j.replaceRef(u, value); err != nil {
			return err
		}
		if first < 0 || u.step < first {
			first = u.step
		}
	}
	if first < 0 {
		return no(j.node, "the secret is not in the job as it is now")
	}
	step := []string{"name: A short-lived token in place of " + strings.Join(d.item.Secrets, ", "), "id: " + id, "uses: " + uses}
	if len(inputs) > 0 {
		step = append(step, "with:")
		for _, in := range inputs {
			step = append(step, "  "+in)
		}
	}
	err := j.insertStep(first, step...)
	if len(whole) > 0 && err == nil {
		hand := []string{"name: The token for all steps", "shell: bash", "env:", "  VALUE: " + value, "run: |"}
		for _, name := range whole {
			hand = append(hand, `  echo "`+name+`=$VALUE" >> "$GITHUB_ENV"`)
		}
		err = j.insertStep(first, hand...)
	}
	return firstError(err, j.permit([2]string{"id-token", "write"}))
}

// replaceRef writes another expression in the place of a reference to a secret.
func (j *ghJob) replaceRef(u ghUse, with string) error {
	if u.step < 0 {
		return no(u.val, "the secret is in %s of the job, where a step's output can't be read; move it to the step that needs it, and plan again", oneLine(u.in))
	}
	if _, err := j.step(u.step); err != nil {
		return err
	}
	if u.m != nil {
		if err := j.f.block(u.m, u.in); err != nil {
			return err
		}
	}
	ref := regexp.MustCompile(`\$\{\{\s*secrets\.` + regexp.QuoteMeta(u.name) + `\s*\}\}`)
	if u.exact && u.val.Line == u.key.Line {
		return j.f.setValue(u.key, u.val, with)
	}
	if !variableName.MatchString(u.name) || u.in != "run" && u.in != "env" && u.in != "with" {
		return no(u.val, "the secret is part of a longer expression")
	}
	// Inside of a longer text each line that has the reference is rewritten.
	if strings.Contains(ref.ReplaceAllString(u.val.Value, ""), "secrets") {
		return no(u.val, "the secret is part of a longer expression")
	}
	if err := j.f.own(u.val, "the text"); err != nil {
		return err
	}
	last := j.lastLine(u)
	done := false
	for at := u.val.Line - 1; at < last; at++ {
		if ref.MatchString(j.f.text[at]) {
			line := ref.ReplaceAllLiteralString(j.f.text[at], with)
			if strings.Contains(line, "secrets.") {
				return no(u.val, "two secrets stand on one line")
			}
			j.f.edits.put(at, at+1, line)
			done = true
		}
	}
	if !done {
		return no(u.val, "the reference was not found on the lines of its value")
	}
	return nil
}

// lastLine gives the line behind a value: that of the next node of the job, or of the file.
func (j *ghJob) lastLine(u ghUse) int {
	last := len(j.f.text)
	walkNodes(j.f.root, 0, func(n *yaml.Node) {
		if n.Line > u.val.Line && n.Line-1 < last {
			last = n.Line - 1
		}
	})
	return last
}

func ghCrates(j *ghJob, d *draft) error {
	return ghExchanged(j, d, "rust-lang/crates-io-auth-action@v1", "token")
}

func ghNuGet(j *ghJob, d *draft) error {
	return ghExchanged(j, d, "NuGet/login@v1", "NUGET_API_KEY", "user: "+d.setting("USER", "the account on nuget.org that owns the trusted publishing policy"))
}

// ghRubyGems lets the action leave a short-lived key where gem finds it.
func ghRubyGems(j *ghJob, d *draft) error {
	for _, u := range j.uses(d.item.names()) {
		if u.in != "env" || u.step < 0 || u.key.Value != "GEM_HOST_API_KEY" || !u.exact {
			return no(u.val, "the key is used in %s; gem finds it by itself in GEM_HOST_API_KEY only", place(u))
		}
		step := []string{"name: A short-lived key for rubygems.org", "uses: rubygems/configure-rubygems-credentials@v1.0.0"}
		if err := firstError(j.f.dropEntries(u.mapKey, u.m, u.key.Value), j.insertStep(u.step, step...)); err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// ghCodecov lets the uploader show the job's identity. Pull requests from forks
// have none, and upload without any token.
func ghCodecov(j *ghJob, d *draft) error {
	for _, u := range j.uses(d.item.names()) {
		if u.in != "with" || action(j.steps[u.step]) != "codecov/codecov-action" || u.key.Value != "token" {
			return no(u.val, "the token is used in %s; upload with codecov/codecov-action and use_oidc", place(u))
		}
		if err := j.f.block(u.m, "with"); err != nil {
			return err
		}
		if err := j.f.setEntry(u.key, u.val, "use_oidc", "${{ !(github.event_name == 'pull_request' && github.event.pull_request.head.repo.fork) }}"); err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}
