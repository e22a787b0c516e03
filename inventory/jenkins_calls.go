package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// jkReaders are the steps and blocks that need a reader of their own.
var jkReaders map[string]func(*jkFile, *gCall, jkCtx)

func init() {
	jkReaders = map[string]func(*jkFile, *gCall, jkCtx){
		"pipeline": jkPipeline, "stage": jkStage, "agent": jkAgentBlock, "environment": jkEnvBlock, "node": jkNode, "post": jkPostBlock, "options": jkOptionsBlock,
		"if": jkIf, "withCredentials": jkWithCredentials, "credentials": jkCredentials, "sshagent": jkSSHAgent, "docker.withRegistry": jkWithRegistry,
		"withAWS": jkWithAWS, "withVault": jkWithVault, "withSecrets": jkWithSecrets, "configFileProvider": jkConfigFile, "withMaven": jkConfigFile,
		"withKubeConfig": jkKube, "withKubeCredentials": jkKube, "kubernetesDeploy": jkKube, "azureServicePrincipal": jkAzure,
		"load": jkLoad, "step": jkPostStep,
		"withAzureKeyvault": jkAzureVault, "azureKeyVault": jkAzureVault, "sshPublisher": jkSSHPublisher, "nexusPublisher": jkServer, "nexusPolicyEvaluation": jkServer,
		"@Library": jkLibrary, "library": jkLibrary, "parameters": jkSkip, "when": jkSkip,
		"sh": jkScript, "bat": jkScript, "powershell": jkScript, "pwsh": jkScript,
	}
	for step := range jkConnections {
		jkReaders[step] = jkConnection
	}
	for _, step := range []string{"rtUpload", "rtDownload", "rtSetProps", "rtDeleteProps", "rtPublishBuildInfo", "rtPromote", "rtMavenResolver", "rtMavenDeployer", "rtGradleResolver", "rtGradleDeployer", "rtNpmResolver",
		"rtNpmDeployer", "rtDockerPush", "rtDockerPull", "rtCreateDockerBuild", "rtPipResolver", "rtGoResolver", "rtGoPublisher", "rtNugetResolver", "xrayScan", "Artifactory.server"} {
		jkReaders[step] = jkServer
	}
}

// jkSkip is for blocks without paths.
func jkSkip(*jkFile, *gCall, jkCtx) {}

func jkPipeline(f *jkFile, c *gCall, ctx jkCtx) {
	ctx.declarative = true
	f.block(c.body, ctx)
}

func jkStage(f *jkFile, c *gCall, ctx jkCtx) {
	name := positional(c, 0)
	if v := named(c, "name"); v.isStr {
		name = v
	}
	if name.isStr && name.str != "" {
		ctx.job = name.str
		if known := f.ids(name); len(known) == 1 {
			ctx.job = known[0]
		}
	} else if name.ident != "" {
		ctx.job = firstOf(append(slices.Clone(f.consts[name.ident]), name.ident)...)
	}
	ctx.inStage = true
	ctx = f.when(c.body, ctx)
	f.block(c.body, ctx)
}

func jkPostBlock(f *jkFile, c *gCall, ctx jkCtx) {
	if !ctx.inStage {
		ctx.job = jkPost
	}
	f.block(c.body, ctx)
}

func jkOptionsBlock(f *jkFile, c *gCall, ctx jkCtx) {
	if !ctx.inStage {
		ctx.job = jkOptions
	}
	f.block(c.body, ctx)
}

func jkIf(f *jkFile, c *gCall, ctx jkCtx) {
	f.nestedCalls(c, ctx)
	f.block(c.body, f.narrow(c.text, ctx))
}

// jkAgentBlock reads an agent: what runs the job, and the login for its image.
func jkAgentBlock(f *jkFile, c *gCall, ctx jkCtx) {
	if !ctx.inStage {
		ctx.job = jkAgent
	}
	f.agent(c, ctx)
	f.block(c.body, ctx)
}

// agent records the machine of a job by its label.
func (f *jkFile) agent(c *gCall, ctx jkCtx) {
	label, line := "", c.line
	var walk func([]*gCall)
	walk = func(calls []*gCall) {
		for _, b := range calls {
			switch b.name {
			case "label", "nodeLabel", "inheritFrom":
				if ids := f.ids(positional(b, 0)); len(ids) > 0 {
					label, line = ids[0], b.line
				} else if v := positional(b, 0); v.ident != "" {
					label, line = v.ident, b.line
				}
				walk(b.body)
			case "docker", "dockerfile", "kubernetes", "node", "dockerContainer":
				if label == "" {
					label, line = b.name, b.line
					if v := named(b, "label"); v.isStr {
						label = v.str
					}
				}
				walk(b.body)
			}
		}
	}
	walk(c.body)
	if v := named(c, "label"); v.isStr {
		label = v.str
	}
	if label == "" {
		return
	}
	at := ctx.place()
	at.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{label}}
	f.r.ambient(at, line, label, use{res: Resource{"runner/agent", label}}, "agent")
}

// jkNode reads node('label') { ... } of scripted pipelines.
func jkNode(f *jkFile, c *gCall, ctx jkCtx) {
	label := positional(c, 0)
	if v := named(c, "label"); v.isStr {
		label = v
	}
	name := firstOf(append(slices.Clone(f.ids(label)), label.str, label.ident)...)
	if name != "" && c.body != nil {
		at := ctx.place()
		at.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{name}}
		ctx.runner = at.runner
		f.r.ambient(at, c.line, name, use{res: Resource{"runner/agent", name}}, "node")
	}
	f.nestedCalls(c, ctx)
	f.block(c.body, ctx)
}

// jkEnvBlock reads an environment: X = credentials('id') gives X, X_USR and X_PSW.
func jkEnvBlock(f *jkFile, c *gCall, ctx jkCtx) {
	if !ctx.inStage {
		ctx.job = jkEnvironment
	}
	for _, b := range c.body {
		if b.name != "=" {
			continue
		}
		v := b.args[0].val
		if v.call == nil || v.call.name != "credentials" {
			f.block(v.calls(), ctx)
			continue
		}
		u := f.names[b.assign]
		if alt := f.names[b.assign+"_PSW"]; alt.known() {
			u = alt.or(u)
		}
		named := envUse(b.assign)
		if !named.known() {
			u = u.or(use{nature: named.nature})
		}
		u.nature = firstNature(natureOf(b.assign), u.nature)
		if f.names[b.assign+"_PSW"].known() {
			u.nature = NatureCredential
		}
		f.bound = true
		if f.idToken(b.assign, b.line, ctx, "environment: "+b.assign) {
			continue
		}
		f.secret(positional(v.call, 0), b.line, ctx, u.or(named), "environment: "+b.assign)
	}
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
		f.r.static(at, line, unknown, u, via)
		return
	}
	for _, name := range ids {
		x := u
		if n := natureOf(name); x.nature == "" || n == NatureIdentifier && x.nature != NatureCredential {
			x.nature = n
		}
		if !x.known() {
			x.res = envUse(name).res // nothing but its name tells what it is for
		}
		f.r.static(ctx.place(), line, name, x, via)
	}
}

// jkCredentials reads a credentials('id') outside of an environment block.
func jkCredentials(f *jkFile, c *gCall, ctx jkCtx) {
	if v := positional(c, 0); v.isStr || v.ident != "" {
		f.secret(v, c.line, ctx, use{}, "credentials")
	}
}

// jkBindings are the resources of bindings that name their kind.
var jkBindings = map[string]Resource{
	"aws": {"cloud/aws", ""}, "azureServicePrincipal": {"cloud/azure", ""}, "AmazonWebServicesCredentialsBinding": {"cloud/aws", ""}, "sshUserPrivateKey": {"ssh/host-or-git", ""},
	"dockerCert": {"registry/container", "docker host"}, "gitUsernamePassword": {"vcs/git", ""}, "VaultTokenCredentialBinding": {"secrets-manager/vault", ""}, "certificate": {"signing/key", ""},
	"kubeconfigFile": {"k8s/cluster", ""}, "kubeconfigContent": {"k8s/cluster", ""}, "googleServiceAccountCredential": {"cloud/gcp", ""}, "azureStorage": {"cloud/azure", "storage"},
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
		if v.call != nil {
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
	ctx.covered = true
	f.block(c.body, ctx)
}

// bindings reads bindings that are kept under a name: those that the file gives it, else some that only a run knows.
func (f *jkFile) bindings(v gValue, bind func(gValue), ctx jkCtx) {
	kept := f.lists(v.ident)
	if len(kept) == 0 || f.active["bindings "+v.ident] {
		f.secret(v, v.line, ctx, use{nature: NatureCredential}, "withCredentials")
		return
	}
	f.active["bindings "+v.ident] = true
	for _, l := range kept {
		bind(l)
	}
	delete(f.active, "bindings "+v.ident)
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
			usesOf(c, out)
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

func jkSSHAgent(f *jkFile, c *gCall, ctx jkCtx) {
	u := secretUse("ssh/host-or-git", "")
	for _, a := range c.args {
		vals := []gValue{a.val}
		if a.val.list != nil {
			vals = nil
			for _, l := range a.val.list {
				switch l.key {
				case "":
					vals = append(vals, l.val)
				case "credentials":
					for _, x := range l.val.list {
						vals = append(vals, x.val)
					}
				}
			}
		}
		if a.key != "" && a.key != "credentials" {
			continue
		}
		for _, v := range vals {
			f.secret(v, c.line, ctx, u, "sshagent")
		}
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

func jkWithRegistry(f *jkFile, c *gCall, ctx jkCtx) {
	server := positional(c, 0)
	res := Resource{"registry/container", "docker.io"}
	if server.isStr && server.str != "" {
		res = imageRegistry(firstOf(append(f.ids(server), server.str)...))
	} else if server.ident != "" {
		res = Resource{"registry/container", firstOf(append(slices.Clone(f.consts[server.ident]), server.ident)...)}
	}
	id := positional(c, 1)
	if v := named(c, "credentialsId"); v.isStr {
		id = v
	}
	if ids := f.ids(id); len(ids) > 0 && strings.HasPrefix(ids[0], "ecr:") {
		// ecr:region:id of the Amazon ECR plugin.
		id = gValue{str: ids[0][strings.LastIndexByte(ids[0], ':')+1:], isStr: true, line: id.line}
		res.Kind = "registry/ecr"
	}
	f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), "docker.withRegistry")
	f.block(c.body, ctx)
}

var jkSettings = regexp.MustCompile(`(?i)settings|npmrc|pypirc|kube|cred|secret|token|gradle|docker|netrc|ssh|passw|pki|private|keystore|gpg`)

// jkConfigFile reads managed files: settings of package tools carry the credentials of their servers.
func jkConfigFile(f *jkFile, c *gCall, ctx jkCtx) {
	var walk func(v gValue, depth int)
	record := func(v gValue, u use) {
		if ids := f.ids(v); len(ids) > 0 || v.ident != "" || v.gstr {
			f.secret(v, c.line, ctx, u, c.name)
		}
	}
	walk = func(v gValue, depth int) {
		if v.call != nil {
			id, variable, to := named(v.call, "fileId"), named(v.call, "variable").str, named(v.call, "targetLocation").str
			if jkSettings.MatchString(strings.Join(append(slices.Clone(f.ids(id)), variable, to), " ")) {
				u := secretUse("registry/maven", "")
				if res, ok := fileResource(to, ""); ok {
					u.res = res
				} else if strings.Contains(strings.ToLower(to), "kube") {
					u.res = Resource{"k8s/cluster", ""}
				}
				if by := envUse(variable); by.known() || natureOf(variable) == NatureCredential {
					u.res = by.res
				}
				record(id, u)
			}
		}
		for _, a := range v.list {
			if depth < 6 {
				walk(a.val, depth+1)
			}
		}
	}
	for _, a := range c.args {
		walk(a.val, 0)
	}
	for _, key := range []string{"mavenSettingsConfig", "globalMavenSettingsConfig"} {
		if v := named(c, key); v.isStr {
			record(v, secretUse("registry/maven", ""))
		}
	}
	f.block(c.body, ctx)
}

func jkKube(f *jkFile, c *gCall, ctx jkCtx) {
	res := Resource{"k8s/cluster", unknown}
	if v := named(c, "serverUrl"); v.isStr {
		res.Name = v.str
	}
	for _, key := range []string{"credentialsId", "kubeconfigId"} {
		if id := named(c, key); id.isStr || id.ident != "" {
			f.secret(id, c.line, ctx, secretUse(res.Kind, res.Name), c.name)
		}
	}
	for _, l := range named(c, "kubectlCredentials").list {
		f.secret(mapValue(l.val, "credentialsId"), c.line, ctx, secretUse(res.Kind, firstOf(mapValue(l.val, "serverUrl").str, unknown)), c.name)
	}
	ctx.covered = true
	f.block(c.body, ctx)
}

func jkAzure(f *jkFile, c *gCall, ctx jkCtx) {
	id := positional(c, 0)
	if v := named(c, "credentialsId"); v.isStr {
		id = v
	}
	f.secret(id, c.line, ctx, secretUse("cloud/azure", ""), "azureServicePrincipal")
}

func jkLibrary(f *jkFile, c *gCall, ctx jkCtx) {
	for _, a := range c.args {
		vals := []gValue{a.val}
		for _, l := range a.val.list {
			vals = append(vals, l.val)
		}
		for _, v := range vals {
			if v.isStr && (a.key == "" || a.key == "identifier" || a.key == "value") {
				f.r.open(ctx.place(), c.line, "shared library", v.str, "what the steps of the library do with credentials is defined elsewhere")
			}
		}
	}
	f.nestedCalls(c, ctx)
}

// jkIDKey matches arguments of any step that name a credential.
var jkIDKey = regexp.MustCompile(`(?i)^([a-z]*credentials?ids?|[a-z]+cred|[a-z]*credentials|credential|sshkeyid|signingcredentials?)$`)

// arguments looks for credential ids among the arguments of any call: git, checkout, library steps, agents.
func (f *jkFile) arguments(c *gCall, ctx jkCtx) {
	res := Resource{}
	url := named(c, "url")
	switch {
	case c.name == "git" || c.name == "checkout" || strings.HasSuffix(c.name, "GitSCM"):
		res = Resource{"vcs/git", firstOf(url.str, unknown)}
	case c.name == "registryCredentialsId":
		f.secret(positional(c, 0), c.line, ctx, secretUse("registry/container", ""), c.name)
		return
	case strings.Contains(strings.ToLower(c.name), "docker"):
		res = Resource{"registry/container", unknown}
	case c.name == "httpRequest":
		res = hostResource(url.str)
	}
	if jkIDKey.MatchString(c.name) && len(c.args) == 1 && c.body == nil && c.name != "credentials" && !strings.HasPrefix(c.name, "with") {
		f.secret(c.args[0].val, c.line, ctx, use{res: res, nature: NatureCredential}, c.name)
		return
	}
	f.idArgs(c.args, c, ctx, res, 0)
	if !strings.HasPrefix(c.name, "print") && c.name != "echo" && c.name != "error" {
		f.socket(c.args, ctx, 0)
	}
}

func (f *jkFile) idArgs(args []gArg, c *gCall, ctx jkCtx, res Resource, depth int) {
	if depth > 8 {
		return
	}
	for _, a := range args {
		for _, l := range a.val.list {
			if l.key == "url" && l.val.isStr && res.Kind == "vcs/git" {
				res.Name = l.val.str
			}
		}
		if a.key != "" && jkIDKey.MatchString(a.key) {
			vals := []gValue{a.val}
			if a.val.list != nil {
				vals = nil
				for _, l := range a.val.list {
					if l.key == "" {
						vals = append(vals, l.val)
					}
				}
			}
			for _, v := range vals {
				if v.isStr && v.str != "" || v.ident != "" && v.ident != "true" && v.ident != "false" && v.ident != "null" {
					if jkKept[c.name] { // a binding that is kept for later: the step that takes it is its place
						f.pending = append(f.pending, jkPending{v, c.line, ctx, c.name})
						continue
					}
					f.secret(v, c.line, ctx, use{res: res, nature: NatureCredential}, c.name+" "+a.key)
				}
			}
			continue
		}
		f.idArgs(a.val.list, c, ctx, res, depth+1)
		if a.val.call != nil && len(a.val.call.args) > 0 && jkReaders[a.val.call.name] == nil && c.name == "checkout" {
			f.idArgs(a.val.call.args, c, ctx, res, depth+1)
		}
	}
}
