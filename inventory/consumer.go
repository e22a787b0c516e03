package inventory

import (
	"slices"
	"strings"
)

// The consumer tables say what a value is used for, by the action, task, orb,
// plugin, command or environment variable that takes it. Their facts come from
// the vendors' documentation of these consumers and from public pipelines that
// use them; a consumer that is not in a table leaves the resource "unknown".

// use is what a consumer does with a value. The zero use is "not known".
type use struct {
	res    Resource
	nature Nature // "" when the consumer does not tell
	via    string
	// guess: the resource is that of the tool as a whole; a value whose own name tells another is not for it.
	guess bool
	// sure: the place itself takes only a credential, whatever the variable in it is called.
	sure bool
}

// known reports whether the consumer told a resource.
func (u use) known() bool { return u.res.Kind != "" && u.res.Kind != unknown }

// secretUse and labelUse make uses of the two natures.
func secretUse(kind, name string) use {
	return use{res: Resource{kind, name}, nature: NatureCredential}
}

func labelUse(kind, name string) use {
	return use{res: Resource{kind, name}, nature: NatureIdentifier}
}

// or gives u, with what it lacks taken from other.
func (u use) or(other use) use {
	if !u.known() {
		u.res = other.res
	} else if (u.res.Name == "" || u.res.Name == unknown) && other.res.Kind == u.res.Kind {
		u.res.Name = other.res.Name
	}
	if u.nature == "" {
		u.nature = other.nature
	}
	if u.via == "" {
		u.via = other.via
	}
	return u
}

// nameTokens cuts a name at underscores, dashes, dots, blanks and changes of case, in upper case.
func nameTokens(name string) []string {
	var out []string
	start := 0
	flush := func(end int) {
		if end > start {
			out = append(out, strings.ToUpper(name[start:end]))
		}
	}
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c == '_' || c == '-' || c == '.' || c == ' ' || c == '/' || c == ':':
			flush(i)
			start = i + 1
		case c >= 'A' && c <= 'Z' && i > start && (name[i-1] >= 'a' && name[i-1] <= 'z' || i+1 < len(name) && name[i+1] >= 'a' && name[i+1] <= 'z' && name[i-1] >= 'A' && name[i-1] <= 'Z'):
			flush(i)
			start = i
		}
	}
	flush(len(name))
	return out
}

// identifierTails are last words of names that hold no credential.
var identifierTails = set("USER", "USERNAME", "USERNAMES", "USERID", "LOGIN", "EMAIL", "MAIL", "ARN", "ARNS", "ACCOUNT", "ACCOUNTS", "REGION", "BUCKET", "HOST", "HOSTNAME",
	"HOSTS", "SERVER", "URL", "URI", "ENDPOINT", "DOMAIN", "ZONE", "PROJECT", "NAMESPACE", "REGISTRY", "REPOSITORY", "REPO", "ORG", "ORGANIZATION", "ORGANISATION", "TEAM",
	"TENANT", "TENANCY", "COMPARTMENT", "OCID", "SUBSCRIPTION", "CHANNEL", "PORT", "NAME", "PATH", "CLUSTER", "DISTRIBUTION", "FINGERPRINT", "ADDRESS", "ADDR", "ENV", "ENVIRONMENT", "VERSION", "SITE",
	"ALIAS", "STACK", "GROUP", "ROLE", "PROVIDER", "ID", "IDS", "UUID", "TENANTID", "CLIENTID", "PROJECTID", "SUBSCRIPTIONID", "APPID", "ACCOUNTID", "RECIPIENTS", "RECIPIENT",
	"REVIEWERS", "SENDER", "FROM", "IDENTITY", "PUBLIC", "OWNER", "DIR", "DIRECTORY", "FILENAME", "AUDIENCE", "ISSUER", "LOCATION", "RESOURCE", "SKU", "THUMBPRINT", "IP", "IPS", "CIDRS",
	"RG", "PREFIX", "SUFFIX", "OBJECTID", "PRINCIPALID", "KEYWORDS", "THRESHOLD", "SUBNET", "SUBNETS", "VPC", "INSTANCE", "LABEL", "LABELS", "COUNT", "LIMIT", "LEVEL", "MODE", "INTERVAL", "TIMEOUT", "FORMAT", "TYPE", "BRANCH",
	"IMAGE", "TAG", "SCHEMA", "WAREHOUSE", "DATACENTER", "DATASTORE", "CIDR", "INSECURE", "NETWORK", "TEMPLATE", "AUTHORITY", "FOLDER", "ZONEID", "EMAILS", "SLUG", "FQDN", "TO", "CC", "BCC")

// secretWords make a name a credential wherever they stand.
var secretWords = set("TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASS", "PWD", "PW", "PASSPHRASE", "PAT", "CREDENTIAL", "CREDENTIALS", "CREDS", "CRED", "APIKEY", "KUBECONFIG",
	"KEYSTORE", "P12", "PFX", "PEM", "WEBHOOK", "JWT", "DSN", "COOKIE", "SAS", "PASSWORDS", "PW", "KEYFILE", "DOCKERCONFIG", "DOCKERCONFIGJSON", "DOCKERCFG", "NETRC", "NPMRC", "HTPASSWD",
	"PRIVATEKEY", "ACCESSKEY", "SECRETKEY", "AUTHKEY", "AUTHTOKEN", "ACCESSTOKEN", "APITOKEN", "CLIENTSECRET", "KEYTAB", "LICENSE", "LICENCE", "PUBLISHPROFILE", "MNEMONIC", "SEED", "INSTRUMENTATIONKEY")

func set(words ...string) map[string]bool {
	m := make(map[string]bool, len(words))
	for _, w := range words {
		m[w] = true
	}
	return m
}

// natureOf tells from a name alone whether it is likely to hold a credential;
// "" when the name says nothing. A consumer's word counts more than this.
func natureOf(name string) Nature {
	tok := withoutStage(nameTokens(name))
	if len(tok) == 0 {
		return ""
	}
	last, prev := tok[len(tok)-1], ""
	if len(tok) > 1 {
		prev = tok[len(tok)-2]
	}
	switch {
	case (last == "JSON" || last == "B64" || last == "BASE64") && slices.Contains(tok, "ACCOUNT"):
		return NatureCredential // the key file of a service account
	case last == "ID" && prev == "KEY":
		if slices.Contains(tok, "ACCESS") {
			return NatureCredential // AWS_ACCESS_KEY_ID comes and goes with its secret
		}
		return NatureIdentifier
	case last == "ID" && (prev == "SECRET" || prev == "TOKEN" || prev == "ROLE" && slices.Contains(tok, "VAULT")):
		return NatureCredential // the two halves of a Vault AppRole, or of a token
	case last == "IDENTITY" && slices.Contains(tok, "SSH"):
		return NatureCredential
	case slices.Contains(tok, "PUB") && slices.Contains(tok, "SSH"):
		return NatureIdentifier
	case last == "KEY" && prev == "PUBLIC", last == "KEYS" && prev == "PUBLIC", (last == "KEY" || last == "KEYS") && prev == "AUTHORIZED", last == "PUB", last == "HOSTS":
		return NatureIdentifier
	case (last == "CERT" || last == "CERTIFICATE" || last == "BUNDLE") && (prev == "CA" || prev == "TRUST" || prev == "ROOT" || prev == "CLUSTER"), last == "CACERT":
		return NatureIdentifier // whom to trust
	case len(tok) > 1 && slices.Contains(tok, "PROXY") && slices.Contains(tok, "NO"):
		return NatureIdentifier
	case last == "DSN":
		return NatureCredential
	case last == "URL" || last == "URI":
		if slices.Contains(tok, "WEBHOOK") || slices.ContainsFunc(tok, isDatabaseWord) || slices.Contains(tok, "SAS") || slices.Contains(tok, "CONNECTION") {
			return NatureCredential
		}
		if last == "URL" && slices.ContainsFunc(tok, func(t string) bool {
			return t == "SFDX" || t == "SLACK" || t == "DISCORD" || t == "TEAMS" || t == "HOOK" || t == "HOOKS"
		}) {
			return NatureCredential
		}
		return NatureIdentifier
	case identifierTails[last]:
		return NatureIdentifier
	}
	for i, t := range tok {
		if secretWords[t] && !(t == "SECRET" && i+1 < len(tok) && tok[i+1] == "STORAGE") {
			return NatureCredential
		}
		if (t == "KEY" || t == "KEYS") && i > 0 && !notSecretKey[tok[i-1]] && !(i+1 < len(tok) && tok[i+1] == "VAULT") {
			return NatureCredential
		}
		if t == "CONNECTION" && i+1 < len(tok) && tok[i+1] == "STRING" || (t == "CERT" || t == "CERTIFICATE" || t == "AUTH") && !(i > 0 && checkWords[tok[i-1]]) {
			return NatureCredential
		}
	}
	if slices.ContainsFunc(tok, func(t string) bool {
		return t == "ACCOUNT" || t == "ARN" || t == "BUCKET" || t == "USERNAME" || t == "REGION" || t == "IMAGE" || t == "TEMPLATE"
	}) {
		return NatureIdentifier
	}
	if tok[0] == "IS" && len(tok) > 1 {
		return NatureIdentifier // yes or no
	}
	switch last {
	case "KEY", "CONFIG", "B64", "BASE64", "JSON":
		if slices.Contains(tok, "KUBE") || last == "KEY" && !notSecretKey[prev] {
			return NatureCredential
		}
	}
	return ""
}

// checkWords are words that make the CERT behind them a question whether to look at it.
var checkWords = set("VALIDATE", "VERIFY", "CHECK", "IGNORE", "SKIP", "REQUIRE", "TRUST")

// stageTails are last words of names that tell one value from its like in another environment: DATABASE_URL_PROD.
var stageTails = set("PROD", "PRODUCTION", "PRD", "PREPROD", "LIVE", "DEV", "DEVELOP", "DEVELOPMENT", "STAGE", "STAGING", "STG", "QA", "UAT", "INT", "SANDBOX", "CANARY", "BETA", "NIGHTLY", "DEMO")

// withoutStage cuts numbers and names of environments from the end of a name; a
// whole environment that is kept for a stage (ENV_PROD) is no environment's name.
func withoutStage(tok []string) []string {
	for n := len(tok); n > 1; n-- {
		last := tok[n-1]
		if !stageTails[last] && strings.Trim(last, "0123456789") != "" || tok[n-2] == "ENV" || tok[n-2] == "ENVIRONMENT" {
			return tok[:n]
		}
	}
	return tok[:min(len(tok), 1)]
}

// accessKeyID reports whether a name is that of the public half of a cloud's key, which comes and goes with its secret.
func accessKeyID(name string) bool {
	tok := nameTokens(name)
	return len(tok) > 2 && tok[len(tok)-1] == "ID" && tok[len(tok)-2] == "KEY" && slices.Contains(tok, "ACCESS")
}

// storedNature is natureOf for what a secrets manager holds: a whole
// environment or configuration that is kept there is kept for its secrets, and
// an ARN is where the secret lies, not what it says.
func storedNature(name string) Nature {
	if tok := nameTokens(name); len(tok) > 0 && (tok[len(tok)-1] == "ENV" || tok[len(tok)-1] == "ENVIRONMENT" || tok[len(tok)-1] == "ARN") {
		return NatureCredential
	}
	return firstNature(natureOf(name), NatureCredential)
}

// notSecretKey are words that make the KEY behind them something else than a secret.
var notSecretKey = set("CACHE", "PROJECT", "JOB", "PUBLIC", "AUTHORIZED", "SORT", "PRIMARY", "FOREIGN", "RESTORE", "OBJECT", "S3", "PARTITION", "JIRA", "ISSUE", "TAG", "HASH", "INDEX", "PARTIAL", "REGISTRY", "LOOKUP", "HOST",
	"ORGANISATION", "ORGANIZATION")

func isDatabaseWord(t string) bool {
	switch t {
	case "DATABASE", "DB", "POSTGRES", "POSTGRESQL", "MYSQL", "MONGO", "MONGODB", "REDIS", "MSSQL", "SQL", "AMQP", "RABBITMQ", "SQLALCHEMY", "PG":
		return true
	}
	return false
}

// looksSecret reports whether a variable that a file uses but does not define is likely to be a credential.
func looksSecret(name string) bool { return natureOf(name) == NatureCredential }

// hostResource tells what stands behind a host name or URL.
func hostResource(url string) Resource {
	host := url
	if i := strings.Index(host, "://"); i >= 0 {
		host = host[i+3:]
	}
	if i := strings.LastIndex(host, "@"); i >= 0 {
		host = host[i+1:]
	}
	full := host
	if i := strings.IndexAny(host, "/?#"); i >= 0 {
		host = host[:i]
	}
	if r, ok := platformHost(host); ok {
		return r
	}
	host = strings.ToLower(strings.TrimSuffix(host, ":443"))
	if host == "" {
		return Resource{}
	}
	for _, h := range hostKinds {
		if strings.HasSuffix(host, h.suffix) || h.part != "" && strings.Contains(full, h.part) {
			name := host
			if h.whole {
				name = strings.TrimSuffix(full, ".git")
			}
			return Resource{h.kind, name}
		}
	}
	return Resource{"http/api", host}
}

// platformHost tells what the variables are that CI platforms set to their own address.
func platformHost(host string) (Resource, bool) {
	switch name := strings.Trim(host, "${}"); {
	case !strings.HasPrefix(host, "$"):
	case name == "CI_API_V4_URL", name == "CI_API_GRAPHQL_URL", strings.HasPrefix(name, "CI_SERVER_"), name == "CI_PROJECT_URL":
		return Resource{"vcs/gitlab", "$" + name}, true
	case name == "GITHUB_API_URL", name == "GITHUB_SERVER_URL", name == "GITHUB_GRAPHQL_URL":
		return Resource{"vcs/github", "$" + name}, true
	case strings.EqualFold(name, "SYSTEM_COLLECTIONURI"), strings.EqualFold(name, "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI"), strings.EqualFold(name, "env:SYSTEM_COLLECTIONURI"):
		return Resource{"vcs/azure-devops", "$" + name}, true
	case name == "VAULT_ADDR":
		return Resource{"secrets-manager/vault", "$" + name}, true
	}
	return Resource{}, false
}

var hostKinds = []struct {
	suffix, part, kind string
	whole              bool
}{
	{suffix: "git.heroku.com", kind: "paas/heroku"},
	{suffix: "api.heroku.com", kind: "paas/heroku"},
	{suffix: "ghcr.io", kind: "registry/container"},
	{suffix: "npm.pkg.github.com", kind: "registry/npm"},
	{suffix: "maven.pkg.github.com", kind: "registry/maven"},
	{suffix: "nuget.pkg.github.com", kind: "registry/nuget"},
	{suffix: "docker.pkg.github.com", kind: "registry/container"},
	{suffix: "api.github.com", kind: "vcs/github"},
	{suffix: "github.com", kind: "vcs/github", whole: true},
	{suffix: "gitlab.com", kind: "vcs/gitlab", whole: true},
	{suffix: "bitbucket.org", kind: "vcs/bitbucket", whole: true},
	{suffix: "codeberg.org", kind: "vcs/forgejo", whole: true},
	{suffix: "dev.azure.com", kind: "vcs/azure-devops", whole: true},
	{suffix: "visualstudio.com", kind: "vcs/azure-devops", whole: true},
	{suffix: "docker.io", kind: "registry/container"},
	{suffix: "hub.docker.com", kind: "registry/container"},
	{suffix: "quay.io", kind: "registry/container"},
	{suffix: "gcr.io", kind: "registry/gar"},
	{suffix: ".pkg.dev", kind: "registry/gar"},
	{suffix: ".amazonaws.com", part: ".dkr.ecr.", kind: "registry/ecr"},
	{suffix: ".amazonaws.com", part: ".d.codeartifact.", kind: "registry/codeartifact"},
	{suffix: "public.ecr.aws", kind: "registry/ecr"},
	{suffix: ".azurecr.io", kind: "registry/acr"},
	{suffix: "registry.npmjs.org", kind: "registry/npm"},
	{suffix: "upload.pypi.org", kind: "registry/pypi"},
	{suffix: "pypi.org", kind: "registry/pypi"},
	{suffix: "rubygems.org", kind: "registry/rubygems"},
	{suffix: "crates.io", kind: "registry/crates.io"},
	{suffix: "nuget.org", kind: "registry/nuget"},
	{suffix: "oss.sonatype.org", kind: "registry/maven"},
	{suffix: "central.sonatype.com", kind: "registry/maven"},
	{suffix: ".jfrog.io", kind: "registry/artifactory"},
	{suffix: "\x00", part: "artifactory", kind: "registry/artifactory"},
	{suffix: "\x00", part: "nexus", kind: "registry/nexus"},
	{suffix: "\x00", part: "/_matrix/client/", kind: "notify/chat"},
	{suffix: "\x00", part: "/api/v1/repos/", kind: "vcs/forgejo"},
	{suffix: "\x00", part: "/api/v4/projects/", kind: "vcs/gitlab"},
	{suffix: "hooks.slack.com", kind: "notify/slack"},
	{suffix: "slack.com", kind: "notify/slack"},
	{suffix: "discord.com", kind: "notify/chat"},
	{suffix: "discordapp.com", kind: "notify/chat"},
	{suffix: "api.telegram.org", kind: "notify/chat"},
	{suffix: "webhook.office.com", kind: "notify/chat"},
	{suffix: "circleci.com", kind: "platform/circleci"},
	{suffix: "circle-artifacts.com", kind: "platform/circleci"},
	{suffix: "api.buildkite.com", kind: "platform/buildkite"},
	{suffix: "travis-ci.com", kind: "platform/travis"},
	{suffix: "api.cloudflare.com", kind: "cdn/cloudflare"},
	{suffix: "sonarcloud.io", kind: "scan/sonar"},
	{suffix: "codecov.io", kind: "scan/codecov"},
	{suffix: "snyk.io", kind: "scan/snyk"},
	{suffix: "newrelic.com", kind: "monitoring/newrelic"},
	{suffix: "datadoghq.com", kind: "monitoring/datadog"},
	{suffix: "datadoghq.eu", kind: "monitoring/datadog"},
	{suffix: "sentry.io", kind: "monitoring/sentry"},
	{suffix: "pagerduty.com", kind: "monitoring/pagerduty"},
	{suffix: "atlassian.net", kind: "saas/jira"},
	{suffix: "netlify.com", kind: "paas/netlify-vercel"},
	{suffix: "vercel.com", kind: "paas/netlify-vercel"},
	{suffix: "api.digitalocean.com", kind: "cloud/digitalocean"},
	{suffix: "digicert.com", kind: "signing/key"},
	{suffix: "api.cloudsmith.io", kind: "registry/cloudsmith"},
	{suffix: "app.terraform.io", kind: "iac/terraform-cloud"},
	{suffix: "vault.azure.net", kind: "secrets-manager/azure-key-vault"},
	{suffix: "amazonaws.com", kind: "cloud/aws"},
	{suffix: "googleapis.com", kind: "cloud/gcp"},
	{suffix: "azure.com", kind: "cloud/azure"},
}
