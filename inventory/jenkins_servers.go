package inventory

import "strings"

// Steps that name a server of the controller's configuration: where it is, and
// the credential for it, are written there.

// jkServerKeys are the arguments that name such a server.
var jkServerKeys = []string{"serverId", "nexusInstanceId", "iqInstanceId", "configName"}

// jkServer reads a step that reaches a configured server.
func jkServer(f *jkFile, c *gCall, ctx jkCtx) {
	res := Resource{"registry/artifactory", ""}
	switch {
	case c.name == "nexusPolicyEvaluation":
		res.Kind = "scan/nexus-iq"
	case strings.HasPrefix(c.name, "nexus"):
		res.Kind = "registry/nexus"
	}
	id := gValue{}
	if c.name == "Artifactory.server" {
		id = positional(c, 0)
	}
	for _, key := range jkServerKeys {
		if v := named(c, key); v.isStr || v.ident != "" {
			id = v
		}
	}
	f.server(id, c, ctx, res)
	f.arguments(c, ctx)
	f.nestedCalls(c, ctx)
	f.block(c.body, ctx)
}

// server records the connection that an argument names.
func (f *jkFile) server(id gValue, c *gCall, ctx jkCtx, res Resource) {
	if !id.isStr && id.ident == "" {
		return
	}
	line := c.line
	if id.line > 0 {
		line = id.line
	}
	names := f.ids(id)
	if len(names) == 0 {
		names = []string{firstOf(id.str, id.ident)}
	}
	for _, name := range names {
		f.r.connection(ctx.place(), line, name, use{res: res}, c.name)
	}
}

// jkSSHPublisher reads the servers that files are published to.
func jkSSHPublisher(f *jkFile, c *gCall, ctx jkCtx) {
	var walk func(args []gArg, depth int)
	walk = func(args []gArg, depth int) {
		for _, a := range args {
			if a.key == "configName" {
				f.server(a.val, c, ctx, Resource{"ssh/host", firstOf(a.val.str, unknown)})
			}
			if depth < 8 {
				walk(a.val.list, depth+1)
				if a.val.call != nil {
					walk(a.val.call.args, depth+1)
				}
			}
		}
	}
	walk(c.args, 0)
}
