package inventory

func init() {
	readers = map[CI]func(*reader, []*node){GitHub: readGitHub, Forgejo: readGitHub}
	readers[GitLab] = readGitLab
	readers[CircleCI] = readCircleCI
	readers[Azure] = readAzure
	for _, ci := range []CI{Bitbucket, Buildkite, Tekton, Argo, Drone, Woodpecker, Travis, CloudBuild, CodeBuild} {
		readers[ci] = func(*reader, []*node) {}
	}
}
