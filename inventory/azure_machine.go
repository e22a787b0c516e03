package inventory

import (
	"regexp"
	"strings"
)

var (
	azLoop  = regexp.MustCompile(`each\s+(\w+)\s+in\s+parameters\.(\w+)`)
	azOfOne = regexp.MustCompile(`^\$\{\{\s*(\w+)\.(\w+)\s*\}\}$`)
)

// eachPool records the pools of a job that a loop makes for every entry of a
// parameter: the pool is what an entry says. false when the name is no such thing.
func (f *azFile) eachPool(name string, n *node, c *azCtx) bool {
	of := azOfOne.FindStringSubmatch(name)
	if of == nil {
		return false
	}
	for _, loop := range azLoop.FindAllStringSubmatch(c.each, -1) {
		if loop[1] != of[1] {
			continue
		}
		found := false
		for item := range f.r.items(f.params[loop[2]]) {
			pool := f.r.str(f.r.get(item, of[2]))
			if pool == "" || azHostedPool.MatchString(pool) {
				continue
			}
			found = true
			c.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{pool}}
			f.r.ambient(c.at(""), n.Line, pool, use{res: Resource{"runner/pool", pool}}, "pool")
		}
		return found
	}
	return false
}

// machineOf reads the environment of a deployment: one with virtual machines
// runs the job on them, which are the owner's and may have an identity.
func (f *azFile) machineOf(env *node, c *azCtx) {
	if !strings.EqualFold(f.r.str(f.r.get(env, "resourceType")), "virtualMachine") {
		return
	}
	name := f.text(f.r.str(f.r.get(env, "name")))
	if name == "" {
		return
	}
	c.runner = Runner{Kind: RunnerSelfHosted, Labels: []string{name}}
	c.onMachine = true
	f.r.ambient(c.at(""), env.Line, name, use{res: Resource{"runner/self-hosted", name}}, "environment")
}
