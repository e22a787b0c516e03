package lab

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Run is a job that is running on a platform: it has a request token with which
// it gets job tokens, until it ends.
type Run struct {
	issuer *Issuer
	job    Job
	secret string

	mu     sync.Mutex
	minted []string
}

// Start starts a job.
func (i *Issuer) Start(job Job) *Run {
	r := &Run{issuer: i, job: job, secret: randomSecret()}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.runs[r.secret] = r
	return r
}

// End ends the job: its request token is no longer good.
func (r *Run) End() {
	r.issuer.mu.Lock()
	defer r.issuer.mu.Unlock()
	delete(r.issuer.runs, r.secret)
}

// Secret is the request token. Tests look for it in every output.
func (r *Run) Secret() string { return r.secret }

// Minted lists the job tokens that the platform's endpoint has given out.
func (r *Run) Minted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.minted)
}

// Token mints a token as the platform's own tool would do it for the job.
func (r *Run) Token(audience string) (string, error) {
	token, err := r.issuer.Token(r.job, audience)
	if err == nil {
		r.mu.Lock()
		r.minted = append(r.minted, token)
		r.mu.Unlock()
	}
	return token, err
}

// Environment gives the variables that the platform sets for the job's steps,
// as NAME=value. On platforms that put one ready token there it is made for the
// audience, which the workflow file would name.
func (r *Run) Environment(audience string) ([]string, error) {
	base := r.issuer.server.url
	switch r.issuer.platform {
	case GitHub, Forgejo:
		env := []string{
			"GITHUB_ACTIONS=true",
			"ACTIONS_ID_TOKEN_REQUEST_URL=" + base + "/_platform/idtoken?api-version=2.0",
			"ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + r.secret,
		}
		if r.issuer.platform == Forgejo {
			env = append(env, "FORGEJO_ACTIONS=true", "GITEA_ACTIONS=true")
		}
		return env, nil
	case AzureDevOps:
		return []string{"TF_BUILD=True", "SYSTEM_OIDCREQUESTURI=" + base + "/_platform/oidctoken", "SYSTEM_ACCESSTOKEN=" + r.secret}, nil
	case Codefresh:
		return []string{"CF_BUILD_ID=64e1f2a3b4c5d6e7f8091a2d", "CF_OIDC_REQUEST_URL=" + base + "/_platform/codefresh", "CF_OIDC_REQUEST_TOKEN=" + r.secret}, nil
	case CloudBuild: // the metadata server knows no secret: whoever reaches it is the build
		return []string{"BUILDER_OUTPUT=/builder/outputs", "GCE_METADATA_HOST=" + strings.SplitN(base, "://", 2)[1]}, nil
	}
	// GitLab, Jenkins and Harness let the pipeline's file choose the name.
	marks, variable := map[Platform][]string{
		GitLab:       {"GITLAB_CI=true"},
		Buildkite:    {"BUILDKITE=true", "BUILDKITE_AGENT_ACCESS_TOKEN=" + r.secret},
		CircleCI:     {"CIRCLECI=true"},
		Bitbucket:    {"BITBUCKET_BUILD_NUMBER=412"},
		Jenkins:      {"JENKINS_URL=https://jenkins.acme.example/", "BUILD_ID=412"},
		HCPTerraform: {"TFC_RUN_ID=run-Hj64kLpOi8uYtR3e"},
		Semaphore:    {"SEMAPHORE=true"},
		Spacelift:    {"TF_VAR_spacelift_run_id=01KQ2X9Z1A2B3C4D5E6F7G8H9J"},
		Harness:      {"HARNESS_BUILD_ID=412"},
	}[r.issuer.platform], map[Platform]string{
		CircleCI: "CIRCLE_OIDC_TOKEN_V2", Bitbucket: "BITBUCKET_STEP_OIDC_TOKEN", HCPTerraform: "TFC_WORKLOAD_IDENTITY_TOKEN",
		Semaphore: "SEMAPHORE_OIDC_TOKEN", Spacelift: "SPACELIFT_OIDC_TOKEN",
		GitLab: "PROVISO_ID_TOKEN", Jenkins: "PROVISO_ID_TOKEN", Harness: "PROVISO_ID_TOKEN",
	}[r.issuer.platform]
	if variable == "" {
		return marks, nil
	}
	token, err := r.Token(audience)
	if err != nil {
		return nil, err
	}
	return append(marks, variable+"="+token), nil
}

// tokenEndpoints are the platforms' own, each with its own way to authenticate
// and to answer.
func (i *Issuer) tokenEndpoints(mux *http.ServeMux) {
	switch i.platform {
	case GitHub, Forgejo:
		mux.HandleFunc("GET /_platform/idtoken", i.endpoint("bearer ", "value"))
	case AzureDevOps:
		mux.HandleFunc("POST /_platform/oidctoken", i.endpoint("bearer ", "oidcToken"))
	case Codefresh:
		mux.HandleFunc("GET /_platform/codefresh", i.endpoint("", "id_token"))
	case CloudBuild:
		mux.HandleFunc("GET /computeMetadata/v1/instance/service-accounts/default/identity", i.metadata)
	}
}

// endpoint answers a request that carries a run's request token with a job
// token in a JSON member of the given name.
func (i *Issuer) endpoint(scheme, member string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, _ := i.begin("token")
		authorization := r.Header.Get("Authorization")
		if len(authorization) < len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
			http.Error(w, "no request token", http.StatusUnauthorized)
			return
		}
		run := i.runOf(authorization[len(scheme):])
		if run == nil || len(r.URL.Query()["audience"]) > 1 {
			http.Error(w, "no such run", http.StatusUnauthorized)
			return
		}
		audience := r.URL.Query().Get("audience")
		if audience == "" && member == "value" {
			audience = "https://github.com/" + run.job.filled().Owner // the platform's default
		}
		token, err := run.Token(audience)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		f.answer(w, r, map[string]string{member: token})
	}
}

func (i *Issuer) runOf(secret string) *Run {
	i.mu.Lock()
	defer i.mu.Unlock()
	for s, run := range i.runs {
		if subtle.ConstantTimeCompare([]byte(s), []byte(secret)) == 1 {
			return run
		}
	}
	return nil
}

// metadata is Google's metadata server, for the build's service account.
func (i *Issuer) metadata(w http.ResponseWriter, r *http.Request) {
	f, _ := i.begin("token")
	if r.Header.Get("Metadata-Flavor") != "Google" {
		http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
		return
	}
	audience := r.URL.Query().Get("audience")
	if audience == "" {
		http.Error(w, "non-empty audience parameter required", http.StatusBadRequest)
		return
	}
	token, err := i.Token(Job{}, audience)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Metadata-Flavor", "Google")
	f.Type = "text/html" // as Google answers, although it is no HTML
	f.answer(w, r, []byte(token))
}
