package inventory

import "strings"

// readDocker reads logins and pushes of container tools.
func readDocker(c *command, x *consumption) {
	tool := c.name()
	if c.has("login") || tool == "regctl" && c.has("registry") && c.has("login") {
		registryLogin(c, x, tool+" login")
		return
	}
	for _, opt := range []string{"--creds", "--dest-creds", "--src-creds", "--credentials"} {
		if v, ok := c.option(opt); ok {
			user, pass, two := strings.Cut(v, ":")
			res := imageRegistry(c.arg(len(c.words) - 1))
			if two {
				x.label(user, res.Kind, res.Name, tool+" "+opt)
				v = pass
			}
			x.secret(v, res.Kind, res.Name, tool+" "+opt)
		}
	}
	switch {
	case c.has("push"), c.has("--push"), tool == "ko" && (c.has("publish") || c.has("build") || c.has("resolve") || c.has("apply")), tool == "crane" && (c.has("copy") || c.has("cp")), tool == "skopeo" && c.has("copy"), c.has("buildx") && strings.Contains(c.text(), "type=registry"):
		res := Resource{"registry/container", ""}
		for _, w := range c.words[1:] {
			if !strings.HasPrefix(w, "-") && (strings.Contains(w, "/") || strings.Contains(w, ":")) && w != "." {
				res = imageRegistry(strings.TrimPrefix(w, "docker://"))
			}
		}
		x.actors = append(x.actors, actor{family: "docker", res: res, via: tool + " push"})
	}
	for i, w := range c.words {
		// A build argument or a build secret carries a value into the image or its build.
		switch {
		case w == "--build-arg" || w == "--secret" || w == "-e" || w == "--env":
			u := envUse(buildArgName(c.arg(i + 1)))
			u.via = tool + " " + w
			if u.nature == NatureCredential {
				x.values = append(x.values, slot{c.arg(i + 1), u})
				if n := c.arg(i + 1); (w == "-e" || w == "--env") && !strings.Contains(n, "=") && !strings.Contains(n, "$") && isEnvName(n) {
					x.values = append(x.values, slot{"$" + n, u})
				}
			}
		case strings.HasPrefix(w, "--build-arg="), strings.HasPrefix(w, "--env="):
			_, v, _ := strings.Cut(w, "=")
			u := envUse(buildArgName(v))
			u.via = tool + " --build-arg"
			if u.nature == NatureCredential {
				x.values = append(x.values, slot{v, u})
			}
		}
	}
}

// isEnvName reports whether a word is a plain name of an environment variable.
func isEnvName(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isWordByte(s[i]) {
			return false
		}
	}
	return s != "" && s[0] > '9'
}

// buildArgName gives the name of NAME=value, and the id of id=name,...
func buildArgName(s string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(s, "id="), "=")
	name, _, _ = strings.Cut(name, ",")
	return strings.Trim(name, `"'`)
}

// registryLogin reads a login to a container registry: -u, -p or standard input, and the server as last word.
func registryLogin(c *command, x *consumption, via string) {
	pos := c.positional(1, "-u", "--username", "-p", "--password", "--authfile", "--cert-dir", "--get-login", "--secret")
	server := ""
	for i, w := range pos {
		if w == "login" && i+1 < len(pos) {
			server = pos[len(pos)-1]
		}
	}
	res := imageRegistry(server)
	if server == "" {
		res = Resource{"registry/container", "docker.io"}
	} else if strings.HasPrefix(server, "$") || !strings.ContainsAny(server, ".$/") {
		res = Resource{"registry/container", server}
	}
	if v, ok := c.option("-u", "--username"); ok {
		x.label(v, res.Kind, res.Name, via)
	}
	if v, ok := c.option("-p", "--password"); ok && v != "" && !strings.HasPrefix(v, "-") {
		x.secret(v, res.Kind, res.Name, via)
		return
	}
	from := inputOf(c)
	switch {
	case strings.HasPrefix(from, "aws ") || strings.Contains(from, "aws ecr"):
		x.acts("aws", "registry/ecr", res.Name, via)
	case strings.HasPrefix(from, "gcloud ") || strings.Contains(from, "print-access-token"):
		x.acts("gcp", "registry/gar", res.Name, via)
	case strings.HasPrefix(from, "az "):
		x.acts("azure", "registry/acr", res.Name, via)
	case from != "":
		x.secret(from, res.Kind, res.Name, via)
	}
}

// imageRegistry gives the registry of an image reference or of a server name.
func imageRegistry(image string) Resource {
	image = strings.TrimPrefix(strings.TrimPrefix(image, "https://"), "http://")
	host, _, slash := strings.Cut(image, "/")
	if !slash && !strings.Contains(host, ".") && !strings.Contains(host, "$") {
		return Resource{"registry/container", "docker.io"}
	}
	if !strings.ContainsAny(host, ".:$") && host != "localhost" {
		return Resource{"registry/container", "docker.io"}
	}
	r := hostResource(host)
	if r.Kind == "http/api" || strings.HasPrefix(r.Kind, "vcs/") || strings.HasPrefix(r.Kind, "cloud/") {
		r = Resource{"registry/container", host}
	}
	return r
}

// readHelm reads registry logins and deployments.
func readHelm(c *command, x *consumption) {
	switch {
	case c.has("registry") && c.has("login"):
		registryLogin(c, x, "helm registry login")
	case c.has("upgrade", "install", "uninstall", "rollback", "diff", "list", "status"):
		x.acts("k8s", "k8s/cluster", "", "helm "+c.arg(1))
		options(c, x, Resource{"k8s/cluster", ""})
		helmValues(c, x)
	case c.has("push", "s3", "gcs"):
		x.acts("docker", "registry/helm", "", "helm push")
	case c.has("repo"):
		options(c, x, Resource{"registry/helm", ""})
	}
	x.tool = use{res: Resource{"k8s/cluster", ""}, via: "helm"}
}

// helmValues reads --set a.b.password=$X: the last part of the key says what the value is.
func helmValues(c *command, x *consumption) {
	for i, w := range c.words {
		switch w {
		case "--set", "--set-string", "--set-file", "--set-literal":
		default:
			continue
		}
		key, val, ok := strings.Cut(c.arg(i+1), "=")
		if name := key[strings.LastIndexByte(key, '.')+1:]; ok && strings.Contains(val, "$") && natureOf(name) == NatureCredential {
			x.values = append(x.values, slot{val, use{res: Resource{"k8s/cluster", ""}, nature: NatureCredential, via: "helm --set"}})
		}
	}
}

// readAWS reads the AWS command line.
func readAWS(c *command, x *consumption) {
	pos := c.positional(1, "--region", "--profile", "--output", "--query", "--endpoint-url")
	service, verb := "", ""
	if len(pos) > 0 {
		service = pos[0]
	}
	if len(pos) > 1 {
		verb = pos[1]
	}
	via := "aws " + service
	if _, ok := c.option("--endpoint-url"); ok {
		v, _ := c.option("--endpoint-url")
		x.acts("s3-compatible", "storage/s3-compatible", v, via)
		return
	}
	switch {
	case service == "configure":
		if len(pos) > 3 && strings.Contains(pos[2], "key") {
			x.secret(pos[3], "cloud/aws", "", "aws configure")
		} else if len(pos) > 3 {
			x.label(pos[3], "cloud/aws", "", "aws configure")
		}
		return
	case service == "sts" && verb == "assume-role-with-web-identity":
		token, _ := c.option("--web-identity-token")
		role, _ := c.option("--role-arn")
		x.exchanges = append(x.exchanges, exchange{res: Resource{"cloud/aws", role}, token: token, via: "aws sts assume-role-with-web-identity"})
		x.label(role, "cloud/aws", "", via)
		return
	case service == "secretsmanager" && strings.HasPrefix(verb, "get-secret-value"):
		id, _ := c.option("--secret-id")
		x.fetched = append(x.fetched, fetched{name: id, source: "aws-secrets-manager", res: Resource{"secrets-manager/aws", id}, family: "aws"})
		return
	case service == "ssm" && strings.HasPrefix(verb, "get-parameter"):
		id, ok := c.option("--name", "--names", "--path")
		if ok && (c.has("--with-decryption") || looksSecret(id)) {
			x.fetched = append(x.fetched, fetched{name: id, source: "aws-ssm", res: Resource{"secrets-manager/ssm", id}, family: "aws"})
			return
		}
	case service == "ecr":
		x.acts("aws", "registry/ecr", "", via)
		return
	case service == "ecr-public":
		x.acts("aws", "registry/ecr", "public.ecr.aws", via)
		return
	case service == "codeartifact":
		domain, _ := c.option("--domain")
		x.acts("aws", "registry/codeartifact", domain, via)
		return
	case service == "--version", service == "help", service == "":
		return
	}
	name := ""
	for _, w := range c.words {
		if strings.HasPrefix(w, "s3://") {
			name, _, _ = strings.Cut(strings.TrimPrefix(w, "s3://"), "/")
			name = "s3://" + name
			break
		}
	}
	if v, ok := c.option("--role-arn"); ok && name == "" {
		name = v
	}
	x.acts("aws", "cloud/aws", name, via)
}

// readAWSTool is for tools that deploy with the AWS identity of their surroundings.
func readAWSTool(c *command, x *consumption) {
	switch c.arg(1) {
	case "deploy", "publish", "destroy", "bootstrap", "package", "build", "push", "use", "svc", "create", "update", "delete", "remove", "diff", "synth", "sync", "put", "validate", "app", "env", "pipeline", "setenv", "init", "--config":
		if c.name() == "packer" && c.arg(1) != "build" {
			return
		}
		if c.arg(1) == "synth" || c.arg(1) == "build" && c.name() != "packer" || c.arg(1) == "validate" || c.arg(1) == "init" {
			return
		}
		x.acts("aws", "cloud/aws", "", c.name()+" "+c.arg(1))
	}
}

// readGcloud reads gcloud, gsutil and bq.
func readGcloud(c *command, x *consumption) {
	via := c.name()
	if c.name() == "gcloud" {
		pos := c.positional(1, "--project", "--quiet")
		for len(pos) > 0 && (pos[0] == "beta" || pos[0] == "alpha") {
			pos = pos[1:]
		}
		if len(pos) == 0 {
			return
		}
		via = "gcloud " + pos[0]
		switch {
		case pos[0] == "auth" && len(pos) > 1 && pos[1] == "activate-service-account":
			if v, ok := c.option("--key-file"); ok {
				x.secret(v, "cloud/gcp", "", via)
				if v == "-" || v == "/dev/stdin" || strings.HasPrefix(v, "<(") {
					x.secret(inputOf(c)+strings.TrimPrefix(v, "<("), "cloud/gcp", "", via)
				}
			}
			return
		case pos[0] == "auth" && len(pos) > 1 && pos[1] == "login":
			if v, ok := c.option("--cred-file"); ok {
				x.exchanges = append(x.exchanges, exchange{res: Resource{"cloud/gcp", ""}, via: via})
				x.label(v, "cloud/gcp", "", via)
			}
			return
		case pos[0] == "auth" && len(pos) > 1 && pos[1] == "configure-docker":
			hosts := "gcr.io"
			if len(pos) > 2 {
				hosts = pos[2]
			}
			x.acts("gcp", "registry/gar", hosts, "gcloud auth configure-docker")
			return
		case pos[0] == "iam" && c.has("create-cred-config"):
			x.exchanges = append(x.exchanges, exchange{res: Resource{"cloud/gcp", firstOf(lastPool(pos), "")}, via: via})
			return
		case pos[0] == "secrets":
			if c.has("access") {
				name, ok := c.option("--secret")
				if !ok && len(pos) > 3 {
					name = pos[len(pos)-1]
				}
				x.fetched = append(x.fetched, fetched{name: name, source: "gcp-secret-manager", res: Resource{"secrets-manager/gcp", name}, family: "gcp"})
			}
			return
		case pos[0] == "kms" && c.has("decrypt"):
			x.acts("gcp", "kms/gcp", "", via)
			return
		case pos[0] == "config", pos[0] == "components", pos[0] == "version", pos[0] == "info", pos[0] == "auth" && c.has("list", "revoke"), pos[0] == "--version":
			return
		}
	}
	name := ""
	if v, ok := c.option("--project", "--project_id"); ok && !strings.HasPrefix(v, "-") {
		name = v
	}
	for _, w := range c.words {
		if strings.HasPrefix(w, "gs://") {
			name, _, _ = strings.Cut(strings.TrimPrefix(w, "gs://"), "/")
			name = "gs://" + name
			break
		}
	}
	x.acts("gcp", "cloud/gcp", name, via)
}

// lastPool gives the workload identity provider among the words of a command.
func lastPool(words []string) string {
	for _, w := range words {
		if strings.Contains(w, "workloadIdentityPools") {
			return w
		}
	}
	return ""
}

// readAz reads the Azure command line.
func readAz(c *command, x *consumption) {
	pos := c.positional(1)
	if len(pos) == 0 {
		return
	}
	via := "az " + pos[0]
	x.tool = use{res: Resource{"cloud/azure", ""}, via: via}
	switch {
	case pos[0] == "login":
		if v, ok := c.option("--federated-token"); ok {
			x.exchanges = append(x.exchanges, exchange{res: Resource{"cloud/azure", ""}, token: v, via: "az login --federated-token"})
		} else if v, ok := c.option("-p", "--password"); ok {
			x.secret(v, "cloud/azure", "", "az login")
		} else if c.has("--identity") {
			x.acts("azure", "cloud/azure", "", "az login --identity")
		}
		for _, o := range []string{"-u", "--username", "-t", "--tenant"} {
			if v, ok := c.option(o); ok {
				x.label(v, "cloud/azure", "", "az login")
			}
		}
	case pos[0] == "acr" && c.has("login"):
		name, _ := c.option("-n", "--name")
		if v, ok := c.option("-p", "--password"); ok {
			x.secret(v, "registry/acr", name, via)
			if u, ok := c.option("-u", "--username"); ok {
				x.label(u, "registry/acr", name, via)
			}
			return
		}
		x.acts("azure", "registry/acr", name, via)
	case pos[0] == "keyvault" && c.has("secret") && c.has("show", "download"):
		vault, _ := c.option("--vault-name")
		name, _ := c.option("-n", "--name")
		x.fetched = append(x.fetched, fetched{name: name, source: "azure-key-vault:" + vault, res: Resource{"secrets-manager/azure-key-vault", vault}, family: "azure"})
	case pos[0] == "devops", pos[0] == "pipelines", pos[0] == "repos", pos[0] == "boards", pos[0] == "artifacts":
		x.tool = use{res: Resource{"vcs/azure-devops", ""}, via: via}
	case pos[0] == "extension", pos[0] == "version", pos[0] == "--version", pos[0] == "config", pos[0] == "configure", pos[0] == "bicep":
	default:
		if v, ok := c.option("--account-key", "--sas-token", "--connection-string"); ok {
			x.secret(v, "cloud/azure", "storage", via)
			return
		}
		x.acts("azure", "cloud/azure", "", via)
	}
}

// readKubectl reads kubectl and the tools around it.
func readKubectl(c *command, x *consumption) {
	tool := c.name()
	res := Resource{"k8s/cluster", ""}
	if tool == "argocd" {
		res = Resource{"k8s/argocd", ""}
	}
	if v, ok := c.option("--server"); ok {
		res.Name = v
	}
	if c.has("login") {
		for _, w := range c.positional(2, "--username", "--password", "-u", "-p", "--token", "--server", "--auth-token") {
			if strings.Contains(w, ".") || strings.HasPrefix(w, "$") {
				res.Name = w
			}
		}
	}
	x.tool = use{res: res, via: tool}
	if c.arg(1) == "create" && c.arg(2) == "secret" { // what is stored is for something else
		x.tool.guess = true
		stored(c, x)
	} else {
		options(c, x, res)
	}
	if v, ok := c.option("-u", "--username"); ok {
		x.label(v, res.Kind, res.Name, tool+" login")
	}
	if tool == "kustomize" || c.has("--dry-run=client") && c.has("create") && !c.has("apply") {
		return
	}
	switch c.arg(1) {
	case "version", "config", "completion", "kustomize", "template", "help":
		if c.arg(1) == "config" && c.has("use-context", "set-context") {
			x.acts("k8s-context", res.Kind, wordAfter(c, "use-context", "set-context"), tool+" config use-context")
		}
		return
	}
	if name := kubeSecret(c); name != "" {
		x.fetched = append(x.fetched, fetched{name: name, source: "kubernetes", res: res, family: "k8s"})
	}
	x.acts("k8s", res.Kind, res.Name, tool+" "+c.arg(1))
}

// stored reads the login to a registry that becomes a secret of a cluster.
func stored(c *command, x *consumption) {
	host, _ := c.option("--docker-server")
	if v, ok := c.option("--docker-username"); ok {
		x.label(v, "registry/container", host, "kubectl create secret")
	}
	if v, ok := c.option("--docker-password"); ok {
		x.secret(v, "registry/container", host, "kubectl create secret")
	}
}

func lastWord(c *command) string { return c.arg(len(c.words) - 1) }

// wordAfter gives the word behind the first of the given words.
func wordAfter(c *command, words ...string) string {
	for i, w := range c.words {
		for _, x := range words {
			if w == x {
				return c.arg(i + 1)
			}
		}
	}
	return ""
}

// readVault reads logins and reads of Vault and OpenBao.
func readVault(c *command, x *consumption) {
	via := "vault " + c.arg(1)
	x.tool = use{res: Resource{"secrets-manager/vault", ""}, via: via}
	switch {
	case c.arg(1) == "login" || c.arg(1) == "write" && strings.Contains(c.text(), "/login"):
		method, _ := c.option("-method")
		if method == "" && c.arg(1) == "write" {
			path := c.positional(2)
			if len(path) > 0 {
				method = strings.TrimPrefix(path[0], "auth/")
			}
		}
		for _, w := range c.words[1:] {
			k, v, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
			switch k {
			case "jwt":
				x.exchanges = append(x.exchanges, exchange{res: Resource{"secrets-manager/vault", ""}, token: v, via: via})
			case "role_id", "secret_id", "token", "password":
				x.secret(v, "secrets-manager/vault", "", via)
			case "username", "role":
				x.label(v, "secrets-manager/vault", "", via)
			}
		}
		if pos := c.positional(2); c.arg(1) == "login" && len(pos) > 0 && strings.HasPrefix(pos[0], "$") {
			x.secret(pos[0], "secrets-manager/vault", "", via)
		}
		if method == "kubernetes" || method == "aws" || method == "gcp" {
			x.acts("ambient", "secrets-manager/vault", "", via)
		}
	case c.arg(1) == "kv" && c.has("get"), c.arg(1) == "read":
		pos := c.positional(2, "-field", "-mount", "-format")
		if len(pos) > 0 {
			name := pos[len(pos)-1]
			x.fetched = append(x.fetched, fetched{name: name, source: "vault", res: Resource{"secrets-manager/vault", name}, family: "vault"})
		}
	}
}

// readCosign reads signatures: with a key, or keyless with an identity token.
func readCosign(c *command, x *consumption) {
	if c.has("login") {
		registryLogin(c, x, "cosign login")
		return
	}
	if !c.has("sign", "sign-blob", "attest", "attest-blob") {
		return
	}
	if v, ok := c.option("--key"); ok {
		x.secret(strings.Replace(v, "env://", "$", 1), "signing/sigstore", "", "cosign "+c.arg(1))
		return
	}
	x.acts("sigstore", "signing/sigstore", "fulcio.sigstore.dev", "cosign "+c.arg(1))
}

// readBuildkiteAgent reads secrets and identity tokens of Buildkite.
func readBuildkiteAgent(c *command, x *consumption) {
	switch {
	case c.arg(1) == "secret" && c.arg(2) == "get":
		for _, name := range c.positional(3, "--format", "--job") {
			x.fetched = append(x.fetched, fetched{name: name, source: "", res: Resource{"secrets-manager/buildkite", name}, family: "buildkite"})
		}
	case c.arg(1) == "oidc" && c.arg(2) == "request-token":
		aud, _ := c.option("--audience")
		res := Resource{"oidc/issuer", aud}
		if strings.Contains(aud, "amazonaws") {
			res.Kind = "cloud/aws"
		} else if strings.Contains(aud, "googleapis") {
			res.Kind = "cloud/gcp"
		} else if strings.Contains(aud, "packages.buildkite.com") {
			res.Kind = "registry/buildkite-packages"
		}
		x.exchanges = append(x.exchanges, exchange{res: res, via: "buildkite-agent oidc request-token"})
	}
}

// readOp reads values from 1Password.
func readOp(c *command, x *consumption) {
	for _, w := range c.words {
		if strings.HasPrefix(w, "op://") {
			x.fetched = append(x.fetched, fetched{name: w, source: "1password", res: Resource{"secrets-manager/1password", ""}, family: "1password"})
		}
	}
	x.tool = use{res: Resource{"secrets-manager/1password", ""}, via: "op"}
	options(c, x, x.tool.res)
}

// readProviso reads requests to Proviso: the job's identity for a grant.
func readProviso(c *command, x *consumption) {
	if c.arg(1) != "token" && c.arg(1) != "exec" {
		return
	}
	grant, _ := c.option("--grant")
	x.exchanges = append(x.exchanges, exchange{res: Resource{"broker/proviso", grant}, via: "proviso " + c.arg(1)})
}
