package plan

import (
	"path"
	"strings"
)

// What ends a static secret at the target that made it, first what can be
// undone; and what tells from the target when it was last used.

func seenAWS(d *draft) []Step {
	return []Step{{"AWS's own word on the key's last use (KEY_ID: the access key's id).", "aws iam get-access-key-last-used --access-key-id KEY_ID"}}
}

func endAWS(d *draft) []Step {
	return []Step{
		{"Switch the key off, which can be undone, and wait a day.", "aws iam update-access-key --user-name USER --access-key-id KEY_ID --status Inactive"},
		{"Delete it.", "aws iam delete-access-key --user-name USER --access-key-id KEY_ID"},
		{"Delete the user, when that was its only use.", "aws iam delete-user --user-name USER"},
	}
}

func seenGCP(d *draft) []Step {
	return []Step{{"Google's own word on the key's last use.", "gcloud policy-intelligence query-activity --activity-type=serviceAccountKeyLastAuthentication --project=PROJECT"}}
}

func endGCP(d *draft) []Step {
	return []Step{
		{"Switch the key off, which can be undone, and wait a day.", "gcloud iam service-accounts keys disable KEY_ID --iam-account=ACCOUNT"},
		{"Delete it.", "gcloud iam service-accounts keys delete KEY_ID --iam-account=ACCOUNT"},
		{"Forbid new ones.", "gcloud resource-manager org-policies enable-enforce iam.disableServiceAccountKeyCreation --project=PROJECT"},
	}
}

func seenAzure(d *draft) []Step {
	return []Step{{"Entra's own word: sign-ins of the application by client secret.", "az rest --url 'https://graph.microsoft.com/beta/auditLogs/signIns?$filter=signInEventTypes/any(t:t eq %27servicePrincipal%27)'"}}
}

func endAzure(d *draft) []Step {
	return []Step{{"Delete the client secret (KEY_ID from az ad app credential list).", "az ad app credential delete --id APP_ID --key-id KEY_ID"}}
}

func seenGitHubToken(d *draft) []Step {
	return []Step{{Do: "GitHub's own word: the token's page (Settings, Developer settings) says Last used; the organisation's audit log has each use by hashed_token."}}
}

func endGitHubToken(d *draft) []Step {
	return []Step{{Do: "Revoke the personal token (Settings, Developer settings, Personal access tokens); for an App's key, delete the key on the App's page."}}
}

func endNPM(d *draft) []Step {
	return []Step{{"Revoke the token (ID from npm token list).", "npm token revoke ID"}, {Do: "On npmjs.com set the package's publishing access to: require two-factor authentication and disallow tokens."}}
}

func endPyPI(d *draft) []Step {
	return []Step{{Do: "Delete the API token (pypi.org, Account settings, API tokens)."}}
}

func endCrates(d *draft) []Step {
	return []Step{{Do: "Revoke the token (crates.io, Account settings, API tokens)."}}
}

func endRubyGems(d *draft) []Step {
	return []Step{{Do: "Delete the API key (rubygems.org, Settings, API keys)."}}
}

func endNuGet(d *draft) []Step {
	return []Step{{Do: "Delete the API key (nuget.org, API Keys)."}}
}

func endCodecov(d *draft) []Step {
	return []Step{{Do: "Regenerate the upload token (app.codecov.io, Settings, General): the old one is then worth nothing."}}
}

func seenVault(d *draft) []Step {
	return []Step{{"Vault's own word: uses of the old token's accessor, or of the AppRole, in the audit device.", `jq -c 'select(.auth.display_name == "approle" or .auth.accessor == "ACCESSOR") | .time' audit.log`}}
}

func endVault(d *draft) []Step {
	return []Step{
		{"Revoke the token by its accessor,", "vault token revoke -accessor ACCESSOR"},
		{"or end the AppRole: first its secret ids, then the role.", "vault write -f auth/approle/role/ROLE/secret-id-accessor/destroy secret_id_accessor=ACCESSOR && vault delete auth/approle/role/ROLE"},
	}
}

func seenKube(d *draft) []Step {
	return []Step{{"The cluster's own word: requests of the old user in the API server's audit log.", `jq -c 'select(.user.username == "OLD_USER") | .requestReceivedTimestamp' audit.log`}}
}

func endKube(d *draft) []Step {
	return []Step{{"Delete the service account's token or the old user's binding.", "kubectl delete secret OLD_TOKEN_SECRET --namespace NAMESPACE"},
		{Do: "A client certificate can't be revoked: remove the bindings of its user, and let it run out."}}
}

func seenSSH(d *draft) []Step {
	return []Step{{"The hosts' own word: logins with the old key's fingerprint.", "journalctl -u ssh --grep FINGERPRINT"}}
}

func endSSH(d *draft) []Step {
	return []Step{{"Take the key out of authorized_keys of each host, or delete the deploy key.", "gh repo deploy-key delete ID --repo OWNER/NAME"}}
}

func seenDatabase(d *draft) []Step {
	return []Step{{Do: "The database's own word: sessions of the old user in its connection log (log_connections for PostgreSQL)."}}
}

func endDatabase(d *draft) []Step {
	return []Step{{"Take the login from the old user, which can be undone, and wait a day; then drop it.", `psql -c 'ALTER ROLE "OLD_USER" NOLOGIN'`}}
}

func endSaaS(d *draft) []Step {
	return []Step{{Do: "Rotate the value at the vendor and write the new one into the secrets manager only: the old one is then worth nothing, wherever it was copied to."}}
}

// Package indexes are told on their web pages whom to trust: exact values for the form.

// publisher is one step for each pipeline that publishes.
func (d *draft) publisher(where string) {
	for _, j := range d.jobs() {
		env := "none"
		for _, p := range d.group.paths {
			if p.File == j.file && p.Job == j.id && p.Reach.Environment != "" {
				env = p.Reach.Environment
			}
		}
		if env == "none" {
			d.note("Give the publishing job an environment with reviewers, and name it at the index too: without one, any branch's run of the pipeline can publish.")
		}
		s := Step{Do: where + ": repository " + oneLine(d.item.Repository) + ", workflow " + oneLine(path.Base(j.file)) + ", environment " + oneLine(env) + "."}
		d.item.Prepare = append(d.item.Prepare, s)
	}
	d.item.Trust = &Trust{Summary: "The index takes the identity of " + d.who() + "; it is told so on its web page, see the steps.", Files: []string{}}
}

func trustNPM(d *draft) {
	d.publisher("npmjs.com, the package's Settings, Trusted publisher, " + platformTitle(d))
}
func trustPyPI(d *draft) {
	d.publisher("pypi.org, the project's Publishing page, " + platformTitle(d))
}
func trustCrates(d *draft) { d.publisher("crates.io, the crate's Settings, Trusted Publishing") }
func trustRubyGems(d *draft) {
	d.publisher("rubygems.org, the gem's page, Trusted publishers, GitHub Actions")
}
func trustNuGet(d *draft) { d.publisher("nuget.org, Trusted Publishing, a policy") }

func platformTitle(d *draft) string {
	return strings.ReplaceAll(string(d.item.CI), "-", " ")
}
