package inventory

import (
	"slices"
	"strings"
)

// AWS CodeBuild. Every command acts as the role of the project; parameters and
// secrets are read with it before the build starts. Triggers and further
// variables lie in the project, outside of the file.

// cbRole is the identity of a build, which the file never names.
const cbRole = "project service role"

func readCodeBuild(r *reader, docs []*node) {
	for _, root := range docs {
		if r.get(root, "phases") == nil && r.get(root, "env") == nil && r.get(root, "batch") == nil {
			continue
		}
		r.version(r.get(root, "version"), "0.1", "0.2")
		f := &awsBuild{r: r, root: root, alias: make(map[string][]string), held: make(map[string]use)}
		f.read()
	}
}

// awsBuild is one buildspec.
type awsBuild struct {
	r     *reader
	root  *node
	alias map[string][]string
	held  map[string]use // what commands do with the variables that env fetches
	phase string
}

func (f *awsBuild) at(step string) place {
	return place{job: cbJob, step: step, reach: Reach{Trust: TrustUnknown}, runner: Runner{Kind: RunnerHosted}}
}

func (f *awsBuild) read() {
	r := f.r
	env := r.get(f.root, "env")
	f.survey()
	literals := make(map[string]string)
	for k, v := range r.pairs(r.get(env, "variables")) {
		literals[k.Value] = r.str(v)
		made := []string{}
		for _, ref := range shellVars(r.str(v)) {
			made = append(made, ref.name)
		}
		f.alias[k.Value] = made
	}
	f.fetched(r.get(env, "parameter-store"), "secrets-manager/ssm", "aws-ssm")
	f.fetched(r.get(env, "secrets-manager"), "secrets-manager/aws", "aws-secrets-manager")
	if h := r.get(env, "git-credential-helper"); r.isTrue(h) {
		r.platform(f.at(""), h.Line, "git-credential-helper", use{res: Resource{"vcs/git", "source repository"}}, "git-credential-helper")
	}
	s := &scope{r: r, place: func(Kind) place { return f.at(f.phase) }, alias: f.alias, predefined: func(n string) bool {
		return strings.HasPrefix(n, "CODEBUILD_") || n == "AWS_DEFAULT_REGION" || n == "AWS_REGION" || strings.HasPrefix(n, "AWS_CONTAINER_CREDENTIALS") || n == "AWS_SESSION_TOKEN" && f.assumed()
	}, actor: f.actor, fetch: f.fetch, via: "commands", addresses: literals}
	for k, phase := range r.pairs(r.get(f.root, "phases")) {
		f.phase = k.Value
		for _, key := range []string{"commands", "finally"} {
			s.nodes(r.get(phase, key))
		}
	}
}

// survey looks at what the commands do with variables, for those that env fetches.
func (f *awsBuild) survey() {
	r := f.r
	for _, phase := range r.pairs(r.get(f.root, "phases")) {
		for _, key := range []string{"commands", "finally"} {
			for c := range r.flat(r.get(phase, key)) {
				for _, u := range readScript(r.str(c), nil).uses {
					if old, ok := f.held[u.name]; (u.slot || u.use.known()) && (!ok || !old.known()) {
						f.held[u.name] = u.use
					}
				}
			}
		}
	}
}

// assumed reports whether the build takes on another role: the keys that it exports are then derived.
func (f *awsBuild) assumed() bool { return strings.Contains(f.r.src.text, "assume-role") }

// fetched records the variables that are read from a manager: the access, and each value.
func (f *awsBuild) fetched(n *node, kind, source string) {
	r := f.r
	for k, v := range r.pairs(n) {
		id, _, _ := strings.Cut(r.str(v), ":")
		if strings.HasPrefix(r.str(v), "arn:") {
			id = r.str(v)
		}
		p := r.ambient(f.at(""), k.Line, cbRole, use{res: Resource{kind, id}}, "env")
		if p.Resource.Kind != kind {
			_ = p // one path for the role; its first resource stands for all
		}
		u := f.held[k.Value].or(envUse(k.Value))
		if u.nature == "" {
			u.nature = natureOf(k.Value)
		}
		if u.nature == "" {
			u.nature = natureOf(id)
		}
		r.add(f.at(""), k.Line, Credential{Kind: StaticSecret, Name: k.Value, Nature: u.nature, Source: source + ":" + r.str(v)}, u, "env: "+source)
		f.alias[k.Value] = []string{}
	}
}

// actor records commands that act as the role of the project.
func (f *awsBuild) actor(a actor, line int) {
	switch a.family {
	case "aws", "iac":
	case "docker":
		if a.res.Kind != "registry/ecr" && !strings.Contains(a.res.Name, "$") {
			return
		}
		a.res.Kind = "registry/ecr"
	case "k8s":
	default:
		return
	}
	at := f.at(f.phase)
	if a.via == "aws sts" && a.res.Name != "" && f.other(a.res.Name) {
		at.part = a.res.Name
	}
	f.r.ambient(at, line, cbRole, use{res: a.res}, a.via)
}

// other reports whether a role that a phase takes on is one more than what it reaches already: a way of its own.
func (f *awsBuild) other(role string) bool {
	return slices.ContainsFunc(f.r.paths, func(p Path) bool {
		return p.Step == f.phase && p.Credential.Kind == Ambient && p.Resource.Name != role
	})
}

// fetch records a read of a manager by a command.
func (f *awsBuild) fetch(v fetched, line int) {
	if v.family == "aws" {
		f.r.ambient(f.at(f.phase), line, cbRole, use{res: v.res}, "commands")
	}
}
