package inventory

import (
	"regexp"
	"strings"
)

var (
	headerAuth = regexp.MustCompile(`(?i)(authorization|private-token|job-token|deploy-token|x-api-key|x-auth|circle-token|api-key|apikey|x-jfrog|x-vault-token|x-gitlab-token|dd-api-key|x-nuget-apikey|token)\s*[:=]`)
	urlWord    = regexp.MustCompile(`https?://[^\s'"]+`)
	nameWord   = regexp.MustCompile(`(?i)^[a-z][a-z0-9_]*(_ID|_NAME|_URL|_HOST)$`)
)

// curlSwitch matches options of curl and wget that take no value.
var curlSwitch = regexp.MustCompile(`^(-[fsSLkvgiIq]+|--(fail|silent|show-error|location|insecure|compressed|fail-with-body|verbose|quiet))$`)

// readCurl reads HTTP clients: the credential from -u and headers, the resource from the URL.
func readCurl(c *command, x *consumption) {
	res := Resource{"http/api", ""}
	for _, w := range c.words[1:] {
		if strings.HasPrefix(w, "http://") || strings.HasPrefix(w, "https://") {
			res = hostResource(w)
			if !strings.Contains(res.Name, "@") {
				break
			}
		}
	}
	if res.Name == "" {
		for _, w := range c.positional(1, "-H", "--header", "-d", "--data", "-X", "-o", "-u", "-F", "--user", "--request", "-T", "--upload-file", "--data-binary", "--output") {
			if strings.HasPrefix(w, "$") {
				res.Name = w
				host, _, _ := strings.Cut(w, "/")
				if r, ok := platformHost(host); ok {
					res = r
				} else if r := hostResource("https://" + w); r.Kind != "http/api" {
					res = r // the path tells what the host doesn't
				}
			}
		}
	}
	tool := c.name()
	x.tool = use{res: res, via: tool}
	for i := 1; i < len(c.words); i++ {
		w := c.words[i]
		switch {
		case w == "-u" || w == "--user" || strings.HasPrefix(w, "-u") && strings.Contains(w, "$"):
			v := strings.TrimPrefix(w, "-u")
			if w == "-u" || w == "--user" {
				v = c.arg(i + 1)
			}
			user, pass, two := cutUser(v)
			if two {
				x.label(user, res.Kind, res.Name, tool+" -u")
				x.secret(pass, res.Kind, res.Name, tool+" -u")
			} else {
				x.secret(v, res.Kind, res.Name, tool+" -u")
			}
		case w == "-H" || w == "--header" || w == "-Headers":
			if h := c.arg(i + 1); headerAuth.MatchString(h) {
				x.secret(h, res.Kind, res.Name, tool+" header")
			}
		case w == "--oauth2-bearer" || w == "--http-password" || w == "--password" || w == "-Token":
			x.secret(c.arg(i+1), res.Kind, res.Name, tool+" "+w)
		case strings.HasPrefix(w, "--header="), strings.HasPrefix(w, "--http-password="):
			x.secret(w, res.Kind, res.Name, tool+" header")
		case strings.Contains(w, "ACTIONS_ID_TOKEN_REQUEST_URL"):
			aud := ""
			if _, a, ok := strings.Cut(w, "audience="); ok {
				aud = a
			}
			x.exchanges = append(x.exchanges, exchange{res: Resource{"oidc/issuer", aud}, via: tool + " ACTIONS_ID_TOKEN_REQUEST_URL"})
		case strings.Contains(w, "auth/jwt/login"):
			x.exchanges = append(x.exchanges, exchange{res: Resource{"secrets-manager/vault", res.Name}, token: inputOf(c), via: tool})
		case strings.HasPrefix(w, "$") && webhookName(w) && (!strings.HasPrefix(c.words[i-1], "-") || curlSwitch.MatchString(c.words[i-1])):
			u := use{res: Resource{"notify/chat", ""}}
			if named := envUse(strings.Trim(w, "${}")); strings.HasPrefix(named.res.Kind, "notify/") {
				u = named
			}
			x.secret(w, u.res.Kind, u.res.Name, tool+" webhook")
		}
	}
}

// cutUser cuts user:password, with ${A}:${B} in mind.
func cutUser(s string) (user, pass string, ok bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '{', '(':
			depth++
		case '}', ')':
			depth--
		case ':':
			if depth == 0 {
				return s[:i], s[i+1:], true
			}
		}
	}
	return s, "", false
}

func webhookName(w string) bool {
	up := strings.ToUpper(w)
	return strings.Contains(up, "WEBHOOK") || strings.Contains(up, "SLACK") || strings.Contains(up, "HOOK_URL")
}

// gitSetting is the end of a setting's name that has an address inside: credential.https://HOST.username.
var gitSetting = regexp.MustCompile(`(?i)\.(username|helper|usehttppath|extraheader|(push)?insteadof)(=.*)?$`)

// readGit reads clones, pushes and configuration with credentials in URLs or headers.
func readGit(c *command, x *consumption) {
	res := Resource{"vcs/git", ""}
	for _, w := range c.words[1:] {
		if m := urlWord.FindString(w); m != "" {
			if r := hostResource(gitSetting.ReplaceAllString(m, "")); r.Kind != "http/api" {
				res = r
			} else {
				res = Resource{"vcs/git", r.Name}
			}
			break
		}
		if strings.HasPrefix(w, "git@") {
			host, path, _ := strings.Cut(strings.TrimPrefix(w, "git@"), ":")
			res = Resource{"ssh/host-or-git", host + "/" + strings.TrimSuffix(path, ".git")}
		}
	}
	x.tool = use{res: res, via: "git"}
	for i, w := range c.words {
		if strings.Contains(strings.ToLower(w), "extraheader") {
			v := w
			if !strings.Contains(w, "$") {
				v = c.arg(i + 1)
			}
			x.secret(v, res.Kind, res.Name, "git http.extraheader")
		}
	}
	if c.has("push") {
		x.actors = append(x.actors, actor{family: "git", res: res, via: "git push"})
	}
	if strings.HasPrefix(res.Kind, "ssh/") && c.has("clone", "push", "fetch", "pull", "ls-remote") {
		x.actors = append(x.actors, actor{family: "ssh", res: res, via: "git " + c.arg(1)})
	}
	for _, w := range c.words {
		if strings.Contains(w, "codecommit") && strings.Contains(w, "credential-helper") {
			x.acts("aws", "vcs/codecommit", "", "git credential helper")
		}
	}
	if c.has("user.email", "user.name") {
		x.label(lastWord(c), res.Kind, "", "git config")
	}
	if c.arg(1) == "ftp" || c.arg(1) == "config" && strings.Contains(c.text(), "git-ftp.") {
		readGitFTP(c, x)
	}
	if c.has("user.signingkey") {
		x.label(lastWord(c), "signing/gpg", "", "git config")
	}
}

// readGitFTP reads git-ftp, by its options or by the settings that it takes.
func readGitFTP(c *command, x *consumption) {
	for i, w := range c.words {
		switch {
		case w == "-u", w == "--user", strings.HasSuffix(w, "git-ftp.user"):
			x.label(c.arg(i+1), "ssh/host", "ftp", "git ftp")
		case w == "-p", w == "--passwd", strings.HasSuffix(w, "git-ftp.password"):
			x.secret(c.arg(i+1), "ssh/host", "ftp", "git ftp")
		}
	}
}

// readGh reads the GitHub command line, which takes GH_TOKEN from its environment.
func readGh(c *command, x *consumption) {
	x.tool = use{res: Resource{"vcs/github", ""}, via: c.name()}
	if c.arg(1) == "auth" && c.has("--with-token") {
		x.secret(inputOf(c), "vcs/github", "", "gh auth login")
		return
	}
	if c.arg(1) == "secret" {
		return
	}
	x.actors = append(x.actors, actor{family: "github", res: Resource{"vcs/github", ""}, via: c.name() + " " + c.arg(1)})
}

// readNpm reads publishing and registry configuration.
func readNpm(c *command, x *consumption) {
	res := Resource{"registry/npm", "registry.npmjs.org"}
	if v, ok := c.option("--registry"); ok && strings.Contains(v, "://") {
		res.Name = hostResource(v).Name
	}
	tool := c.name()
	for _, w := range c.words[1:] {
		low := strings.ToLower(w)
		if strings.Contains(low, "authtoken") || strings.Contains(low, "_auth") || strings.Contains(low, "_password") {
			if m := npmHost.FindStringSubmatch(w); m != nil {
				res.Name = m[1]
			}
			v := w
			if !strings.Contains(w, "$") {
				v = lastWord(c)
			}
			x.secret(v, res.Kind, res.Name, tool+" config")
		}
	}
	options(c, x, res)
	text := c.text()
	switch {
	case c.has("publish", "dist-tag", "unpublish", "deprecate"), strings.Contains(text, "changeset publish"), strings.Contains(text, "lerna publish"):
		x.actors = append(x.actors, actor{family: "npm", res: res, via: tool + " publish"})
		if c.has("--provenance") {
			x.actors = append(x.actors, actor{family: "provenance", res: Resource{"signing/sigstore", "npm provenance"}, via: tool + " publish --provenance"})
		}
	case strings.Contains(text, "semantic-release"):
		x.actors = append(x.actors, actor{family: "github", res: Resource{"vcs/github", ""}, via: "semantic-release"})
		x.actors = append(x.actors, actor{family: "npm-token", res: res, via: "semantic-release"})
	}
}

// readPython reads uploads to package indexes and indexes with credentials.
func readPython(c *command, x *consumption) {
	tool := c.name()
	if (tool == "python" || tool == "python3") && c.arg(1) == "-m" {
		sub := *c
		sub.words = c.words[2:]
		if len(sub.words) > 0 && sub.words[0] != "python" && sub.words[0] != "python3" {
			if read, ok := commandReaders[sub.words[0]]; ok {
				read(&sub, x)
			}
		}
		return
	}
	if tool == "uv" && c.arg(1) == "run" || tool == "poetry" && c.arg(1) == "run" || tool == "uvx" {
		sub := *c
		sub.words = c.words[2:]
		if len(sub.words) > 0 && sub.words[0] != tool {
			if read, ok := commandReaders[sub.words[0]]; ok {
				read(&sub, x)
			}
		}
		return
	}
	res := Resource{"registry/pypi", "pypi.org"}
	if v, ok := c.option("--repository-url", "--publish-url", "--repository", "-r"); ok {
		switch {
		case strings.Contains(v, "://"):
			res.Name = hostResource(v).Name
		case strings.Contains(v, "test"):
			res.Name = "test.pypi.org"
		case v != "" && !strings.HasPrefix(v, "-"):
			res.Name = v
		}
	}
	if !c.has("upload", "publish", "config") {
		return
	}
	if c.has("config") {
		for _, w := range c.words[2:] {
			if strings.HasPrefix(w, "pypi-token.") || strings.HasPrefix(w, "http-basic.") {
				pos := c.positional(2)
				x.secret(pos[len(pos)-1], res.Kind, res.Name, tool+" config")
				if strings.HasPrefix(w, "http-basic.") && len(pos) > 2 {
					x.label(pos[1], res.Kind, res.Name, tool+" config")
				}
				return
			}
		}
		return
	}
	if v, ok := c.option("-u", "--username", "--user"); ok {
		x.label(v, res.Kind, res.Name, tool)
	}
	if v, ok := c.option("-p", "--password", "--token", "-t"); ok {
		x.secret(v, res.Kind, res.Name, tool)
		return
	}
	x.actors = append(x.actors, actor{family: "pypi", res: res, via: tool + " upload"})
}

// readNuget reads pushes and sources.
func readNuget(c *command, x *consumption) {
	if c.arg(1) == "ef" || c.name() == "dotnet-ef" {
		if v, ok := c.option("--connection"); ok {
			x.secret(v, "database", "", "dotnet ef")
		}
		return
	}
	if !c.has("nuget", "push", "source", "sources", "add") && c.name() != "nuget" {
		if v, ok := c.option("/d:sonar.login", "/d:sonar.token"); ok {
			x.secret(v, "scan/sonar", "", "dotnet sonarscanner")
		}
		if c.arg(1) == "sonarscanner" || c.arg(1) == "sonar" {
			for _, w := range c.words {
				if strings.Contains(w, "sonar.login") || strings.Contains(w, "sonar.token") {
					x.secret(w, "scan/sonar", "", "dotnet sonarscanner")
				}
			}
		}
		return
	}
	res := Resource{"registry/nuget", "nuget.org"}
	if v, ok := c.option("--source", "-s", "-Source", "-source"); ok && v != "" {
		res.Name = v
		if strings.Contains(v, "://") {
			res.Name = hostResource(v).Name
		}
	}
	if v, ok := c.option("--api-key", "-k", "-ApiKey", "-apikey", "-Password", "--password", "-p", "--store-password-in-clear-text"); ok {
		x.secret(v, res.Kind, res.Name, c.name()+" push")
		if u, ok := c.option("--username", "-u", "-UserName", "-username"); ok {
			x.label(u, res.Kind, res.Name, c.name()+" source")
		}
		return
	}
	if c.has("push") {
		x.actors = append(x.actors, actor{family: "nuget", res: res, via: c.name() + " push"})
	}
}

// readCargo reads cargo and gem.
func readCargo(c *command, x *consumption) {
	kind, name := "registry/crates.io", "crates.io"
	if c.name() == "gem" {
		kind, name = "registry/rubygems", "rubygems.org"
	}
	if v, ok := c.option("--token", "--key"); ok {
		x.secret(v, kind, name, c.name())
		return
	}
	if pos := c.positional(2); c.arg(1) == "login" && len(pos) > 0 {
		x.secret(pos[0], kind, name, c.name()+" login")
		return
	}
	if c.has("publish", "push", "release", "yank") {
		x.actors = append(x.actors, actor{family: c.name(), res: Resource{kind, name}, via: c.name() + " publish"})
	}
}

var mavenProperty = regexp.MustCompile(`maven|sonatype|ossrh|nexus|central|artifactory|bintray|repo`)

// androidKey matches the properties by which Gradle gets the passwords of a keystore and of the key in it.
var androidKey = regexp.MustCompile(`(^|[^a-z])(key|store|upload|release)_?(key|store)?_?(password|alias)$`)

// readMaven reads properties that carry credentials.
func readMaven(c *command, x *consumption) {
	res := Resource{"registry/maven", ""}
	for _, w := range c.words[1:] {
		if !strings.HasPrefix(w, "-D") && !strings.HasPrefix(w, "-P") || !strings.Contains(w, "$") {
			continue
		}
		key, val, ok := strings.Cut(w[2:], "=")
		if !ok || isFileName(val, strings.IndexByte(val, '$')) {
			continue
		}
		r := envUse(key).res // a property is named for its consumer, if at all
		low := strings.ToLower(key)
		switch {
		case mavenProperty.MatchString(low):
			r = res
		case strings.HasPrefix(low, "sonar"):
			r = Resource{"scan/sonar", ""}
			if low == "sonar.login" {
				x.secret(val, r.Kind, r.Name, c.name())
				continue
			}
		case strings.Contains(low, "injected.signing"), androidKey.MatchString(low):
			r = Resource{"signing/key", "keystore"}
		case low == "gpg.keyname", low == "signing.keyid":
			x.label(val, "signing/gpg", "", c.name()+" -D"+key)
			continue
		case strings.Contains(low, "gpg"), strings.Contains(low, "signing"):
			r = Resource{"signing/gpg", ""}
		case strings.Contains(low, "docker"), strings.Contains(low, "jib"):
			r = Resource{"registry/container", ""}
		case strings.Contains(low, "gradle.publish"):
			r = Resource{"registry/gradle-plugins", "plugins.gradle.org"}
		}
		switch natureOf(key) {
		case NatureCredential:
			x.secret(val, r.Kind, r.Name, c.name()+" -D"+key)
		case NatureIdentifier:
			if !strings.HasSuffix(low, "url") && !strings.HasSuffix(low, "host") {
				x.label(val, r.Kind, r.Name, c.name()+" -D"+key)
			}
		}
	}
	for _, w := range c.words[1:] {
		if w == "deploy" || strings.HasPrefix(w, "publish") || strings.Contains(w, ":publish") || w == "release:perform" || strings.HasSuffix(w, ":deploy") {
			x.actors = append(x.actors, actor{family: "maven", res: res, via: c.name() + " " + w})
			return
		}
	}
}

// readSSH reads keys, passwords and targets of SSH.
func readSSH(c *command, x *consumption) {
	res := Resource{"ssh/host", ""}
	for _, w := range c.words[1:] {
		if i := strings.Index(w, "@"); i > 0 && !strings.HasPrefix(w, "-") {
			host, _, _ := strings.Cut(w[i+1:], ":")
			res.Name = host
			if strings.HasPrefix(w, "$") {
				x.label(w[:i], res.Kind, host, c.name())
			}
			x.label(host, res.Kind, host, c.name())
			break
		}
	}
	switch c.name() {
	case "ssh-keyscan":
		for _, w := range c.positional(1, "-t", "-p", "-T", "-f") {
			x.label(w, res.Kind, w, "ssh-keyscan")
		}
		return
	case "ssh-add":
		res = Resource{"ssh/host-or-git", ""}
		x.secret(inputOf(c), res.Kind, "", "ssh-add")
		for _, w := range c.positional(1, "-t") {
			x.secret(w, res.Kind, "", "ssh-add")
		}
		return
	case "sshpass":
		if v, ok := c.option("-p"); ok {
			x.secret(v, res.Kind, res.Name, "sshpass")
		} else if c.has("-e") {
			x.secret("$SSHPASS", res.Kind, res.Name, "sshpass")
		}
	case "lftp":
		if v, ok := c.option("-u"); ok {
			user, pass, _ := strings.Cut(v, ",")
			x.label(user, res.Kind, res.Name, "lftp")
			x.secret(pass, res.Kind, res.Name, "lftp")
		}
	}
	if v, ok := c.option("-i"); ok {
		x.secret(v, res.Kind, res.Name, c.name()+" -i")
	}
	if key, given := c.option("-i"); res.Name != "" && (!given || strings.Contains(key, ".ssh/id_")) && c.name() != "sshpass" {
		x.actors = append(x.actors, actor{family: "ssh", res: res, via: c.name()})
	}
}

// readGPG reads imports and passphrases.
func readGPG(c *command, x *consumption) {
	if c.has("--import", "--allow-secret-key-import", "--decrypt", "-d", "--sign", "--detach-sign", "--armor") || strings.Contains(c.text(), "passphrase") {
		x.secret(inputOf(c), "signing/gpg", "", "gpg")
	}
	if v, ok := c.option("--passphrase"); ok {
		x.secret(v, "signing/gpg", "", "gpg --passphrase")
	}
	for _, o := range []string{"-u", "--local-user", "--default-key", "--recipient", "-r"} {
		if v, ok := c.option(o); ok {
			x.label(v, "signing/gpg", "", "gpg "+o)
		}
	}
}

// readDatabase reads database clients. A password for localhost is a test database's.
func readDatabase(c *command, x *consumption) {
	res := Resource{"database", ""}
	if v, ok := c.option("-h", "--host", "-H", "-S", "-ServerInstance"); ok {
		res.Name = v
	}
	if res.Name == "localhost" || res.Name == "127.0.0.1" {
		return
	}
	x.tool = use{res: res, via: c.name()}
	for _, w := range c.words[1:] {
		low := strings.ToLower(w)
		switch {
		case strings.HasPrefix(w, "-p$") || strings.HasPrefix(low, "--password=") || strings.HasPrefix(low, "-password="):
			x.secret(w, res.Kind, res.Name, c.name())
		case strings.HasPrefix(w, "$") && (strings.Contains(low, "url") || strings.Contains(low, "uri") || strings.Contains(low, "dsn") || strings.Contains(low, "connection")):
			x.secret(w, res.Kind, res.Name, c.name())
		}
	}
	if v, ok := c.option("-P", "-a", "--password", "-Password"); ok && c.name() != "mysql" {
		x.secret(v, res.Kind, res.Name, c.name())
	}
	if v, ok := c.option("-u", "-U", "--user", "--username"); ok {
		x.label(v, res.Kind, res.Name, c.name())
	}
}

// readTerraform reads backends and variables of infrastructure tools.
func readTerraform(c *command, x *consumption) {
	res := Resource{"iac/terraform", ""}
	if c.name() == "pulumi" {
		res = Resource{"iac/pulumi-cloud", ""}
	}
	x.tool = use{res: res, via: c.name()}
	for _, w := range c.words[1:] {
		if !strings.Contains(w, "=") || !strings.ContainsAny(w, "$") {
			continue
		}
		body := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(w, "-backend-config="), "-var="), "-var")
		key, val, ok := strings.Cut(body, "=")
		if !ok {
			continue
		}
		switch natureOf(key) {
		case NatureCredential:
			x.secret(val, res.Kind, "", c.name()+" "+key)
		case NatureIdentifier:
			if nameWord.MatchString(key) {
				x.label(val, res.Kind, "", c.name()+" "+key)
			}
		}
	}
	if strings.HasPrefix(c.name(), "gitlab-") {
		x.secret("$CI_JOB_TOKEN", "vcs/gitlab", "", c.name()) // the state is GitLab's, and the job's token opens it
	}
	switch c.arg(1) {
	case "apply", "plan", "destroy", "import", "refresh", "up", "preview", "init", "run-all", "state", "output", "workspace":
		x.actors = append(x.actors, actor{family: "iac", res: res, via: c.name() + " " + c.arg(1)})
	}
}
