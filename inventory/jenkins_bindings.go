package inventory

import (
	"slices"
	"strings"
)

// jkBindings are the resources of bindings that name their kind.
var jkBindings = map[string]Resource{
	"aws": {"cloud/aws", ""}, "azureServicePrincipal": {"cloud/azure", ""}, "AmazonWebServicesCredentialsBinding": {"cloud/aws", ""}, "sshUserPrivateKey": {"ssh/host-or-git", ""},
	"dockerCert": {"registry/container", "docker host"}, "gitUsernamePassword": {"vcs/git", ""}, "VaultTokenCredentialBinding": {"secrets-manager/vault", ""}, "certificate": {"signing/key", ""},
	"kubeconfigFile": {"k8s/cluster", ""}, "kubeconfigContent": {"k8s/cluster", ""}, "googleServiceAccountCredential": {"cloud/gcp", ""}, "azureStorage": {"cloud/azure", "storage"},
}

// isBinding reports whether a call in withCredentials is a binding; another one brings bindings.
func isBinding(c *gCall) bool {
	if jkKept[c.name] || jkBindings[c.name].Kind != "" {
		return true
	}
	id := firstValue(named(c, "credentialsId"), named(c, "id"), named(c, "variable"))
	return id.isStr || id.ident != "" || id.parts != nil
}

// jkWithCredentials reads the bindings of withCredentials, and its body.
func jkWithCredentials(f *jkFile, c *gCall, ctx jkCtx) {
	inner := f.usesIn(c.body)
	var bind func(v gValue)
	bind = func(v gValue) {
		for _, a := range v.list {
			if a.key == "" {
				bind(a.val)
			}
		}
		for _, p := range v.parts {
			bind(p)
		}
		if v.asked {
			return
		}
		if made := f.collected(v.call); made != nil {
			for _, b := range made {
				f.binding(b.name, b.args, b.line, ctx, inner)
			}
			return
		}
		if v.call != nil && !isBinding(v.call) {
			list := f.brings(v.call)
			if len(list) == 0 || f.active["bindings "+v.call.name] {
				f.secret(gValue{ident: v.call.name, line: v.call.line}, v.call.line, ctx, use{nature: NatureCredential}, "withCredentials")
				return
			}
			f.active["bindings "+v.call.name] = true
			for _, l := range list {
				bind(l)
			}
			delete(f.active, "bindings "+v.call.name)
		} else if v.call != nil {
			f.binding(v.call.name, v.call.args, v.call.line, ctx, inner)
		} else if class := mapValue(v, "$class"); class.isStr {
			f.binding(class.str, v.list, v.line, ctx, inner)
		} else if id := mapValue(v, "credentialsId"); id.isStr || id.ident != "" {
			f.binding("", v.list, v.line, ctx, inner)
		} else if v.ident != "" && v.parts == nil {
			f.bindings(v, bind, ctx)
		}
	}
	for _, a := range c.args {
		bind(a.val)
	}
	ctx.named = (ctx.named || !ctx.covered) && allNamed(c.args)
	ctx.covered = true
	f.block(c.body, ctx)
}

// lastName gives the last part of a dotted name.
func lastName(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }

// allNamed reports whether each binding says what the variables of it are called.
func allNamed(args []gArg) bool {
	for _, a := range args {
		if a.val.call == nil && a.val.list != nil {
			if !allNamed(a.val.list) {
				return false
			}
			continue
		}
		if c := a.val.call; c == nil || !jkKept[lastName(c.name)] && jkBindings[lastName(c.name)].Kind == "" || !slices.ContainsFunc(c.args, func(a gArg) bool { return a.key == "variable" || strings.HasSuffix(a.key, "Variable") }) {
			return false
		}
	}
	return true
}

// bindings reads bindings that are kept under a name: those that the file gives it, else some that only a run knows.
func (f *jkFile) bindings(v gValue, bind func(gValue), ctx jkCtx) {
	kept := f.lists(v.ident)
	if len(kept) == 0 || f.active["bindings "+v.ident] {
		f.secret(v, v.line, ctx, use{nature: NatureCredential}, "withCredentials")
		return
	}
	f.active["bindings "+v.ident] = true
	filled := false
	for _, l := range kept {
		filled = filled || len(l.list) > 0 || l.call != nil || l.ident != "" || l.parts != nil
		bind(l)
	}
	delete(f.active, "bindings "+v.ident)
	if !filled { // only the empty list that stands for none
		f.secret(v, v.line, ctx, use{nature: NatureCredential}, "withCredentials")
	}
}

func mapValue(v gValue, key string) gValue {
	for _, a := range v.list {
		if a.key == key {
			return a.val
		}
	}
	return gValue{}
}

// usesIn says what the scripts of a closure do with variables.
func (f *jkFile) usesIn(body []*gCall) map[string]use {
	out, seen := make(map[string]use), make(map[string]bool)
	var walk func([]*gCall, int)
	walk = func(calls []*gCall, depth int) {
		if depth > 30 {
			return
		}
		for _, c := range calls {
			f.usesOf(c, out)
			if c.value() {
				continue // the calls of its value stand beside it
			}
			if name, fn := f.callee(c); fn != nil && !seen[name] {
				seen[name] = true
				walk(fn.body, depth+1)
			}
			for _, a := range c.args {
				walk(a.val.calls(), depth+1)
			}
			walk(c.body, depth+1)
		}
	}
	walk(body, 0)
	return out
}

// firstValue gives the first value that is there.
func firstValue(vals ...gValue) gValue {
	for _, v := range vals {
		if v.isStr || v.ident != "" || v.parts != nil {
			return v
		}
	}
	return gValue{}
}

// binding records one credential of withCredentials.
func (f *jkFile) binding(kind string, args []gArg, line int, ctx jkCtx, inner map[string]use) {
	b := &gCall{args: args}
	kind = strings.TrimPrefix(kind[strings.LastIndexByte(kind, '.')+1:], "com.cloudbees.jenkins.plugins.awscredentials.")
	id := firstValue(named(b, "credentialsId"), named(b, "id"), positional(b, 0))
	if f.idToken(named(b, "variable").str, line, ctx, firstOf(kind, "withCredentials")) {
		return
	}
	u := use{res: jkBindings[kind]}
	for _, env := range named(b, "env").list { // as the steps of a library take them
		u = u.or(use{res: envUse(env.val.str).res})
	}
	for _, key := range []string{"passwordVariable", "variable", "secretKeyVariable", "keyFileVariable", "tokenVariable", "secretVariable", "clientSecretVariable", "usernameVariable"} {
		v := named(b, key)
		if !v.isStr {
			continue
		}
		if got, ok := inner[v.str]; ok && got.known() {
			if u.res.Kind == "" || u.res.Kind == got.res.Kind || u.res.Kind == "ssh/host-or-git" && (strings.HasPrefix(got.res.Kind, "ssh/") || strings.HasPrefix(got.res.Kind, "vcs/")) {
				u.res = got.res
			}
		}
		if key != "usernameVariable" {
			if !u.known() {
				u = u.or(use{res: envUse(v.str).res})
			}
			if kind == "string" {
				u.nature = firstNature(u.nature, natureOf(v.str))
			}
		}
	}
	if kind != "string" && kind != "" {
		u.nature = NatureCredential
	}
	f.secret(id, line, ctx, u, firstOf(kind, "withCredentials"))
	if role := named(b, "roleArn"); role.isStr {
		f.r.add(ctx.place(), role.line, Credential{Kind: StaticSecret, Name: firstOf(append(f.ids(id), unknown)...), Nature: NatureCredential}, use{res: Resource{"cloud/aws", role.str}}, kind)
	}
}

// collected gives the bindings that a closure makes of a list: ids.collect { string(credentialsId: it, ...) }.
func (f *jkFile) collected(c *gCall) []*gCall {
	if c == nil || !strings.HasSuffix(c.name, ".collect") && !strings.HasSuffix(c.name, ".collectMany") {
		return nil
	}
	var out []*gCall
	for _, b := range c.body {
		if b.name == "return" && b.value() && b.args[0].val.call != nil {
			b = b.args[0].val.call
		}
		if jkKept[b.name] {
			out = append(out, b)
		}
	}
	return out
}

// secret records a credential id, or each id that a variable one can be.
func (f *jkFile) secret(id gValue, line int, ctx jkCtx, u use, via string) {
	if id.line > 0 {
		line = id.line
	}
	ids := slices.DeleteFunc(slices.Clone(f.ids(id)), func(s string) bool { return s == "" })
	if len(ids) == 0 && (!id.isStr || id.gstr) {
		if !id.isStr && id.ident == "" && id.parts == nil {
			return
		}
		raw := firstOf(id.str, id.ident, "expression")
		f.r.open(ctx.place(), line, "credential id", raw, "the id of the credential is computed at run time")
		at := ctx.place()
		at.part = raw // two that only a run can tell are two
		switch first := f.opened[ctx.job+" "+raw]; {
		case first == "":
			f.opened[ctx.job+" "+raw] = u.res.Kind
		case u.known() && u.res.Kind != first: // one name of a parameter, but not one credential
			at.part += " for " + u.res.Kind
		}
		f.r.static(at, line, unknown, u, via)
		return
	}
	for _, name := range ids {
		x := u
		if n := natureOf(name); x.nature == "" || n == NatureIdentifier && x.nature != NatureCredential {
			x.nature = n
		}
		if !x.known() {
			if x.res = envUse(name).res; x.res.Kind == "" { // nothing but its name tells what it is for
				x.res, _ = fileResource(name, "")
			}
		}
		x.res = f.filled(x.res)
		f.r.static(ctx.place(), line, name, x, via)
	}
}

// filled puts what the file says of names into the name of a resource.
func (f *jkFile) filled(res Resource) Resource {
	if !strings.Contains(res.Name, "$") {
		return res
	}
	name := gHole.ReplaceAllStringFunc(res.Name, func(hole string) string {
		if known := f.expand(hole); len(known) == 1 && known[0] != "" {
			return known[0]
		}
		return hole
	})
	switch {
	case name == res.Name:
	case res.Kind == "http/api":
		return hostResource(name)
	case res.Kind == "registry/container":
		return imageRegistry(name)
	default:
		res.Name = name
	}
	return res
}

// brings reports whether a function runs what it is given with credentials of its own.
func brings(body []*gCall, depth int) bool {
	return depth < 6 && slices.ContainsFunc(body, func(c *gCall) bool {
		switch c.name {
		case "withCredentials", "withAWS", "withVault", "withSecrets", "sshagent", "docker.withRegistry":
			return len(c.body) > 0
		}
		return brings(c.body, depth+1)
	})
}
