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
		"withAWS": jkWithAWS, "withEnv": jkWithEnv, "withVault": jkWithVault, "withSecrets": jkWithSecrets, "configFileProvider": jkConfigFile, "withMaven": jkConfigFile,
		"withKubeConfig": jkKube, "withKubeCredentials": jkKube, "kubernetesDeploy": jkKube, "azureServicePrincipal": jkAzure,
		"load": jkLoad, "openshift.withCluster": jkOpenShift, "step": jkPostStep,
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
	ctx.uses = nil
	if slices.ContainsFunc(c.body, func(b *gCall) bool { return b.name == "environment" }) {
		ctx.uses = f.usesIn(c.body) // other stages may use the same names for something else
	}
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
		uses := ctx.uses
		if uses == nil {
			uses = f.names
		}
		u := uses[b.assign]
		for _, half := range []string{"_USR", "_PSW"} {
			if alt := uses[b.assign+half]; alt.known() {
				u = alt.or(u)
			}
		}
		named := envUse(b.assign)
		if !named.known() {
			u = u.or(use{nature: named.nature})
		}
		u.nature = firstNature(natureOf(b.assign), u.nature)
		if strings.Contains(f.r.src.text, b.assign+"_PSW") {
			u.nature = NatureCredential
		}
		f.bound = true
		if f.idToken(b.assign, b.line, ctx, "environment: "+b.assign) {
			continue
		}
		f.secret(positional(v.call, 0), b.line, ctx, u.or(named), "environment: "+b.assign)
	}
}

// jkCredentials reads a credentials('id') outside of an environment block.
func jkCredentials(f *jkFile, c *gCall, ctx jkCtx) {
	if v := positional(c, 0); v.isStr || v.ident != "" {
		f.secret(v, c.line, ctx, use{}, "credentials")
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
var jkIDKey = regexp.MustCompile(`(?i)^([a-z]*credentials?ids?|[a-z]+cred|[a-z]*credentials?|sshkeyid|signingcredentials?)$`)

// arguments looks for credential ids among the arguments of any call: git, checkout, library steps, agents.
func (f *jkFile) arguments(c *gCall, ctx jkCtx) {
	res := Resource{}
	url := named(c, "url")
	switch {
	case c.name == "git" || c.name == "checkout" || strings.HasSuffix(c.name, ".checkout") || strings.HasSuffix(c.name, "GitSCM"):
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
	if v := named(c, "serviceAccount"); v.isStr && v.str != "" && len(c.body) > 0 { // a step that runs its block in a pod
		jkPodPart(f, &gCall{name: "serviceAccount", args: []gArg{{"", v}}, line: lineOr(v.line, c.line)}, ctx)
	}
	f.secretPaths(c, ctx, res)
	switch c.name[strings.LastIndexByte(c.name, '.')+1:] {
	case "lookupCredentials", "lookupCredentialsInItemGroup":
		f.secret(gValue{ident: c.name, line: c.line}, c.line, ctx, use{nature: NatureCredential}, "CredentialsProvider")
	case "findCredentialById":
		f.secret(positional(c, 0), c.line, ctx, use{nature: NatureCredential}, "CredentialsProvider")
	default:
		if m := getsCredential.FindStringSubmatch(c.name); m != nil && len(c.args) == 1 && f.funcs[c.name] == nil {
			f.secret(positional(c, 0), c.line, ctx, use{res: envUse(m[1] + "_TOKEN").res, nature: NatureCredential}, c.name)
		}
	}
	if c.name == "httpRequest" && !ctx.covered {
		f.requests(c, ctx, res)
	}
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
					if _, token := jkTokenVariables[named(c, "variable").str]; token {
						continue // read where the binding is taken
					}
					if jkKept[c.name] { // a binding that is kept for later: the step that takes it is its place
						f.pending = append(f.pending, jkPending{f.settledValue(v), c.line, ctx, c.name})
						continue
					}
					u := use{res: res, nature: NatureCredential}
					if !u.known() && len(f.ids(v)) == 0 {
						u.res = keyResource(a.key)
					}
					f.secret(v, c.line, ctx, u, c.name+" "+a.key)
				}
			}
			continue
		}
		f.idArgs(a.val.list, c, ctx, res, depth+1)
		for _, p := range a.val.parts { // [a: b] + more
			f.idArgs(p.list, c, ctx, res, depth+1)
		}
		if a.val.call != nil && len(a.val.call.args) > 0 && jkReaders[a.val.call.name] == nil && c.name == "checkout" {
			f.idArgs(a.val.call.args, c, ctx, res, depth+1)
		}
	}
}
