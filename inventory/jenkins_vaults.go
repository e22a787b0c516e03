package inventory

import "strings"

func jkWithAWS(f *jkFile, c *gCall, ctx jkCtx) {
	role := named(c, "role")
	res := Resource{"cloud/aws", unknown}
	if role.isStr {
		res.Name = firstOf(append(f.ids(role), role.str)...)
	}
	if id := named(c, "credentials"); id.isStr || id.ident != "" {
		f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), "withAWS")
	} else if role.isStr || role.ident != "" || named(c, "useNode").ident == "true" {
		f.r.ambient(ctx.place(), c.line, firstOf(res.Name, "agent"), use{res: res}, "withAWS")
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

func jkWithVault(f *jkFile, c *gCall, ctx jkCtx) {
	res := Resource{"secrets-manager/vault", unknown}
	var id gValue
	var walk func(v gValue, depth int)
	walk = func(v gValue, depth int) {
		if depth > 8 {
			return
		}
		if url := mapValue(v, "vaultUrl"); url.isStr {
			res.Name = url.str
		}
		if x := mapValue(v, "vaultCredentialId"); x.isStr || x.ident != "" {
			id = x
		}
		if env := mapValue(v, "envVar"); env.isStr {
			u := f.names[env.str].or(envUse(env.str))
			f.r.add(ctx.place(), env.line, Credential{Kind: StaticSecret, Name: env.str, Nature: firstNature(natureOf(env.str), NatureCredential), Source: "vault"}, u, "withVault")
		}
		for _, a := range v.list {
			walk(a.val, depth+1)
		}
	}
	for _, a := range c.args {
		if a.key == "vaultSecrets" || a.key == "configuration" || a.key == "" {
			walk(gValue{list: []gArg{{"", a.val}}}, 0)
		}
	}
	if id.isStr || id.ident != "" {
		f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), "withVault")
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

func jkWithSecrets(f *jkFile, c *gCall, ctx jkCtx) {
	inner := f.usesIn(c.body)
	var walk func(v gValue, depth int)
	walk = func(v gValue, depth int) {
		if env, ref := mapValue(v, "envVar"), mapValue(v, "secretRef"); env.isStr && ref.isStr {
			u := inner[env.str].or(envUse(env.str))
			f.r.add(ctx.place(), env.line, Credential{Kind: StaticSecret, Name: env.str, Nature: firstNature(natureOf(env.str), u.nature, NatureCredential), Source: "1password"}, u, "withSecrets: "+ref.str)
		}
		for _, a := range v.list {
			if depth < 8 {
				walk(a.val, depth+1)
			}
		}
		if v.ident != "" && v.call == nil && depth == 1 {
			f.open1Password(v, ctx)
		}
	}
	for _, a := range c.args {
		walk(gValue{list: []gArg{a}}, 0)
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

// open1Password follows secrets: NAME to the list that the file gives that name.
func (f *jkFile) open1Password(v gValue, ctx jkCtx) {
	for _, l := range f.lists(v.ident) {
		for _, a := range l.list {
			if env, ref := mapValue(a.val, "envVar"), mapValue(a.val, "secretRef"); env.isStr && ref.isStr {
				u := f.names[env.str].or(envUse(env.str))
				f.r.add(ctx.place(), env.line, Credential{Kind: StaticSecret, Name: env.str, Nature: firstNature(natureOf(env.str), u.nature, NatureCredential), Source: "1password"}, u, "withSecrets: "+ref.str)
			}
		}
	}
}

// lists gives the list values that a name is assigned in the file.
func (f *jkFile) lists(name string) []gValue {
	if f.assigned == nil {
		f.assigned = make(map[string][]gValue)
		var walk func([]*gCall, int)
		walk = func(calls []*gCall, depth int) {
			for _, c := range calls {
				switch {
				case c.name == "=" && len(c.args) > 0:
					f.assigned[c.assign] = append(f.assigned[c.assign], c.args[0].val)
				case c.name == "return" && c.value(): // name << value, name += value
					if parts := c.args[0].val.parts; len(parts) > 1 && parts[0].ident != "" && parts[0].call == nil {
						f.assigned[parts[0].ident] = append(f.assigned[parts[0].ident], parts[1:]...)
					}
				case strings.HasSuffix(c.name, ".add"), strings.HasSuffix(c.name, ".addAll"):
					name := c.name[:strings.LastIndexByte(c.name, '.')]
					for _, a := range c.args {
						f.assigned[name] = append(f.assigned[name], a.val)
					}
				}
				if depth < 20 {
					walk(c.body, depth+1)
					if c.value() {
						continue // the calls of its value stand beside it
					}
					for _, a := range c.args { // also what a class holds
						walk(a.val.calls(), depth+1)
					}
				}
			}
		}
		walk(f.calls, 0)
	}
	return f.assigned[name]
}

// jkTokenVariables are variables that nothing but an identity token is for: the
// AWS tools exchange what the file holds, and proviso asks with it. Of other
// names only the controller knows what a credential of this syntax is.
var jkTokenVariables = map[string]Resource{
	"AWS_WEB_IDENTITY_TOKEN_FILE": {"cloud/aws", unknown},
	"PROVISO_ID_TOKEN":            {"oidc/issuer", unknown},
	"PROVISO_ID_TOKEN_FILE":       {"oidc/issuer", unknown},
	"AZURE_FEDERATED_TOKEN_FILE":  {"cloud/azure", unknown},
	"GCP_ID_TOKEN_FILE":           {"cloud/gcp", unknown},
	"VAULT_ID_TOKEN_FILE":         {"secrets-manager/vault", unknown},
	"ARM_OIDC_TOKEN":              {"cloud/azure", unknown},
	"ARM_OIDC_TOKEN_FILE_PATH":    {"cloud/azure", unknown},
}

// idToken records a credential that is bound to such a variable.
func (f *jkFile) idToken(variable string, line int, ctx jkCtx, via string) bool {
	res, ok := jkTokenVariables[variable]
	if ok {
		f.r.federated(ctx.place(), line, "oidc:jenkins", use{res: res}, via)
	}
	return ok
}

// jkAzureVault reads the values of an Azure key vault, and the login for it:
// an id of the controller, or one that the environment brings.
func jkAzureVault(f *jkFile, c *gCall, ctx jkCtx) {
	res := Resource{"secrets-manager/azure-key-vault", unknown}
	for _, key := range []string{"keyVaultURL", "keyVaultURLOverride"} {
		if v := named(c, key); v.isStr && !v.gstr {
			res.Name = v.str
		}
	}
	for _, key := range []string{"credentialID", "credentialIDOverride", "credentialId"} {
		if id := named(c, key); id.isStr || id.ident != "" {
			f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), c.name)
		}
	}
	for key, nature := range map[string]Nature{"applicationSecretOverride": NatureCredential, "applicationIDOverride": NatureIdentifier} {
		if name, ok := strings.CutPrefix(named(c, key).ident, "env."); ok {
			f.r.static(ctx.place(), named(c, key).line, name, use{res: res, nature: nature}, c.name+" "+key)
		}
	}
	inner := f.usesIn(c.body)
	for _, list := range []gValue{named(c, "azureKeyVaultSecrets"), named(c, "secrets"), positional(c, 0)} {
		if kept := f.lists(list.ident); list.ident != "" && len(kept) > 0 {
			list = kept[0]
		}
		for _, a := range list.list {
			name := mapValue(a.val, "name")
			env := firstOf(mapValue(a.val, "envVariable").str, name.str)
			if name.isStr {
				u := inner[env].or(envUse(env))
				f.r.add(ctx.place(), name.line, Credential{Kind: StaticSecret, Name: env, Nature: storedNature(env), Source: "azure-key-vault:" + name.str}, u, c.name)
			}
		}
		if list.list == nil && (list.ident != "" || list.parts != nil) {
			f.secret(list, c.line, ctx, use{nature: NatureCredential}, c.name)
		}
	}
	ctx.covered = true
	f.block(c.body, ctx)
}
