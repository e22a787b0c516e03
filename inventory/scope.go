package inventory

import (
	"strings"
)

// scope is what a script sees on systems where the variables of a project are
// not declared in the file: only their use shows them. It tells the variables
// that the file or the platform defines from those that somebody keeps elsewhere.
type scope struct {
	r *reader
	// place gives where a path of a kind belongs.
	place func(Kind) place
	// alias are the variables that the file defines: what each is made of; empty is a literal.
	alias map[string][]string
	// predefined reports whether the platform sets a variable and it is no credential.
	predefined func(name string) bool
	// special records variables that have a meaning of their own on the platform (its token, an
	// identity token); true when it did.
	special func(name string, line int, u use) bool
	// actor is asked for commands that act with an identity of the surroundings; nil ignores them.
	actor func(a actor, line int)
	// exchange records an exchange of an identity token; nil ignores them.
	exchange func(x exchange, line int)
	// fetch is asked for who reads a secrets manager; nil records only the value.
	fetch func(f fetched, line int)
	// via says where scripts of this scope stand.
	via string
	// addresses are variables that hold one, as it was written.
	addresses map[string]string
	// exported collects what scripts hand to later steps.
	exported map[string][]string
}

// shellNames are variables of every shell, and names that scripts use for their own counters.
var shellNames = set("HOME", "PATH", "PWD", "OLDPWD", "USER", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "TEMP", "TMP", "HOSTNAME", "RANDOM", "SECONDS", "LINENO", "IFS", "PS1", "UID", "EUID", "PPID",
	"BASH", "BASH_ENV", "BASH_VERSION", "BASH_SOURCE", "FUNCNAME", "OPTARG", "OPTIND", "REPLY", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GOPATH", "GOROOT", "GOBIN", "JAVA_HOME", "PYTHONPATH", "LASTEXITCODE", "USERNAME", "COMPUTERNAME",
	"ERRORLEVEL", "CI", "DEBIAN_FRONTEND", "PIPESTATUS", "NVM_DIR", "M2_HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMFILES", "SYSTEMROOT", "AGENT_TEMPDIRECTORY", "PSSCRIPTROOT", "TRUE", "FALSE", "NULL", "MATCHES", "ARGS", "ERRORACTIONPREFERENCE", "PROGRESSPREFERENCE")

// nodes reads scripts: a scalar, or lists of them at any depth, one after the
// other, so that what one sets the next has.
func (s *scope) nodes(n *node) {
	for item := range s.r.flat(n) {
		if s.r.isScalar(item) {
			s.script(item, s.r.str(item))
		}
	}
}

// script reads one script and records its paths.
func (s *scope) script(n *node, text string) {
	f := readScriptIn(text, s.alias, s.addresses)
	creds := make(map[int]bool)
	for _, u := range f.uses {
		if u.slot && u.use.nature == NatureCredential {
			creds[u.at] = true
		}
	}
	best := slotUses(f.uses)
	for _, u := range f.uses {
		if b, ok := best[u.name]; ok && !u.slot {
			u.use, u.slot = b, true // printed for a command that takes it: echo $X | docker login --password-stdin
		}
		s.use(n, u, creds[u.at])
	}
	for _, a := range f.actors {
		if s.actor != nil {
			s.actor(a, s.r.scriptLine(n, a.line, ""))
		}
	}
	for _, x := range f.exchanges {
		if s.exchange != nil {
			s.exchange(x, s.r.scriptLine(n, x.line, x.token))
		}
	}
	for _, v := range f.fetched {
		line := s.r.scriptLine(n, v.line, v.name)
		if s.fetch != nil {
			s.fetch(v, line)
		}
		s.r.add(s.place(StaticSecret), line, Credential{Kind: StaticSecret, Name: v.name, Nature: storedNature(v.name), Source: v.source}, v.purpose(), s.via)
	}
	for _, h := range f.held {
		s.r.held(s.place(StaticSecret), s.r.scriptLine(n, h.line, ""), h, s.via)
	}
	s.r.tentative = true
	for _, u := range f.handedOn {
		s.use(n, u, false)
	}
	s.r.tentative = false
	for k, v := range f.addresses {
		s.address(k, v)
	}
	for k, v := range f.exported {
		if s.exported == nil {
			s.exported = make(map[string][]string)
		}
		s.exported[k] = v
	}
	for k, v := range f.sets {
		if s.alias == nil {
			s.alias = make(map[string][]string)
		}
		s.alias[k] = v
	}
}

// slotUses gives what commands take variables for as a credential of a known kind; nil when there is none.
func slotUses(uses []scriptUse) map[string]use {
	var best map[string]use
	for _, u := range uses {
		if u.slot && u.use.nature == NatureCredential && u.use.known() {
			if best == nil {
				best = make(map[string]use)
			}
			if _, ok := best[u.name]; !ok {
				best[u.name] = u.use
			}
		}
	}
	return best
}

// purpose tells what a fetched value is for: what the variable that takes it says, else its own name.
func (f fetched) purpose() use {
	if f.use.known() {
		return f.use
	}
	name := f.name
	if strings.HasPrefix(name, "$") {
		name = strings.TrimSuffix(strings.Trim(name, "${}"), "_ARN") // where the secret lies
	}
	return f.use.or(envUse(name))
}

// machineActs records a command that acts with the identity of the machine that
// runs the job, unless the job has a credential in sight for what it acts on.
func (r *reader) machineActs(at place, line int, machine string, a actor) {
	if !r.inSight(at.job, a) {
		r.ambient(at, line, machine, use{res: a.res}, a.via)
	}
}

// inSight reports whether a job has a credential for what a command acts on: then it is not the machine's identity that acts.
func (r *reader) inSight(job string, a actor) bool {
	for _, i := range r.ofJob[job] {
		p := &r.paths[i]
		kind := p.Resource.Kind
		switch {
		case p.Credential.Kind == PlatformToken, p.Credential.Kind == Ambient, p.Credential.Nature == NatureIdentifier:
		case kind == a.res.Kind, cloudFamily(kind) != "" && cloudFamily(kind) == a.family,
			a.family == "k8s" && strings.HasPrefix(kind, "k8s/"),
			a.family == "k8s" && strings.HasPrefix(kind, "cloud/"), // a cloud's login makes the cluster's
			a.family == "iac" && (strings.HasPrefix(kind, "cloud/") || strings.HasPrefix(kind, "iac/") || strings.HasPrefix(kind, "secrets-manager/")),
			strings.HasPrefix(kind, "secret-set/"): // what it holds can't be seen
			return true
		}
	}
	return false
}

// held records a use of a value that was fetched before: the path of the step that holds it, which learns its resource.
func (r *reader) held(at place, line int, h fetchedUse, via string) {
	u := h.use
	if !u.known() {
		u = u.or(envUse(h.name))
	}
	p := r.add(at, line, Credential{Kind: StaticSecret, Name: h.name, Nature: storedNature(h.name), Source: h.source}, u, via)
	if h.use.known() && p.Resource.Kind == envUse(h.name).res.Kind && p.Resource.Kind != h.use.res.Kind {
		p.Resource = Resource{h.use.res.Kind, firstOf(h.use.res.Name, unknown)} // its consumer says more than its name
		p.Migration = migration(r.ci, p.Credential, p.Resource)
	}
}

// use records one variable that a script uses.
func (s *scope) use(n *node, u scriptUse, credLine bool) {
	line := s.r.scriptLine(n, u.line, u.name)
	s.variable(u.name, line, u.use, u.slot, credLine)
}

// variable decides whether a variable is a path. slot: a command takes it as a
// value of a known kind; credLine: the same command takes a credential.
func (s *scope) variable(name string, line int, u use, slot, credLine bool) {
	if s.special != nil && s.special(name, line, u) {
		return
	}
	if shellNames[strings.ToUpper(name)] || len(name) < 3 || s.predefined != nil && s.predefined(name) {
		return
	}
	named := envUse(name)
	switch {
	case slot && u.nature == NatureCredential:
		if !u.sure && natureOf(name) == NatureIdentifier && named.nature == NatureIdentifier && !looksSecret(name) {
			return // a header with an account number, a URL with a host
		}
	case slot && u.nature == NatureIdentifier:
		if !credLine || strings.ToLower(name) == name {
			return
		}
	case looksSecret(name) && strings.ToLower(name) != name:
		u.nature = NatureCredential
	default:
		return
	}
	if strings.ToLower(name) == name && !looksSecret(name) {
		return // local names of scripts
	}
	s.r.static(s.place(StaticSecret), line, name, u.or(named), s.via)
}

// address keeps the text of a variable that holds an address.
func (s *scope) address(name, text string) {
	if s.addresses == nil {
		s.addresses = make(map[string]string)
	}
	s.addresses[name] = text
}

// env records what the entries of an environment block refer to, and defines them for the scripts.
func (s *scope) env(n *node, via string) {
	if s.alias == nil {
		s.alias = make(map[string][]string)
	}
	for k, v := range s.r.pairs(n) {
		s.envEntry(k.Value, v, via)
	}
}

// envEntry defines one variable. One that is made of a variable from elsewhere is a path where it is declared.
func (s *scope) envEntry(name string, v *node, via string) {
	text := s.r.str(v)
	if s.r.isMap(v) {
		text = s.r.str(s.r.get(v, "value"))
	}
	made := []string{}
	for _, ref := range shellVars(text) {
		if ref.name == name {
			continue // X: $X keeps what comes from elsewhere
		}
		made = append(made, ref.name)
		u := envUse(name)
		u.sure = knownEnv(name).sure
		if u.nature == "" {
			u.nature = natureOf(ref.name)
		}
		whole := strings.Trim(text, `"'`) == "$"+ref.name || strings.Trim(text, `"'`) == "${"+ref.name+"}"
		line := s.r.lineOf(v, -1, ref.name)
		s.variable(ref.name, line, u, whole && u.nature == NatureCredential, false)
	}
	if len(shellVars(text)) > 0 && len(made) == 0 {
		return
	}
	s.alias[name] = made
	s.address(name, text)
}
