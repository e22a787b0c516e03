package inventory

import "strings"

// ghHanded is what an earlier step put into the environment of those behind it.
type ghHanded struct {
	refs   []ghRef // what its value refers to: echo "X=${{ secrets.Y }}" >> $GITHUB_ENV
	source string  // it was read from a secrets manager
	name   string  // by this name
}

// handOn remembers what a step gives to later steps through $GITHUB_ENV, or through an action that fetches secrets.
func (j *ghJob) handOn(s *ghStep) {
	give := func(name string, h ghHanded) {
		if j.given == nil {
			j.given = make(map[string]ghHanded)
		}
		j.given[name] = h
	}
	for name := range s.fetched {
		give(name, ghHanded{}) // it has its path where it is fetched, which knows its later uses
	}
	if s.fetchedAll != "" {
		j.givenAll = s.fetchedAll
	}
	if s.facts == nil {
		return
	}
	for name, made := range s.facts.exported {
		h := ghHanded{}
		for _, m := range made {
			if value, ok := strings.CutPrefix(m, fetchedMark); ok {
				h.source, h.name, _ = strings.Cut(value, "\x00")
				continue
			}
			if !s.asked[m] {
				h.refs = append(h.refs, s.holes[m]...)
			}
			for _, e := range s.env {
				if text := j.w.r.str(e.node); e.name == m && !compares(text) {
					h.refs = append(h.refs, j.w.refsIn(text, false, j.matrix)...)
				}
			}
		}
		give(strings.ToLower(name), h)
		if s.gave == nil {
			s.gave = make(map[string]ghHanded)
		}
		s.gave[strings.ToLower(name)] = h
	}
}

// compares reports whether a placeholder only asks for a value, as in ${{ secrets.X == env.Y }}.
func compares(text string) bool {
	return strings.Contains(text, "!=") || strings.Contains(text, "==")
}

// handed records a use of a variable that an earlier step put into the environment; false when none did.
func (j *ghJob) handed(s *ghStep, name string, line int, via string, u use) bool {
	h, ok := j.given[strings.ToLower(name)]
	if !ok {
		if j.givenAll == "" || !looksSecret(name) || j.variable(s, name) != "" {
			return false
		}
		h = ghHanded{source: j.givenAll, name: name}
	}
	if h.source != "" {
		j.value(s, h.name, h.source, line, via, u)
	}
	for _, ref := range h.refs {
		if ref.kind != refEnv {
			j.ref(s, ref, line, via, u)
		}
	}
	return true
}

// handedToScript records the variables from earlier steps that a script uses.
func (j *ghJob) handedToScript(s *ghStep) {
	if len(j.given) == 0 && j.givenAll == "" {
		return
	}
	best := slotUses(s.facts.uses)
	for _, u := range s.facts.uses {
		if _, hole := s.holes[u.name]; hole || j.own(s, u.name) {
			continue
		}
		use := u.use
		if b, ok := best[u.name]; ok {
			use = b
		}
		j.handed(s, u.name, j.w.r.scriptLine(s.run, u.line, u.name), "run", use)
	}
}

// own reports whether a step sets a variable in its own environment.
func (j *ghJob) own(s *ghStep, name string) bool {
	for _, e := range s.env {
		if e.name == name {
			return true
		}
	}
	return false
}
