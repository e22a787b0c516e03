package inventory

import (
	"regexp"
	"strings"
)

// passed reads what docker plugins hand into a container: names of variables
// without a value are taken from the agent. Names of AWS variables only carry on the
// identity that an earlier plugin got, when there is one.
func (s *bkStep) passed(name string, cfg *node) {
	r := s.f.r
	if name != "docker" && name != "docker-compose" {
		return
	}
	for _, key := range []string{"environment", "env", "args", "build-args", "additional-hosts"} {
		for item := range r.flat(r.get(cfg, key)) {
			text := r.str(item)
			env, val, has := strings.Cut(text, "=")
			if has {
				for _, ref := range shellVars(val) {
					s.scope.variable(ref.name, item.Line, envUse(env), envUse(env).nature == NatureCredential, false)
				}
				continue
			}
			env = strings.Trim(env, "${}")
			if strings.HasPrefix(env, "AWS_") && (s.identity["aws"] != "" || s.assumed("aws")) {
				continue
			}
			if _, defined := s.scope.alias[env]; !defined || len(s.scope.alias[env]) > 0 {
				s.scope.via = name + ": " + key
				s.scope.variable(env, item.Line, s.usedFor(env), false, false)
				s.scope.via = "command"
			}
		}
	}
	if r.isTrue(r.get(cfg, "propagate-aws-auth-tokens")) && s.identity["aws"] == "" {
		r.ambient(s.at, r.get(cfg, "propagate-aws-auth-tokens").Line, firstOf(s.queue, "agent"), use{res: Resource{"cloud/aws", unknown}}, name)
	}
	if name == "docker-compose" && r.get(cfg, "push") != nil {
		for _, img := range r.strs(r.get(cfg, "push")) {
			if i := strings.Index(img, ":"); i >= 0 {
				s.push(actor{family: "docker", res: imageRegistry(img[i+1:]), via: "docker-compose push"}, r.get(cfg, "push").Line)
			}
		}
	}
}

// assumed reports whether a plugin of the step exchanges an identity for a cloud.
func (s *bkStep) assumed(family string) bool {
	for _, p := range s.pluginList(s.f.r.get(s.node, "plugins")) {
		if row := pluginRows().find(p.name); row != nil && row.gives == family {
			return true
		}
	}
	return false
}

// pluginVars looks for variables in the configuration of a plugin that no table knows.
func (s *bkStep) pluginVars(name string, cfg *node, row *consumerRow) {
	if row != nil {
		return
	}
	s.f.r.scalars(cfg, func(key string, leaf *node) {
		for _, ref := range shellVars(leaf.Value) {
			s.scope.via = name + ": " + key
			s.scope.variable(ref.name, leaf.Line, use{nature: natureOf(key)}, natureOf(key) == NatureCredential, false)
		}
		if bkNamesVariable.MatchString(key) && isVariableName(leaf.Value) && looksSecret(leaf.Value) {
			s.f.r.static(s.at, leaf.Line, leaf.Value, envUse(leaf.Value), name+": "+key)
		}
	})
	s.scope.via = "command"
}

// bkNamesVariable matches keys whose value is the name of a variable.
var bkNamesVariable = regexp.MustCompile(`(?i)[-_]env([-_]var(iable)?)?([-_]name)?$`)

// watched reads the steps that a plugin adds for the paths that changed.
func (s *bkStep) watched(cfg *node) {
	r := s.f.r
	within := s.f.within
	s.f.within = s.at.job
	for item := range r.items(r.get(cfg, "watch")) {
		for step := range r.items(r.get(item, "config")) {
			if name := r.str(r.get(step, "trigger")); name != "" {
				r.open(s.at, step.Line, "triggered pipeline", name, "the steps of the triggered pipeline are not in this file")
			} else if r.isMap(step) {
				s.f.step(step, "")
			}
		}
	}
	s.f.within = within
}

// act records that something acts with the identity of the step: the exchanged one, or the agent's.
func (s *bkStep) act(family string, line int, res Resource, via string) Kind {
	if s.identity[family] == Federated {
		s.f.r.federated(s.at, line, "oidc:buildkite", use{res: res}, via)
		return Federated
	}
	s.f.r.ambient(s.at, line, firstOf(s.queue, "agent"), use{res: res}, via)
	return Ambient
}

// actor records commands that act with an identity of the surroundings.
func (s *bkStep) actor(a actor, line int) {
	switch a.family {
	case "aws", "gcp", "azure":
		if s.hasKeys(a.family) {
			return
		}
		s.act(a.family, line, a.res, a.via)
	case "k8s", "iac":
		if len(s.identity) == 0 {
			s.f.r.machineActs(s.at, line, firstOf(s.queue, "agent"), a)
		}
	case "docker":
		s.push(a, line)
	case "ssh":
		if a.res.Kind == "ssh/host-or-git" {
			return // the agent's own key, by which it checks out everything
		}
	case "sigstore":
		if s.identity[""] == Federated {
			s.f.r.federated(s.at, line, "oidc:buildkite", use{res: a.res}, a.via)
		}
	}
}

// push records a push to a registry without a login in sight.
func (s *bkStep) push(a actor, line int) {
	if s.logins || s.loggedIn(a.res) {
		return
	}
	family := cloudFamily(a.res.Kind)
	if family == "" || s.hasKeys(family) {
		return
	}
	s.act(family, line, a.res, a.via)
}

// loggedIn reports whether the step has a path to a registry already.
func (s *bkStep) loggedIn(res Resource) bool {
	for _, i := range s.f.r.ofJob[s.at.job] {
		p := &s.f.r.paths[i]
		if p.Job == s.at.job && strings.HasPrefix(p.Resource.Kind, "registry/") && p.Resource.Name == res.Name {
			return true
		}
	}
	return false
}

// hasKeys reports whether the step has static keys for a cloud.
func (s *bkStep) hasKeys(family string) bool {
	for _, i := range s.f.r.ofJob[s.at.job] {
		p := &s.f.r.paths[i]
		if p.Job == s.at.job && p.Credential.Kind == StaticSecret && p.Resource.Kind == "cloud/"+family {
			return true
		}
	}
	return false
}

// exchange records an identity token that a command asks for.
func (s *bkStep) exchange(x exchange, line int) {
	if x.via == "buildkite-agent oidc request-token" || x.token == "" {
		s.f.r.federated(s.at, line, "oidc:buildkite", use{res: x.res}, x.via)
		if fam := cloudFamily(x.res.Kind); fam != "" {
			s.identity[fam] = Federated
		}
		s.identity[""] = Federated
	}
}

// fetch records who reads a secrets manager.
func (s *bkStep) fetch(v fetched, line int) {
	switch v.family {
	case "aws", "gcp", "azure":
		s.act(v.family, line, v.res, "command")
	case "vault":
		if s.identity["vault"] == Federated {
			s.f.r.federated(s.at, line, "oidc:buildkite", use{res: v.res}, "command")
		} else if !s.hasVaultToken() {
			s.f.r.ambient(s.at, line, firstOf(s.queue, "agent"), use{res: v.res}, "command")
		}
	}
}

func (s *bkStep) hasVaultToken() bool {
	for _, i := range s.f.r.ofJob[s.at.job] {
		if p := &s.f.r.paths[i]; p.Job == s.at.job && p.Resource.Kind == "secrets-manager/vault" && p.Credential.Kind == StaticSecret {
			return true
		}
	}
	return false
}

// special records the agent's own token.
func (s *bkStep) special(name string, line int, u use) bool {
	if name == "BUILDKITE_AGENT_ACCESS_TOKEN" {
		s.f.r.platform(s.at, line, name, u.or(use{res: Resource{"platform/buildkite-agent", unknown}}), s.scope.via)
		return true
	}
	return false
}

// bkPredefined reports whether Buildkite sets a variable by itself.
func bkPredefined(name string) bool {
	return strings.HasPrefix(name, "BUILDKITE_") && !strings.HasSuffix(name, "_API_TOKEN") && name != "BUILDKITE_ANALYTICS_TOKEN" && !strings.HasSuffix(name, "API_KEY")
}
