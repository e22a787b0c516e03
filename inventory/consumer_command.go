package inventory

import (
	"regexp"
	"strings"
)

// slot is an argument that a command takes for something.
type slot struct {
	text string
	use  use
}

// consumption is what one command does with credentials.
type consumption struct {
	values    []slot
	actors    []actor
	exchanges []exchange
	fetched   []fetched
	tool      use // what the tool as a whole talks to, for values in unknown places
}

func (x *consumption) secret(text, kind, name, via string) {
	if text != "" {
		u := secretUse(kind, name)
		u.via = via
		x.values = append(x.values, slot{text, u})
	}
}

func (x *consumption) label(text, kind, name, via string) {
	if text != "" {
		u := labelUse(kind, name)
		u.via = via
		x.values = append(x.values, slot{text, u})
	}
}

func (x *consumption) acts(family, kind, name, via string) {
	x.actors = append(x.actors, actor{family: family, res: Resource{kind, name}, via: via})
}

// consume looks a command up in the tables below.
func consume(c *command) *consumption {
	x := &consumption{}
	name := strings.ToLower(c.name())
	if read, ok := commandReaders[name]; ok {
		read(c, x)
	} else if t, ok := tools[name]; ok {
		genericTool(c, x, t)
	} else if strings.HasPrefix(name, "$") && c.arg(1) == "login" && c.has("-u", "--username", "--password-stdin") {
		registryLogin(c, x, "login") // $ENGINE login: docker, podman or another
	}
	urls(c, x)
	piped(c, x)
	return x
}

// commandReaders are the commands that need a reader of their own.
var commandReaders map[string]func(*command, *consumption)

func init() {
	commandReaders = map[string]func(*command, *consumption){
		"docker": readDocker, "podman": readDocker, "buildah": readDocker, "skopeo": readDocker, "crane": readDocker, "oras": readDocker,
		"nerdctl": readDocker, "regctl": readDocker, "img": readDocker, "helm": readHelm, "ko": readDocker, "docker-compose": readDocker,
		"aws": readAWS, "gcloud": readGcloud, "gsutil": readGcloud, "bq": readGcloud, "az": readAz,
		"curl": readCurl, "wget": readCurl, "http": readCurl, "https": readCurl, "invoke-restmethod": readCurl, "invoke-webrequest": readCurl, "irm": readCurl, "iwr": readCurl,
		"git": readGit, "gh": readGh, "hub": readGh,
		"npm": readNpm, "pnpm": readNpm, "yarn": readNpm, "lerna": readNpm, "bun": readNpm,
		"kubectl": readKubectl, "oc": readKubectl, "argocd": readKubectl, "helmfile": readKubectl, "flux": readKubectl, "argo": readKubectl, "kustomize": readKubectl,
		"circleci": readCircleCLI, "get-azkeyvaultsecret": readAzModule,
		"vault": readVault, "bao": readVault, "proviso": readProviso, "cosign": readCosign, "ssh-add": readSSH, "ssh": readSSH, "ssh-keyscan": readSSH, "scp": readSSH, "sftp": readSSH, "rsync": readSSH, "sshpass": readSSH, "lftp": readSSH,
		"buildkite-agent": readBuildkiteAgent, "op": readOp, "gpg": readGPG, "gpg2": readGPG,
		"twine": readPython, "poetry": readPython, "uv": readPython, "flit": readPython, "hatch": readPython, "pdm": readPython, "maturin": readPython, "pip": readPython, "pip3": readPython, "python": readPython, "python3": readPython,
		"dotnet": readNuget, "nuget": readNuget, "cargo": readCargo, "gem": readCargo,
		"mvn": readMaven, "mvnw": readMaven, "gradle": readMaven, "gradlew": readMaven, "gradlew.bat": readMaven, "sbt": readMaven, "ant": readMaven,
		"psql": readDatabase, "mysql": readDatabase, "mysqldump": readDatabase, "mongo": readDatabase, "mongosh": readDatabase, "redis-cli": readDatabase, "sqlcmd": readDatabase, "invoke-sqlcmd": readDatabase, "flyway": readDatabase,
		"liquibase": readDatabase, "alembic": readDatabase, "prisma": readDatabase, "sqlpackage": readDatabase, "pg_dump": readDatabase,
		"terraform": readTerraform, "terragrunt": readTerraform, "gitlab-terraform": readTerraform, "gitlab-tofu": readTerraform, "tofu": readTerraform, "pulumi": readTerraform, "cdk": readAWSTool, "sam": readAWSTool, "eb": readAWSTool, "serverless": readAWSTool, "sls": readAWSTool, "copilot": readAWSTool,
		"eksctl": readAWSTool, "amplify": readAWSTool, "chalice": readAWSTool, "s3cmd": readAWSTool, "ecs-cli": readAWSTool, "packer": readAWSTool,
	}
}

// tools are commands whose credentials are plain options; the value is what they talk to.
var tools = map[string]Resource{
	"snyk": {"scan/snyk", "snyk.io"}, "sonar-scanner": {"scan/sonar", ""}, "dotnet-sonarscanner": {"scan/sonar", ""}, "codecov": {"scan/codecov", "codecov.io"}, "codecovcli": {"scan/codecov", "codecov.io"},
	"coveralls": {"scan/coveralls", "coveralls.io"}, "sentry-cli": {"monitoring/sentry", "sentry.io"}, "datadog-ci": {"monitoring/datadog", ""}, "heroku": {"paas/heroku", "api.heroku.com"},
	"netlify": {"paas/netlify-vercel", "netlify.com"}, "ntl": {"paas/netlify-vercel", "netlify.com"}, "vercel": {"paas/netlify-vercel", "vercel.com"}, "now": {"paas/netlify-vercel", "vercel.com"},
	"fly": {"paas/fly", "fly.io"}, "flyctl": {"paas/fly", "fly.io"}, "firebase": {"cloud/gcp", "firebase"}, "surge": {"paas/surge", "surge.sh"}, "wrangler": {"cdn/cloudflare", "api.cloudflare.com"},
	"doctl": {"cloud/digitalocean", "api.digitalocean.com"}, "hcloud": {"cloud/hetzner", "api.hetzner.cloud"}, "linode-cli": {"cloud/linode", "api.linode.com"}, "ibmcloud": {"cloud/ibm", "cloud.ibm.com"},
	"oci": {"cloud/oracle", ""}, "aliyun": {"cloud/alibaba", ""}, "railway": {"paas/railway", "railway.app"}, "cf": {"paas/cloudfoundry", ""}, "expo": {"store/expo", "expo.dev"}, "eas": {"store/expo", "expo.dev"},
	"fastlane": {"store/apple", "appstoreconnect.apple.com"}, "xcrun": {"store/apple", "appstoreconnect.apple.com"}, "altool": {"store/apple", "appstoreconnect.apple.com"}, "notarytool": {"signing/apple", ""},
	"codesign": {"signing/apple", ""}, "security": {"signing/apple", "keychain"}, "signtool": {"signing/key", ""}, "jarsigner": {"signing/key", ""}, "apksigner": {"signing/key", ""}, "keytool": {"signing/key", "keystore"}, "azuresigntool": {"signing/key", "azure-key-vault"},
	"jfrog": {"registry/artifactory", ""}, "jf": {"registry/artifactory", ""}, "cloudsmith": {"registry/cloudsmith", "cloudsmith.io"}, "conan": {"registry/conan", ""}, "anaconda": {"registry/conda", "anaconda.org"},
	"pod": {"registry/cocoapods", "trunk.cocoapods.org"}, "mix": {"registry/hex", "hex.pm"}, "composer": {"registry/packagist", "packagist.org"}, "snapcraft": {"store/snapcraft", "snapcraft.io"}, "choco": {"registry/chocolatey", "chocolatey.org"},
	"vsce": {"store/vscode", "marketplace.visualstudio.com"}, "ovsx": {"store/vscode", "open-vsx.org"}, "tfx": {"store/vscode", "marketplace.visualstudio.com"}, "ggshield": {"scan/saas", "gitguardian.com"}, "fossa": {"scan/saas", "fossa.com"},
	"semgrep": {"scan/saas", "semgrep.dev"}, "trivy": {"scan/saas", ""}, "checkmarx": {"scan/saas", "checkmarx"}, "cypress": {"scan/saas", "cypress.io"}, "percy": {"scan/saas", "percy.io"}, "chromatic": {"scan/saas", "chromatic.com"},
	"infracost": {"iac/infracost", "infracost.io"}, "doppler": {"secrets-manager/doppler", "doppler.com"}, "infisical": {"secrets-manager/infisical", "infisical.com"}, "bws": {"secrets-manager/bitwarden", ""}, "conjur": {"secrets-manager/conjur", ""},
	"github-release": {"vcs/github-release", ""}, "ghr": {"vcs/github-release", ""}, "goreleaser": {"vcs/github-release", ""}, "semantic-release": {"vcs/github", ""}, "release-it": {"vcs/github", ""}, "standard-version": {"vcs/github", ""}, "glab": {"vcs/gitlab", ""}, "release-cli": {"vcs/gitlab", ""}, "tea": {"vcs/forgejo", ""},
	"renovate": {"vcs/git", ""}, "travis": {"platform/travis", "travis-ci.com"}, "tailscale": {"network/tailscale", "tailscale.com"}, "openvpn": {"network/vpn", ""}, "crowdin": {"saas/crowdin", "crowdin.com"}, "lokalise2": {"saas/lokalise", "lokalise.com"},
	"wandb": {"saas/ai", "wandb.ai"}, "huggingface-cli": {"saas/ai", "huggingface.co"}, "kaniko": {"registry/container", ""}, "ansible-playbook": {"ssh/host", ""}, "ansible-vault": {"secrets-manager/file", "ansible-vault"}, "sops": {"secrets-manager/file", "sops"}, "cap": {"ssh/host", ""}, "ncftpput": {"ssh/host", "ftp"},
	"slack": {"notify/slack", "slack.com"}, "sfdx": {"saas/salesforce", "salesforce.com"}, "sf": {"saas/salesforce", "salesforce.com"}, "databricks": {"saas/databricks", ""}, "snowsql": {"database", "snowflake"}, "mc": {"storage/s3-compatible", ""}, "rclone": {"storage/s3-compatible", ""}, "cachix": {"build/cachix", "cachix.org"}, "newman": {"saas/postman", ""},
	"butler": {"store/itch", "itch.io"}, "steamcmd": {"store/steam", "steamcommunity.com"}, "transifex": {"saas/transifex", "transifex.com"}, "tx": {"saas/transifex", "transifex.com"},
}

// secretOption are options that take a credential in most tools; userOption those that take a name.
var (
	secretOption = regexp.MustCompile(`(?i)^(--?|/|-D|-P|--)[a-z0-9._:]*-?(token|password|passwd|passphrase|secret|api-?key|apikey|access-?key|auth|pat|storepass|keypass|private-?key|credentials?|login|deploy-key|record-key|license|key)$|^(-p|-t|-k|-pw|--auth)$|^-Dsonar\.login$`)
	userOption   = regexp.MustCompile(`(?i)^(--?|/|-D|-P)[a-z0-9._:]*-?(user|username|user-?name|email|apple-id|team-id|org|organization|project|project-key|account|account-id|region|host|url|server|app|site|client-id|tenant|subscription|username-var)$|^-u$`)
)

// genericTool reads options by their names.
func genericTool(c *command, x *consumption, res Resource) {
	x.tool = use{res: res, via: c.name()}
	options(c, x, res)
	// "snyk auth $TOKEN", "heroku auth:token", "doctl auth init -t $TOKEN": a lone argument behind a login word.
	for i := 1; i+1 < len(c.words); i++ {
		if w := c.words[i]; (w == "auth" || w == "login" || w == "authenticate") && strings.HasPrefix(c.words[i+1], "$") {
			x.secret(c.words[i+1], res.Kind, res.Name, c.name()+" "+w)
		}
	}
}

// options reads the options that take credentials and names.
func options(c *command, x *consumption, res Resource) {
	for i := 1; i < len(c.words); i++ {
		w := c.words[i]
		if !strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "/") {
			continue
		}
		key, val, eq := strings.Cut(w, "=")
		if !eq {
			if k, v, ok := strings.Cut(w, ":"); ok && strings.HasPrefix(w, "/") {
				key, val = k, v
			} else {
				val = c.arg(i + 1)
			}
		}
		if !strings.Contains(val, "$") && !strings.Contains(val, "%") {
			continue
		}
		switch {
		case userOption.MatchString(key):
			x.label(val, res.Kind, res.Name, c.name()+" "+key)
		case secretOption.MatchString(key):
			x.secret(val, res.Kind, res.Name, c.name()+" "+key)
		}
	}
}

var urlCredential = regexp.MustCompile(`([a-z][a-z0-9+.-]*://)([^\s/@:'"]*)(:([^\s/@'"]*))?@([^\s'"]+)`)

// urls finds credentials inside of URLs: https://user:$TOKEN@host/path, postgres://...
func urls(c *command, x *consumption) {
	scan := func(w string) {
		if !strings.Contains(w, "://") || !strings.Contains(w, "@") {
			return
		}
		for _, m := range urlCredential.FindAllStringSubmatch(w, 4) {
			user, pass, host := m[2], m[4], strings.TrimSuffix(m[5], ".insteadOf")
			res := hostResource(host)
			switch {
			case strings.HasPrefix(m[1], "postgres"), strings.HasPrefix(m[1], "mysql"), strings.HasPrefix(m[1], "mongodb"), strings.HasPrefix(m[1], "redis"), strings.HasPrefix(m[1], "amqp"):
				res = Resource{"database", res.Name}
			case strings.Contains(m[1], "ssh"), strings.Contains(m[1], "ftp"):
				res = Resource{"ssh/host", res.Name}
			case c.name() == "git" && res.Kind == "http/api":
				res = Resource{"vcs/git", strings.TrimSuffix(host, ".git")}
			}
			if pass != "" {
				x.secret(pass, res.Kind, res.Name, c.name()+" URL")
				x.label(user, res.Kind, res.Name, c.name()+" URL")
			} else {
				x.secret(user, res.Kind, res.Name, c.name()+" URL")
			}
		}
	}
	for _, w := range c.words {
		scan(w)
	}
	if c.stdin != "" {
		scan(c.stdin)
	}
}

// piped finds credentials that are printed into a file or into another command whose place tells their use.
func piped(c *command, x *consumption) {
	whole := "" // the command that puts a whole file there
	switch c.name() {
	case "echo", "printf", "cat", "base64", "tee":
		if strings.Contains(c.text(), "ecr-login") && strings.Contains(c.to, "docker/config.json") {
			x.acts("aws", "registry/ecr", "", "ecr-login")
		}
	case "cp", "mv", "install", "copy", "copy-item": // a variable of the type file holds the name of one
		whole = c.name()
		if pos := c.positional(1); len(pos) > 1 {
			c = &command{words: c.words, lines: c.lines, line: c.line, to: pos[len(pos)-1]}
		}
	default:
		return
	}
	text := c.text() + "\n" + c.stdin
	to := c.to
	if to == "" && c.name() == "tee" {
		to = c.arg(len(c.words) - 1)
	}
	if to == "" {
		return
	}
	res, ok := fileResource(to, text)
	if !ok || res.Kind == "iac/terraform" && whole == "" {
		return // one value among others tells by its name whether it is a secret
	}
	src := text
	if c.from != nil {
		src += "\n" + c.from.text()
	}
	for _, v := range shellVars(src) {
		if natureOf(v.name) == "" && namesPlace(src, v.start) {
			continue
		}
		if natureOf(v.name) == NatureIdentifier {
			x.label("$"+v.name, res.Kind, res.Name, "file "+to)
		} else {
			x.secret("$"+v.name, res.Kind, res.Name, "file "+to)
		}
	}
}

// namesPlace reports whether a variable in a text for .npmrc or .netrc says for
// which scope, registry or machine the rest is.
func namesPlace(text string, at int) bool {
	begin := strings.LastIndexByte(text[:at], '\n') + 1
	line, _, _ := strings.Cut(text[begin:], "\n")
	if strings.Contains(line, ":registry=") && !strings.Contains(line, "_auth") && !strings.Contains(line, "_password") {
		return true
	}
	return strings.HasSuffix(strings.TrimSpace(text[begin:at]), "machine")
}

// fileResource tells from the name of a file what a credential in it is for.
func fileResource(path, text string) (Resource, bool) {
	p := strings.ToLower(path)
	switch {
	case strings.Contains(p, "npmrc"):
		if m := npmHost.FindStringSubmatch(text); m != nil {
			return Resource{"registry/npm", m[1]}, true
		}
		return Resource{"registry/npm", "registry.npmjs.org"}, true
	case strings.Contains(p, "pypirc"):
		return Resource{"registry/pypi", "pypi.org"}, true
	case strings.HasSuffix(strings.TrimSuffix(p, "/"), "/.ssh"), strings.Contains(p, "id_rsa"), strings.Contains(p, "id_ed25519"), strings.Contains(p, ".ssh/") && !strings.Contains(p, "known_hosts") && !strings.Contains(p, "authorized_keys") && !strings.Contains(p, "config"):
		return Resource{"ssh/host-or-git", ""}, true
	case strings.Contains(p, "kube/config"), strings.Contains(p, "kubeconfig"), strings.HasSuffix(strings.TrimSuffix(p, "/"), "/.kube"):
		return Resource{"k8s/cluster", ""}, true
	case strings.Contains(p, ".docker/config"):
		return Resource{"registry/container", ""}, true
	case strings.Contains(p, "netrc"), strings.Contains(p, "git-credentials"):
		return Resource{"vcs/git", ""}, true
	case strings.Contains(p, ".aws/credentials"):
		return Resource{"cloud/aws", ""}, true
	case strings.Contains(p, "gcloud"), strings.Contains(p, "gcp"), strings.Contains(p, "google"), strings.Contains(p, "service-account"), strings.Contains(p, "service_account"):
		return Resource{"cloud/gcp", ""}, true
	case strings.Contains(p, "gem/credentials"):
		return Resource{"registry/rubygems", "rubygems.org"}, true
	case strings.Contains(p, "keystore"), strings.HasSuffix(p, ".jks"), strings.HasSuffix(p, ".p12"), strings.HasSuffix(p, ".pfx"):
		return Resource{"signing/key", "keystore"}, true
	case strings.Contains(p, "gpg"), strings.HasSuffix(p, ".asc"):
		return Resource{"signing/gpg", ""}, true
	case p == "auth.json", strings.HasSuffix(p, "/auth.json"):
		return Resource{"registry/packagist", ""}, true
	case strings.Contains(p, "settings.xml"):
		return Resource{"registry/maven", ""}, true
	case strings.HasSuffix(p, ".tfvars"), strings.HasSuffix(p, ".tfvars.json"):
		return Resource{"iac/terraform", ""}, true
	case strings.Contains(p, ".terraformrc"):
		return Resource{"iac/terraform-cloud", "app.terraform.io"}, true
	case strings.Contains(p, "cargo/credentials"), strings.Contains(strings.NewReplacer("{", "", "}", "").Replace(p), "$cargo_home/credentials"):
		if m := cargoRegistry.FindStringSubmatch(text); m != nil {
			return Resource{"registry/cargo", m[1]}, true
		}
		return Resource{"registry/crates.io", "crates.io"}, true
	}
	return Resource{}, false
}

var cargoRegistry = regexp.MustCompile(`\[registries\.([\w-]+)\]`)

var npmHost = regexp.MustCompile(`//([^/\s]+)/[^\s]*:?_?(authToken|auth|password)`)

// inputOf gives the text that a command reads from its standard input.
func inputOf(c *command) string {
	if c.stdin != "" {
		return c.stdin
	}
	for f, i := c.from, 0; f != nil && i < 5; f, i = f.from, i+1 {
		switch f.name() {
		case "tr", "base64", "sed", "grep", "jq", "cut", "head", "tail", "openssl", "awk":
			continue
		}
		if f.stdin != "" {
			return f.text() + " " + f.stdin
		}
		return f.text()
	}
	return ""
}
