package plan

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
	"github.com/proviso-ci/proviso/trust"
)

// trustGCP: a pool and a provider once, then the one service account for exact subjects.
func trustGCP(d *draft) {
	f := d.federation()
	project := d.p.ask("gcp_pool_project", "", "The Google Cloud project that holds the pool of outside identities, best one for nothing else.", "gcloud projects list")
	number := d.p.ask("gcp_pool_project_number", "", "The number of the Google Cloud project that holds the pool.", "gcloud projects describe PROJECT --format='value(projectNumber)'")
	home := d.p.ask("gcp_project", d.item.Repository, "The Google Cloud project of the service account of "+d.item.Repository+".", "the project_id in the key")
	account := d.p.ask("gcp_service_account", d.item.ID, "The e-mail address of the service account whose key "+d.item.ID+" is.", "the client_email in the key; gcloud iam service-accounts list")
	id := "gcp-trusts-" + strings.ReplaceAll(f.id, "_", "-")
	condition := "assertion.sub.startsWith('" + strings.TrimSuffix(firstOr(f.subjects, "nobody"), "*") + "')"
	if len(f.claims) > 0 {
		condition = "assertion." + f.claims[0][0] + " == '" + f.claims[0][1] + "'"
	}
	key, audiences := "conditions "+id, "audiences "+id
	d.p.parts[key] = appendNew(d.p.parts[key], condition)
	if d.through() || d.item.CI == inventory.Azure { // else the tokens carry the provider's own name
		d.p.parts[audiences] = appendNew(d.p.parts[audiences], f.audience)
	}
	d.foundation(id, "The Google Cloud project trusts "+f.title, "one pool and provider, before any service account"+d.p.already(trust.GCPProvider, f.url), func(tf, script string) {
		d.p.last = append(d.p.last, func() {
			d.p.gcpProvider(tf, script, f, project, strings.Join(d.p.parts[key], " || "), d.p.parts[audiences], d.p.fronts[id])
		})
	})
	tf, script := d.trustFiles("The service account takes " + f.title + " tokens for " + d.who() + ".")
	exact, others := f.exact()
	if others > 0 {
		d.note("Google Cloud compares subjects exactly: tags, and branches by pattern, are not in its trust. Give the job an environment, and plan again.")
	}
	name := snake(d.item.ID)
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", oneLine(d.item.Trust.Summary))
	members := d.p.shellHead(script, d.item.Trust.Summary, append([]string{number, account, home}, f.subjects...)...)
	for i, s := range exact {
		who := "principal://iam.googleapis.com/projects/" + number + "/locations/global/workloadIdentityPools/" + f.poolID() + "/subject/" + s
		fmt.Fprintf(&b, "\nresource \"google_service_account_iam_member\" \"%s_%d\" {\n  service_account_id = %s\n  role               = \"roles/iam.workloadIdentityUser\"\n  member             = %s\n}\n",
			name, i+1, d.p.tf(tf, "projects/"+home+"/serviceAccounts/"+account), d.p.tf(tf, who))
		members += fmt.Sprintf("gcloud iam service-accounts add-iam-policy-binding %s --project=%s --role=roles/iam.workloadIdentityUser --member=%s\n", d.p.shell(script, account), d.p.shell(script, home), d.p.shell(script, who))
	}
	d.p.file(tf, b.String(), false)
	d.p.file(script, members, true)
}

// poolID names the pool of one issuer.
func (f *federation) poolID() string { return "ci-" + strings.ReplaceAll(f.id, "_", "-") }

// gcpProvider writes pool and provider, once all repositories are known: its
// condition keeps out everybody else whose tokens the issuer signs.
func (p *planner) gcpProvider(tf, script string, f *federation, project, condition string, audiences []string, front *Foundation) {
	allowed, flag := "", ""
	if len(audiences) > 0 {
		var list []string
		for _, a := range audiences {
			list = append(list, p.tf(tf, a))
		}
		allowed = "    allowed_audiences = [" + strings.Join(list, ", ") + "]\n"
		flag = " --allowed-audiences=" + p.shell(script, strings.Join(audiences, ","))
	}
	p.file(tf, fmt.Sprintf(`# A pool for tokens of this issuer. The condition lets in these repositories and no other
# customer of the platform.

resource "google_iam_workload_identity_pool" %[1]s {
  project                   = %[2]s
  workload_identity_pool_id = %[3]s
}

resource "google_iam_workload_identity_pool_provider" %[1]s {
  project                            = %[2]s
  workload_identity_pool_id          = google_iam_workload_identity_pool.%[4]s.workload_identity_pool_id
  workload_identity_pool_provider_id = "jobs"
  attribute_mapping                  = { "google.subject" = "assertion.sub" }
  attribute_condition                = %[5]s

  oidc {
    issuer_uri = %[6]s
%[7]s  }
}

output "gcp_provider_%[4]s" {
  value = google_iam_workload_identity_pool_provider.%[4]s.name
}
`, hcl(f.id), p.tf(tf, project), hcl(f.poolID()), f.id, p.tf(tf, condition), p.tf(tf, f.url), allowed), false)
	p.file(script, p.shellHead(script, "The Google Cloud project trusts "+f.title+".", project, condition, f.url)+fmt.Sprintf(
		"gcloud iam workload-identity-pools create %[1]s --project=%[2]s --location=global\ngcloud iam workload-identity-pools providers create-oidc jobs --project=%[2]s --location=global --workload-identity-pool=%[1]s --issuer-uri=%[3]s --attribute-mapping=google.subject=assertion.sub --attribute-condition=%[4]s%[5]s\ngcloud iam workload-identity-pools providers describe jobs --project=%[2]s --location=global --workload-identity-pool=%[1]s --format='value(name)'\n",
		f.poolID(), p.shell(script, project), p.shell(script, f.url), p.shell(script, condition), flag), true)
	front.Files = []string{tf, script}
}

func firstOr(list []string, other string) string {
	if len(list) > 0 {
		return list[0]
	}
	return other
}

// trustAzure: one federated credential of the application for each exact subject.
func trustAzure(d *draft) {
	f := d.federation()
	app := d.p.ask("azure_application", d.item.ID, "The object id of the Entra application whose client secret "+d.item.ID+" is.", "az ad app show --id CLIENT_ID --query id -o tsv")
	tf, script := d.trustFiles("The application takes " + f.title + " tokens for " + d.who() + ".")
	audience := entraAudience
	if d.through() {
		audience = f.audience
	}
	exact, others := f.exact()
	if others > 0 {
		d.note("Entra compares subjects exactly: tags, and branches by pattern, are not in its trust. Give the job an environment, and plan again.")
	}
	name := snake(d.item.ID)
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", oneLine(d.item.Trust.Summary))
	commands := d.p.shellHead(script, d.item.Trust.Summary, append([]string{app, f.url}, f.subjects...)...)
	for i, s := range exact {
		label := d.item.ID + "-" + digits(i+1)
		fmt.Fprintf(&b, "\nresource \"azuread_application_federated_identity_credential\" \"%s_%d\" {\n  application_id = %s\n  display_name   = %s\n  audiences      = [%s]\n  issuer         = %s\n  subject        = %s\n}\n",
			name, i+1, d.p.tf(tf, "/applications/"+app), hcl(label), d.p.tf(tf, audience), d.p.tf(tf, f.url), d.p.tf(tf, s))
		commands += fmt.Sprintf("az ad app federated-credential create --id %s --parameters @- <<END\n{\"name\": %s, \"issuer\": \"%s\", \"subject\": \"%s\", \"audiences\": [%s]}\nEND\n",
			d.p.shell(script, app), quoted(label), d.p.heredoc(script, f.url), d.p.heredoc(script, s), quoted(audience))
	}
	d.p.file(tf, b.String(), false)
	d.p.file(script, commands, true)
}
