package plan

import (
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// method is one row of the table: what takes the place of a secret, by what
// the secret opens.
type method struct {
	name  string
	title string
	// direct: the target can trust the CI platform's issuer; else Proviso stands between.
	direct bool
	// platform: the job's own token does it.
	platform bool
	// none: nothing federates here. The secret is fenced in or handed out just in time.
	none bool
	// manual: no patch is possible from the file; the text says why.
	manual string
	// pairs: several names that are used by one step are halves of one secret.
	pairs  bool
	effort int // 1 (a line) to 10 (a project)
	// fetch: the value is handed out just in time.
	fetch  bool
	github func(*ghJob, *draft) error
	// target writes the trust configuration.
	target func(*draft)
	// ends are the steps that end the secret at the target.
	ends func(*draft) []Step
	// seen are the steps that tell from the target when the secret was last used.
	seen func(*draft) []Step
	note string
}

// methods is the table. The facts are the vendors' own documentation of their
// federation; what is not documented there is not offered.
var methods = map[string]*method{
	"aws":   {title: "The job assumes a role by its identity token; the access keys go.", direct: true, pairs: true, effort: 2, github: ghAWS, target: trustAWS, ends: endAWS, seen: seenAWS},
	"gcp":   {title: "Workload identity federation: the job acts as the service account without its key.", direct: true, effort: 2, github: ghGCP, target: trustGCP, ends: endGCP, seen: seenGCP},
	"azure": {title: "A federated credential of the application; the client secret goes.", direct: true, effort: 2, github: ghAzure, target: trustAzure, ends: endAzure, seen: seenAzure},
	"ghcr": {title: "The job's own token, with packages: write, logs in to ghcr.io.", platform: true, effort: 1, github: ghGHCR, ends: endGitHubToken,
		note: "The package must give this repository the role Write (package settings, Manage Actions access). Images of other owners stay out of the token's reach."},
	"npm": {title: "Trusted publishing: npm exchanges the job's identity when it publishes.", direct: true, effort: 2, github: ghNPM, target: trustNPM, ends: endNPM,
		note: "npm 11.5.1 or newer publishes so, on hosted runners only; granular tokens live 90 days at most, and from January 2027 tokens that bypass 2FA can't publish."},
	"pypi":      {title: "Trusted publishing: PyPI takes the job's identity.", direct: true, effort: 1, github: ghPyPI, target: trustPyPI, ends: endPyPI},
	"crates":    {title: "Trusted publishing: crates.io gives a token for half an hour.", direct: true, effort: 1, github: ghCrates, target: trustCrates, ends: endCrates},
	"rubygems":  {title: "Trusted publishing: rubygems.org gives a short-lived key.", direct: true, effort: 1, github: ghRubyGems, target: trustRubyGems, ends: endRubyGems},
	"nuget":     {title: "Trusted publishing: nuget.org gives a key for an hour.", direct: true, effort: 1, github: ghNuGet, target: trustNuGet, ends: endNuGet},
	"codecov":   {title: "use_oidc: the uploader shows the job's identity.", direct: true, effort: 1, github: ghCodecov, ends: endCodecov},
	"octo-sts":  {title: "The job's identity is exchanged for an App's token that a policy in the target repository limits.", direct: true, effort: 4, github: ghOctoSTS, target: trustOctoSTS, ends: endGitHubToken, seen: seenGitHubToken},
	"vault":     {title: "Vault's JWT method with bound claims in place of the token or the AppRole.", direct: true, pairs: true, effort: 3, github: ghVault, target: trustVault, ends: endVault, seen: seenVault},
	"k8s":       {title: "The cluster trusts Proviso's issuer (structured authentication); the job's token lives minutes and has a user of its own.", effort: 5, github: ghKube, target: trustKubernetes, ends: endKube, seen: seenKube},
	"terraform": {title: "A short-lived team token from Vault's engine for HCP Terraform, and dynamic provider credentials inside of it; until then Proviso hands the token out just in time.", effort: 5, ends: endSaaS},
	"ssh":       {title: "A certificate per job from an SSH authority (Vault's SSH engine, step-ca); until the hosts trust one, Proviso hands the key out just in time.", effort: 5, ends: endSSH, seen: seenSSH},
	"database":  {title: "A user per job from Vault's database engine, or the cloud's IAM login; until then Proviso hands the password out just in time.", effort: 5, ends: endDatabase, seen: seenDatabase},
	"dockerhub": {title: "Docker's OIDC connections (GitHub only, Team and Business plans); else Proviso hands the access token out just in time.", effort: 3, ends: endSaaS},
	"registry":  {title: "The registry's own federation where it has one (Quay: robot federation; JFrog: OIDC integration); else Proviso hands the login out just in time.", effort: 4, ends: endSaaS},
	"gitlab-registry": {title: "The job's own token: CI_REGISTRY_USER and CI_REGISTRY_PASSWORD.", platform: true, effort: 1, ends: endSaaS,
		manual: "GitLab sets CI_REGISTRY_USER and CI_REGISTRY_PASSWORD in each job: use them in the place of this login"},
	"signing": {title: "Keyless signing (Sigstore), or a key in a KMS that the job reaches by its identity; else Proviso hands the key out just in time.", effort: 5, ends: endSaaS},
	"none":    {title: "None: nothing federates here. Keep it in a protected environment with reviewers, or have Proviso hand it out just in time, which the patch does.", none: true, effort: 4, ends: endSaaS},
	"saas":    {title: "The vendor's OIDC where it has one; else Proviso hands the value out just in time: the job proves itself, policy decides.", effort: 3, ends: endSaaS},
	"manager": {title: "The secrets manager's own OIDC login (Doppler, Infisical, Akeyless, Conjur have one); 1Password and Bitwarden have none: Proviso hands their token out.", effort: 3, ends: endSaaS},
	"inherit": {title: "Pass by name the secrets that the called workflow needs, and no others.", effort: 2,
		manual: "which secrets the called workflow needs is written in its on.workflow_call.secrets, in another file"},
	"all": {title: "Name each secret that is needed; nothing needs all of them.", effort: 3,
		manual: "the job reads all secrets as one object, so the file doesn't tell which it needs"},
	"unknown": {title: "First find out which secret it is: its name is made at run time.", effort: 6,
		manual: "the secret's name is made at run time"},
}

func init() {
	for name, m := range methods {
		m.name = name
	}
	for _, name := range []string{"terraform", "ssh", "database", "dockerhub", "registry", "signing", "none", "saas", "manager"} {
		m := methods[name]
		m.fetch, m.github, m.target = true, ghFetch, trustFetch
	}
}

// methodRules lead from a resource to a method; the first prefix that fits counts.
var methodRules = []struct{ prefix, method string }{
	{"cloud/aws", "aws"}, {"registry/ecr", "aws"}, {"registry/codeartifact", "aws"}, {"secrets-manager/aws", "aws"}, {"secrets-manager/ssm", "aws"}, {"storage/s3-compatible", "saas"}, {"storage/s3", "aws"},
	{"cloud/gcp", "gcp"}, {"registry/gar", "gcp"}, {"secrets-manager/gcp", "gcp"}, {"storage/gcs", "gcp"},
	{"cloud/azure", "azure"}, {"registry/acr", "azure"}, {"secrets-manager/azure-key-vault", "azure"},
	{"registry/npm", "npm"}, {"registry/pypi", "pypi"}, {"registry/crates.io", "crates"}, {"registry/rubygems", "rubygems"}, {"registry/nuget", "nuget"},
	{"registry/maven", "none"}, {"registry/gradle-plugins", "none"}, {"registry/", "registry"},
	{"vcs/github", "octo-sts"}, {"vcs/git", "octo-sts"}, {"vcs/", "saas"},
	{"secrets-manager/vault", "vault"}, {"secrets-manager/", "manager"},
	{"iac/terraform-cloud", "terraform"}, {"k8s/", "k8s"}, {"ssh/", "ssh"}, {"database", "database"},
	{"scan/codecov", "codecov"}, {"signing/", "signing"}, {"store/", "none"}, {"reusable-workflow", "inherit"},
}

// publicIndexes are the package indexes that know trusted publishing, by method,
// and the platforms whose jobs they take.
var publicIndexes = map[string]struct {
	hosts []string
	ci    []inventory.CI
}{
	"npm":      {[]string{"registry.npmjs.org", "npmjs.com"}, []inventory.CI{inventory.GitHub, inventory.GitLab, inventory.CircleCI}},
	"pypi":     {[]string{"pypi.org", "upload.pypi.org", "test.pypi.org"}, []inventory.CI{inventory.GitHub, inventory.GitLab, inventory.CloudBuild}},
	"crates":   {[]string{"crates.io"}, []inventory.CI{inventory.GitHub, inventory.GitLab}},
	"rubygems": {[]string{"rubygems.org"}, []inventory.CI{inventory.GitHub}},
	"nuget":    {[]string{"nuget.org", "api.nuget.org", "www.nuget.org"}, []inventory.CI{inventory.GitHub}},
}

// vaulted reports whether a static value comes from a secrets manager at run
// time already: there is nothing to change in the pipeline.
func vaulted(p *inventory.Path) bool {
	return p.Credential.Source != "" && p.Credential.Source != "kubernetes"
}

// methodFor finds the row for one path.
func methodFor(p *inventory.Path) *method {
	name, res := p.Credential.Name, p.Resource
	switch {
	case name == "*" && strings.HasPrefix(res.Kind, "reusable-workflow"):
		return methods["inherit"]
	case name == "*":
		return methods["all"]
	case name == "unknown" || strings.Contains(name, "*") || strings.Contains(name, "${{"):
		return methods["unknown"]
	case strings.HasPrefix(res.Kind, "reusable-workflow"):
		return methods["saas"]
	case res.Kind == "registry/container":
		switch {
		case res.Name == "ghcr.io" && p.CI == inventory.GitHub:
			return methods["ghcr"]
		case res.Name == "registry.gitlab.com" && p.CI == inventory.GitLab:
			return methods["gitlab-registry"]
		case strings.HasSuffix(res.Name, "docker.io"):
			return methods["dockerhub"]
		}
	}
	for _, r := range methodRules {
		if strings.HasPrefix(res.Kind, r.prefix) {
			return applicable(r.method, p)
		}
	}
	return methods["saas"]
}

// applicable steps back to Proviso where the target doesn't take jobs of this platform.
func applicable(name string, p *inventory.Path) *method {
	if index, ok := publicIndexes[name]; ok {
		switch {
		case p.Resource.Name != "unknown" && !slices.Contains(index.hosts, p.Resource.Name):
			return methods["registry"]
		case !slices.Contains(index.ci, p.CI):
			return methods["none"]
		}
	}
	if (name == "octo-sts" || name == "codecov") && p.CI != inventory.GitHub {
		return methods["saas"]
	}
	return methods[name]
}
