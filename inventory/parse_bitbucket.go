package inventory

import (
	_ "embed"
	"regexp"
	"strings"
	"sync"
)

// Bitbucket Pipelines. Pipelines run for pushes, pull requests of the
// repository itself, tags and by hand; a fork's pull request does not run
// here, so what they reach needs write access.

//go:embed tables/pipes.tbl
var pipesTable string

var pipeRows = sync.OnceValue(func() *table { return parseTable(pipesTable) })

// bbFile is one configuration.
type bbFile struct {
	r     *reader
	root  *node
	image *node
}

// bbEvents are the sections of a configuration and what starts them.
var bbEvents = map[string]string{"default": "push", "branches": "push", "tags": "tag", "bookmarks": "push", "custom": "manual", "pull-requests": "pull_request"}

func readBitbucket(r *reader, docs []*node) {
	for _, root := range docs {
		f := &bbFile{r: r, root: root, image: r.get(root, "image")}
		if r.get(root, "pipelines") == nil {
			// A configuration without its first key: Bitbucket refuses it, the paths are meant all the same.
			for name, n := range r.pairs(root) {
				if r.isList(n) {
					f.list(n, "push", name.Value, 0)
				}
			}
		}
		for section, n := range r.pairs(r.get(root, "pipelines")) {
			event := firstOf(bbEvents[section.Value], section.Value)
			if section.Value == "default" {
				f.list(n, event, "", 0)
				continue
			}
			for name, p := range r.pairs(n) {
				f.list(p, event, name.Value, 0)
			}
		}
	}
}

// list reads steps, with parallel groups and stages opened.
func (f *bbFile) list(n *node, event, name string, depth int) {
	if depth > 6 {
		return
	}
	r := f.r
	for item := range r.items(n) {
		if !r.isMap(item) {
			continue
		}
		for k, v := range r.pairs(item) {
			switch k.Value {
			case "step":
				f.step(v, event, name)
			case "parallel":
				if steps := r.get(v, "steps"); steps != nil {
					f.list(steps, event, name, depth+1)
				} else {
					f.list(v, event, name, depth+1)
				}
			case "stage":
				f.list(r.get(v, "steps"), event, name, depth+1)
			case "steps", "import":
				f.list(v, event, name, depth+1)
			}
		}
	}
	if r.isMap(n) && r.get(n, "import") != nil {
		r.open(place{}, n.Line, "import", r.str(r.get(n, "import")), "the imported pipeline is in another repository")
	}
}

// bbStep is one step while it is read.
type bbStep struct {
	f     *bbFile
	node  *node
	at    place
	scope *scope
	oidc  bool
	used  bool // the identity token has a consumer
}

func (f *bbFile) step(n *node, event, pipeline string) {
	r := f.r
	s := &bbStep{f: f, node: n, oidc: r.isTrue(r.get(n, "oidc"))}
	s.at = place{job: firstOf(r.str(r.get(n, "name")), pipeline, "step"), line: n.Line, runner: Runner{Kind: RunnerHosted}, reach: Reach{Trust: Protected, Events: []string{event}, Environment: r.str(r.get(n, "deployment"))}}
	s.runner()
	s.scope = &scope{r: r, place: func(Kind) place { return s.at }, alias: make(map[string][]string), predefined: bbPredefined, special: s.special, actor: s.actor, exchange: s.exchange, fetch: s.fetch, via: "script"}
	image := r.get(n, "image")
	if image == nil {
		image = f.image
	}
	s.image(image)
	for _, name := range r.strs(r.get(n, "services")) {
		svc := r.at(f.root, "definitions", "services", name)
		s.image(r.get(svc, "image"))
	}
	for _, key := range []string{"script", "after-script"} {
		for item := range r.flat(r.get(n, key)) {
			if r.isMap(item) {
				if pipe := r.get(item, "pipe"); pipe != nil {
					s.pipe(pipe, r.get(item, "variables"))
				}
				continue
			}
			s.scope.script(item, r.str(item))
		}
	}
	if s.oidc && !s.used {
		r.federated(s.at, r.get(n, "oidc").Line, "oidc:bitbucket", use{res: Resource{"oidc/issuer", unknown}}, "oidc: true")
	}
}

// runner reads runs-on: a runner of the owner's brings its own identity.
func (s *bbStep) runner() {
	r := s.f.r
	n := r.get(s.node, "runs-on")
	labels := r.strs(n)
	for _, l := range labels {
		if strings.HasPrefix(l, "self.hosted") {
			s.at.runner = Runner{Kind: RunnerSelfHosted, Labels: labels}
			name := strings.Join(labels, ", ")
			r.ambient(s.at, n.Line, name, use{res: Resource{"runner/self-hosted", name}}, "runs-on")
			return
		}
	}
}

// image reads the login for a private image.
func (s *bbStep) image(n *node) {
	r := s.f.r
	if !r.isMap(n) {
		return
	}
	res := imageRegistry(r.str(r.get(n, "name")))
	for _, key := range []string{"username", "password"} {
		v := r.get(n, key)
		for _, ref := range shellVars(r.str(v)) {
			s.scope.via = "image: " + key
			s.scope.variable(ref.name, v.Line, use{res: res, nature: natureOf(key)}, true, true)
		}
	}
	aws := r.get(n, "aws")
	for k, v := range r.pairs(aws) {
		switch k.Value {
		case "oidc-role":
			s.used = true
			r.federated(s.at, v.Line, "oidc:bitbucket", use{res: Resource{"registry/ecr", r.str(v)}}, "image: aws")
		case "access-key", "secret-key":
			for _, ref := range shellVars(r.str(v)) {
				s.scope.via = "image: aws"
				s.scope.variable(ref.name, v.Line, secretUse("registry/ecr", res.Name), true, true)
			}
		}
	}
	s.scope.via = "script"
}

// pipe reads a pipe by the table. Variables that it doesn't get take the repository's of the same name.
func (s *bbStep) pipe(n, vars *node) {
	r := s.f.r
	full := strings.TrimPrefix(r.str(n), "docker://")
	name, _, _ := strings.Cut(full, ":")
	row := pipeRows().find(name)
	get := func(in string) string { return r.str(r.get(vars, in)) }
	res := Resource{unknown, "pipe " + name}
	if row != nil {
		if !row.known {
			return
		}
		res = row.resource(get)
	}
	federated := row != nil && row.federates(get) && (s.oidc || get("AWS_ACCESS_KEY_ID") == "")
	if federated {
		s.used = true
		r.federated(s.at, n.Line, "oidc:bitbucket", use{res: res}, "pipe: "+name)
	}
	given := false
	for k, v := range r.pairs(vars) {
		u := use{nature: natureOf(k.Value)}
		if row != nil {
			u = row.inputUse(k.Value, get)
			given = given || u.nature == NatureCredential
		} else if e := envUse(k.Value); e.known() {
			u = e
		}
		u.res = firstResource(res, u.res)
		r.scalars(v, func(_ string, leaf *node) {
			for _, ref := range shellVars(leaf.Value) {
				s.scope.via = "pipe " + name + ": " + k.Value
				s.scope.variable(ref.name, r.lineOf(leaf, ref.start, ref.name), u, u.nature == NatureCredential || u.nature == NatureIdentifier && bbLabel(k.Value), true)
			}
		})
	}
	s.scope.via = "script"
	if row == nil || given || federated {
		return
	}
	if bbOwnKey.MatchString(name) {
		s.ownKey(res, n.Line, "pipe: "+name)
	}
	for _, env := range row.env {
		r.static(s.at, n.Line, env, use{res: res, nature: firstNature(natureOf(env), NatureCredential)}, "pipe: "+name)
	}
}

// bbOwnKey matches pipes that log in with the key of the repository's settings when the step gives them none.
var bbOwnKey = regexp.MustCompile(`^atlassian/(ssh-run|scp-deploy|sftp-deploy|rsync-deploy)$`)

// ownKey records the SSH key that the settings of a repository keep: Bitbucket puts it into every step.
func (s *bbStep) ownKey(res Resource, line int, via string) {
	s.f.r.static(s.at, line, "ssh key of the repository", use{res: res, nature: NatureCredential}, via)
}

// bbLabel reports whether an identifier of a pipe is worth a path: a user or a role, not a bucket or a region.
func bbLabel(key string) bool {
	return strings.Contains(key, "USER") || strings.Contains(key, "ROLE") || strings.Contains(key, "EMAIL") || strings.Contains(key, "APP_ID") || strings.Contains(key, "TENANT")
}

// firstResource gives the first resource that is known.
func firstResource(res ...Resource) Resource {
	for _, x := range res {
		if x.Kind != "" && x.Kind != unknown {
			return x
		}
	}
	return res[0]
}

// actor records commands that act with the runner's own identity.
func (s *bbStep) actor(a actor, line int) {
	switch a.family {
	case "aws", "gcp", "azure":
		if s.at.runner.Kind == RunnerSelfHosted && !s.oidc {
			s.f.r.ambient(s.at, line, "runner", use{res: a.res}, a.via)
		} else if s.oidc {
			s.used = true
			s.f.r.federated(s.at, line, "oidc:bitbucket", use{res: a.res}, a.via)
		}
	case "ssh":
		for _, i := range s.f.r.ofJob[s.at.job] {
			if p := &s.f.r.paths[i]; strings.HasPrefix(p.Resource.Kind, "ssh/") && p.Credential.Nature == NatureCredential {
				return
			}
		}
		s.ownKey(a.res, line, a.via)
	case "k8s", "iac":
		if s.at.runner.Kind == RunnerSelfHosted && !s.oidc {
			s.f.r.machineActs(s.at, line, "runner", a)
		}
	}
}

func (s *bbStep) exchange(x exchange, line int) {
	if x.token == "" || strings.HasPrefix(x.token, "BITBUCKET_STEP_OIDC") || s.oidc {
		s.used = true
		s.f.r.federated(s.at, line, "oidc:bitbucket", use{res: x.res}, x.via)
	}
}

func (s *bbStep) fetch(v fetched, line int) {
	if fam := v.family; fam == "aws" || fam == "gcp" || fam == "azure" {
		s.actor(actor{family: fam, res: v.res, via: "script"}, line)
	}
}

// special records Bitbucket's identity token.
func (s *bbStep) special(name string, line int, u use) bool {
	if name == "BITBUCKET_STEP_OIDC_TOKEN" {
		s.used = true
		if _, file := s.scope.alias["AWS_WEB_IDENTITY_TOKEN_FILE"]; file {
			u = u.or(use{res: Resource{"cloud/aws", unknown}}) // every SDK of AWS takes it from the file
		}
		s.f.r.federated(s.at, line, "oidc:bitbucket", u.or(use{res: Resource{"oidc/issuer", unknown}}), s.scope.via)
		return true
	}
	return false
}

// bbPredefined reports whether Bitbucket sets a variable by itself.
func bbPredefined(name string) bool {
	switch name {
	case "BITBUCKET_USERNAME", "BITBUCKET_USER", "BITBUCKET_USER_EMAIL", "BITBUCKET_EMAIL", "BITBUCKET_APP_PASSWORD", "BITBUCKET_ACCESS_TOKEN", "BITBUCKET_TOKEN", "BITBUCKET_PASSWORD", "BITBUCKET_API_TOKEN", "BITBUCKET_SECRET", "BITBUCKET_CLIENT_SECRET":
		return false
	}
	return strings.HasPrefix(name, "BITBUCKET_") && !looksSecret(name)
}
