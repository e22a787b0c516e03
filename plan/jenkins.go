package plan

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// jenkinsFile is a Jenkinsfile. A credential is bound to a variable by
// withCredentials or by an environment block, and commands read the variable:
// the id token of the OpenID Connect Provider plugin is bound the same way in
// its place, and the commands fetch or exchange what they need.
type jenkinsFile struct {
	*doc
	g       *groovy
	changes []change
	places  []jenkinsPlace
	read    bool
}

// jenkinsPlace is where a credential's id stands.
type jenkinsPlace struct {
	at    int
	stage string // "" is outside of all stages, where every job can use it
	done  bool
	err   error
}

// change puts another text between two places.
type change struct {
	from, to int
	with     string
}

func openJenkins(text string) (*jenkinsFile, error) {
	l, err := splitLines(text)
	if err != nil {
		return nil, err
	}
	g, ok := readGroovy(l.normal())
	if !ok {
		return nil, fmt.Errorf("a string or a comment of the Jenkinsfile has no end that could be found")
	}
	return &jenkinsFile{doc: &doc{lines: l}, g: g}, nil
}

// normal is the text with one kind of line ends.
func (l lines) normal() string { return strings.Join(l.text, "\n") + "\n" }

// change changes the places of a stage, and those outside of all stages: a stage
// can use what an outer block binds.
func (f *jenkinsFile) change(job string, d *draft) error {
	if !f.read {
		f.read = true
		for _, l := range f.g.literals {
			if slices.Contains(d.halves(), l.text(f.g.text)) {
				f.found(l)
			}
		}
	}
	if len(f.places) == 0 {
		return fmt.Errorf("the id of the credential is in another file, or made at run time: write it into the binding, and plan again")
	}
	for i := range f.places {
		p := &f.places[i]
		if p.stage != "" && p.stage != job {
			continue
		}
		if !p.done {
			p.done = true
			p.err = f.place(p.at, d)
		}
		if p.err != nil {
			return p.err
		}
	}
	return f.edit()
}

var constant = regexp.MustCompile(`(?:^|[\s;{])(?:def |String |final |static )*(\w+)\s*=\s*$`)

// found notes where a credential is named: by its id, or by a name that the file
// gives to the id.
func (f *jenkinsFile) found(l literal) {
	m := constant.FindStringSubmatch(f.g.text[strings.LastIndexByte(f.g.text[:l.from], '\n')+1 : l.from])
	if m == nil {
		f.places = append(f.places, jenkinsPlace{at: l.from, stage: f.g.stage(l.from)})
		return
	}
	for _, at := range f.g.names(m[1], 0, len(f.g.text)) {
		if at < l.from-len(m[0]) || at > l.to {
			if !f.g.comment(at) {
				f.places = append(f.places, jenkinsPlace{at: at, stage: f.g.stage(at)})
			}
		}
	}
}

// halves are the ids of a credential's parts: without one of them the others are
// no credential either.
func (d *draft) halves() []string {
	if d.method.name != "aws" {
		return d.item.Secrets
	}
	return append(slices.Clone(d.item.Secrets), d.item.Identifiers...)
}

// place finds how a credential is bound, and changes that and the commands below it.
func (f *jenkinsFile) place(at int, d *draft) error {
	b, err := f.binding(at, d)
	if err != nil {
		return &whyNot{f.line(at), err.Error()}
	}
	if len(d.item.Secrets) > 1 && b.kind != bindsAWS {
		return &whyNot{f.line(at), "several credentials of the controller are used together"}
	}
	return f.bind(b, d)
}

// line gives the line of a place, from 1.
func (f *jenkinsFile) line(at int) int { return 1 + strings.Count(f.g.text[:at], "\n") }

// edit writes the changes as edits of lines.
func (f *jenkinsFile) edit() error {
	f.edits = nil
	slices.SortFunc(f.changes, func(a, b change) int { return a.from - b.from })
	f.changes = slices.Compact(f.changes)
	for i := 1; i < len(f.changes); i++ {
		if f.changes[i].from < f.changes[i-1].to {
			return &whyNot{f.line(f.changes[i].from), "two bindings of the credential meet in one command"}
		}
	}
	for i := 0; i < len(f.changes); {
		from := strings.LastIndexByte(f.g.text[:f.changes[i].from], '\n') + 1
		var b strings.Builder
		at, end := from, from
		for ; i < len(f.changes) && (end == from || f.changes[i].from < end); i++ {
			c := f.changes[i]
			b.WriteString(f.g.text[at:c.from] + c.with)
			at = c.to
			end = at + strings.IndexByte(f.g.text[at:], '\n') + 1
		}
		b.WriteString(f.g.text[at : end-1])
		f.replace(f.line(from)-1, f.line(end)-1, b.String())
	}
	return nil
}

// replace puts edits for the lines of a text that differ from those of the file.
func (f *jenkinsFile) replace(from, to int, text string) {
	if strings.TrimSpace(text) == "" {
		f.edits.put(from, to)
		return
	}
	f.differ(from, to, strings.Split(text, "\n"))
}

// differ puts the fewest edits that make lines of the file into others: what
// people read is what has changed.
func (d *doc) differ(from, to int, with []string) {
	old := d.text[from:to]
	common := make([][]int, len(old)+1) // how many lines the rest of both has in common
	for i := range common {
		common[i] = make([]int, len(with)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(with) - 1; j >= 0; j-- {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); old[i] == with[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	same := func(i, j int) bool { return i < len(old) && j < len(with) && old[i] == with[j] }
	for i, j := 0, 0; i < len(old) || j < len(with); {
		if same(i, j) {
			i, j = i+1, j+1
			continue
		}
		i0, j0 := i, j
		for !same(i, j) && (i < len(old) || j < len(with)) {
			if j == len(with) || i < len(old) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		d.edits.put(from+i0, from+i, with[j0:j]...)
	}
}
