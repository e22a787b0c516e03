package inventory

func init() {
	readers = map[CI]func(*reader, []*node){GitHub: readGitHub, Forgejo: readGitHub}
	for _, ci := range []CI{GitLab, CircleCI, Azure, Bitbucket, Buildkite, Tekton, Argo, Drone, Woodpecker, Travis, CloudBuild, CodeBuild} {
		readers[ci] = func(*reader, []*node) {}
	}
}
func readJenkins(r *reader)    {}
func isGitLabRoot(string) bool { return true }
