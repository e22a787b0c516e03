package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The versions of actions that patches add. A reviewer pins them to a commit.
const (
	useAWS   = "aws-actions/configure-aws-credentials@v4"
	useGCP   = "google-github-actions/auth@v2"
	useAzure = "azure/login@v2"
)

var awsKeyNames = []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}

// ghAWS takes AWS keys out of a job: out of the action that configures them,
// out of a registry login, or out of the environment.
func ghAWS(j *ghJob, d *draft) error {
	role := d.role()
	seen := make(map[*yaml.Node]bool)
	for _, u := range j.uses(d.item.names()) {
		var err error
		switch {
		case u.m != nil && seen[u.m]:
			continue
		case u.in == "with" && action(j.steps[u.step]) == "aws-actions/configure-aws-credentials":
			err = ghAWSAction(j, d, u, role)
		case u.in == "with" && strings.Contains(input(j.steps[u.step], "registry"), ".dkr.ecr."):
			err = ghAWSRegistry(j, d, u, role)
		case u.in == "env":
			err = ghAWSEnv(j, d, u, role)
		default:
			err = no(u.val, "%s is used in %s, in a way that no role can stand in for", oneLine(u.name), oneLine(u.in))
		}
		if err != nil {
			return err
		}
		seen[u.m] = true
	}
	return j.permit([2]string{"id-token", "write"})
}

// ghAWSAction turns the inputs with keys into one with a role.
func ghAWSAction(j *ghJob, d *draft, u ghUse, role string) error {
	st, err := j.step(u.step)
	if err != nil {
		return err
	}
	mapKey, m := find(st, "with")
	if err := j.f.block(m, "with"); err != nil {
		return err
	}
	names := []string{"aws-access-key-id", "aws-secret-access-key", "aws-session-token"}
	drop := names
	if have, _ := find(m, "role-to-assume"); have == nil {
		k, v := find(m, names[0])
		if k == nil {
			return no(m, "there is no aws-access-key-id beside the secret")
		}
		if err := j.f.setEntry(k, v, "role-to-assume", role); err != nil {
			return err
		}
		drop = names[1:]
	} else {
		d.note("The action assumed a role with the keys before; that role's trust policy has to name the issuer in place of the user.")
	}
	if err := j.f.dropEntries(mapKey, m, drop...); err != nil {
		return err
	}
	return d.awsPass(j, u.step, m)
}

// awsPass lets the action show Proviso's token in place of GitHub's.
func (d *draft) awsPass(j *ghJob, step int, m *yaml.Node) error {
	if !d.through() {
		return nil
	}
	last := m.Content[0]
	if err := j.f.addEntry(last, "web-identity-token-file: "+d.passFile()); err != nil {
		return err
	}
	return j.insertStep(step, d.passStep()...)
}

// passFile is where a step finds Proviso's token.
func (d *draft) passFile() string { return "${{ runner.temp }}/" + d.item.ID + ".jwt" }

// passStep is a step that asks Proviso.
func (d *draft) passStep() []string {
	d.provisoURL()
	return []string{
		"name: Ask Proviso for " + d.item.ID,
		"shell: bash",
		"env:",
		"  PROVISO_URL: ${{ vars.PROVISO_URL }}",
		"  TO: " + d.passFile(),
		"run: umask 077 && proviso token --grant " + d.item.ID + ` > "$TO"`,
	}
}

// awsStep is a step that assumes the role.
func (d *draft) awsStep(role, region string) []string {
	out := []string{
		"name: Assume the role of " + d.item.ID,
		"uses: " + useAWS,
		"with:",
		"  role-to-assume: " + role,
		"  aws-region: " + region,
	}
	if d.through() {
		out = append(out, "  web-identity-token-file: "+d.passFile())
	}
	return out
}

func (d *draft) insertAWS(j *ghJob, before int, role, region string) error {
	if d.through() {
		if err := j.insertStep(before, d.passStep()...); err != nil {
			return err
		}
	}
	return j.insertStep(before, d.awsStep(role, region)...)
}

var ecrHost = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?(/|$)`)

// ghAWSRegistry logs in to ECR with the role's credentials, which the login
// action finds in the environment when it has none of its own.
func ghAWSRegistry(j *ghJob, d *draft, u ghUse, role string) error {
	st, err := j.step(u.step)
	if err != nil {
		return err
	}
	if action(st) != "docker/login-action" {
		return no(st, "%s logs in to the registry with the keys, and is not known to take a role", oneLine(action(st)))
	}
	host := ecrHost.FindStringSubmatch(input(st, "registry"))
	if host == nil {
		return no(st, "the region of the registry can't be read from %s", oneLine(input(st, "registry")))
	}
	mapKey, m := find(st, "with")
	if err := j.f.dropEntries(mapKey, m, "username", "password"); err != nil {
		return err
	}
	return d.insertAWS(j, u.step, role, host[1])
}

// ghAWSEnv takes keys out of an environment and assumes the role in a step before it is needed.
func ghAWSEnv(j *ghJob, d *draft, u ghUse, role string) error {
	if !slices.Contains(awsKeyNames, u.key.Value) || !u.exact {
		return no(u.key, "the key is handed on as %s, which the AWS tools don't read by themselves", oneLine(u.key.Value))
	}
	// Whoever names the variables in a script writes the keys somewhere, and a
	// role's keys are worth nothing without their session token.
	for i := range j.steps {
		for _, part := range []string{"run", "with", "if"} {
			var bad *yaml.Node
			walkScalars(value(deref(j.steps[i]), part), 0, func(n *yaml.Node) {
				for _, name := range awsKeyNames[:2] {
					if strings.Contains(n.Value, name) && secretRef.FindString(n.Value) == "" {
						bad = n
					}
				}
			})
			if bad != nil {
				return no(bad, "a step names the variables of the key itself; with a role there is a session token beside them, which has to go along")
			}
		}
	}
	if err := j.f.dropEntries(u.mapKey, u.m, awsKeyNames...); err != nil {
		return err
	}
	return d.insertAWS(j, max(u.step, 0), role, d.region(j, u.step))
}

// region finds where the job says which region it is in.
func (d *draft) region(j *ghJob, step int) string {
	at := []*yaml.Node{value(j.node, "env"), value(j.f.root, "env")}
	if step >= 0 {
		at = append([]*yaml.Node{value(deref(j.steps[step]), "env")}, at...)
	}
	for i, m := range at {
		for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
			v := text(value(deref(m), name))
			switch {
			case v == "":
			case plainWord.MatchString(v):
				return v
			case step < 0 || i > 0:
				return "${{ env." + name + " }}"
			}
		}
	}
	return d.setting("REGION", "the AWS region, as eu-central-1")
}

// ghGCP replaces a service account's key.
func ghGCP(j *ghJob, d *draft) error {
	provider := d.setting("PROVIDER", providerName)
	account := d.setting("ACCOUNT", "the service account's e-mail address")
	for _, u := range j.uses(d.item.names()) {
		var st *yaml.Node
		var err error
		if u.step >= 0 {
			if st, err = j.step(u.step); err != nil {
				return err
			}
		}
		auth := []string{"name: Log in to Google Cloud as the job", "uses: " + useGCP, "with:", "  workload_identity_provider: " + provider, "  service_account: " + account}
		switch {
		case u.in == "with" && action(st) == "google-github-actions/auth" && u.key.Value == "credentials_json":
			if err := j.f.setEntry(u.key, u.val, "workload_identity_provider", provider); err != nil {
				return err
			}
			if have, _ := find(u.m, "service_account"); have == nil {
				err = j.f.addEntry(u.key, "service_account: "+account)
			}
		case u.in == "with" && strings.HasPrefix(action(st), "google-github-actions/") && (u.key.Value == "service_account_key" || u.key.Value == "credentials"):
			if err := j.f.dropEntries(u.mapKey, u.m, u.key.Value); err != nil {
				return err
			}
			err = j.insertStep(u.step, auth...)
		case u.in == "with" && action(st) == "docker/login-action" && strings.TrimSpace(input(st, "username")) == "_json_key" && u.key.Value == "password":
			id := d.stepID(j)
			k, v := find(u.m, "username")
			err = firstError(j.f.setValue(k, v, "oauth2accesstoken"), j.f.setValue(u.key, u.val, "${{ steps."+id+".outputs.access_token }}"),
				j.insertStep(u.step, append([]string{"id: " + id}, append(auth, "  token_format: access_token")...)...))
		case u.in == "env" && u.key.Value == "GOOGLE_CREDENTIALS" && u.exact:
			// The providers of Terraform take what the action leaves in GOOGLE_APPLICATION_CREDENTIALS.
			err = firstError(j.f.dropEntries(u.mapKey, u.m, u.key.Value), j.insertStep(max(u.step, 0), auth...))
		default:
			err = no(u.val, "the key is written out by the job itself (%s); put %s in its place and let the tools find the login", place(u), useGCP)
		}
		if err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// ghAzure replaces a client secret.
func ghAzure(j *ghJob, d *draft) error {
	vars := [][2]string{
		{"client-id", d.setting("CLIENT_ID", "the application's (client) id")},
		{"tenant-id", d.setting("TENANT_ID", "the directory's (tenant) id")},
		{"subscription-id", d.setting("SUBSCRIPTION_ID", "the subscription's id")},
	}
	for _, u := range j.uses(d.item.names()) {
		var err error
		switch {
		case u.in == "with" && action(j.steps[u.step]) == "azure/login" && u.key.Value == "creds":
			if err = j.f.setEntry(u.key, u.val, vars[0][0], vars[0][1]); err != nil {
				return err
			}
			for _, v := range vars[1:] {
				if have, _ := find(u.m, v[0]); have == nil {
					if err := j.f.addEntry(u.key, v[0]+": "+v[1]); err != nil {
						return err
					}
				}
			}
		case u.in == "env" && u.key.Value == "ARM_CLIENT_SECRET" && u.exact:
			err = j.f.setEntry(u.key, u.val, "ARM_USE_OIDC", `"true"`)
		default:
			err = no(u.val, "the client secret is used by the job itself (%s); put %s in its place", place(u), useAzure)
		}
		if err != nil {
			return err
		}
	}
	return j.permit([2]string{"id-token", "write"})
}

// place says where a reference stands.
func place(u ghUse) string {
	if u.mapKey != nil {
		return fmt.Sprintf("%s: %s", u.in, oneLine(u.key.Value))
	}
	return oneLine(u.in)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
