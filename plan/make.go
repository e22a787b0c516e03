package plan

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/inventory"
)

// Options are the settings of a plan. The zero value is ready for use.
type Options struct {
	// Route is for items that can federate both ways; Direct when empty.
	Route Route
	// Set are values of variables, by name.
	Set map[string]string
	// Broker is Proviso's own URL; a variable when empty.
	Broker string
	// Only keeps the items whose id, or one of whose secrets, is named; Wave
	// keeps those of one wave. Empty and 0 keep all.
	Only []string
	Wave int
	// Since are earlier inventories, oldest first, for the burn-down.
	Since []Earlier
	// Record is what Proviso's record says of its grants; nil when it was not given.
	Record map[string]*Use
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// MaxBytes is the largest pipeline that is patched; 0 is 1 MiB.
	MaxBytes int64
}

// planner makes one plan.
type planner struct {
	ctx     context.Context
	trees   []Tree
	opt     Options
	repos   repositories
	plan    *Plan
	vars    map[string]*Variable
	fronts  map[string]*Foundation // by id
	parts   map[string][]string    // files that several items add to
	issuers map[string]*issuerPart // of the whole configuration, by URL
	last    []func()               // what is written when all items are known
	files   map[string]*File
	now     map[string]string // pipelines as the patches so far leave them, by full name
}

// Make plans the way out of the static secrets of some trees. It fails only
// when ctx ends or an option can't be; what can't be planned is said in the plan.
func Make(ctx context.Context, trees []Tree, opt Options) (*Plan, error) {
	if opt.Route == "" {
		opt.Route = Direct
	}
	if opt.Route != Direct && opt.Route != ThroughProviso {
		return nil, fmt.Errorf("plan: the route is %q; it can be %s or %s", opt.Route, Direct, ThroughProviso)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = 1 << 20
	}
	if opt.Broker != "" && !brokerURL.MatchString(opt.Broker) {
		return nil, fmt.Errorf("plan: the broker's URL is %q; it looks like https://proviso.example.com, or http:// for a loopback address", oneLine(opt.Broker))
	}
	p := &planner{ctx: ctx, trees: trees, opt: opt, repos: make(repositories), vars: make(map[string]*Variable), fronts: make(map[string]*Foundation),
		parts: make(map[string][]string), files: make(map[string]*File), now: make(map[string]string), issuers: make(map[string]*issuerPart)}
	p.plan = &Plan{Version: Version, Roots: []string{}, Route: opt.Route, Foundations: []Foundation{}, Waves: []Wave{}, Items: []Item{}, Variables: []Variable{}, Files: []File{}}
	for _, t := range trees {
		p.plan.Roots = append(p.plan.Roots, t.Inventory.Root)
		p.plan.called = append(p.plan.called, p.called(&t))
	}
	groups := groupPaths(trees, p.repos)
	drafts := p.drafts(groups.groups)
	order(drafts)
	p.done(trees, drafts)
	drafts = p.keep(drafts)
	for _, d := range drafts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p.complete(d)
		if d.item.Record = opt.Record[d.item.ID]; d.item.Record != nil {
			d.item.Standing = d.item.Record.standing(opt.Now(), d.item.DualRun.Days) + "; the old one is still in the pipelines"
		}
		p.plan.Items = append(p.plan.Items, *d.item)
	}
	p.plan.Summary.Identifiers, p.plan.Summary.Fetched = groups.identifiers, groups.fetched
	p.summarise()
	p.finish(trees)
	if unknown := p.unusedValues(); len(unknown) > 0 {
		return nil, fmt.Errorf("plan: there is no variable %s to set", strings.Join(unknown, ", "))
	}
	p.plan.BurnDown = p.burnDown()
	return p.plan, nil
}

// called is how people call a root: a dot says nothing.
func (p *planner) called(t *Tree) string {
	if path.Clean(t.Inventory.Root) != "." {
		return t.Inventory.Root
	}
	r := p.repos.of(t, "x") // of a file in the root
	return cmp.Or(r.name, r.label())
}

// brokerURL is what may stand in generated files; without TLS to this machine only, as the client has it.
var brokerURL = regexp.MustCompile(`^(https://[A-Za-z0-9.-]+|http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\]))(:[0-9]+)?(/[A-Za-z0-9._/-]*)?$`)

// drafts makes an item of each group, without its texts.
func (p *planner) drafts(groups []*group) []*draft {
	ids := nameGroups(groups)
	uses := make(map[string]int) // of one name in all repositories
	for _, g := range groups {
		for _, n := range g.names {
			uses[n]++
		}
	}
	var out []*draft
	for _, g := range groups {
		d := &draft{p: p, repo: g.repo, method: g.method, group: g, settings: make(map[string]string)}
		d.item = &Item{ID: ids[g], Repository: g.repo.name, Directory: g.repo.dir, CI: g.ci, Secrets: g.names, Identifiers: g.ids,
			Source: g.paths[0].Credential.Source, Resource: heaviest(g.paths), Method: g.method.name, Replacement: g.method.title,
			DependsOn: []string{}, Manual: []Manual{}, Prepare: []Step{}, Proof: []Step{}, Deletion: []Step{}}
		if d.item.Repository == "" {
			d.item.Repository = g.repo.label()
		}
		for _, path := range g.paths {
			d.item.Places = append(d.item.Places, Place{Path: path.ID, File: path.File, Line: path.Line, Job: path.Job, Step: path.Step, Secret: path.Credential.Name,
				ExposedVia: path.ExposedVia, Reach: path.Reach, Runner: path.Runner.Kind, Resource: path.Resource.Kind + " " + path.Resource.Name, Environment: path.Reach.Environment})
		}
		d.item.Reach = widest(g.paths)
		d.item.Via = d.via()
		d.rate()
		for _, n := range g.names {
			if uses[n] > 1 {
				d.note("%s is also used by another item or repository: delete it only when all of them are done.", oneLine(n))
				break
			}
		}
		out = append(out, d)
	}
	return out
}

// keep drops the items that were not asked for.
func (p *planner) keep(drafts []*draft) []*draft {
	return slices.DeleteFunc(drafts, func(d *draft) bool {
		if p.opt.Wave > 0 && d.item.Wave != p.opt.Wave {
			return true
		}
		return len(p.opt.Only) > 0 && !slices.ContainsFunc(p.opt.Only, func(want string) bool {
			return want == d.item.ID || slices.Contains(d.item.Secrets, want)
		})
	})
}

// widest gives the widest reach of some paths.
func widest(paths []*inventory.Path) inventory.Trust {
	out := inventory.Protected
	for _, p := range paths {
		switch p.Reach.Trust {
		case inventory.ForkReachable:
			return inventory.ForkReachable
		case inventory.TrustUnknown:
			out = inventory.TrustUnknown
		case inventory.Protected:
		}
	}
	return out
}

// heaviest gives the resource whose loss is worst.
func heaviest(paths []*inventory.Path) inventory.Resource {
	best := paths[0].Resource
	for _, p := range paths {
		if w, b := weight(p.Resource.Kind), weight(best.Kind); w > b || w == b && best.Name == "unknown" {
			best = p.Resource
		}
	}
	return best
}

// complete writes everything about one item.
func (p *planner) complete(d *draft) {
	d.subjects()
	d.reuse()
	d.patches()
	d.grant()
	switch {
	case d.item.Reuse != nil:
		d.useExisting()
	case d.method.target != nil && (d.item.Via == ViaDirect || d.item.Via == ViaProviso):
		d.method.target(d)
	}
	d.steps()
}

// read gives a pipeline as the patches so far leave it.
func (p *planner) read(t *Tree, file string) (string, error) {
	if t.Dir == "" {
		return "", fmt.Errorf("the pipeline is not here: plan in the directory that the inventory was made of")
	}
	full := fullName(t, file)
	if text, ok := p.now[full]; ok {
		return text, nil
	}
	root, err := os.OpenRoot(t.Dir)
	if err != nil {
		return "", fmt.Errorf("the directory of the inventory can't be opened")
	}
	defer func() { _ = root.Close() }() // only read
	f, err := root.Open(filepath.FromSlash(file))
	if err != nil {
		return "", fmt.Errorf("the pipeline can't be opened: plan in the directory that the inventory was made of")
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("the pipeline is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, p.opt.MaxBytes+1))
	if err != nil || int64(len(data)) > p.opt.MaxBytes {
		return "", fmt.Errorf("the pipeline is too large to be patched")
	}
	if want := hashOf(t.Inventory, file); want != "" && want != sum(data) {
		return "", fmt.Errorf("the pipeline has changed since the inventory was made: scan again")
	}
	return string(data), nil
}

func (p *planner) write(t *Tree, file, text string) {
	p.now[fullName(t, file)] = text
}

func fullName(t *Tree, file string) string { return filepath.Join(t.Dir, filepath.FromSlash(file)) }

func hashOf(inv *inventory.Inventory, file string) string {
	for _, f := range inv.Files {
		if f.File == file {
			return f.Hash
		}
	}
	return ""
}

// summarise counts.
func (p *planner) summarise() {
	s := &p.plan.Summary
	s.Secrets = len(p.plan.Items)
	for _, it := range p.plan.Items {
		if methods[it.Method].none {
			s.NoneBetter++
		}
		for _, place := range it.Places {
			s.Places++
			if place.Patched {
				s.Patched++
			} else {
				s.Manual++
			}
		}
	}
}
