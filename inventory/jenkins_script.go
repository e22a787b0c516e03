package inventory

import (
	"slices"
	"strings"
)

// Scripts of a pipeline, and the steps that talk to something by themselves.

// usesOf notes what a step does with variables, if it is a script or a request.
func (f *jkFile) usesOf(c *gCall, out map[string]use) {
	note := func(name string, u use) {
		if old, ok := out[name]; !ok || !old.known() {
			out[name] = u
		}
	}
	switch {
	case isScript(c.name):
		for _, s := range f.scripts(c) {
			for _, u := range readScript(s.str, nil).uses {
				if u.slot || u.use.known() {
					note(u.name, u.use)
				}
			}
		}
	case c.name == "openshift.withCluster": // a token in the place of the credential's id
		if v := positional(c, 1); v.ident != "" || v.gstr {
			u := use{res: Resource{"k8s/cluster", firstOf(positional(c, 0).str, positional(c, 0).ident, unknown)}, nature: NatureCredential}
			note(strings.TrimPrefix(firstOf(v.ident, soleHole(v)), "env."), u)
		}
	case c.name == "httpRequest":
		u := use{res: hostResource(named(c, "url").str), nature: NatureCredential}
		for _, a := range c.args {
			if a.key != "url" {
				a.val.names(0, func(name string) { note(name, u) })
			}
		}
	}
}

// names visits the variables of a value.
func (v gValue) names(depth int, visit func(string)) {
	if depth > 8 {
		return
	}
	if v.isStr && v.gstr {
		for _, ref := range shellVars(v.str) {
			visit(ref.name)
		}
	} else if v.ident != "" && v.call == nil {
		visit(strings.TrimPrefix(v.ident, "env."))
	}
	for _, a := range v.list {
		a.val.names(depth+1, visit)
	}
}

// jkScript reads a script for what needs no binding: values of vaults, and
// commands that can only act with the identity of the agent.
func jkScript(f *jkFile, c *gCall, ctx jkCtx) {
	agent := firstOf(append(slices.Clone(ctx.runner.Labels), "agent")...)
	for _, s := range f.scripts(c) {
		if at := passesSocket.FindStringIndex(s.str); at != nil && !strings.Contains(s.str[:at[0]], "ssh ") {
			f.r.ambient(ctx.place(), s.line+strings.Count(s.str[:at[1]], "\n"), "docker.sock", dockerSocket, c.name)
		}
		facts := readScript(s.str, nil)
		for _, v := range facts.fetched {
			f.r.add(ctx.place(), s.line+v.line, Credential{Kind: StaticSecret, Name: v.name, Nature: storedNature(v.name), Source: v.source}, envUse(v.name), c.name)
			if (v.family == "aws" || v.family == "gcp" || v.family == "azure") && !ctx.covered && !f.bound {
				f.r.machineActs(ctx.place(), s.line+v.line, agent, actor{family: v.family, res: v.res, via: c.name})
			}
		}
		for _, x := range facts.exchanges {
			if x.res.Kind == "broker/proviso" {
				f.r.federated(ctx.place(), s.line+x.line, "oidc:jenkins", use{res: x.res}, x.via)
			}
		}
		f.outside(s, facts, ctx, c.name)
		for _, a := range facts.actors {
			if ctx.covered {
				break
			}
			cloud := a.family == "aws" || a.family == "gcp" || a.family == "azure"
			switch {
			case cloud && a.family != "aws" && f.r.inSight(ctx.job, a): // a login stays, a variable goes with its block
			case cloud && !f.bound, a.family == "ssh" && a.res.Kind == "ssh/host-or-git":
				f.r.ambient(ctx.place(), s.line+a.line, agent, use{res: a.res}, a.via)
			}
		}
	}
	f.nestedCalls(c, ctx)
}

// outside records variables that a command takes as a credential and that the
// file gets from nowhere: a step of a library, the job or the machine holds them.
func (f *jkFile) outside(s gValue, facts *facts, ctx jkCtx, via string) {
	if ctx.covered && !ctx.named {
		return
	}
	for _, u := range facts.uses {
		if u.slot && u.use.nature == NatureCredential && u.use.known() && strings.ToUpper(u.name) != u.name && looksSecret(u.name) {
			if id, ok := f.fetches(gValue{ident: u.name}, 0); ok {
				f.static(firstOf(id, u.name), s.line+u.line, ctx, u.use, via)
			}
			continue
		}
		if u.slot && u.use.nature == NatureCredential && (u.use.known() || !ctx.covered) && looksSecret(u.name) && strings.ToUpper(u.name) == u.name && !f.gives(u.name) {
			f.r.static(ctx.place(), s.line+u.line, u.name, u.use, via)
		}
	}
}

// gives reports whether the file itself says a name, other than to read it: then something in it may give it a value.
func (f *jkFile) gives(name string) bool {
	if given, ok := f.given[name]; ok {
		return given
	}
	given := false
	for _, line := range strings.Split(f.r.src.text, "\n") {
		if trim := strings.TrimSpace(line); strings.HasPrefix(trim, "//") || strings.HasPrefix(trim, "*") {
			continue
		}
		for at := wordAt(line, name); at >= 0 && !given; at = wordAt(line, name) {
			before, after := line[:at], strings.TrimLeft(line[at+len(name):], " ")
			given = strings.HasPrefix(after, "=") && !strings.HasPrefix(after, "==") || !strings.HasSuffix(before, "$") && !strings.HasSuffix(before, "${") && !strings.HasSuffix(before, "env.") && !strings.HasSuffix(before, "env:") && !strings.HasSuffix(before, "%") && !strings.HasSuffix(before, "-e ") && !strings.HasSuffix(before, "--env ")
			line = line[at+len(name):]
		}
	}
	if f.given == nil {
		f.given = make(map[string]bool)
	}
	base := strings.TrimSuffix(strings.TrimSuffix(name, "_PSW"), "_USR")
	f.given[name] = given || base != name && f.gives(base)
	return f.given[name]
}
