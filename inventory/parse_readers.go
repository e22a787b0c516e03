package inventory

func init() {
	readers = map[CI]func(*reader, []*node){
		GitHub: readGitHub, Forgejo: readGitHub, GitLab: readGitLab, CircleCI: readCircleCI, Azure: readAzure, Bitbucket: readBitbucket, Buildkite: readBuildkite,
		Tekton: readTekton, Argo: readArgo, Drone: readDrone, Woodpecker: readWoodpecker, Travis: readTravis, CloudBuild: readCloudBuild, CodeBuild: readCodeBuild,
	}
}
