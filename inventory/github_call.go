package inventory

import (
	"path"
	"strings"
)

// callPart keeps what a job passes to a reusable workflow apart from what it holds itself.
const callPart = "call"

// readCall reads a job that calls a reusable workflow: one path per secret that is passed.
func (j *ghJob) readCall(uses *node) {
	r := j.w.r
	target := r.str(uses)
	res := Resource{"reusable-workflow", "reusable workflow " + target}
	j.linkCall(target, uses.Line)
	secrets := r.get(j.node, "secrets")
	if r.isScalar(secrets) && strings.EqualFold(r.str(secrets), "inherit") {
		r.static(j.placeFor(StaticSecret, nil), secrets.Line, "*", use{res: res}, "secrets: inherit")
	} else {
		for k, v := range r.pairs(secrets) {
			for _, ref := range j.w.refsIn(r.str(v), false, j.matrix) {
				u := use{res: res, nature: firstNature(natureOf(ref.name), natureOf(k.Value))}
				at := j.placeFor(StaticSecret, nil)
				line := r.lineOf(v, ref.offset, ref.name)
				switch ref.kind {
				case refSecret, refAll, refDynamic:
					r.static(at, line, ref.name, u, "secrets: "+k.Value)
				case refToken:
					at = j.placeFor(PlatformToken, nil)
					at.part = callPart
					r.platform(at, line, tokenName, u, "secrets: "+k.Value).Permission = j.scopes()
				}
			}
		}
	}
	for k, v := range r.pairs(r.get(j.node, "with")) {
		j.refs(nil, v, "with: "+k.Value, use{res: res, nature: natureOf(k.Value)}, false)
	}
	row := findAction(target)
	if j.idToken == yes {
		if row != nil && row.known {
			res = row.res
		}
		j.w.r.federated(j.placeFor(Federated, nil), uses.Line, j.issuer(), use{res: res}, "permissions: id-token")
		j.federated = true
	}
}

func firstNature(n ...Nature) Nature {
	for _, x := range n {
		if x != "" {
			return x
		}
	}
	return ""
}

// linkCall resolves a call inside of the tree, or records that it leads out of it.
func (j *ghJob) linkCall(target string, line int) {
	r := j.w.r
	if local, ok := localTarget(target); ok {
		file := path.Join(r.src.repo, local)
		if r.tree.has(file) {
			r.link.Calls = append(r.link.Calls, callLink{Callee: file, Reach: j.expo.byKind(), Scopes: j.scopes()})
			return
		}
	}
	r.open(j.at, line, "reusable workflow", target, "the called workflow is not in the scanned tree: what it does with the secrets, and the permissions it asks for, can't be seen")
}

// localTarget gives the path of a workflow of the same repository: "./path", or "$/path", which is the same at the caller's own commit.
func localTarget(target string) (string, bool) {
	for _, p := range []string{"./", "$/"} {
		if local, ok := strings.CutPrefix(target, p); ok {
			return local, true
		}
	}
	return "", false
}
