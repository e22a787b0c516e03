package inventory

import (
	"strings"
)

// Plugins of Buildkite steps.

// pluginList reads plugins: a list of names or of mappings, or one mapping.
func (s *bkStep) pluginList(n *node) []bkPlugin {
	r := s.f.r
	var out []bkPlugin
	add := func(item *node) {
		if r.isScalar(item) {
			out = append(out, bkPlugin{pluginName(r.str(item)), item, nil})
			return
		}
		for k, v := range r.pairs(item) {
			out = append(out, bkPlugin{pluginName(k.Value), k, v})
		}
	}
	if r.isMap(n) {
		add(n)
		return out
	}
	for item := range r.flat(n) {
		add(item)
	}
	return out
}

// pluginName gives the plain name: "seek-oss/aws-sm#v2" and "https://github.com/x/aws-sm-buildkite-plugin.git#v2" are "aws-sm".
func pluginName(s string) string {
	s, _, _ = strings.Cut(s, "#")
	s = strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git")
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return strings.TrimSuffix(s, "-buildkite-plugin")
}

// option gives an option of a plugin; most plugins take role-arn for role_arn, and the other way around.
func (s *bkStep) option(cfg *node, name string) *node {
	for _, spelling := range []string{name, strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "_", "-")} {
		if n := s.f.r.get(cfg, spelling); n != nil {
			return n
		}
	}
	return nil
}

// plugin reads one plugin by the table.
func (s *bkStep) plugin(name string, key, cfg *node) {
	r := s.f.r
	if r.isTrue(r.get(cfg, "mount-buildkite-agent")) {
		r.platform(s.at, r.get(cfg, "mount-buildkite-agent").Line, "BUILDKITE_AGENT_ACCESS_TOKEN", use{res: Resource{"platform/buildkite-agent", unknown}}, name)
	}
	for _, m := range urlCredential.FindAllStringSubmatch(key.Value, 1) { // https://$TOKEN@host/plugin.git
		for _, v := range shellVars(m[2] + " " + m[4]) {
			r.static(s.at, key.Line, v.name, use{res: hostResource(m[5]), nature: NatureCredential}, "plugin URL")
		}
	}
	if name == "monorepo-diff" {
		s.watched(cfg)
		return
	}
	row := pluginRows().find(name)
	s.passed(name, cfg)
	if row == nil || !row.known {
		s.pluginVars(name, cfg, row)
		return
	}
	get := func(in string) string { return strings.Join(r.strs(s.option(cfg, in)), ", ") }
	res := row.resource(get)
	switch {
	case row.federates(get):
		s.identity[row.gives] = Federated
		r.federated(s.at, key.Line, "oidc:buildkite", use{res: res}, name)
	case row.as == "vault":
		s.vault(name, key, cfg, res)
	case row.as != "":
		kind := s.act(row.as, key.Line, res, name)
		s.identity[firstOf(row.gives, row.as)] = kind
		if row.gives == "docker" {
			s.logins = true
		}
	}
	named := false
	for _, in := range row.secrets {
		if n := s.option(cfg, in); n != nil {
			named = true
			r.static(s.at, n.Line, strings.Trim(r.str(n), "${}"), use{res: res, nature: NatureCredential}, name+": "+in)
		}
	}
	if !named {
		for _, env := range row.env {
			r.static(s.at, key.Line, env, use{res: res, nature: NatureCredential}, name)
		}
	}
	if row.gives == "docker" {
		s.logins = true
		if u := strings.TrimPrefix(get("username"), "$"); u != get("username") {
			r.static(s.at, r.get(cfg, "username").Line, strings.Trim(u, "${}"), use{res: res, nature: NatureIdentifier}, name+": username")
		}
	}
	s.fetched(row, cfg, name)
}

// vault reads the plugins of Vault: how they log in.
func (s *bkStep) vault(name string, key, cfg *node, res Resource) {
	r := s.f.r
	method := r.str(r.get(cfg, "auth"))
	if method == "" {
		method = r.str(r.at(cfg, "auth", "method"))
	}
	access := Resource{"secrets-manager/vault", firstOf(r.str(r.get(cfg, "server")), r.str(r.get(cfg, "addr")), unknown)}
	switch {
	case method == "jwt" || method == "oidc" || s.identity["vault"] == Federated:
		r.federated(s.at, key.Line, "oidc:buildkite", use{res: access}, name)
	case method == "approle" || method == "token":
		env := firstOf(r.str(r.at(cfg, "auth", "secret-env")), r.str(r.at(cfg, "auth", "token-env")), "VAULT_SECRET_ID")
		r.static(s.at, key.Line, env, use{res: access, nature: NatureCredential}, name)
	default:
		r.ambient(s.at, key.Line, firstOf(s.queue, "agent"), use{res: access}, name)
	}
	if name == "vault-docker-login" {
		s.logins = true
	}
	_ = res
}

// fetched records the values that a plugin reads from a manager.
func (s *bkStep) fetched(row *consumerRow, cfg *node, name string) {
	r := s.f.r
	add := func(env, secret string, line int) {
		s.scope.alias[env] = []string{}
		u := s.usedFor(env).or(envUse(env))
		nature := firstNature(natureOf(env), natureOf(secret), NatureCredential)
		if row.res.Kind == "registry/container" {
			u, nature = use{res: row.res}, NatureCredential
		}
		source := row.source
		if row.res.Kind == "secrets-manager/buildkite" {
			env = firstOf(secret, env)
		}
		r.add(s.at, line, Credential{Kind: StaticSecret, Name: env, Nature: nature, Source: source}, u, name)
	}
	for _, in := range row.fetch {
		n := r.get(cfg, in)
		if in == "*" {
			n = cfg
		}
		switch {
		case r.isMap(n):
			for k, v := range r.pairs(n) {
				if r.isMap(v) && r.get(v, "secret-id") == nil {
					for inner, val := range r.pairs(v) { // parameters: {TOKEN: /path}
						add(inner.Value, r.str(val), inner.Line)
					}
					continue
				}
				add(k.Value, firstOf(r.str(v), r.str(r.get(v, "secret-id"))), k.Line)
			}
		case r.isScalar(n):
			add(r.str(n), r.str(n), n.Line)
			return
		default:
			for item := range r.items(n) {
				for k, v := range r.pairs(item) {
					if k.Value == "path" || k.Value == "secret-id" {
						add(r.str(v), r.str(v), k.Line)
					}
				}
				if text := r.str(item); text != "" {
					add(text, text, item.Line)
				}
			}
		}
	}
}
