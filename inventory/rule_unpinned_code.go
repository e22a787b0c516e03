package inventory

import (
	"fmt"
	"regexp"
	"strings"
)

var ruleUnpinnedCode = Rule{
	Name:  "unpinned-code-with-secret",
	Title: "Code that its owner can change at any time gets a credential",
	What: "A third-party action, reusable workflow, orb, plugin or plugin image gets a secret or an identity token and is named by a tag or a branch. Its owner, or whoever takes over the owner's account, can move the name to other code, and the next run hands the credential to it. " +
		"This happened to tj-actions/changed-files in 2025 and to trivy-action in 2026. Actions of the platform itself are left out.",
	Remedy:     "Pin to the full commit and keep the version as a comment (`uses: owner/action@<40 hex digits> # v4.2.0`), an orb to its full version, an image to its digest; let an update bot move the pin, so that a change is seen.",
	References: []string{dependencyAbuse, thirdParties, credHygiene, nistPullPush},
	Systems:    []CI{GitHub, Forgejo, CircleCI, Buildkite, Drone, Woodpecker},
	check:      checkUnpinnedCode,
}

func checkUnpinnedCode(s *subject) {
	switch s.file.CI {
	case GitHub, Forgejo:
		s.unpinnedActions()
	case CircleCI:
		s.unpinnedOrbs()
	case Buildkite:
		s.unpinnedPlugins()
	default:
		s.unpinnedImages()
	}
}

// ofPlatform reports whether an action is made by the platform that runs it.
func ofPlatform(name string) bool {
	for _, prefix := range []string{"actions/", "github/", "https://code.forgejo.org/actions/", "https://github.com/actions/", "https://data.forgejo.org/actions/"} {
		if strings.HasPrefix(strings.ToLower(name), prefix) {
			return true
		}
	}
	return false
}

func (s *subject) unpinnedActions() {
	given := s.pathsWhere(func(p *Path) bool {
		return isSecret(p) || p.Credential.Kind == Federated && p.ExposedVia != "permissions: id-token"
	})
	if len(given) == 0 || !s.mentions("uses:") {
		return
	}
	for _, job := range s.workflow().jobs {
		if target := s.str(job.uses); job.uses != nil {
			s.unpinned(job.id, "", target, job.uses.Line, s.pathsWhere(func(p *Path) bool {
				return p.Job == job.id && p.Step == "" && isSecret(p) && strings.HasPrefix(p.Resource.Kind, "reusable-workflow")
			}))
		}
		for _, st := range job.steps {
			var got []*Path
			for _, p := range given {
				if p.Job == job.id && p.Step == st.label {
					got = append(got, p)
				}
			}
			s.unpinned(job.id, st.label, st.uses, st.line, got)
		}
	}
}

// unpinned reports one action or workflow that gets credentials.
func (s *subject) unpinned(job, step, uses string, line int, got []*Path) {
	if uses == "" || len(got) == 0 || strings.HasPrefix(uses, ".") || strings.HasPrefix(uses, "$/") || strings.Contains(uses, "${{") || ofPlatform(uses) || pinned(uses) {
		return
	}
	name, ref, _ := strings.Cut(uses, "@")
	sev := SeverityInfo
	for _, p := range got {
		sev = worst(sev, severity(Protected, weightOf(p)))
	}
	what := "the tag " + ref
	if ref == "" || strings.HasPrefix(uses, "docker://") {
		what = "no digest"
	} else if isBranch(ref) {
		what = "the branch " + ref
		sev = sev.shift(1)
	}
	s.report(found{
		line: line, job: job, step: step, severity: sev, about: name, paths: got,
		message: fmt.Sprintf("%s gets %s and is named by %s, which its owner can move.", name, heldWords(got), what),
		fix:     "Pin it to the full commit of the version that was reviewed.",
	})
}

var versionTag = regexp.MustCompile(`^v?\d`)

// isBranch reports whether a reference looks like a branch rather than a version.
func isBranch(ref string) bool { return !versionTag.MatchString(ref) && !strings.Contains(ref, "/v") }

var fullVersion = regexp.MustCompile(`^\d+\.\d+\.\d+$`)

// unpinnedOrbs looks at the orbs of a CircleCI configuration whose jobs hold secrets.
func (s *subject) unpinnedOrbs() {
	held := s.pathsWhere(isSecret)
	if len(held) == 0 || !s.mentions("orbs:") {
		return
	}
	for _, root := range s.documents() {
		for _, n := range s.pairs(s.get(root, "orbs")) {
			orb := s.str(n)
			name, version, ok := strings.Cut(orb, "@")
			if !ok || fullVersion.MatchString(version) || strings.HasPrefix(name, "circleci/") || strings.Contains(version, "<<") {
				continue
			}
			s.report(found{
				line: n.Line, severity: SeverityMedium, about: name, paths: held,
				message: fmt.Sprintf("The orb %s is named by %s, which its owner can move, and runs in a configuration whose jobs hold %s.", name, quoted(version, "no version"), heldWords(held)),
				fix:     "Name its full version (1.2.3): a published version of an orb can't change.",
			})
		}
	}
}

// unpinnedPlugins looks at Buildkite plugins without a version.
func (s *subject) unpinnedPlugins() {
	held := s.pathsWhere(isSecret)
	if len(held) == 0 || !s.mentions("plugins:") {
		return
	}
	report := func(n *node, name string) {
		if name == "" || strings.Contains(name, "#") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") || strings.Contains(name, "$") {
			return
		}
		s.report(found{
			line: n.Line, severity: SeverityMedium, about: name, paths: held,
			message: fmt.Sprintf("The plugin %s has no version: each run takes what its owner has on the default branch, beside %s.", name, heldWords(held)),
			fix:     "Name a version or a commit behind #.",
		})
	}
	for _, root := range s.documents() {
		s.each(root, "plugins", func(plugins *node) {
			for item := range s.items(plugins) {
				if s.isScalar(item) {
					report(item, s.str(item))
					continue
				}
				for k := range s.pairs(item) {
					report(k, k.Value)
				}
			}
		})
	}
}

// each visits the value of a key wherever it stands.
func (s *subject) each(n *node, key string, visit func(*node)) { s.eachBelow(n, key, 0, visit) }

func (s *subject) eachBelow(n *node, key string, depth int, visit func(*node)) {
	if depth > maxDepth {
		return
	}
	if s.isMap(n) {
		for k, v := range s.pairs(n) {
			if k.Value == key {
				visit(v)
			}
			s.eachBelow(v, key, depth+1, visit)
		}
	} else if s.isList(n) {
		for v := range s.items(n) {
			s.eachBelow(v, key, depth+1, visit)
		}
	}
}

// unpinnedImages looks at the plugin images of Drone and Woodpecker that take secrets as settings.
func (s *subject) unpinnedImages() {
	if len(s.pathsWhere(isSecret)) == 0 || !s.mentions("settings:") {
		return
	}
	look := func(name string, step *node) {
		image := s.str(s.get(step, "image"))
		if image == "" || s.get(step, "settings") == nil || strings.Contains(image, "@sha256:") || strings.Contains(image, "$") {
			return
		}
		_, tag, tagged := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
		if tagged && tag != "latest" {
			return
		}
		if n := s.str(s.get(step, "name")); n != "" {
			name = n
		}
		got := s.pathsWhere(func(p *Path) bool { return p.Step == oneLine(name) && isSecret(p) })
		if len(got) == 0 {
			return
		}
		s.report(found{
			line: s.get(step, "image").Line, job: got[0].Job, step: got[0].Step, severity: severity(Protected, powerful), about: image, paths: got,
			message: fmt.Sprintf("The plugin image %s gets %s and has no fixed version: each run takes the newest.", image, heldWords(got)),
			fix:     "Name the image by its digest.",
		})
	}
	for _, root := range s.documents() {
		steps := s.get(root, "steps")
		if s.isMap(steps) {
			for k, step := range s.pairs(steps) {
				look(k.Value, step)
			}
			continue
		}
		for step := range s.items(steps) {
			look("", step)
		}
	}
}
