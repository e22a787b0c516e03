package inventory

func init() {
	readers = map[CI]func(*reader, []*node){GitHub: readGitHub, Forgejo: readGitHub}
	readers[GitLab] = readGitLab
	readers[CircleCI] = readCircleCI
	readers[Azure] = readAzure
	readers[Buildkite] = readBuildkite
	readers[Bitbucket], readers[Drone], readers[Woodpecker] = readBitbucket, readDrone, readWoodpecker
	readers[Travis], readers[CloudBuild], readers[CodeBuild] = readTravis, readCloudBuild, readCodeBuild
	for _, ci := range []CI{Tekton, Argo} {
		readers[ci] = func(*reader, []*node) {}
	}
}
