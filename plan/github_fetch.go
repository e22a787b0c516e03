package plan

import "go.yaml.in/yaml/v3"

// ghVault logs in to Vault with the job's identity in place of a token or an AppRole.
func ghVault(j *ghJob, d *draft) error {
	seen := make(map[*yaml.Node]bool)
	for _, u := range j.uses(d.item.names()) {
		if u.in != "with" || action(j.steps[u.step]) != "hashicorp/vault-action" {
			return no(u.val, "the login is used in %s; log in with hashicorp/vault-action and method: jwt, or with vault write auth/jwt/login", place(u))
		}
		if seen[u.m] {
			continue
		}
		seen[u.m] = true
		var names []string
		for _, name := range []string{"token", "roleId", "secretId", "githubToken", "username", "password"} {
			if k, _ := find(u.m, name); k != nil {
				names = append(names, name)
			}
		}
		if err := j.f.block(u.m, "with"); err != nil {
			return err
		}
		k, v := find(u.m, names[0])
		if err := firstError(j.f.setEntry(k, v, "role", d.item.ID), j.f.dropEntries(u.mapKey, u.m, names[1:]...)); err != nil {
			return err
		}
		err := j.f.addEntry(k0(u.m), "jwtGithubAudience: "+d.audience())
		if k, _ := find(u.m, "jwtGithubAudience"); k != nil {
			return no(k, "the step asks for an audience of its own already; write method and role yourself")
		}
		if k, v := find(u.m, "method"); k != nil && err == nil {
			err = j.f.setValue(k, v, "jwt")
		} else if err == nil {
			err = j.f.addEntry(k0(u.m), "method: jwt")
		}
		if err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// k0 is the first key of a mapping.
func k0(m *yaml.Node) *yaml.Node { return m.Content[0] }

// ghOctoSTS exchanges the job's identity for a token of a GitHub App, limited
// by the policy that the target repository keeps.
func ghOctoSTS(j *ghJob, d *draft) error {
	d.note("The token is for the repository that the job runs in; where the old one was used for another, write that one's name as scope.")
	return ghExchanged(j, d, "octo-sts/action@v1.0.0", "token", "scope: ${{ github.repository }}", "identity: "+d.item.ID)
}

// ghFetch asks Proviso, shows its token to the secrets manager, and hands the
// value to the step that needs it.
func ghFetch(j *ghJob, d *draft) error {
	if len(d.item.Secrets) != 1 {
		return no(j.node, "two halves of one secret are not fetched together")
	}
	id := d.stepID(j)
	uses := j.uses(d.item.names())
	if len(uses) == 0 {
		return no(j.node, "the secret is not in the job as it is now")
	}
	if err := j.sameCondition(uses); err != nil {
		return err
	}
	var whole *ghUse // in the job's environment
	first := len(j.steps)
	for i, u := range uses {
		if u.step < 0 && u.in == "env" && u.exact {
			whole, first = &uses[i], 0
			continue
		}
		if err := j.replaceRef(u, "${{ steps."+id+".outputs.value }}"); err != nil {
			return err
		}
		first = min(first, u.step)
	}
	to := ""
	if whole != nil {
		if !variableName.MatchString(whole.key.Value) {
			return no(whole.key, "the variable has an unusual name")
		}
		to = whole.key.Value
		if err := j.f.dropEntries(whole.mapKey, whole.m, to); err != nil {
			return err
		}
	}
	return firstError(j.insertStep(first, d.fetchStep(id, to)...), j.permit([2]string{"id-token", "write"}))
}

// fetchStep is the step that asks and fetches. Every value is masked before
// anything else can print it; a failure anywhere ends the step, and so the job.
func (d *draft) fetchStep(id, env string) []string {
	d.provisoURL()
	vault := d.shared("VAULT_ADDR", vaultAddress)
	step := []string{
		"name: " + d.item.Secrets[0] + " just in time, as policy allows",
		"id: " + id,
		"shell: bash",
		"env:",
		"  PROVISO_URL: ${{ vars.PROVISO_URL }}",
		"  VAULT_ADDR: " + vault,
		"run: |",
	}
	for _, s := range d.fetchScript() {
		step = append(step, "  "+s)
	}
	step = append(step,
		`  while IFS= read -r line; do if [ -n "$line" ]; then echo "::add-mask::$line"; fi; done <<< "$value"`,
		`  end="$(openssl rand -hex 16)"`)
	if env != "" {
		step = append(step, `  printf '%s<<%s\n%s\n%s\n' `+env+` "$end" "$value" "$end" >> "$GITHUB_ENV"`)
	}
	return append(step, `  printf '%s<<%s\n%s\n%s\n' value "$end" "$value" "$end" >> "$GITHUB_OUTPUT"`)
}

// fetchScript leaves the value in $value, and no session behind.
func (d *draft) fetchScript() []string {
	return []string{
		`pass="$(proviso token --grant ` + d.item.ID + `)"`,
		`VAULT_TOKEN="$(printf %s "$pass" | vault write -field=token auth/proviso/login role=` + d.item.ID + ` jwt=-)"`,
		`export VAULT_TOKEN`,
		`value="$(vault kv get -mount=ci -field=value ` + d.secretPath() + `)"`,
		`vault token revoke -self > /dev/null && unset VAULT_TOKEN`,
	}
}

// secretPath is where the secrets manager keeps the value.
func (d *draft) secretPath() string {
	return slug(d.repo.label()) + "/" + secretWord(d.item.Secrets[0])
}
