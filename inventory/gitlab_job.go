package inventory

import (
	"path"
	"regexp"
	"slices"
	"strings"
)

// glRead reads one job.
type glRead struct {
	f     *glFile
	name  string
	job   *glJob
	scope *scope
	reach Reach
	run   Runner
	src   *source // of the value that is read at the moment
	// tokens are the identity tokens of the job, by variable.
	tokens map[string]*glToken
	first  int // the first path of the job among those of the file
}

// glToken is one entry of id_tokens.
type glToken struct {
	aud  string
	line int
	src  *source
	used bool
}

func (f *glFile) readJob(name string, e *glEntry, job *glJob) {
	g := &glRead{f: f, name: name, job: job, src: e.src, tokens: make(map[string]*glToken), first: len(f.r.paths)}
	g.reach = f.jobReach(job)
	if g.reach.Events == nil && job.has("rules") && f.readRules(job.keys["rules"].node).never {
		return // no rule ever adds the job
	}
	g.run = g.runner()
	g.scope = &scope{r: f.r, place: g.place, alias: make(map[string][]string), predefined: glPredefined, special: g.special, actor: g.actor, exchange: g.exchange, fetch: g.fetch, via: "script"}
	if f.inherited(job, "variables", "") {
		for _, v := range f.globals {
			g.variables(v, "global variables")
		}
	}
	g.idTokens()
	for _, v := range job.maps["variables"] {
		g.variables(v, "variables")
	}
	g.matrix()
	g.secrets()
	for _, key := range []string{"image", "services"} {
		g.images(f.value(job, key))
	}
	g.trigger()
	g.keywords()
	for _, key := range []string{"before_script", "script", "after_script"} {
		v := f.value(job, key)
		if v.node == nil {
			continue
		}
		if key == "after_script" {
			// It runs in a shell of its own.
			saved := g.scope.alias
			g.scope.alias = cloneAlias(saved)
			g.scripts(v, 0)
			g.scope.alias = saved
			continue
		}
		g.scripts(v, 0)
	}
	g.unusedTokens()
	g.environment()
}

func cloneAlias(m map[string][]string) map[string][]string {
	out := make(map[string][]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

// place gives where a path belongs: the job, in the file of the line that is being read.
func (g *glRead) place(Kind) place {
	p := place{job: g.name, reach: g.reach, runner: g.run}
	if g.src != nil && g.src != g.f.r.src {
		p.file = g.src.path
	}
	return p
}

// within reads something in the file that it stands in.
func (g *glRead) within(src *source, read func()) {
	if src == nil {
		src = g.f.r.src
	}
	saved, savedSrc := g.f.r.src, g.src
	g.src = src
	// Lines are looked up in the text of the file that holds them.
	g.f.r.src = &source{path: saved.path, repo: saved.repo, text: src.text, starts: src.starts, searched: src.searched}
	read()
	src.starts, src.searched = g.f.r.src.starts, g.f.r.src.searched
	g.f.r.src, g.src = saved, savedSrc
}

// variables reads a block of variables.
func (g *glRead) variables(v glValue, via string) {
	g.within(v.src, func() {
		g.scope.via = via
		for k, n := range g.f.r.pairs(v.node) {
			g.scope.envEntry(k.Value, n, via)
		}
		g.scope.via = "script"
	})
}

// matrix defines the variables of parallel:matrix.
func (g *glRead) matrix() {
	v := g.job.keys["parallel"]
	for m := range g.f.r.items(g.f.r.get(v.node, "matrix")) {
		for k := range g.f.r.pairs(m) {
			g.scope.alias[k.Value] = []string{}
		}
	}
}

// idTokens reads id_tokens of the job and of the defaults.
func (g *glRead) idTokens() {
	list := g.job.maps["id_tokens"]
	if len(list) == 0 && g.f.inherited(g.job, "default", "id_tokens") {
		if v := g.f.defaultOf("id_tokens"); v.node != nil {
			list = []glValue{v}
		}
	}
	for _, v := range list {
		for k, n := range g.f.r.pairs(v.node) {
			g.tokens[k.Value] = &glToken{aud: strings.Join(g.f.r.strs(g.f.r.get(n, "aud")), ", "), line: k.Line, src: v.src}
			g.scope.alias[k.Value] = []string{k.Value} // it stands for itself: special handles it
		}
	}
}

// audienceResource tells from an audience what a token is meant for.
func audienceResource(aud string) Resource {
	low := strings.ToLower(aud)
	switch {
	case strings.Contains(low, "iam.googleapis.com"), strings.Contains(low, "workloadidentitypools"):
		return Resource{"cloud/gcp", aud}
	case strings.Contains(low, "amazonaws"), strings.Contains(low, "aws"):
		return Resource{"cloud/aws", aud}
	case strings.Contains(low, "azureadtokenexchange"), strings.Contains(low, "azure"):
		return Resource{"cloud/azure", aud}
	case strings.Contains(low, "vault"), strings.Contains(low, "openbao"):
		return Resource{"secrets-manager/vault", aud}
	case low == "pypi", strings.Contains(low, "pypi.org"), low == "testpypi":
		return Resource{"registry/pypi", aud}
	case strings.Contains(low, "npm"):
		return Resource{"registry/npm", aud}
	case low == "sigstore":
		return Resource{"signing/sigstore", aud}
	}
	return Resource{"oidc/issuer", aud}
}

// useToken records that an identity token is used for a resource.
func (g *glRead) useToken(name string, line int, u use) {
	t := g.tokens[name]
	if t == nil {
		return
	}
	t.used = true
	aud := audienceResource(t.aud)
	if !u.known() || strings.HasPrefix(u.res.Kind, "http/") || u.res == envUse(name).res {
		u.res = aud // what the token is called says nothing of who accepts it
	} else if u.res.Name == "" || u.res.Name == unknown {
		u.res.Name = t.aud
	}
	g.f.r.federated(g.place(Federated), line, "oidc:gitlab:"+name, u, "id_tokens")
}

// unusedTokens records tokens that the job declares and nothing here is seen to use: a tool takes them by their name, or a script does.
func (g *glRead) unusedTokens() {
	for _, name := range sortedKeys(g.tokens) {
		if t := g.tokens[name]; !t.used {
			res := audienceResource(t.aud)
			if strings.Contains(name, "SIGSTORE") {
				res = Resource{"signing/sigstore", t.aud}
			}
			g.within(t.src, func() { g.useToken(name, t.line, use{res: res}) })
		}
	}
}

// glManagers are the keys of a secret and where its value comes from.
var glManagers = []struct{ key, kind, source string }{
	{"vault", "secrets-manager/vault", "vault"},
	{"azure_key_vault", "secrets-manager/azure-key-vault", "azure-key-vault"},
	{"gcp_secret_manager", "secrets-manager/gcp", "gcp-secret-manager"},
	{"aws_secrets_manager", "secrets-manager/aws", "aws-secrets-manager"},
	{"akeyless", "secrets-manager/akeyless", "akeyless"},
	{"gitlab_secrets_manager", "secrets-manager/gitlab", "gitlab-secrets-manager"},
}

// secrets reads `secrets:`: the token that opens the manager, and the value.
func (g *glRead) secrets() {
	for _, v := range g.job.maps["secrets"] {
		g.within(v.src, func() {
			for k, n := range g.f.r.pairs(v.node) {
				g.secret(k, n)
			}
		})
	}
}

func (g *glRead) secret(k, n *node) {
	r := g.f.r
	g.scope.alias[k.Value] = []string{}
	for _, m := range glManagers {
		from := r.get(n, m.key)
		if from == nil {
			continue
		}
		name := firstOf(r.str(from), r.str(r.get(from, "name")), r.str(r.get(from, "secret_id")), r.str(r.get(from, "path")))
		token := strings.Trim(r.str(r.get(n, "token")), "${}\"")
		if token == "" && len(g.tokens) == 1 {
			token = sortedKeys(g.tokens)[0]
		}
		if g.tokens[token] != nil {
			g.useToken(token, k.Line, use{res: Resource{m.kind, firstOf(name, unknown)}})
		} else {
			r.federated(g.place(Federated), k.Line, "oidc:gitlab:"+firstOf(token, "CI_JOB_JWT"), use{res: Resource{m.kind, firstOf(name, unknown)}}, "secrets")
		}
		r.add(g.place(StaticSecret), k.Line, Credential{Kind: StaticSecret, Name: k.Value, Nature: firstNature(natureOf(k.Value), NatureCredential), Source: m.source}, envUse(k.Value), "secrets: "+m.key)
	}
}

// images reads images and services; a login in their name or a variable of another registry shows a credential.
func (g *glRead) images(v glValue) {
	if v.node == nil {
		return
	}
	g.within(v.src, func() {
		for n := range g.f.r.items(v.node) {
			if vars := g.f.r.get(n, "variables"); vars != nil {
				for k, val := range g.f.r.pairs(vars) {
					g.scope.envEntry(k.Value, val, "service variables")
				}
			}
		}
	})
}

// scripts reads a script with !reference followed.
func (g *glRead) scripts(v glValue, depth int) {
	r := g.f.r
	for item := range r.items(v.node) {
		if item == nil {
			continue
		}
		switch {
		case item.Tag == "!reference":
			if depth < 10 {
				if ref := g.f.reference(item); ref.node != nil {
					g.scripts(ref, depth+1)
				}
			}
		case r.isList(item):
			if depth < 10 {
				g.scripts(glValue{item, v.src}, depth+1)
			}
		case r.isScalar(item):
			g.within(v.src, func() { g.scope.script(item, r.str(item)) })
		}
	}
}

// special records variables with a meaning of their own.
func (g *glRead) special(name string, line int, u use) bool {
	if g.tokens[name] != nil {
		g.useToken(name, line, u)
		return true
	}
	jobToken := name == "CI_JOB_TOKEN" || name == "CI_BUILD_TOKEN" // its former name
	switch name {
	case "CI_JOB_TOKEN", "CI_BUILD_TOKEN", "CI_DEPENDENCY_PROXY_PASSWORD", "CI_REGISTRY_PASSWORD":
		if !u.known() {
			u.res = Resource{"vcs/gitlab", "this project"}
			if !jobToken {
				u.res = Resource{"registry/gitlab", "$CI_REGISTRY"}
			}
		} else if jobToken && (u.res.Kind == "http/api" || u.res.Kind == "vcs/git") {
			u.res.Kind = "vcs/gitlab" // wherever the address comes from: nothing else takes the job's token
		} else if !jobToken && u.res.Name == "" || strings.Contains(u.res.Name, "CI_REGISTRY") || strings.Contains(u.res.Name, "CI_DEPENDENCY_PROXY") {
			u.res.Kind, u.res.Name = "registry/gitlab", firstOf(u.res.Name, "$CI_REGISTRY")
		}
		g.f.r.platform(g.place(PlatformToken), line, name, u, g.scope.via)
		return true
	case "CI_DEPLOY_PASSWORD":
		g.f.r.static(g.place(StaticSecret), line, name, u.or(use{res: Resource{"registry/gitlab", "$CI_REGISTRY"}}), g.scope.via)
		return true
	case "CI_JOB_JWT", "CI_JOB_JWT_V1", "CI_JOB_JWT_V2":
		if _, ok := g.scope.alias[name]; ok {
			return true
		}
		g.f.r.federated(g.place(Federated), line, "oidc:gitlab:"+name, u.or(use{res: Resource{"oidc/issuer", unknown}}), g.scope.via)
		return true
	}
	return false
}

var glOwn = regexp.MustCompile(`^(CI_|GITLAB_|KUBE_|RUNNER_|ARTIFACT_|FF_|GIT_(STRATEGY|DEPTH|CLEAN|SUBMODULE|CHECKOUT)|AUTO_DEVOPS|SECURE_)`)

// glPredefined reports whether GitLab sets a variable by itself.
func glPredefined(name string) bool {
	switch name {
	case "GITLAB_TOKEN", "GITLAB_API_TOKEN", "GITLAB_PRIVATE_TOKEN", "KUBE_CONFIG", "KUBE_TOKEN", "KUBE_CONFIG_DATA", "KUBE_PASSWORD", "KUBE_CONFIG_FILE":
		return false
	}
	if strings.HasPrefix(name, "CI_") {
		return glCI[name] || !looksSecret(name)
	}
	return glOwn.MatchString(name) && !looksSecret(name)
}

// glCI are predefined variables whose names look like secrets.
var glCI = set("CI_JOB_TOKEN", "CI_BUILD_TOKEN", "CI_REGISTRY_PASSWORD", "CI_DEPENDENCY_PROXY_PASSWORD", "CI_DEPLOY_PASSWORD", "CI_REPOSITORY_URL", "CI_SERVER_TLS_KEY_FILE", "CI_SERVER_TLS_CERT_FILE", "CI_PAGES_URL", "CI_RUNNER_SHORT_TOKEN")

// actor records commands that act with the runner's identity.
func (g *glRead) actor(a actor, line int) {
	switch a.family {
	case "k8s-context":
		g.f.r.platform(g.place(PlatformToken), line, "gitlab-agent", use{res: a.res}, a.via)
	case "aws", "gcp", "azure":
		if g.hasIdentity(a) {
			return
		}
		if g.run.Kind == RunnerSelfHosted {
			g.f.r.ambient(g.place(Ambient), line, "runner", use{res: a.res}, a.via)
		}
	case "k8s", "iac":
		if g.run.Kind == RunnerSelfHosted && len(g.tokens) == 0 {
			g.f.r.machineActs(g.place(Ambient), line, "runner", a)
		}
	case "docker":
		// A push to a registry that nothing here logs in to is the runner's own login.
		if g.run.Kind == RunnerSelfHosted && a.res.Name != "" && a.res.Name != "docker.io" && !strings.Contains(a.res.Name, "CI_REGISTRY") && !g.loggedIn() {
			g.f.r.ambient(g.place(Ambient), line, "runner", use{res: a.res}, a.via)
		}
	}
}

// loggedIn reports whether the job has a credential for any registry of containers.
func (g *glRead) loggedIn() bool {
	for i := g.first; i < len(g.f.r.paths); i++ {
		if p := &g.f.r.paths[i]; p.Job == g.name && (p.Resource.Kind == "registry/container" || p.Resource.Kind == "registry/gitlab" || cloudFamily(p.Resource.Kind) != "") {
			return true
		}
	}
	return false
}

// hasIdentity reports whether the job has an identity for a cloud from elsewhere: a token, keys in its variables, a login.
func (g *glRead) hasIdentity(a actor) bool {
	for _, t := range g.tokens {
		aud := audienceResource(t.aud)
		if aud.Kind == "cloud/"+a.family || aud.Kind == "oidc/issuer" && (strings.Contains(t.aud, "://") || strings.Contains(t.aud, "$")) {
			return true // a token for another audience (an STS of GitHub, PyPI) opens no cloud
		}
	}
	for k := range g.scope.alias {
		if u := envUse(k); u.nature == NatureCredential && u.res.Kind == "cloud/"+a.family {
			return true
		}
	}
	at := g.place(StaticSecret)
	for i := g.first; i < len(g.f.r.paths); i++ {
		p := &g.f.r.paths[i]
		if p.Job == at.job && p.Credential.Kind != PlatformToken && (p.Resource.Kind == "cloud/"+a.family || p.Resource.Kind == a.res.Kind) {
			return true
		}
	}
	return false
}

// exchange records an exchange of an identity token.
func (g *glRead) exchange(x exchange, line int) {
	if g.tokens[x.token] != nil {
		g.useToken(x.token, line, use{res: x.res, via: x.via})
		return
	}
	if strings.HasPrefix(x.token, "CI_JOB_JWT") {
		g.f.r.federated(g.place(Federated), line, "oidc:gitlab:"+x.token, use{res: x.res}, x.via)
		return
	}
	if len(g.tokens) == 1 {
		g.useToken(sortedKeys(g.tokens)[0], line, use{res: x.res, via: x.via})
	}
}

// fetch records who reads a secrets manager: the job's token, or the runner.
func (g *glRead) fetch(v fetched, line int) {
	if v.family == "vault" && len(g.tokens) > 0 {
		g.useToken(sortedKeys(g.tokens)[0], line, use{res: v.res})
		return
	}
	if a := (actor{family: v.family, res: v.res}); (v.family == "aws" || v.family == "gcp" || v.family == "azure") && !g.hasIdentity(a) && g.run.Kind == RunnerSelfHosted {
		g.f.r.ambient(g.place(Ambient), line, "runner", use{res: v.res}, "script")
	}
}

// trigger reads downstream pipelines, whose jobs are elsewhere.
func (g *glRead) trigger() {
	v := g.job.keys["trigger"]
	if v.node == nil {
		return
	}
	r := g.f.r
	g.within(v.src, func() {
		at := g.place(PlatformToken)
		if r.isScalar(v.node) || r.get(v.node, "project") != nil {
			r.open(at, v.node.Line, "downstream pipeline", firstOf(r.str(v.node), r.str(r.get(v.node, "project"))), "the jobs of the downstream project are not in this file")
		}
		for inc := range r.items(r.get(v.node, "include")) {
			if a := r.get(inc, "artifact"); a != nil {
				r.open(at, a.Line, "child pipeline", r.str(a), "the child pipeline is generated at run time")
				continue
			}
			local := firstOf(r.str(inc), r.str(r.get(inc, "local")))
			if local != "" && !r.tree.has(path.Join(r.src.repo, strings.TrimPrefix(local, "/"))) {
				r.open(at, inc.Line, "child pipeline", local, "the child pipeline is not in the scanned tree")
			}
		}
	})
}

// environment adds the deployment environment, whose protection lies outside of the file, to the job's paths.
func (g *glRead) environment() {
	v := g.job.keys["environment"]
	name := firstOf(g.f.r.str(v.node), g.f.r.str(g.f.r.get(v.node, "name")))
	if name == "" {
		return
	}
	for i := g.first; i < len(g.f.r.paths); i++ {
		if p := &g.f.r.paths[i]; p.Job == g.name && p.Reach.Environment == "" {
			p.Reach.Environment = name
		}
	}
}

var glHosted = regexp.MustCompile(`(?i)^(saas-|gitlab-org|docker$|linux$|shared)`)

// runner tells from the tags what runs the job; no tags are the instance's default.
func (g *glRead) runner() Runner {
	tags := g.f.r.strs(g.f.value(g.job, "tags").node)
	switch {
	case len(tags) == 0:
		return Runner{Kind: RunnerUnknown}
	case slices.ContainsFunc(tags, glHosted.MatchString):
		return Runner{Kind: RunnerHosted, Labels: tags}
	}
	return Runner{Kind: RunnerSelfHosted, Labels: tags}
}

// jobReach tells who can start a job. GitLab keeps the protection of variables,
// branches and environments outside of the file, so the file alone can only
// show that a job is limited to what needs write access.
func (f *glFile) jobReach(j *glJob) Reach {
	if v := j.keys["rules"]; v.node != nil {
		rules := f.readRules(v.node)
		if rules.closed || f.reach.known && f.reach.closed {
			return Reach{Trust: Protected, Events: rules.events}
		}
		return Reach{Trust: TrustUnknown, Events: rules.events}
	}
	if v := j.keys["only"]; v.node != nil {
		return f.onlyReach(v.node)
	}
	if f.reach.known && f.reach.closed {
		return Reach{Trust: Protected, Events: f.reach.events}
	}
	return Reach{Trust: TrustUnknown, Events: f.reach.events}
}

// glNamedRef matches patterns of branches and tags that begin with a name that somebody has to push.
var glNamedRef = regexp.MustCompile(`^/\^?\(?[A-Za-z]{2,}|^/\^?v?(\\d|\[0-9)`)

// onlyReach reads `only:`.
func (f *glFile) onlyReach(n *node) Reach {
	refs := f.r.strs(n)
	if f.r.isMap(n) {
		refs = f.r.strs(f.r.get(n, "refs"))
		for _, v := range f.r.strs(f.r.get(n, "variables")) {
			if glClosed(v) {
				return Reach{Trust: Protected, Events: appendEvents(nil, v)}
			}
		}
	}
	out := Reach{Trust: Protected}
	if len(refs) == 0 {
		out.Trust = TrustUnknown
	}
	for _, ref := range refs {
		ref, _, _ = strings.Cut(ref, "@")
		switch {
		case ref == "tags":
			out.Events = append(out.Events, "tag")
		case ref == "schedules":
			out.Events = append(out.Events, "schedule")
		case ref == "web" || ref == "api" || ref == "triggers" || ref == "pipelines" || ref == "pushes":
			out.Events = append(out.Events, strings.TrimSuffix(ref, "s"))
		case ref == "merge_requests" || ref == "external_pull_requests" || ref == "branches" || ref == "external":
			out.Trust = TrustUnknown
			out.Events = append(out.Events, map[bool]string{true: "push", false: "merge_request_event"}[ref == "branches"])
		case strings.HasPrefix(ref, "/") && !glNamedRef.MatchString(ref):
			out.Trust = TrustUnknown
			out.Events = append(out.Events, "push")
		default:
			if !slices.Contains(out.Events, "push") {
				out.Events = append(out.Events, "push")
			}
		}
	}
	return out
}
