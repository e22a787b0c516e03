package inventory

import (
	"regexp"
	"strings"
)

// readAzModule reads the cmdlets of Azure PowerShell that hand out a secret.
func readAzModule(c *command, x *consumption) {
	option := func(want string) string {
		for i, w := range c.words {
			if strings.EqualFold(w, want) {
				return c.arg(i + 1)
			}
		}
		return ""
	}
	vault, name := option("-VaultName"), option("-Name")
	x.fetched = append(x.fetched, fetched{name: name, source: "azure-key-vault:" + vault, res: Resource{"secrets-manager/azure-key-vault", vault}, family: "azure"})
}

// readCircleCLI reads CircleCI's own command line, which asks for an identity token with an audience of one's own.
func readCircleCLI(c *command, x *consumption) {
	if c.has("oidc") && c.has("get") {
		claims, _ := c.option("--claims")
		aud := ""
		if m := audienceClaim.FindStringSubmatch(claims); m != nil {
			aud = m[1]
		}
		x.exchanges = append(x.exchanges, exchange{res: audienceResource(aud), via: "circleci run oidc get"})
		return
	}
	genericTool(c, x, Resource{"platform/circleci", "circleci.com"})
}

var audienceClaim = regexp.MustCompile(`"aud"\s*:\s*\[?\s*"([^"]+)"`)

// kubeSecret gives the name of the secret whose value a command prints: kubectl get secret NAME -o jsonpath=...
func kubeSecret(c *command) string {
	out, ok := c.option("-o", "--output", "-ojsonpath", "--template")
	if !ok || out == "name" || out == "wide" || c.arg(1) != "get" && !c.has("get") {
		return ""
	}
	for i, w := range c.words {
		if w == "secret" || w == "secrets" {
			if name := c.arg(i + 1); name != "" && !strings.HasPrefix(name, "-") {
				return name
			}
		}
		if name, ok := strings.CutPrefix(w, "secret/"); ok {
			return name
		}
	}
	return ""
}
