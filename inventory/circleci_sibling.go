package inventory

import (
	"path"
	"strings"
)

// A setup configuration may put the rest of the pipeline together from several
// files: workflows here, jobs and commands there. What is in .circleci beside a
// file is where the jobs are that it invokes and doesn't define.

// siblingJob reads a job that another file of the directory defines.
func (f *ccFile) siblingJob(c *ccCall) {
	if strings.Contains(c.target, "/") || c.approval {
		return
	}
	r := f.r
	for _, rel := range f.siblings() {
		p := r.tree.load(rel)
		if p == nil || p.src == nil || len(p.docs) == 0 {
			continue
		}
		job := r.at(p.docs[0], "jobs", c.target)
		if job == nil || r.get(job, "steps") == nil {
			continue
		}
		lent := *c
		lent.lent = true
		own := r.src
		r.src = p.src // lines are that file's
		other := newCircleCI(r, p.docs[0])
		other.job(&lent, other.root, job, nil)
		r.src = own
		return
	}
}

// siblings gives the other files of the .circleci directory that a file is in.
func (f *ccFile) siblings() []string {
	if f.beside == nil {
		f.beside = []string{}
		own := f.r.src.path
		i := strings.LastIndex("/"+own, "/.circleci/")
		if i < 0 {
			return nil
		}
		dir := path.Join(own[:i], ".circleci")
		for _, pattern := range []string{dir + "/**/*.yml", dir + "/**/*.yaml"} {
			for _, rel := range f.r.tree.match(pattern) {
				if rel != own {
					f.beside = append(f.beside, rel)
				}
			}
		}
	}
	return f.beside
}
