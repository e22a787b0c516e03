package inventory

import (
	"path"
	"regexp"
	"strings"
)

// A file is recognised by its path where the platform fixes one, and else by
// its content: pipelines are kept under any name as templates, and some
// platforms take the path as a setting.

// pathCI tells the system from the path alone; sure is false when the content has to agree.
func pathCI(p string) (ci CI, sure bool) {
	low := strings.ToLower(p)
	base := path.Base(low)
	ext := path.Ext(base)
	yml := ext == ".yml" || ext == ".yaml"
	switch {
	case yml && inDir(low, ".github/workflows"):
		return GitHub, true
	case yml && (inDir(low, ".forgejo/workflows") || inDir(low, ".gitea/workflows")):
		return Forgejo, true
	case base == "action.yml" || base == "action.yaml":
		return GitHub, false
	case base == ".gitlab-ci.yml" || base == ".gitlab-ci.yaml":
		return GitLab, true
	case yml && strings.HasSuffix(strings.TrimSuffix(base, ext), "gitlab-ci"), yml && inDir(low, ".gitlab"), yml && inDir(low, ".gitlab-ci"):
		return GitLab, false
	case yml && inDir(low, ".circleci"):
		return CircleCI, false
	case base == "bitbucket-pipelines.yml" || base == "bitbucket-pipelines.yaml":
		return Bitbucket, true
	case yml && (inDir(low, ".buildkite") || strings.HasPrefix(base, "buildkite")):
		return Buildkite, false
	case strings.HasPrefix(base, "jenkinsfile"), ext == ".jenkinsfile":
		return Jenkins, true
	case ext == ".groovy" || ext == ".jenkins":
		return Jenkins, false
	case base == ".drone.yml" || base == ".drone.yaml":
		return Drone, true
	case base == ".drone.star" || base == ".drone.jsonnet":
		return Drone, true
	case base == ".woodpecker.yml" || base == ".woodpecker.yaml" || base == ".woodpecker.star":
		return Woodpecker, true
	case yml && inDir(low, ".woodpecker"):
		return Woodpecker, true
	case base == ".travis.yml" || base == ".travis.yaml":
		return Travis, true
	case strings.HasPrefix(base, "azure-pipelines") && yml, strings.HasPrefix(base, ".azure-pipelines") && yml, strings.HasPrefix(base, "azure-pipeline") && yml:
		return Azure, true
	case yml && strings.HasPrefix(base, "cloudbuild"), yml && strings.HasSuffix(base, "cloudbuild"+ext), base == "cloudbuild.json":
		return CloudBuild, false
	case yml && strings.Contains(base, "buildspec"):
		return CodeBuild, false
	}
	return "", false
}

// inDir reports whether a path lies below a directory of this name at any depth.
func inDir(p, dir string) bool {
	return strings.HasPrefix(p, dir+"/") || strings.Contains(p, "/"+dir+"/")
}

// Candidate reports whether a file can be a pipeline definition by its name,
// for those who bring files from elsewhere.
func Candidate(name string) bool { return candidate(name) }

// candidate reports whether a file can be a pipeline definition by its name.
func candidate(p string) bool {
	base := strings.ToLower(path.Base(p))
	switch path.Ext(base) {
	case ".yml", ".yaml", ".groovy", ".jenkinsfile", ".jenkins":
		return true
	}
	return strings.HasPrefix(base, "jenkinsfile") || base == ".drone.star" || base == ".drone.jsonnet" || base == ".woodpecker.star" || base == "cloudbuild.json"
}

// recognise tells which system a file belongs to, "" when it is no pipeline definition.
func recognise(p, text string) CI {
	ci, sure := pathCI(p)
	if sure {
		return ci
	}
	low := strings.ToLower(p)
	if ci == Jenkins {
		if isJenkins(text, inDir(low, "vars") || strings.Contains(low, "pipeline") && strings.Contains(text, "redential") || inDir(low, "src") && !inDir(low, "test") && runsScripts.MatchString(text)) {
			return Jenkins
		}
		return ""
	}
	if ci == CloudBuild && strings.HasPrefix(strings.TrimSpace(text), "{") {
		if strings.Contains(text, `"steps"`) && strings.Contains(text, `"name"`) {
			return CloudBuild
		}
		return ""
	}
	if by := contentCI(text, low, ci); by != "" {
		return by
	}
	return ""
}

// outline is what the first look at a YAML text shows.
type outline struct {
	keys  map[string]bool // top-level keys
	list  bool            // the document is a list
	inner map[string]bool // keys one or more levels below, without their place
	item  map[string]bool // those of inner that stand behind a dash
}

// maxOutline bounds how much of a file is looked at to recognise it.
const maxOutline = 256 << 10

// outlineOf collects keys without parsing, so that it also works on broken files.
func outlineOf(text string) outline {
	o := outline{keys: make(map[string]bool, 12), inner: make(map[string]bool, 48), item: make(map[string]bool, 16)}
	if len(text) > maxOutline {
		text = text[:maxOutline]
	}
	for len(text) > 0 {
		line := text
		if i := strings.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = ""
		}
		trim := strings.TrimLeft(line, " \t")
		if trim == "" || trim[0] == '#' {
			continue
		}
		top := len(trim) == len(line)
		if top && strings.HasPrefix(trim, "- ") {
			o.list = true
			top = false
		}
		dash := false
		for strings.HasPrefix(trim, "- ") {
			trim = strings.TrimLeft(trim[2:], " ")
			top, dash = false, true
		}
		i := strings.IndexByte(trim, ':')
		if i <= 0 || i > 80 {
			continue
		}
		key := strings.Trim(trim[:i], `"' `)
		if top {
			o.keys[key] = true
		} else {
			o.inner[key] = true
			if dash {
				o.item[key] = true
			}
		}
	}
	return o
}

func (o outline) top(keys ...string) bool {
	for _, k := range keys {
		if o.keys[k] {
			return true
		}
	}
	return false
}

func (o outline) below(keys ...string) bool {
	for _, k := range keys {
		if o.inner[k] {
			return true
		}
	}
	return false
}

// contentCI tells the system from what the file says; hint is what its path suggests.
func contentCI(text, low string, hint CI) CI {
	if strings.Contains(text, "tekton.dev/") && strings.Contains(text, "kind:") {
		if kindIn(text, "Pipeline", "PipelineRun", "Task", "TaskRun", "ClusterTask", "StepAction", "TriggerTemplate") {
			return Tekton
		}
		return ""
	}
	if strings.Contains(text, "argoproj.io/") && strings.Contains(text, "kind:") {
		if kindIn(text, "Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow") {
			return Argo
		}
		return ""
	}
	o := outlineOf(text)
	switch {
	case o.top("on", "true") && o.top("jobs") && o.below("runs-on", "uses"):
		if strings.Contains(low, "forgejo") || strings.Contains(low, "gitea") || inDir(low, "codeberg") || hint != GitHub && forgejoText.MatchString(text) {
			return Forgejo
		}
		return GitHub
	case o.top("runs") && o.below("using") && strings.Contains(text, "composite"):
		return GitHub
	case o.top("jobs", "workflows", "orbs", "commands") && (circleVersion(text) || hint == CircleCI && (o.top("version") || o.top("workflows") && o.below("jobs"))):
		return CircleCI
	case o.top("pipelines") && o.below("step", "parallel", "stage") && o.below("default", "branches", "tags", "bookmarks", "custom", "pull-requests"):
		return Bitbucket
	case (o.top("phases") || o.top("batch")) && o.top("version"):
		return CodeBuild
	case o.top("pipeline") && o.below("image") && o.below("secrets", "commands", "repo") && !o.below("identifier") && !strings.Contains(text, "woodpecker") && !strings.Contains(text, "from_secret") && !strings.Contains(text, "CI_COMMIT_") && hint != Woodpecker:
		return Drone // the form of Drone 0.8
	case o.top("kind") && o.top("steps", "services", "trigger", "clone") && strings.Contains(text, "kind: pipeline"):
		return Drone
	case o.top("runs"), o.top("apiVersion") && o.top("kind"):
		return ""
	}
	return contentCI2(text, low, hint, o)
}

// contentCI2 goes on with systems whose files share top-level keys.
func contentCI2(text, low string, hint CI, o outline) CI {
	switch {
	case hint == Buildkite && (o.top("steps") || o.list) && o.below("command", "commands", "label", "plugins", "group", "trigger", "block", "wait", "key", "queue"):
		return Buildkite
	case isAzure(o):
		return Azure
	case o.top("steps") && isCloudBuild(o, text, hint):
		return CloudBuild
	case o.top("steps") && o.below("plugins", "label", "agents", "artifact_paths") && o.below("command", "commands", "plugins", "trigger", "block") && !o.below("uses", "runs-on", "image"):
		return Buildkite
	case o.top("steps", "pipeline") && o.below("image") && (o.top("when", "clone", "matrix", "depends_on", "labels", "workspace", "skip_clone", "services", "variables", "platform") || strings.Contains(low, "woodpecker") || strings.Contains(text, "woodpecker") || strings.Contains(text, "from_secret") || strings.Contains(text, "CI_COMMIT_") || o.below("commands")) && !o.below("args", "plugins", "agents", "label"):
		return Woodpecker
	case o.top("language", "dist", "before_install", "after_success", "before_deploy", "sudo", "addons") && o.top(travisKeys...):
		return Travis
	case isGitLab(o, hint):
		return GitLab
	}
	return ""
}

// travisKeys are keys that tell a configuration of Travis from other files with a language.
var travisKeys = []string{"script", "install", "before_install", "before_script", "after_success", "after_script", "deploy", "before_deploy", "env", "jobs", "matrix", "stages", "sudo", "dist", "os", "addons", "notifications", "branches",
	"node_js", "python", "rvm", "go", "php", "jdk", "scala", "rust", "compiler", "android", "osx_image", "xcode_project", "perl", "elixir", "otp_release", "julia", "r", "haskell", "ghc", "d", "dotnet", "mono", "cache", "services"}

// forgejoText matches what only a workflow of Forgejo or Gitea says.
var forgejoText = regexp.MustCompile(`uses:\s*['"]?https://|enable-openid-connect:|runs-on:\s*\[?['"]?(codeberg-|docker\b)|secrets\.(FORGEJO|GITEA|CODEBERG)_|\bforgejo\.(org|token)|\bgitea\.(com|token)`)

// gitLabStages reports whether jobs name their stage: in Azure a stage is an entry of a list, in GitLab a word.
func gitLabStages(o outline) bool {
	if !o.below("stage") || o.item["stage"] {
		return false
	}
	for _, k := range []string{"task", "script", "bash", "pwsh", "powershell", "checkout", "publish", "deployment"} {
		if o.item[k] {
			return false
		}
	}
	return o.below("script", "trigger", "extends")
}

// isAzure looks for the words of Azure Pipelines: "- task:", "- template:", pools and stages.
func isAzure(o outline) bool {
	if o.top("include", "default", "before_script", "plan") || gitLabStages(o) {
		return false
	}
	azureStep := o.below("task", "bash", "pwsh", "powershell", "checkout", "publish", "download")
	switch {
	case o.top("stages", "jobs", "steps") && o.below("task", "vmImage", "displayName") && !o.below("runs-on", "uses"):
		return true
	case o.top("stages", "jobs", "steps") && (azureStep || o.below("template", "deployment", "job") || o.below("stage") && o.below("jobs")) && o.top("parameters", "pool", "trigger", "pr", "resources", "variables", "schedules"):
		return !o.below("runs-on")
	case o.top("extends") && o.top("resources", "trigger", "pr", "parameters", "variables") && !o.top("script"):
		return true
	case o.top("variables") && o.below("group") && (o.top("parameters") || len(o.keys) == 1):
		return true
	}
	return false
}

// isCloudBuild looks for steps that are containers with arguments.
func isCloudBuild(o outline, text string, hint CI) bool {
	if hint == CloudBuild {
		return o.below("name")
	}
	if !o.below("name") || o.below("uses", "run", "task", "plugins") {
		return false
	}
	if o.below("args", "entrypoint", "waitFor") && o.item["name"] && !o.below("image", "commands", "displayName", "label") {
		return true
	}
	return o.below("args", "entrypoint", "waitFor") && (strings.Contains(text, "gcr.io/") || strings.Contains(text, "$PROJECT_ID") || o.top("substitutions", "images", "availableSecrets"))
}

// isGitLab looks for jobs with scripts at the top level.
func isGitLab(o outline, hint CI) bool {
	if hint == GitLab {
		return o.below("script", "extends", "trigger", "local", "variables", "before_script", "image", "id_tokens", "rules", "remote", "project", "template") || o.top("include", "variables", "stages", "workflow", "default")
	}
	if o.top("stages") && gitLabStages(o) {
		return true
	}
	if !o.below("script") || o.top("language", "jobs", "steps", "pipelines", "on", "plan", "plan-permissions") {
		return false
	}
	if o.top("spec") && o.below("inputs") && !o.top("apiVersion", "kind") {
		return true // a component, or what an include gives inputs to
	}
	return o.top("stages", "include", "before_script", "image", "default", "variables", "workflow") && o.below("stage", "only", "rules", "tags", "needs", "extends", "artifacts") || o.below("stage", "allow_failure") && o.below("only", "except", "rules", "tags", "services", "allow_failure") && !o.top("services", "version")
}

// circleVersion reports whether a text says "version: 2" or 2.1 at the top level.
func circleVersion(text string) bool {
	for _, v := range []string{"version: 2", "version: '2", `version: "2`, "version:  2"} {
		if strings.HasPrefix(text, v) || strings.Contains(text, "\n"+v) {
			return true
		}
	}
	return false
}

// kindIn reports whether a manifest of one of the kinds stands in a text.
func kindIn(text string, kinds ...string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], "kind:")
		if i < 0 {
			return false
		}
		from += i + 5
		rest := text[from:]
		if j := strings.IndexByte(rest, '\n'); j >= 0 {
			rest = rest[:j]
		}
		rest = strings.Trim(rest, " \t\r\"'")
		for _, k := range kinds {
			if rest == k {
				return true
			}
		}
	}
}

// runsScripts matches a class of a shared library that runs commands.
var runsScripts = regexp.MustCompile(`(?m)^\s*(?:def \w+ = |\w+ = |return )?(?:this\.)?(?:\w+\.)?sh\s*(?:\(|\[|"|')|\bget\w*Credentials\(`)

// isJenkins reports whether a Groovy file is a pipeline or a step of a shared
// library that handles credentials. A test of such a step runs none of them.
func isJenkins(text string, step bool) bool {
	for _, w := range []string{"import org.junit", "import spock.", "extends BasePipelineTest", "extends ApmBasePipelineTest", "extends BasePiperTest"} {
		if strings.Contains(text, w) {
			return false
		}
	}
	if step {
		return true
	}
	for _, w := range []string{"pipeline {", "pipeline{", "withCredentials", "redentialsId", "redentialId", "withRegistry", "withDockerRegistry", "withAzureKeyvault", "configFileProvider", "credentials(", "withSecrets", "withVault", "withAWS", "sshagent", "node(", "node {", "stage("} {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// repoOf gives the directory of the repository that a definition belongs to, by the place that its platform gives it.
func repoOf(p string) string {
	for _, mark := range []string{".github/", ".forgejo/", ".gitea/", ".gitlab/", ".circleci/", ".buildkite/", ".woodpecker/", ".tekton/", ".azure-pipelines/", ".pipelines/"} {
		if strings.HasPrefix(p, mark) {
			return ""
		}
		if i := strings.Index(p, "/"+mark); i >= 0 {
			return p[:i]
		}
	}
	return strings.TrimSuffix(strings.TrimSuffix(path.Dir(p), "."), "/")
}

// RepositoryOf gives the directory, below the root of a scan, of the repository
// that a pipeline belongs to, by the place that its platform gives it.
func RepositoryOf(file string) string { return repoOf(file) }
