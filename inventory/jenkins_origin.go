package inventory

import (
	"regexp"
	"strings"
)

// Where values of a pipeline come from: scripts that stand under a name, and
// secrets that a step of a library fetches.

// wholeHole matches a GString that is nothing but a name.
var wholeHole = regexp.MustCompile(`^\s*\$\{?([A-Za-z_]\w*)\}?\s*$`)

// keepsText are methods of a text after which it says the same.
var keepsText = set("replace", "replaceAll", "replaceFirst", "trim", "stripIndent", "stripMargin", "toString", "normalize", "concat")

// scripts gives the script texts of a step, also those that stand under a name.
func (f *jkFile) scripts(c *gCall) []gValue {
	out := scriptsOf(c)
	add := func(v gValue) { out = append(out, f.texts(v, 0)...) }
	for _, a := range c.args {
		if a.key == "" || a.key == "script" {
			add(a.val)
		}
		if a.key == "" {
			add(mapValue(a.val, "script"))
		}
	}
	out = out[:min(len(out), maxCandidates)]
	for i := range out {
		out[i] = f.spliced(out[i])
	}
	return out
}

// texts gives the texts behind a name.
func (f *jkFile) texts(v gValue, depth int) []gValue {
	name := v.ident
	switch {
	case depth > 4:
		return nil
	case v.isStr:
		name = ""
		if m := wholeHole.FindStringSubmatch(v.str); m != nil && v.gstr {
			name = m[1]
		}
	case v.call != nil:
		at := strings.LastIndexByte(name, '.')
		if at < 0 || !keepsText[name[at+1:]] {
			return nil
		}
		name = name[:at]
	}
	if name == "" {
		return nil
	}
	var out []gValue
	for _, l := range f.lists(name) {
		if l.isStr {
			out = append(out, l)
		} else {
			out = append(out, f.texts(l, depth+1)...)
		}
	}
	return out
}

// jkPlain are steps of Jenkins itself that give back no secret.
var jkPlain = set("sh", "bat", "powershell", "pwsh", "readFile", "readJSON", "readYaml", "readProperties", "readTrusted", "readMavenPom", "readCSV", "readManifest", "input", "libraryResource", "httpRequest", "error", "pwd", "isUnix",
	"fileExists", "findFiles", "sha1", "sha256", "uuid", "tool", "checkout", "git", "build", "lock", "timeout", "retry", "script", "node", "dir", "evaluate", "string", "booleanParam", "choice", "steps", "env", "params", "parseJson", "println", "echo")

// fetches reports whether a value comes from a step that the file neither
// defines nor Jenkins has, and what that step is asked for when it says so.
func (f *jkFile) fetches(v gValue, depth int) (id string, ok bool) {
	if depth > 6 {
		return "", false
	}
	base, rest, dotted := strings.Cut(strings.TrimPrefix(v.ident, "this."), ".")
	switch {
	case base == "" || base == "env" || base == "params" || base[0] >= 'A' && base[0] <= 'Z':
	case dotted && rest == "call", v.call != nil && !dotted:
		if _, fn := f.callee(v.call); fn != nil {
			for _, answer := range answers(fn) {
				if id, ok = f.fetches(answer, depth+2); ok {
					return id, ok
				}
			}
		} else if jkReaders[base] == nil && !jkPlain[base] && !jkKept[base] && v.call.body == nil {
			for _, a := range v.call.args {
				for _, s := range f.ids(a.val) {
					if strings.Contains(s, "/") && !strings.ContainsAny(s, " \n") {
						return s, true
					}
				}
			}
			return "", true
		}
	default:
		for _, l := range f.lists(base) {
			if id, ok = f.fetches(l, depth+1); ok {
				return id, ok
			}
		}
	}
	for _, p := range v.parts {
		if !p.asked {
			if id, ok = f.fetches(p, depth+1); ok {
				return id, ok
			}
		}
	}
	return "", false
}

// jkWithEnv records the variables that hold what a step of a library fetched.
func jkWithEnv(f *jkFile, c *gCall, ctx jkCtx) {
	var inner map[string]use
	for _, a := range c.args {
		for _, l := range a.val.list {
			name, ok := assignment(l.val.str)
			if !ok || !l.val.gstr || !looksSecret(name) || f.active["env "+name] {
				continue
			}
			for _, ref := range shellVars(l.val.str[len(name)+1:]) {
				id, ok := f.fetches(gValue{ident: ref.name}, 0)
				if !ok {
					continue
				}
				if inner == nil {
					inner = f.usesIn(c.body)
				}
				f.static(firstOf(id, name), l.val.line, ctx, use{nature: NatureCredential}.or(inner[name]).or(envUse(name)), "withEnv")
			}
		}
	}
	f.arguments(c, ctx)
	f.nestedCalls(c, ctx)
	f.block(c.body, ctx)
}

// static records a credential by a name that is known.
func (f *jkFile) static(name string, line int, ctx jkCtx, u use, via string) {
	u.res = f.filled(u.res)
	f.r.static(ctx.place(), line, name, u, via)
}

// jkSecretKey matches arguments of any step that say where a secret lies.
var jkSecretKey = regexp.MustCompile(`(?i)^(vault)?secret(path)?$|^vaultpath$`)

// secretPaths records the secrets of a manager that a step of a library is asked to fetch or to use.
func (f *jkFile) secretPaths(c *gCall, ctx jkCtx, res Resource) {
	for _, a := range c.args {
		if !jkSecretKey.MatchString(a.key) {
			continue
		}
		for _, id := range f.ids(a.val) {
			if strings.Contains(strings.Trim(id, "/"), "/") && !strings.ContainsAny(id, " \n:") {
				u := use{res: res, nature: NatureCredential}
				if registry := named(c, "registry"); res.Kind == "registry/container" && registry.isStr {
					u.res = f.filled(imageRegistry(registry.str + "/"))
				}
				if !u.known() {
					u.res = envUse(id).res
				}
				f.static(id, lineOr(a.val.line, c.line), ctx, u, c.name+" "+a.key)
			}
		}
	}
}

// requests records variables that a request sends as a credential and that the file gets from nowhere.
func (f *jkFile) requests(c *gCall, ctx jkCtx, res Resource) {
	for _, a := range c.args {
		a.val.names(0, func(name string) {
			if looksSecret(name) && strings.ToUpper(name) == name && !f.gives(name) {
				u := knownEnv(name).or(use{res: res, nature: NatureCredential}).or(envUse(name))
				f.static(name, lineOr(a.val.line, c.line), ctx, u, c.name)
			}
		})
	}
}

// lineOr gives the line of a value, or that of the call it stands in.
func lineOr(line, call int) int {
	if line > 0 {
		return line
	}
	return call
}

// keyResource tells from the name of an argument what its credential is for: registryCredentialsId.
func keyResource(key string) Resource {
	low := strings.ToLower(key)
	at := strings.Index(low, "cred")
	if at <= 0 {
		return Resource{}
	}
	if word := low[:at]; strings.HasSuffix(word, "registry") || word == "docker" {
		return Resource{"registry/container", unknown}
	}
	return envUse(key[:at] + "_TOKEN").res
}

// getsCredential matches methods of a library that look a credential up by its id.
var getsCredential = regexp.MustCompile(`(?:^|\.)(?:get|find|lookup|fetch|read)([A-Z]\w*?)?(?:Credentials?|Creds)(?:ById)?$`)

// passesSocket matches a command that hands on the socket of the container engine.
var passesSocket = regexp.MustCompile(`(?:-v|--volume|--mount|DOCKER_HOST=)\S*[ =]?\S*/docker\.sock`)

// jkOpenShift reads the block of a cluster: with a credential that it names, or the one that Jenkins keeps for it.
func jkOpenShift(f *jkFile, c *gCall, ctx jkCtx) {
	cluster, id := positional(c, 0), firstValue(positional(c, 1), named(c, "credentialsId"))
	res := f.filled(Resource{"k8s/cluster", firstOf(cluster.str, cluster.ident, unknown)})
	if name := strings.TrimPrefix(firstOf(id.ident, soleHole(id)), "env."); name != "" && len(f.ids(id)) == 0 && f.boundTo(name) {
		// the token itself, which a binding gives: the path stands there
	} else if id.isStr || id.ident != "" {
		f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), c.name)
	} else {
		f.r.connection(ctx.place(), c.line, c.name, use{res: res}, c.name)
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

// soleHole gives the name that a GString consists of.
func soleHole(v gValue) string {
	if m := gHole.FindStringSubmatch(v.str); m != nil && v.gstr && m[0] == v.str {
		return firstOf(m[1], m[2])
	}
	return ""
}

// boundTo reports whether a binding of the file, or an environment of it, gives a variable the value of a credential.
func (f *jkFile) boundTo(name string) bool {
	base := strings.TrimSuffix(strings.TrimSuffix(name, "_PSW"), "_USR")
	for _, v := range f.lists(base) {
		if v.call != nil && v.call.name == "credentials" {
			return true
		}
	}
	return regexp.MustCompile(`[vV]ariable\s*:\s*['"]` + regexp.QuoteMeta(name) + `['"]`).MatchString(f.r.src.text)
}

// wrappedHole matches a variable in a GString that a function quotes: ${quote(PASSWORD)}.
var wrappedHole = regexp.MustCompile(`\$\{[\w.]+\(\s*(?:env\.)?([A-Za-z_]\w*)\s*\)\}`)

// spliced puts the texts that other names hold into a script, and takes the quoting off its variables.
func (f *jkFile) spliced(v gValue) gValue {
	if !v.gstr {
		return v
	}
	v.str = wrappedHole.ReplaceAllString(v.str, "${$1}")
	v.str = gHole.ReplaceAllStringFunc(v.str, func(hole string) string {
		m := gHole.FindStringSubmatch(hole)
		of, name, ok := strings.Cut(firstOf(m[1], m[2]), ".")
		if !ok || !f.pipelines[of] {
			return hole
		}
		return "${" + strings.TrimPrefix(name, "env.") + "}" // a variable that the pipeline has
	})
	v.str = gHole.ReplaceAllStringFunc(v.str, func(hole string) string {
		m := gHole.FindStringSubmatch(hole)
		for _, l := range f.texts(gValue{ident: firstOf(m[1], m[2])}, 3) {
			if strings.Contains(l.str, " ") && !strings.Contains(l.str, "\n") {
				return l.str
			}
		}
		return hole
	})
	return v
}
