package inventory

import (
	"path"
	"strings"
)

// jkConnections are steps whose server, and the credential for it, are
// configured in the controller; some of them take an id of their own instead.
var jkConnections = map[string]Resource{
	"withSonarQubeEnv": {"scan/sonar", ""}, "publishChecks": {"vcs/github", ""}, "GitHubCommitStatusSetter": {"vcs/github", ""}, "githubNotify": {"vcs/github", ""}, "setGitHubPullRequestStatus": {"vcs/github", ""},
	"updateGitlabCommitStatus": {"vcs/gitlab", ""}, "gitlabCommitStatus": {"vcs/gitlab", ""}, "addGitLabMRComment": {"vcs/gitlab", ""}, "bitbucketStatusNotify": {"vcs/bitbucket", ""}, "gerritReview": {"vcs/git", "gerrit"},
	"slackSend": {"notify/slack", "slack.com"}, "slackUploadFile": {"notify/slack", "slack.com"}, "office365ConnectorSend": {"notify/chat", "teams"}, "emailext": {"notify/chat", "mail"}, "mail": {"notify/chat", "mail"}, "Mailer": {"notify/chat", "mail"},
	"mattermostSend": {"notify/chat", "mattermost"}, "rocketSend": {"notify/chat", "rocket.chat"}, "hipchatSend": {"notify/chat", "hipchat"}, "telegramSend": {"notify/chat", "telegram.org"}, "ircNotify": {"notify/chat", "irc"},
	"jiraComment": {"saas/jira", ""}, "jiraAddComment": {"saas/jira", ""}, "jiraNewIssue": {"saas/jira", ""}, "jiraEditIssue": {"saas/jira", ""}, "jiraTransitionIssue": {"saas/jira", ""}, "jiraNewVersion": {"saas/jira", ""}, "jiraSendBuildInfo": {"saas/jira", ""}, "jiraSendDeploymentInfo": {"saas/jira", ""},
}

// jkConnection reads a step whose credential is configured in the controller.
func jkConnection(f *jkFile, c *gCall, ctx jkCtx) {
	res := jkConnections[c.name]
	if res.Kind == "" {
		return
	}
	at := ctx.place()
	static := false
	for _, key := range []string{"tokenCredentialId", "credentialsId", "webhookUrl"} {
		if v := named(c, key); v.isStr && (key != "webhookUrl" || v.gstr) || v.ident != "" || v.parts != nil {
			if key == "webhookUrl" {
				continue
			}
			f.secret(v, c.line, ctx, secretUse(res.Kind, res.Name), c.name)
			static = true
		}
	}
	if !static {
		name := c.name
		if v := positional(c, 0); c.name == "withSonarQubeEnv" && v.isStr {
			name = v.str
		} else if v := named(c, "installationName"); v.isStr {
			name = v.str
		}
		if v := named(c, "channel"); v.isStr {
			res.Name = v.str
		}
		f.r.connection(at, c.line, name, use{res: res}, c.name)
	}
	f.block(c.body, ctx)
}

// jkPostStep reads a step that is named by its class: step([$class: 'Mailer', ...]).
func jkPostStep(f *jkFile, c *gCall, ctx jkCtx) {
	class := named(c, "$class").str
	if class = class[strings.LastIndexByte(class, '.')+1:]; jkConnections[class].Kind != "" {
		jkConnection(f, &gCall{name: class, args: c.args, line: c.line}, ctx)
		return
	}
	f.arguments(c, ctx)
	f.nestedCalls(c, ctx)
}

// jkLoad notes a file of functions; one of the tree is read by itself, and its functions where they are called.
func jkLoad(f *jkFile, c *gCall, ctx jkCtx) {
	v := positional(c, 0)
	if name := strings.TrimPrefix(v.str, "./"); !v.isStr || v.gstr || f.r.above(name) == "" {
		f.r.open(ctx.place(), c.line, "loaded file", firstOf(v.str, v.ident, "expression"), "the functions of the file that is loaded are not in the scanned tree")
	}
}

// above gives a file of the tree, seen from the directory of this one or of
// one above it: only Jenkins knows where its workspace begins. "" is none.
func (r *reader) above(name string) string {
	for dir := path.Dir(r.src.path); ; dir = path.Dir(dir) {
		if r.tree.has(path.Join(dir, name)) {
			return path.Join(dir, name)
		}
		if dir == "." || dir == "/" {
			return ""
		}
	}
}

// dockerSocket is what the socket of the container engine opens.
var dockerSocket = use{res: Resource{"runner/host", "docker socket"}}

// socket records the socket of the container engine, where arguments of a
// container hand it over: who has it can do what the machine can.
func (f *jkFile) socket(args []gArg, ctx jkCtx, depth int) {
	for _, a := range args {
		if at := strings.Index(a.val.str, "/docker.sock"); a.val.isStr && at >= 0 {
			f.r.ambient(ctx.place(), a.val.line+strings.Count(a.val.str[:at], "\n"), "docker.sock", dockerSocket, "volumes")
			return
		}
		if depth < 6 {
			f.socket(a.val.list, ctx, depth+1)
		}
	}
}
