package plan

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/trust"
)

// vaultMethod is the login that Vault or OpenBao has for one issuer.
func (d *draft) vaultMethod(path string, f *federation) {
	d.foundation("vault-trusts-"+strings.ReplaceAll(f.id, "_", "-"), "Vault (or OpenBao) trusts "+f.title, "one JWT method for each issuer, before any role"+d.p.already(trust.VaultRole, f.url), func(tf, script string) {
		d.p.file(tf, fmt.Sprintf("# Tokens of this issuer may log in where a role names them.\n\nresource \"vault_jwt_auth_backend\" %s {\n  path               = %s\n  oidc_discovery_url = %s\n  bound_issuer       = %s\n}\n",
			hcl(f.id), hcl(path), d.p.tf(tf, f.url), d.p.tf(tf, f.url)), false)
		d.p.file(script, d.p.shellHead(script, "Vault (or OpenBao) trusts "+f.title+".", f.url)+
			fmt.Sprintf("vault auth enable -path=%[1]s jwt\nvault write auth/%[1]s/config oidc_discovery_url=%[2]s bound_issuer=%[2]s\n", path, d.p.shell(script, f.url)), true)
	})
}

// vaultRole writes a role for exactly the item's jobs. rules is a policy of Vault's, a template.
func (d *draft) vaultRole(path string, f *federation, rules string) {
	tf, script := d.trustFiles("A role of Vault's for " + f.title + " tokens of " + d.who() + ".")
	name := snake(d.item.ID)
	kind := "string"
	if f.like {
		kind = "glob"
	}
	claims := append([][2]string{}, f.claims...)
	var tfClaims, words []string
	if f.like || len(f.subjects) != 1 {
		claims = append(claims, [2]string{"sub", strings.Join(f.subjects, ",")})
	}
	for _, c := range claims {
		tfClaims = append(tfClaims, fmt.Sprintf("    %s = %s", quoted(c[0]), d.p.tf(tf, c[1])))
		var vals []string
		for _, v := range strings.Split(c[1], ",") {
			vals = append(vals, `"`+d.p.heredoc(script, v)+`"`)
		}
		words = append(words, fmt.Sprintf("%q: [%s]", c[0], strings.Join(vals, ", ")))
	}
	bound, boundJSON := "", ""
	if !f.like && len(f.subjects) == 1 {
		bound = "  bound_subject     = " + d.p.tf(tf, f.subjects[0]) + "\n"
		boundJSON = fmt.Sprintf("\"bound_subject\": \"%s\", ", d.p.heredoc(script, f.subjects[0]))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\nresource \"vault_policy\" \"%s\" {\n  name   = %s\n  policy = %s\n}\n\n", oneLine(d.item.Trust.Summary), name, hcl(d.item.ID), d.p.tf(tf, rules))
	fmt.Fprintf(&b, "resource \"vault_jwt_auth_backend_role\" \"%s\" {\n  backend           = vault_jwt_auth_backend.%s.path\n  role_name         = %s\n  role_type         = \"jwt\"\n  user_claim        = \"sub\"\n  bound_audiences   = [%s]\n%s  bound_claims_type = %s\n  bound_claims = {\n%s\n  }\n  token_policies         = [vault_policy.%s.name]\n  token_ttl              = 300\n  token_max_ttl          = 900\n  token_no_default_policy = true\n}\n",
		name, f.id, hcl(d.item.ID), d.p.tf(tf, f.audience), bound, quoted(kind), strings.Join(tfClaims, "\n"), name)
	d.p.file(tf, b.String(), false)
	d.p.file(script, d.p.shellHead(script, d.item.Trust.Summary, append([]string{f.audience, rules, strings.Join(f.subjects, " "), claimText(claims)}, f.subjects...)...)+
		fmt.Sprintf("vault policy write %s - <<END\n%s\nEND\nvault write auth/%s/role/%s - <<END\n{\"role_type\": \"jwt\", \"user_claim\": \"sub\", \"bound_audiences\": [\"%s\"], %s\"bound_claims_type\": %s, \"bound_claims\": {%s}, \"token_policies\": [%s], \"token_ttl\": 300, \"token_max_ttl\": 900, \"token_no_default_policy\": true}\nEND\n",
			sh(d.item.ID), d.p.heredoc(script, rules), path, d.item.ID, d.p.heredoc(script, f.audience), boundJSON, quoted(kind), strings.Join(words, ", "), quoted(d.item.ID)), true)
}

func claimText(claims [][2]string) string {
	var b strings.Builder
	for _, c := range claims {
		b.WriteString(c[1] + " ")
	}
	return b.String()
}

// trustVault: the job's own token (or Proviso's) logs in to Vault with bound claims.
func trustVault(d *draft) {
	f := d.federation()
	path := "jwt"
	if f.id == "proviso" {
		path = "proviso"
	} else if d.item.CI != inventory.Azure { // which knows one audience only
		f.audience = d.audience() // the patch asks for exactly this one
	}
	d.vaultMethod(path, f)
	d.vaultRole(path, f, "# The rights of the token or AppRole before, less what was never used (audit log).\npath \"secret/data/ci/"+slug(d.repo.label())+"/*\" { capabilities = [\"read\"] }")
	d.note("Write the rights of the old token or AppRole into the role's policy, less what the audit device never saw used.")
}

// trustFetch: Proviso's token for this one grant reads this one value.
func trustFetch(d *draft) {
	f := d.throughProviso()
	d.vaultMethod("proviso", f)
	where := "ci/data/" + slug(d.repo.label()) + "/" + d.item.Secrets[0]
	if !variableName.MatchString(d.item.Secrets[0]) {
		where = "ci/data/" + slug(d.repo.label()) + "/" + slug(d.item.Secrets[0])
	}
	d.vaultRole("proviso", f, "path \""+where+"\" { capabilities = [\"read\"] }\npath \"auth/token/revoke-self\" { capabilities = [\"update\"] }")
}

// trustKubernetes: the API server trusts Proviso, and each grant is a user of its own.
func trustKubernetes(d *draft) {
	f := d.throughProviso()
	const config = "trust/000-kubernetes-authentication.yaml"
	key := "audiences kubernetes"
	d.p.parts[key] = appendNew(d.p.parts[key], f.audience)
	id := "kubernetes-trusts-proviso"
	d.foundation(id, "The cluster trusts Proviso", "structured authentication of the API server (--authentication-config), before any binding", func(string, string) {
		d.p.last = append(d.p.last, func() {
			var b strings.Builder
			fmt.Fprintf(&b, "# For the API server's --authentication-config (Kubernetes 1.34; v1beta1 from 1.30).\n# On EKS, GKE and AKS use the cloud's own OIDC configuration with the same values.\napiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n  - issuer:\n      url: %s\n      audiences:\n", d.p.yamlText(config, f.url))
			for _, a := range d.p.parts[key] {
				fmt.Fprintf(&b, "        - %s\n", quoted(a))
			}
			b.WriteString("      audienceMatchPolicy: MatchAny\n    claimValidationRules:\n      - expression: 'type(claims.aud) == string'\n        message: a pass of Proviso has one audience\n    claimMappings:\n      username:\n        expression: '\"proviso:\" + claims.aud' # each grant is a user of its own\n")
			d.p.file(config, b.String(), false)
			d.p.fronts[id].Files = []string{config}
		})
	})
	tf, script := d.trustFiles("What the user of the grant " + d.item.ID + " may do in the cluster.")
	user := "proviso:" + f.audience
	ns := d.p.ask("kubernetes_namespace", d.item.ID, "The namespace that "+d.item.ID+" deploys to.", "kubectl config view --minify, or the manifests")
	role := d.p.ask("kubernetes_role", d.item.ID, "The ClusterRole with the rights that the kubeconfig of "+d.item.ID+" had and used, as edit.", "kubectl auth can-i --list --kubeconfig OLD")
	d.p.file(tf, fmt.Sprintf("# %s\n\nresource \"kubernetes_role_binding_v1\" \"%s\" {\n  metadata {\n    name      = %s\n    namespace = %s\n  }\n\n  role_ref {\n    api_group = \"rbac.authorization.k8s.io\"\n    kind      = \"ClusterRole\"\n    name      = %s\n  }\n\n  subject {\n    api_group = \"rbac.authorization.k8s.io\"\n    kind      = \"User\"\n    name      = %s\n  }\n}\n",
		oneLine(d.item.Trust.Summary), snake(d.item.ID), hcl(d.item.ID), d.p.tf(tf, ns), d.p.tf(tf, role), hcl(user)), false)
	d.p.file(script, d.p.shellHead(script, d.item.Trust.Summary, ns, role)+fmt.Sprintf("kubectl create rolebinding %s --namespace=%s --clusterrole=%s --user=%s\n", sh(d.item.ID), d.p.shell(script, ns), d.p.shell(script, role), sh(user)), true)
}

// trustOctoSTS: the policy that the target repository keeps for this one identity.
func trustOctoSTS(d *draft) {
	f := d.federation()
	name := "trust/" + d.number() + "-" + d.item.ID + ".sts.yaml"
	d.item.Trust = &Trust{Summary: "The repository gives an App's token to " + d.who() + "; copy the file to .github/chainguard/" + d.item.ID + ".sts.yaml of the repository that the token is for.", Files: []string{name}}
	var b strings.Builder
	fmt.Fprintf(&b, "# For octo-sts (https://octo-sts.dev, or your own): .github/chainguard/%s.sts.yaml\n", d.item.ID)
	fmt.Fprintf(&b, "issuer: %s\n", d.p.yamlText(name, f.url))
	if exact, others := f.exact(); len(exact) == 1 && others == 0 {
		fmt.Fprintf(&b, "subject: %s\n", d.p.yamlText(name, exact[0]))
	} else {
		var any []string
		for _, s := range f.subjects {
			d.p.use(name, s)
			any = append(any, render(s, pattern, func(v string) string {
				if set := d.p.vars[v].Value; set != "" {
					return pattern(set)
				}
				return placeholder + v
			}))
		}
		fmt.Fprintf(&b, "subject_pattern: %s\n", quoted("^("+strings.Join(any, "|")+")$"))
	}
	b.WriteString("# What the personal token was used for, and nothing more. Empty gives nothing.\npermissions: {}\n")
	d.p.file(name, b.String(), false)
	d.note("The file of octo-sts gives no permission until you write them: look what the token was used for (contents: write, pull_requests: write, ...).")
}

// pattern is a text for a regular expression, in which * stays a wildcard
// within one part of a subject.
func pattern(s string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(s), `\*`, "[^:]*")
}
