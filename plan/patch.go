package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// job names one job that uses the secret.
type job struct {
	file, id string
}

// jobs gives the jobs of the item, in the order of the files.
func (d *draft) jobs() (out []job) {
	for _, p := range d.group.paths {
		if j := (job{p.File, p.Job}); !slices.Contains(out, j) {
			out = append(out, j)
		}
	}
	return out
}

// patches writes the patch of the item, and what a person has to do where none
// can be made.
func (d *draft) patches() {
	var files []string
	why := make(map[job]error)
	for _, j := range d.jobs() {
		if !slices.Contains(files, j.file) {
			files = append(files, j.file)
		}
	}
	var diff strings.Builder
	patch := &Patch{Changes: []string{}}
	for _, file := range files {
		var ids []string
		for _, j := range d.jobs() {
			if j.file == file {
				ids = append(ids, j.id)
			}
		}
		text, a, r, errs := d.patchFile(file, ids)
		for id, err := range errs {
			why[job{file, id}] = err
		}
		if text != "" {
			diff.WriteString(text)
			patch.Changes = append(patch.Changes, d.repo.below(file))
			patch.Added, patch.Removed = patch.Added+a, patch.Removed+r
		}
	}
	for i := range d.item.Places {
		pl := &d.item.Places[i]
		pl.Patched = why[job{pl.File, pl.Job}] == nil
	}
	d.byHand(why)
	if len(patch.Changes) == 0 {
		return
	}
	patch.File = "patches/" + d.number() + "-" + d.item.ID + ".patch"
	patch.Variables = sortedKeys(d.settings)
	d.item.Patch = patch
	d.p.file(patch.File, diff.String(), false)
}

// number is the item's place in the order, for names that sort.
func (d *draft) number() string {
	return fmt.Sprintf("%03d", len(d.p.plan.Items)+1)
}

// patchFile changes the jobs of one pipeline. It gives the diff, and for each
// job that stays as it is, the reason.
func (d *draft) patchFile(file string, ids []string) (diff string, added, removed int, why map[string]error) {
	why = make(map[string]error)
	all := func(err error) {
		for _, id := range ids {
			if why[id] == nil {
				why[id] = err
			}
		}
	}
	if err := d.beyondPatches(); err != nil {
		all(err)
		return "", 0, 0, why
	}
	before, err := d.p.read(d.repo.tree, file)
	if err != nil {
		all(err)
		return "", 0, 0, why
	}
	for { // without the jobs that turned out to be impossible, until all that is left holds
		var left []string
		for _, id := range ids {
			if why[id] == nil {
				left = append(left, id)
			}
		}
		if len(left) == 0 {
			return "", 0, 0, why
		}
		settings := maps.Clone(d.settings)
		doc, errs := d.edit(file, before, left)
		failed := len(errs)
		for id, err := range errs {
			why[id] = err
		}
		if failed > 0 {
			continue
		}
		after, err := doc.apply(doc.edits)
		if err != nil {
			d.settings = settings
			all(err)
			continue
		}
		bad := d.verify(file, before, after.String(), left)
		if len(bad) > 0 {
			d.settings = settings // what a failed try asked for is not needed
			for id, err := range bad {
				why[id] = err
			}
			continue
		}
		diff, added, removed = doc.diff(d.repo.below(file), doc.edits)
		d.p.write(d.repo.tree, file, after.String())
		return diff, added, removed, why
	}
}

// beyondPatches says why nothing of the item can be patched, nil when something can.
func (d *draft) beyondPatches() error {
	if d.method.manual != "" {
		return errors.New(d.method.manual)
	}
	if !issues(d.item.CI) && !d.method.platform {
		return fmt.Errorf("%s signs no identity for its jobs, so nothing that a job could show stands in for the secret", d.item.CI)
	}
	if !patchable(d.item.CI) {
		return fmt.Errorf("no pattern of %s is known that a patch could follow without guessing", d.item.CI)
	}
	for _, n := range d.names() {
		switch {
		case strings.HasPrefix(n, "context:"), strings.HasPrefix(n, "group:"):
			return fmt.Errorf("%s is a set of values, and the file doesn't say which of them the job takes; those that a step names are items of their own", oneLine(n))
		case d.item.CI == inventory.Jenkins && controllerID.MatchString(n): // no patch repeats it
		case (d.item.CI == inventory.Azure || cluster(d.item.CI)) && credentialID.MatchString(n):
		case !variableName.MatchString(n):
			return fmt.Errorf("%s is an unusual name, which a patch should not repeat", oneLine(n))
		}
	}
	return nil
}

// patchable reports whether pipelines of a platform are edited here.
func patchable(ci inventory.CI) bool {
	return slices.Contains([]inventory.CI{inventory.GitHub, inventory.Forgejo, inventory.GitLab, inventory.Bitbucket, inventory.CircleCI, inventory.Buildkite, inventory.Azure, inventory.Jenkins, inventory.Tekton, inventory.Argo}, ci)
}

const editorFailed = "the pipeline has a shape that the maker of patches does not know"

// edit makes the edits for some jobs of a pipeline.
func (d *draft) edit(file, before string, ids []string) (made *doc, errs map[string]error) {
	errs = make(map[string]error)
	// A file that nobody thought of costs its own patch, never the plan.
	defer func() {
		if recover() != nil {
			for _, id := range ids {
				errs[id] = errors.New(editorFailed)
			}
			made = nil
		}
	}()
	fail := func(err error) (*doc, map[string]error) {
		for _, id := range ids {
			errs[id] = err
		}
		return nil, errs
	}
	for _, id := range ids {
		if err := d.unknownJob(job{file, id}); err != nil {
			errs[id] = err
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	settings := maps.Clone(d.settings)
	var out *doc
	switch d.item.CI {
	case inventory.GitHub, inventory.Forgejo:
		if d.method.github == nil || d.item.CI == inventory.Forgejo && !d.method.fetch {
			return fail(fmt.Errorf("for %s there are steps, and no patch, for this", d.item.CI))
		}
		f, err := openGitHub(before)
		if err != nil {
			return fail(err)
		}
		out = f.doc
		for _, id := range ids {
			j, err := f.job(id)
			if err == nil {
				j.forgejo = d.item.CI == inventory.Forgejo
				err = d.method.github(j, d)
			}
			if err != nil {
				errs[id] = err
			}
		}
	default:
		e, doc, err := openOther(d.item.CI, before)
		if err != nil {
			return fail(err)
		}
		out = doc
		for _, id := range ids {
			if err := e.change(id, d); err != nil {
				errs[id] = err
			}
		}
	}
	if len(errs) > 0 {
		d.settings = settings
	}
	return out, errs
}

// unknownJob refuses a job that uses the secret in runs of pull requests too
// (those of forks have no identity, and whether the others may have the
// credential is not for a patch to say), and one of which nothing is known that
// a trust could name.
func (d *draft) unknownJob(j job) error {
	if d.item.Via == ViaPlatform || d.method.name == "codecov" {
		return nil
	}
	for _, p := range d.group.paths {
		if p.Job == j.id && p.File == j.file && slices.ContainsFunc(p.Reach.Events, ofProposal) {
			return &proposed{whyNot{p.Line, "the job uses the secret in pull requests too: those of forks have neither secret nor identity, and whether the others may have it is for you to say"}}
		}
	}
	if slices.Contains(d.strangers, j) && (d.item.Via == ViaProviso || slices.Contains([]string{"aws", "gcp", "azure", "vault", "octo-sts"}, d.method.name)) {
		return errors.New("no branch and no environment could be read that a trust or a policy could name, so the patched job would be refused everywhere; name them in the pipeline, and plan again")
	}
	return nil
}

// mine reports why a job is not to be changed for the item, nil when it is.
func (d *draft) mine(id string) error {
	for _, j := range d.jobs() {
		if j.id == id {
			return d.unknownJob(j)
		}
	}
	return errors.New("it doesn't use the secret")
}

// proposed is the reason for a job that uses the secret in pull requests.
type proposed struct{ whyNot }

// ofProposal reports whether an event is that of a change that nobody has taken yet.
func ofProposal(event string) bool {
	return event == "pull_request" || event == "merge_request_event"
}

// verify scans the patched text: in the patched jobs the static path must be
// gone and another one must be there, and all other paths must be as they were.
func (d *draft) verify(file, before, after string, ids []string) map[string]error {
	bad := make(map[string]error)
	all := func(err error) map[string]error {
		for _, id := range ids {
			bad[id] = err
		}
		return bad
	}
	old, okBefore := inventory.Reread(d.repo.tree.Dir, file, before)
	now, okAfter := inventory.Reread(d.repo.tree.Dir, file, after)
	if okBefore && !okAfter {
		return all(errors.New("the patched pipeline could not be read again"))
	}
	mine := append(slices.Clone(d.item.Secrets), d.item.Identifiers...)
	if a, b := others(old, mine), others(now, mine); !slices.Equal(a, b) {
		return all(errors.New("the patch would have changed another access path too"))
	}
	for _, id := range ids {
		better := false
		for i := range now {
			p := &now[i]
			if p.Job != id {
				continue
			}
			switch p.Credential.Kind {
			case inventory.StaticSecret:
				if slices.Contains(d.item.Secrets, p.Credential.Name) && p.Credential.Source == d.item.Source && methodFor(p) == d.method && p.Credential.Nature != inventory.NatureIdentifier {
					bad[id] = fmt.Errorf("the patched job would still use %s at line %d", oneLine(p.Credential.Name), p.Line)
				}
			case inventory.Federated:
				better = true
			case inventory.Ambient: // a store of artifacts finds the pod's identity by itself
				better = better || d.item.CI == inventory.Argo && strings.HasPrefix(p.ExposedVia, "artifact ")
			case inventory.PlatformToken:
				better = better || d.item.Via == ViaPlatform && strings.HasPrefix(p.Resource.Kind, "registry/")
			default:
			}
		}
		if !better && bad[id] == nil {
			bad[id] = errors.New("the scan does not see the new way in the patched job")
		}
	}
	return bad
}

// others lists the static paths that are not the item's, without their lines.
func others(paths []inventory.Path, mine []string) (out []string) {
	for i := range paths {
		p := &paths[i]
		if p.Credential.Kind == inventory.StaticSecret && !vaulted(p) && p.Credential.Nature != inventory.NatureIdentifier && !slices.Contains(mine, p.Credential.Name) {
			out = append(out, strings.Join([]string{p.Job, p.Credential.Name, p.Resource.Kind}, "\x00"))
		}
	}
	slices.Sort(out)
	return out
}

// byHand lists the places without a patch, once a job and step.
func (d *draft) byHand(why map[job]error) {
	seen := make(map[string]bool)
	for _, p := range d.group.paths {
		err := why[job{p.File, p.Job}]
		if err == nil || seen[p.File+"\x00"+p.Job+"\x00"+p.Step] {
			continue
		}
		seen[p.File+"\x00"+p.Job+"\x00"+p.Step] = true
		line := p.Line
		var w *whyNot
		// What an earlier item has patched has other lines than the file.
		if _, patched := d.p.now[fullName(d.repo.tree, p.File)]; !patched && errors.As(err, &w) && w.line > 0 {
			line = w.line
		}
		steps := d.handSteps(p)
		var pr *proposed
		if errors.As(err, &pr) {
			line, steps = pr.line, leaveOut(p.CI)
		}
		d.item.Manual = append(d.item.Manual, Manual{File: p.File, Line: line, Job: p.Job, Step: p.Step, Why: bounded(err.Error(), 400), Steps: steps})
	}
}
