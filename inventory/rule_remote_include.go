package inventory

import (
	"fmt"
	"strings"
)

var ruleRemoteInclude = Rule{
	Name:  "remote-include",
	Title: "A part of the pipeline comes from elsewhere and isn't pinned",
	What: "Jobs are taken from another place when the pipeline starts: a URL without a checksum, a project or a template repository without a fixed commit, a component by `~latest` or a branch. " +
		"Whoever changes them there decides what runs here, with the variables, service connections and runners of this project.",
	Remedy:     "Give a remote include its `integrity:` checksum; name projects, components and template repositories by commit or by a protected tag.",
	References: []string{dependencyAbuse, poisonedPipeline, thirdParties, nistPullPush},
	Systems:    []CI{GitLab, Azure},
	check:      checkRemoteInclude,
}

func checkRemoteInclude(s *subject) {
	if s.file.CI == Azure {
		s.templateRepositories()
		return
	}
	if !s.mentions("include") {
		return
	}
	for _, root := range s.documents() {
		for inc := range s.items(s.get(root, "include")) {
			s.gitlabInclude(inc)
		}
		s.each(root, "trigger", func(t *node) {
			for inc := range s.items(s.get(t, "include")) {
				s.gitlabInclude(inc)
			}
		})
	}
}

// gitlabInclude looks at one entry of `include:`.
func (s *subject) gitlabInclude(inc *node) {
	remote := s.str(s.get(inc, "remote"))
	if text := s.str(inc); strings.Contains(text, "://") {
		remote = text
	}
	switch {
	case remote != "":
		if s.get(inc, "integrity") != nil {
			return
		}
		sev := SeverityMedium
		if strings.HasPrefix(remote, "http://") {
			sev = SeverityHigh // anybody on the way can change it
		}
		s.include(inc, sev, remote, "is taken from a URL without a checksum", "Add integrity: with its SHA-256, or keep a copy in this project.")
	case s.get(inc, "project") != nil:
		ref := s.str(s.get(inc, "ref"))
		if ref != "" && (fullCommit.MatchString(ref) || versionTag.MatchString(ref)) {
			return
		}
		s.include(inc, SeverityLow, s.str(s.get(inc, "project")), "is taken from "+quoted(ref, "the default branch")+" of another project", "Name a commit or a protected tag in ref:.")
	case s.get(inc, "component") != nil:
		name, version, _ := strings.Cut(s.str(s.get(inc, "component")), "@")
		if fullCommit.MatchString(version) || fullVersion.MatchString(strings.TrimPrefix(version, "v")) || strings.Contains(version, "$") {
			return
		}
		s.include(inc, SeverityLow, name, "is a component by "+quoted(version, "no version")+", which moves", "Name its full version or a commit behind @.")
	}
}

func (s *subject) include(at *node, sev Severity, name, what, fix string) {
	held := s.pathsWhere(func(p *Path) bool {
		return isSecret(p) || p.Credential.Kind == Federated || p.Credential.Kind == ServiceConnection
	})
	s.report(found{line: at.Line, severity: sev, about: name, message: fmt.Sprintf("%s %s: whoever changes it there changes this pipeline.", name, what), fix: fix, paths: firstPaths(held)})
}

// firstPaths keeps the list of paths of a finding about a whole file short.
func firstPaths(paths []*Path) []*Path { return paths[:min(len(paths), 20)] }

// templateRepositories looks at the repositories that an Azure pipeline takes templates from.
func (s *subject) templateRepositories() {
	if !s.mentions("repositories:") {
		return
	}
	for _, root := range s.documents() {
		for repo := range s.items(s.at(root, "resources", "repositories")) {
			alias, name, ref := s.str(s.get(repo, "repository")), s.str(s.get(repo, "name")), s.str(s.get(repo, "ref"))
			if alias == "" || name == "" || !s.mentions("@"+alias) || strings.HasPrefix(ref, "refs/tags/") || fullCommit.MatchString(ref) || strings.Contains(ref, "$") {
				continue
			}
			sev := SeverityLow
			if kind := s.str(s.get(repo, "type")); kind == "github" || kind == "bitbucket" {
				sev = SeverityMedium // outside of the organisation
			}
			s.include(repo, sev, name, "gives templates from "+quoted(ref, "its default branch"), "Name a tag (ref: refs/tags/...) that only release managers can move, and require the template in the pipeline's checks.")
		}
	}
}
