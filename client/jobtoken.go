package client

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// platform is one row: how a job finds out that it runs on a CI platform, how
// it gets its token there, and what to write into the pipeline's file when it
// can't. The facts are the platforms' own documentation's.
type platform struct {
	name  string // as in the broker's configuration
	title string
	// marks are variables that the platform sets in every job, as NAME or
	// NAME=value; one of them is enough.
	marks []string
	// unless are marks of platforms that imitate this one.
	unless []string
	// needs are the variables from which the token comes; without them the
	// workflow did not ask for one.
	needs []string
	// again: each call gives another token, so a credential can be renewed.
	again bool
	// chooses: the token's audience is what the job asks for, or what the
	// pipeline's file says; a token for another audience is then not sent.
	chooses bool
	get     func(*Source, context.Context) (string, error)
	advice  string
}

// platforms is the table. The order is that of the error which lists it.
var platforms = []platform{
	{
		name: "github", title: "GitHub Actions", again: true, chooses: true,
		marks: []string{"GITHUB_ACTIONS=true"}, unless: []string{"FORGEJO_ACTIONS", "GITEA_ACTIONS"},
		needs: []string{"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}, get: (*Source).fromActions,
		advice: "Let the job ask for its token, in the workflow file:\n\n    permissions:\n      id-token: write\n\nA pull request from a fork gets none, whatever the file says.",
	},
	{
		name: "forgejo", title: "Forgejo Actions", again: true, chooses: true,
		marks: []string{"FORGEJO_ACTIONS=true", "GITEA_ACTIONS=true"},
		needs: []string{"ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"}, get: (*Source).fromActions,
		advice: "Let the job ask for its token (Forgejo 15 or later), in the workflow file:\n\n    enable-openid-connect: true",
	},
	{
		name: "gitlab", title: "GitLab CI/CD", chooses: true,
		marks: []string{"GITLAB_CI=true"}, get: (*Source).fromNamed,
		advice: "Give the job a token, in .gitlab-ci.yml:\n\n    id_tokens:\n      {{variable}}:\n        aud: {{audience}}",
	},
	{
		name: "buildkite", title: "Buildkite", again: true, chooses: true,
		marks: []string{"BUILDKITE=true"}, needs: []string{"BUILDKITE_AGENT_ACCESS_TOKEN"}, get: (*Source).fromBuildkite,
		advice: "The token comes from the command buildkite-agent, which must be in the step's PATH, with BUILDKITE_AGENT_ACCESS_TOKEN in its environment. In a container step let the plugin pass both on (docker: propagate-environment, mount-buildkite-agent).",
	},
	{
		name: "circleci", title: "CircleCI", again: true, chooses: true,
		marks: []string{"CIRCLECI=true"}, get: (*Source).fromCircleCI,
		advice: "The token for {{audience}} comes from the command circleci, which CircleCI's executors have; without it Proviso takes CIRCLE_OIDC_TOKEN_V2, which is for your organisation and which the broker must then be told to accept.",
	},
	{
		name: "bitbucket", title: "Bitbucket Pipelines", chooses: true,
		marks: []string{"BITBUCKET_BUILD_NUMBER"}, needs: []string{"BITBUCKET_STEP_OIDC_TOKEN"}, get: fromVariable("BITBUCKET_STEP_OIDC_TOKEN"),
		advice: "Give the step a token for the broker alone, in bitbucket-pipelines.yml:\n\n    - step:\n        oidc:\n          audiences:\n            - {{audience}}",
	},
	{
		name: "azure-devops", title: "Azure DevOps Pipelines", again: true,
		marks: []string{"TF_BUILD=True"}, needs: []string{"SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN"}, get: (*Source).fromAzure,
		advice: "Let the step ask for its token, in azure-pipelines.yml:\n\n    env:\n      SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
	},
	{
		name: "jenkins", title: "Jenkins", chooses: true,
		marks: []string{"JENKINS_URL"}, get: (*Source).fromNamed,
		advice: "With the OpenID Connect Provider plugin, make an \"OpenID Connect id token\" credential whose audience is {{audience}}, and bind it in the Jenkinsfile:\n\n    withCredentials([string(credentialsId: 'proviso', variable: '{{variable}}')]) { ... }\n\nA file credential works with variable: '{{variable}}_FILE'.",
	},
	{
		name: "hcp-terraform", title: "HCP Terraform", chooses: true,
		marks: []string{"TFC_RUN_ID"}, get: (*Source).fromTerraform,
		advice: "Set the workspace's environment variable TFC_WORKLOAD_IDENTITY_AUDIENCE to {{audience}}. With several tokens use TFC_WORKLOAD_IDENTITY_AUDIENCE_PROVISO, and choose TFC_WORKLOAD_IDENTITY_TOKEN_PROVISO as the token's variable.",
	},
	{
		name: "google-cloud-build", title: "Google Cloud Build", again: true, chooses: true,
		marks: []string{"BUILDER_OUTPUT"}, get: (*Source).fromMetadata,
		advice: "The token comes from the build's metadata server, for a service account that you name in cloudbuild.yaml:\n\n    serviceAccount: projects/PROJECT/serviceAccounts/NAME@PROJECT.iam.gserviceaccount.com",
	},
	{
		name: "codefresh", title: "Codefresh", again: true,
		marks: []string{"CF_BUILD_ID"}, needs: []string{"CF_OIDC_REQUEST_URL", "CF_OIDC_REQUEST_TOKEN"}, get: (*Source).fromCodefresh,
		advice: "Codefresh sets both for its steps; pass them on if the step starts another container.",
	},
	{
		name: "semaphore", title: "Semaphore",
		marks: []string{"SEMAPHORE=true"}, needs: []string{"SEMAPHORE_OIDC_TOKEN"}, get: fromVariable("SEMAPHORE_OIDC_TOKEN"),
		advice: "Semaphore sets it in its jobs; pass it on if the job starts a container.",
	},
	{
		name: "spacelift", title: "Spacelift",
		marks: []string{"TF_VAR_spacelift_run_id", "SPACELIFT_OIDC_TOKEN"}, get: (*Source).fromSpacelift,
		advice: "Spacelift sets it in its runs, and writes it to " + spaceliftFile + "; pass one on if the run starts a container.",
	},
	{
		name: "harness", title: "Harness", chooses: true,
		marks: []string{"HARNESS_BUILD_ID", "HARNESS_ACCOUNT_ID"}, get: (*Source).fromNamed,
		advice: "Let an earlier step get an OIDC token for {{audience}} and pass it to this one as the environment variable {{variable}}.",
	},
}

// Variables that say where the token is on any machine. They win over what the
// platform offers: who sets one means it.
const (
	envToken   = "PROVISO_JOB_TOKEN"
	envFile    = "PROVISO_JOB_TOKEN_FILE"
	envCommand = "PROVISO_JOB_TOKEN_COMMAND"

	// DefaultTokenVariable is where GitLab's, Jenkins' and Harness' pipelines
	// put the token unless told otherwise.
	DefaultTokenVariable = "PROVISO_ID_TOKEN"
)

var explicit = []platform{
	{name: "generic", title: "variable " + envToken, marks: []string{envToken}, get: fromVariable(envToken)},
	{name: "generic", title: "file in " + envFile, marks: []string{envFile}, again: true, get: (*Source).fromFile},
	{name: "generic", title: "command in " + envCommand, marks: []string{envCommand}, again: true, get: (*Source).fromCommand},
}

// Lookup says where to look for the job's token.
type Lookup struct {
	// Audience is whom the token must be for: the broker's URL.
	Audience string
	// Platform names the CI platform; "" finds it by its variables.
	Platform string
	// Variable holds the token on platforms where the pipeline's file chooses
	// its name; "" means DefaultTokenVariable. Variable+"_FILE" may name a file.
	Variable string
	// Environ is the environment, as NAME=value; nil means the process's own.
	Environ []string
}

// Source is where the job's token comes from.
type Source struct {
	platform
	audience string
	variable string
	env      map[string]string
	secrets  []string // variables whose values no error may show
}

// Find finds the source of the job's token.
func Find(l Lookup) (*Source, error) {
	if l.Environ == nil {
		l.Environ = os.Environ()
	}
	s := &Source{audience: l.Audience, variable: l.Variable, env: make(map[string]string, len(l.Environ))}
	if s.variable == "" {
		s.variable = DefaultTokenVariable
	}
	s.secrets = tokenVariables(s.variable)
	for _, kv := range l.Environ {
		if name, value, ok := strings.Cut(kv, "="); ok {
			s.env[name] = value
		}
	}
	var found []platform
	switch {
	case l.Platform != "":
		for _, p := range append(slices.Clone(platforms), explicit...) {
			if p.name == l.Platform && (p.name != "generic" || s.marked(p)) {
				found = append(found, p)
			}
		}
		if len(found) == 0 {
			return nil, &NoTokenError{what: fmt.Sprintf("%q is no platform, or its variables are missing; known are %s", Printable(l.Platform), strings.Join(PlatformNames(), ", "))}
		}
	default:
		if found = s.all(explicit); len(found) == 0 {
			found = s.all(platforms)
		}
	}
	switch len(found) {
	case 1:
		s.platform = found[0]
		return s, nil
	case 0:
		return nil, s.nothingFound()
	}
	titles := make([]string, len(found))
	for i, p := range found {
		titles[i] = p.title + " (" + strings.Join(p.marks, " or ") + ")"
	}
	return nil, &NoTokenError{what: "this looks like more than one place where a job's token comes from: " + strings.Join(titles, ", "),
		advice: "Name the platform (--ci, or the variable PROVISO_CI), or unset what does not belong here."}
}

// PlatformNames lists the platforms that Find knows.
func PlatformNames() []string {
	var names []string
	for _, p := range platforms {
		names = append(names, p.name)
	}
	return append(names, "generic")
}

func (s *Source) all(rows []platform) []platform {
	var found []platform
	for _, p := range rows {
		if s.marked(p) {
			found = append(found, p)
		}
	}
	return found
}

// marked reports whether the environment has one of a platform's marks. An
// empty variable marks nothing.
func (s *Source) marked(p platform) bool {
	for _, name := range p.unless {
		if s.env[name] != "" {
			return false
		}
	}
	for _, m := range p.marks {
		name, want, exact := strings.Cut(m, "=")
		if got := s.env[name]; got != "" && (!exact || strings.EqualFold(got, want)) {
			return true
		}
	}
	return false
}

func (s *Source) nothingFound() error {
	var looked []string
	for _, p := range platforms {
		looked = append(looked, "    "+p.title+": "+strings.Join(p.marks, " or "))
	}
	return &NoTokenError{
		what: "this process is no job of a CI platform that Proviso knows; its environment has none of\n" + strings.Join(looked, "\n"),
		advice: "Elsewhere, put the job's token for " + s.audience + " into a file and name it in " + envFile +
			" (or set " + envToken + ", or a command that prints it in " + envCommand + ").",
	}
}

// NoTokenError says that there is no job token, what was looked for, and what to
// add to the pipeline's file.
type NoTokenError struct {
	what, advice string
}

func (e *NoTokenError) Error() string {
	if e.advice == "" {
		return "no job token: " + e.what
	}
	return "no job token: " + e.what + ".\n" + e.advice
}

// missing makes the error of a platform whose token isn't there.
func (s *Source) missing(what string, args ...any) error {
	advice := strings.NewReplacer("{{audience}}", s.audience, "{{variable}}", s.variable).Replace(s.advice)
	return &NoTokenError{what: s.title + ": " + fmt.Sprintf(what, args...), advice: advice}
}

// Title names the source for people, as "GitHub Actions".
func (s *Source) Title() string { return s.title }

// Platform names the source's platform as the broker's configuration does.
func (s *Source) Platform() string { return s.name }

// Renewable reports whether Token gives another token each time. If it doesn't,
// the job's one token buys one credential per grant, and that ends when it ends.
func (s *Source) Renewable() bool { return s.again }

// Token gets the job's token. It is looked at, not verified: that is the
// broker's matter. A token that has expired, or that is for another audience
// where the job could have chosen, is an error and is not sent to anybody.
func (s *Source) Token(ctx context.Context) (string, error) {
	for _, name := range s.needs {
		if s.env[name] == "" {
			return "", s.missing("%s is not set", name)
		}
	}
	token, err := s.get(s, ctx)
	if err != nil {
		return "", err
	}
	return token, s.look(token)
}

// Asks reports whether the job asks its platform for each token, and says whom it
// is for.
func (s *Source) Asks() bool { return s.again && s.chooses }

// For gives the same source with another audience.
func (s *Source) For(audience string) *Source {
	other := *s
	other.audience = audience
	return &other
}

// IsTokenVariable reports whether a variable holds a job's token, or something
// with which one can be had, so that whoever has it can buy what the job may
// have. chosen is Lookup.Variable.
func IsTokenVariable(name, chosen string) bool {
	return slices.Contains(tokenVariables(chosen), name) || strings.HasPrefix(name, "TFC_WORKLOAD_IDENTITY_TOKEN")
}

func tokenVariables(chosen string) []string {
	names := []string{
		envToken, envFile, envCommand, DefaultTokenVariable, DefaultTokenVariable + "_FILE",
		"CIRCLE_OIDC_TOKEN", "CIRCLE_OIDC_TOKEN_V2", "TFC_WORKLOAD_IDENTITY_TOKEN", "SPACELIFT_OIDC_TOKEN",
	}
	if chosen != "" {
		names = append(names, chosen, chosen+"_FILE")
	}
	for _, p := range platforms {
		names = append(names, p.needs...)
	}
	return names
}
