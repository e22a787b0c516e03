package inventory

func init() {
	readers = map[CI]func(*reader, []*node){GitHub: readGitHub, Forgejo: readGitHub}
	readers[GitLab] = readGitLab
	readers[CircleCI] = readCircleCI
	readers[Azure] = readAzure
	readers[Buildkite] = readBuildkite
	for _, ci := range []CI{Bitbucket, Tekton, Argo, Drone, Woodpecker, Travis, CloudBuild, CodeBuild} {
		readers[ci] = func(*reader, []*node) {}
	}
}
