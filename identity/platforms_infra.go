package identity

import (
	"strings"

	proviso "github.com/proviso-ci/proviso"
)

// Platforms that run infrastructure code, the cloud that names only a service
// account, and the row that the operator writes.

var hcpTerraform = platform{
	name: "hcp-terraform", title: "HCP Terraform and Terraform Enterprise",
	issuers: []issuerForm{
		{"https://app.terraform.io", shared},
		{"https://app.eu.terraform.io", shared},
		{"https://HOST", own},
	},
	pins:     []string{"terraform_organization_id", "terraform_project_id", "terraform_workspace_id"},
	audience: audienceRule{ask: "set the workspace's environment variable TFC_WORKLOAD_IDENTITY_AUDIENCE to AUDIENCE"},
	// Module tests get tokens from the same issuer, without a workspace.
	job:        []string{"terraform_run_id", "terraform_workspace_id"},
	replay:     ReplayJTI,
	maxAge:     10 * minute,
	maxLife:    25 * hour, // follows the phase's timeout
	algorithms: rs256,
	events: eventRule{
		claim: "terraform_run_phase",
		allow: []string{"apply"},
		// A plan runs code that nobody has approved, speculative plans that of
		// anybody's pull request.
		outside: []string{"plan"},
	},
	fields: []field{
		from("terraform_organization_id", "owner_id", must),
		from("terraform_workspace_name", "workflow", may),
		from("terraform_workspace_id", "workflow_id", must),
		from("terraform_run_phase", "event", must),
		from("terraform_run_id", "run_id", must),
	},
	agree: func(c *claims, id *Identity) {
		org, project := c.str("terraform_organization_name", text), c.str("terraform_project_name", text)
		c.subject("organization:", ":",
			[]string{"organization:", org, ":project:", project, ":workspace:", id.Workflow, ":run_phase:", id.Event},
			[]string{"organization:", org, ":workspace:", id.Workflow, ":run_phase:", id.Event}) // before there were projects
	},
}

var spacelift = platform{
	name: "spacelift", title: "Spacelift",
	issuers: []issuerForm{
		{"https://SLUG.app.spacelift.io", named},
		{"https://SLUG.app.us.spacelift.io", named},
		{"https://HOST", own},
	},
	pins: []string{"spaceId"},
	audience: audienceRule{
		fixed: func(issuer string) string {
			return strings.TrimPrefix(strings.TrimPrefix(issuer, "https://"), "http://")
		},
		ask: "use SPACELIFT_OIDC_TOKEN, whose audience is your account's host name",
	},
	job:        []string{"runId"},
	replay:     ReplayJTI,
	maxAge:     10 * minute,
	maxLife:    2 * hour, // documented: 1 hour
	algorithms: rs256,
	events: eventRule{
		claim: "runType", tellsPulls: true,
		allow: []string{"TRACKED"},
		pull:  []string{"PROPOSED"},
		// A task is a command that a person typed; a module's test runs its author's code.
		outside: []string{"TASK", "TESTING"},
		known:   []string{"DESTROY"},
	},
	fields: []field{
		// A stack's slug may exist in two spaces, so the space is the owner.
		from("spaceId", "owner_id", must),
		from("callerId", "workflow", must),
		from("runType", "event", must),
		from("runId", "run_id", must),
	},
	agree: func(c *claims, id *Identity) {
		c.subject("space:", ":", []string{"space:", id.OwnerID, ":", c.str("callerType", word), ":", id.Workflow,
			":run_type:", id.Event, ":scope:", c.str("scope", word)})
	},
}

// cloudBuild's token is a service account's: it never says which build,
// repository or branch asks, and whatever may run as that account gets the same.
var cloudBuild = platform{
	name: "google-cloud-build", title: "Google Cloud Build (service account)",
	issuers:    []issuerForm{{"https://accounts.google.com", shared}},
	pins:       []string{"sub"},
	audience:   audienceRule{ask: "gcloud auth print-identity-token --audiences=AUDIENCE, or audience=AUDIENCE at the metadata server"},
	noJob:      "the pinned numeric sub of a service account that only builds use",
	jwksURL:    "https://www.googleapis.com/oauth2/v3/certs",
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    2 * hour, // 1 hour
	algorithms: rs256,
	fields: []field{
		from("sub", "actor_id", must),
		from("email", "actor", may),
	},
	agree: func(c *claims, id *Identity) {
		if azp := c.str("azp", ident); azp != "" && azp != id.ActorID {
			c.refuse(proviso.CodeAZPMismatch, "the token was made for the party %s, but names the account %s; only a service account's own token is taken", quoted(azp), quoted(id.ActorID))
		}
		if verified := c.flag(topLevel("email_verified")); verified != nil && !*verified {
			c.refuse(proviso.CodeClaimsInconsistent, "the token says that the account's email address is not verified; only service accounts are taken")
		}
	},
}

// generic is completed by the operator's claims map.
var generic = platform{
	name: "generic", title: "any other issuer",
	issuers:    []issuerForm{{"https://HOST/PATH", shared}, {"https://HOST/PATH/", shared}},
	audience:   audienceRule{ask: "ask your platform for a token with the audience AUDIENCE"},
	replay:     ReplayToken,
	maxAge:     10 * minute,
	maxLife:    25 * hour,
	algorithms: rs256,
	events:     eventRule{pull: commonPulls},
	open:       true,
}

// commonPulls are the words by which events that an operator maps are
// recognised as a pull request's.
var commonPulls = []string{"pull_request", "pull_request_target", "merge_request", "merge_request_event"}
