package inventory

import (
	"regexp"
	"slices"
	"strings"
)

// What a pipeline keeps under names before a step takes it: settings in maps,
// lists of bindings, conditions on the branch, and ids of credentials.

// prepare looks over the file before it is read.
func (f *jkFile) prepare() {
	f.survey(f.calls, 0)
	f.copySettings()
	for _, c := range f.computed {
		for _, s := range f.ids(c.args[0].val) {
			f.consts[c.assign] = appendNew(f.consts[c.assign], s)
		}
	}
}

// jkPending is an id that stands in a map of settings. It is a path where no
// step of the file took it: then the step that does is defined elsewhere.
type jkPending struct {
	id   gValue
	line int
	ctx  jkCtx
	key  string
}

// jkKept are the bindings of withCredentials.
var jkKept = map[string]bool{"string": true, "file": true, "usernamePassword": true, "usernameColonPassword": true, "sshUserPrivateKey": true, "certificate": true, "zip": true, "gitUsernamePassword": true, "dockerCert": true, "aws": true}

// surveySettings notes the entries of a map under the name of the map, and
// what is made of another map: all = defaults + given.
func (f *jkFile) surveySettings(name string, v gValue, depth int) {
	for _, a := range v.list {
		if a.key == "" {
			continue
		}
		for _, s := range f.ids(a.val) {
			f.consts[name+"."+a.key] = appendNew(f.consts[name+"."+a.key], s)
		}
		if a.val.list != nil && depth < 3 {
			f.surveySettings(name+"."+a.key, a.val, depth+1)
		}
	}
	from := v.ident
	if len(v.parts) > 0 {
		from = v.parts[0].ident
	}
	if from != "" && v.call == nil && depth == 0 {
		f.copied = append(f.copied, [2]string{name, from})
	}
}

// copySettings gives a map the entries of the one that it is made of.
func (f *jkFile) copySettings() {
	for _, c := range f.copied {
		for _, key := range sortedKeys(f.consts) {
			if rest, ok := strings.CutPrefix(key, c[1]+"."); ok {
				for _, s := range f.consts[key] {
					f.consts[c[0]+"."+rest] = appendNew(f.consts[c[0]+"."+rest], s)
				}
			}
		}
	}
}

// surveyGuard notes a name that stands for a condition on the branch: onMain = env.BRANCH_NAME == 'main'.
func (f *jkFile) surveyGuard(name string, line int) {
	if text := f.r.src.line(line); guards(text) && strings.Contains(text, "==") {
		f.guarded[name] = true
	}
}

// guards reports whether a condition is met only by a branch or a tag of the
// repository: one of its parts asks for it, in each of its alternatives.
func guards(cond string) bool {
	if strings.Contains(cond, "!=") {
		return false
	}
	for _, alternative := range strings.Split(cond, "||") {
		if !jkGuarded.MatchString(jkNegated.ReplaceAllString(alternative, "")) {
			return false
		}
	}
	return true
}

// jkNegated matches what a condition denies, other than that there is a change.
var jkNegated = regexp.MustCompile(`!\s*(env\.)?(TAG_NAME|BRANCH_IS_PRIMARY|isPrimary|buildingTag|isMaster|isMain)`)

var gName = regexp.MustCompile(`!?\s*[A-Za-z_]\w*`)

// narrow applies a condition on the branch, which may stand behind a name.
func (f *jkFile) narrow(cond string, ctx jkCtx) jkCtx {
	ctx = ctx.narrow(cond)
	if ctx.trust == Protected || len(f.guarded) == 0 || strings.Contains(cond, "||") {
		return ctx
	}
	for _, name := range gName.FindAllString(cond, -1) {
		if f.guarded[name] {
			ctx.trust, ctx.events = Protected, []string{"push"}
		}
	}
	return ctx
}

// keeps looks at an assigned value for the ids of credentials in it.
func (f *jkFile) keeps(name string, v gValue, ctx jkCtx, depth int) {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if v.isStr && v.str != "" && !strings.ContainsAny(v.str, " \n") && jkIDKey.MatchString(last) && last != name && !strings.HasPrefix(name, "env.") {
		f.pending = append(f.pending, jkPending{v, v.line, ctx, last})
	}
	if depth > 5 {
		return
	}
	if kind, id := mapValue(v, "type"), mapValue(v, "id"); kind.isStr && (id.isStr || id.ident != "") && mapValue(v, "env").list != nil {
		f.binding(kind.str, v.list, v.line, ctx, nil)
		return
	}
	if class, id := mapValue(v, "$class"), mapValue(v, "credentialsId"); strings.HasSuffix(class.str, "Binding") && id.ident != "" {
		f.pending = append(f.pending, jkPending{id, id.line, ctx, "string"})
	}
	for _, a := range v.list {
		f.keeps(name+"."+a.key, a.val, ctx, depth+1)
	}
	for _, p := range v.parts {
		f.keeps(name, p, ctx, depth+1)
	}
}

// settle records the ids that no step of the file took.
func (f *jkFile) settle() {
	taken := make(map[string]bool)
	for i := range f.r.paths {
		taken[f.r.paths[i].Credential.Name] = true
	}
	for _, p := range f.pending {
		if p.id.isStr && jkIDKey.MatchString(p.id.str) {
			continue // the name of another setting
		}
		ids := slices.DeleteFunc(slices.Clone(f.ids(p.id)), func(s string) bool { return s == "" })
		if len(ids) == 0 && (jkKept[p.key] || p.id.gstr) {
			f.secret(p.id, p.line, p.ctx, use{nature: NatureCredential}, p.key)
		}
		for _, id := range ids {
			if !taken[id] {
				f.secret(gValue{str: id, isStr: true, line: p.id.line}, p.line, p.ctx, use{res: envUse(p.key).res, nature: NatureCredential}, "settings: "+p.key)
			}
		}
	}
}
