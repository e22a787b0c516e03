package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

// Travis CI. Variables of the settings are not declared in the file; encrypted
// ones are, without their names. The platform keeps both from pull requests of
// forks, so what they reach needs write access; a literal in the file is open to all.

// Names of jobs outside of stages.
const (
	tvEnvGlobal     = "(env.global)"
	tvNotifications = "(notifications)"
	tvDeploy        = "(deploy)"
	tvAddons        = "(addons)"
	tvVault         = "(vault)"
	tvStage         = "test" // the stage of a job that names none
)

// tvFile is one configuration.
type tvFile struct {
	r     *reader
	root  *node
	vars  map[string][]string
	count int // encrypted values so far: each is a credential of its own
}

// tvPhases are the scripts of a job, in order.
var tvPhases = []string{"before_install", "install", "before_script", "script", "before_cache", "after_success", "after_failure", "before_deploy", "after_deploy", "after_script"}

func readTravis(r *reader, docs []*node) {
	for _, root := range docs {
		if !r.isMap(root) {
			continue
		}
		f := &tvFile{r: r, root: root, vars: make(map[string][]string)}
		for imp := range r.items(r.get(root, "import")) {
			r.open(place{}, imp.Line, "import", firstOf(r.str(imp), r.str(r.get(imp, "source"))), "the imported configuration is not in the scanned tree")
		}
		env := r.get(root, "env")
		for _, key := range []string{"global", "secure"} {
			f.env(r.get(env, key), tvEnvGlobal)
		}
		if r.isList(env) || r.isMap(env) && r.get(env, "global") == nil && r.get(env, "matrix") == nil && r.get(env, "jobs") == nil {
			f.env(env, tvEnvGlobal)
		}
		for _, key := range []string{"matrix", "jobs"} {
			f.env(r.get(env, key), tvStage)
		}
		f.jobs()
		f.deploy(r.get(root, "deploy"), tvDeploy)
		f.secrets(r.get(root, "notifications"), tvNotifications)
		f.literalChat(r.get(root, "notifications"))
		f.secrets(r.get(root, "addons"), tvAddons)
		f.vault(r.get(root, "vault"))
	}
}

// at gives the place of a path: what the platform holds is kept from forks.
func (f *tvFile) at(job string) place {
	return place{job: job, reach: Reach{Trust: Protected, Events: []string{"push"}}, runner: Runner{Kind: RunnerHosted}}
}

// secure records an encrypted value, whose name only Travis can tell.
func (f *tvFile) secure(n *node, job string, u use, via string) {
	f.count++
	at := f.at(job)
	at.part = fmt.Sprint(f.count)
	u.nature = NatureCredential
	f.r.add(at, n.Line, Credential{Kind: StaticSecret, Name: unknown, Nature: NatureCredential, Source: "encrypted in the file"}, u, via)
}

// env reads variables: "NAME=value ...", NAME: value, secure: ...
func (f *tvFile) env(n *node, job string) {
	r := f.r
	for item := range r.flat(n) {
		if r.isScalar(item) {
			f.assigns(item, r.str(item), job)
			continue
		}
		for k, v := range r.pairs(item) {
			if k.Value == "secure" {
				f.secure(v, job, use{}, "env: secure")
				continue
			}
			if s := r.get(v, "secure"); s != nil {
				f.vars[k.Value] = []string{}
				r.add(f.at(job), s.Line, Credential{Kind: StaticSecret, Name: k.Value, Source: "encrypted in the file"}, envUse(k.Value), "env: secure")
				continue
			}
			f.defines(k.Value, r.str(v), v, job)
		}
	}
}

// assigns reads a line of assignments.
func (f *tvFile) assigns(n *node, text, job string) {
	for _, c := range parseShell(text) {
		for _, a := range c.assigns {
			f.defines(a.name, a.raw, n, job)
		}
	}
}

// defines notes a variable; one made of another that nothing defines is a path.
func (f *tvFile) defines(name, value string, n *node, job string) {
	made := []string{}
	for _, v := range shellVars(value) {
		if v.name != name && f.vars[v.name] == nil {
			made = append(made, v.name)
			if looksSecret(v.name) && !strings.HasPrefix(v.name, "TRAVIS_") {
				f.r.static(f.at(job), n.Line, v.name, envUse(name).or(envUse(v.name)), "env")
			}
		}
	}
	if u := envUse(name); len(made) == 0 && u.known() && u.nature == NatureCredential && literalSecret(value) {
		f.literal(n, name, job, u, "env")
	}
	f.vars[name] = made
}

// jobs reads the root's scripts and those of jobs.include, by stage.
func (f *tvFile) jobs() {
	r := f.r
	f.scripts(f.root, tvStage, false)
	stage := ""
	for _, key := range []string{"jobs", "matrix"} {
		jobs := r.get(f.root, key)
		list := r.get(jobs, "include")
		if r.isList(jobs) {
			list = jobs
		}
		for job := range r.items(list) {
			if !r.isMap(job) {
				continue
			}
			stage = firstOf(r.str(r.get(job, "stage")), r.str(r.at(job, "stage", "name")), stage)
			name := firstOf(stage, tvStage)
			saved := f.vars
			f.vars = cloneAlias(saved)
			f.env(r.get(job, "env"), name)
			f.scripts(job, name, true)
			f.deploy(r.get(job, "deploy"), name)
			f.secrets(r.get(job, "addons"), name)
			f.vars = saved
		}
	}
}

// scripts reads the phases of the root or of a job.
func (f *tvFile) scripts(n *node, job string, _ bool) {
	r := f.r
	s := f.scope(job, "script")
	for _, phase := range tvPhases {
		s.via = phase
		s.nodes(r.get(n, phase))
	}
}

// scope gives the reader of a job's scripts.
func (f *tvFile) scope(job, via string) *scope {
	r := f.r
	return &scope{r: r, place: func(Kind) place { return f.at(job) }, alias: cloneAlias(f.vars), predefined: tvPredefined, special: func(name string, line int, _ use) bool {
		if strings.HasPrefix(name, "encrypted_") && (strings.HasSuffix(name, "_key") || strings.HasSuffix(name, "_iv")) {
			r.static(f.at(job), line, name, secretUse("secrets-manager/file", "encrypted file"), via)
			return true
		}
		return false
	}, via: via}
}

// tvPredefined reports whether Travis sets a variable by itself.
func tvPredefined(name string) bool {
	return strings.HasPrefix(name, "TRAVIS_") && name != "TRAVIS_TOKEN" && !strings.HasSuffix(name, "_API_TOKEN")
}

// tvProviders are the targets of deployments.
var tvProviders = map[string]Resource{
	"npm": {"registry/npm", "registry.npmjs.org"}, "pypi": {"registry/pypi", "pypi.org"}, "rubygems": {"registry/rubygems", "rubygems.org"}, "cargo": {"registry/crates.io", "crates.io"}, "releases": {"vcs/github-release", ""}, "pages": {"vcs/github-pages", ""},
	"s3": {"cloud/aws", ""}, "lambda": {"cloud/aws", ""}, "elasticbeanstalk": {"cloud/aws", ""}, "codedeploy": {"cloud/aws", ""}, "cloudformation": {"cloud/aws", ""}, "ecr": {"registry/ecr", ""}, "opsworks": {"cloud/aws", ""}, "gcs": {"cloud/gcp", ""}, "gae": {"cloud/gcp", ""},
	"heroku": {"paas/heroku", "api.heroku.com"}, "firebase": {"cloud/gcp", "firebase"}, "netlify": {"paas/netlify-vercel", "netlify.com"}, "surge": {"paas/surge", "surge.sh"}, "azure_web_apps": {"cloud/azure", ""}, "bintray": {"registry/bintray", "bintray.com"}, "packagecloud": {"registry/packagecloud", "packagecloud.io"},
	"snap": {"store/snapcraft", "snapcraft.io"}, "chefsupermarket": {"registry/chef", ""}, "puppetforge": {"registry/puppet", ""}, "hackage": {"registry/hackage", ""}, "anynines": {"paas/anynines", ""}, "bluemixcloudfoundry": {"paas/cloudfoundry", ""}, "cloudfoundry": {"paas/cloudfoundry", ""}, "transifex": {"saas/transifex", ""}, "convox": {"paas/convox", ""},
}

// deploy reads deployments: credentials by $VAR, encrypted, or in clear text.
func (f *tvFile) deploy(n *node, job string) {
	r := f.r
	for d := range r.items(n) {
		if !r.isMap(d) {
			continue
		}
		provider := strings.ToLower(r.str(r.get(d, "provider")))
		res := tvProviders[provider]
		res.Name = firstOf(r.str(r.get(d, "bucket")), r.str(r.get(d, "repo")), r.str(r.get(d, "app")), res.Name)
		for k, v := range r.pairs(d) {
			switch k.Value {
			case "provider", "on", "true", "skip_cleanup", "file", "bucket", "local_dir", "edge", "script", "file_glob":
				continue
			}
			nature := firstNature(tvDeployNature(k.Value), natureOf(k.Value))
			if nature == "" && r.get(v, "secure") == nil {
				continue
			}
			f.value(v, job, use{res: res, nature: nature}, "deploy "+provider+": "+k.Value)
		}
		if script := r.get(d, "script"); script != nil {
			f.scope(job, "deploy script").nodes(script)
		}
	}
}

func tvDeployNature(key string) Nature {
	switch key {
	case "api_key", "token", "github_token", "password", "secret_access_key", "access_key_id", "key", "keyfile", "auth_token", "api_token", "service_account", "oauth_token":
		return NatureCredential
	case "user", "username", "email", "app", "site", "project":
		return NatureIdentifier
	}
	return ""
}

// value records a value: $VAR, secure, by branch, or a literal.
func (f *tvFile) value(v *node, job string, u use, via string) {
	r := f.r
	if s := r.get(v, "secure"); s != nil {
		f.secure(s, job, u, via)
		return
	}
	if r.isMap(v) || r.isList(v) {
		for _, x := range r.pairs(v) {
			f.value(x, job, u, via)
		}
		for x := range r.items(v) {
			if r.isList(v) {
				f.value(x, job, u, via)
			}
		}
		return
	}
	text := r.str(v)
	vars := shellVars(text)
	for _, ref := range vars {
		if made, ok := f.vars[ref.name]; ok && len(made) == 0 {
			continue
		}
		r.static(f.at(job), r.lineOf(v, ref.start, ref.name), ref.name, u.or(envUse(ref.name)), via)
	}
	if len(vars) == 0 && u.nature == NatureCredential && literalSecret(text) {
		f.literal(v, "hard-coded", job, u, via)
	}
}

// literal records a credential in clear text, which anybody can read.
func (f *tvFile) literal(n *node, name, job string, u use, via string) {
	at := f.at(job)
	at.reach = Reach{Trust: ForkReachable, Events: []string{"push", "pull_request"}}
	f.count++
	at.part = fmt.Sprint(f.count)
	f.r.add(at, n.Line, Credential{Kind: StaticSecret, Name: name, Nature: NatureCredential, Source: "clear text in the file"}, u, via)
}

// literalSecret reports whether a text can be a credential: long enough and not a word or a path.
func literalSecret(s string) bool {
	if len(s) < 16 || strings.ContainsAny(s, " /<>{}") {
		return false
	}
	digits := 0
	for i := 0; i < len(s); i++ {
		if s[i] >= '0' && s[i] <= '9' {
			digits++
		}
	}
	return digits >= 3
}

// secrets records encrypted values and variables below a node: notifications, addons.
func (f *tvFile) secrets(n *node, job string) {
	f.below(n, "", job, 0)
}

func (f *tvFile) below(n *node, key, job string, depth int) {
	r := f.r
	if n == nil || depth > 10 {
		return
	}
	res := tvResource(job, key)
	if s := r.get(n, "secure"); s != nil {
		f.secure(s, job, use{res: res}, strings.Trim(job, "()")+": "+key)
		return
	}
	switch {
	case r.isMap(n):
		for k, v := range r.pairs(n) {
			name := k.Value
			if (name == "rooms" || name == "secure" || name == "urls" || name == "token" || name == "webhook" || name == "channels" || tvResource("", key).Kind != "") && key != "" {
				name = key
			}
			f.below(v, name, job, depth+1)
		}
	case r.isList(n):
		for v := range r.items(n) {
			f.below(v, key, job, depth+1)
		}
	default:
		for _, ref := range shellVars(r.str(n)) {
			if looksSecret(ref.name) || res.Kind == "notify/slack" {
				r.static(f.at(job), n.Line, ref.name, use{res: res}, strings.Trim(job, "()")+": "+key)
			}
		}
	}
}

func tvResource(job, key string) Resource {
	switch key {
	case "slack":
		return Resource{"notify/slack", "slack.com"}
	case "hipchat", "campfire", "flowdock", "irc", "webhooks", "pushover":
		return Resource{"notify/chat", key}
	case "sonarcloud", "sonarqube":
		return Resource{"scan/sonar", "sonarcloud.io"}
	case "sauce_connect":
		return Resource{"scan/saas", "saucelabs.com"}
	case "browserstack":
		return Resource{"scan/saas", "browserstack.com"}
	case "coverity_scan":
		return Resource{"scan/saas", "coverity"}
	case "code_climate":
		return Resource{"scan/saas", "codeclimate.com"}
	}
	if job == tvNotifications {
		return Resource{"notify/chat", firstOf(key, unknown)}
	}
	return Resource{}
}

// tvSecretURL matches addresses of chats that whoever knows them can post to.
var tvSecretURL = regexp.MustCompile(`webhooks\.gitter\.im/e/\w{12}|hooks\.slack\.com/services/\w|discord(app)?\.com/api/webhooks/\d|\.office\.com/webhook`)

// literalChat looks for account:token in clear text.
func (f *tvFile) literalChat(n *node) {
	r := f.r
	for _, service := range []string{"slack", "hipchat", "campfire", "flowdock"} {
		r.scalars(r.get(n, service), func(key string, leaf *node) {
			switch key {
			case "secure", "on_success", "on_failure", "on_pull_requests", "template", "format":
				return
			}
			account, token, ok := strings.Cut(leaf.Value, ":")
			token, _, _ = strings.Cut(token, "#")
			token, _, _ = strings.Cut(token, "@")
			if ok && len(token) >= 16 && !strings.ContainsAny(token, "$/ ") && !strings.Contains(account, "http") {
				f.literal(leaf, "hard-coded", tvNotifications, use{res: tvResource(tvNotifications, service)}, "notifications: "+service)
			}
		})
	}
	r.scalars(r.get(n, "webhooks"), func(_ string, leaf *node) {
		if tvSecretURL.MatchString(leaf.Value) {
			f.literal(leaf, "hard-coded", tvNotifications, use{res: tvResource(tvNotifications, "webhooks")}, "notifications: webhooks")
		}
	})
}

// vault reads the integration of HashiCorp Vault.
func (f *tvFile) vault(n *node) {
	r := f.r
	if n == nil {
		return
	}
	res := Resource{"secrets-manager/vault", firstOf(r.str(r.get(n, "api_url")), unknown)}
	f.value(r.get(n, "token"), tvVault, use{res: res, nature: NatureCredential}, "vault: token")
	for item := range r.items(r.get(n, "secrets")) {
		if name := r.str(item); name != "" {
			r.add(f.at(tvVault), item.Line, Credential{Kind: StaticSecret, Name: name, Source: "vault"}, use{}, "vault")
		}
	}
}
