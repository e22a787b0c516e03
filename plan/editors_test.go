package plan

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/trust"
)

// Where a platform's pipeline has a shape in which the secret can't safely be
// taken out, there is no patch, and the reason says what it is.
func TestEditorsRefuse(t *testing.T) {
	azure := func(step string) string {
		return "trigger: [main]\npr: none\npool: {vmImage: ubuntu-latest}\nsteps:\n" + step
	}
	jenkins := func(steps string) string {
		return "pipeline {\n  agent any\n  stages {\n    stage('Go') {\n      when { branch 'main' }\n      steps {\n" + steps + "\n      }\n    }\n  }\n}\n"
	}
	tekton := func(step string) string {
		return "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: go}\nspec:\n  steps:\n" + step
	}
	for name, c := range map[string]struct{ file, text, why string }{
		"different conditions":             {"azure-pipelines.yml", azure("- pwsh: ./a.ps1\n  env:\n    SLACK_TOKEN: $(SLACK_TOKEN)\n  condition: succeeded()\n- pwsh: ./b.ps1\n  env:\n    SLACK_TOKEN: $(SLACK_TOKEN)\n"), "different conditions"},
		"a client secret that is no login": {"azure-pipelines.yml", azure("- pwsh: ./a.ps1 $env:SECRET\n  env:\n    SECRET: $(AZURE_CLIENT_SECRET)\n"), "something else than az login"},
		"keys of PowerShell":               {"azure-pipelines.yml", azure("- pwsh: ./a.ps1\n  env:\n    AWS_ACCESS_KEY_ID: $(AWS_ACCESS_KEY_ID)\n    AWS_SECRET_ACCESS_KEY: $(AWS_SECRET_ACCESS_KEY)\n"), "a script of pwsh"},
		"a variable of later steps":        {".circleci/config.yml", "version: 2.1\njobs:\n  tell:\n    docker: [{image: a}]\n    steps:\n      - run: |\n          echo 'export TOKEN=\"$SLACK_TOKEN\"' >> $BASH_ENV\nworkflows:\n  main:\n    jobs:\n      - tell: {filters: {branches: {only: main}}}\n", "to later steps"},
		"a merge request":                  {".gitlab-ci.yml", "tell:\n  rules:\n    - if: $CI_PIPELINE_SOURCE == \"merge_request_event\"\n    - if: $CI_COMMIT_BRANCH == \"main\"\n  script:\n    - 'curl -H \"Authorization: Bearer $SLACK_TOKEN\" https://slack.com/api/x'\n", "in pull requests too"},
		"a before_script of another file":  {".gitlab-ci.yml", "include: [{local: base.yml}]\ntell:\n  extends: .base\n  only: [main]\n  script:\n    - 'curl -H \"Authorization: Bearer $SLACK_TOKEN\" https://slack.com/api/x'\n", "before_script from elsewhere"},
		"a key that is written":            {"azure-pipelines.yml", azure("- bash: |\n    echo \"$GCP_KEY\" > key.json\n    gcloud auth activate-service-account --key-file=key.json\n    terraform apply -var key=key.json\n  env:\n    GCP_KEY: $(GCP_KEY)\n"), "would not be there any more"},
		"Groovy reads it":                  {"Jenkinsfile", jenkins("withCredentials([string(credentialsId: 'slack', variable: 'SLACK_TOKEN')]) { notify(env.SLACK_TOKEN); sh 'curl -H \"Authorization: Bearer $SLACK_TOKEN\" https://slack.com/api/x' }"), "read by Groovy itself"},
		"another interpreter":              {"Jenkinsfile", jenkins("withCredentials([string(credentialsId: 'slack', variable: 'SLACK_TOKEN')]) { sh '''#!/usr/bin/env python3\nprint(\"$SLACK_TOKEN\")\n''' }"), "not a shell's"},
		"a program":                        {"tasks/go.yaml", tekton("    - name: x\n      image: a\n      command: [/x]\n      env:\n        - name: SENTRY_AUTH_TOKEN\n          valueFrom: {secretKeyRef: {name: sentry, key: t}}\n"), "a program of its image"},
		"a volume":                         {"tasks/go.yaml", "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: go}\nspec:\n  volumes:\n    - name: s\n      secret: {secretName: slack}\n  steps:\n    - name: x\n      image: a\n      script: x\n      volumeMounts: [{name: s, mountPath: /s}]\n", "names no file of /s"},
		"a file by itself":                 {"tasks/go.yaml", "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: go}\nspec:\n  volumes:\n    - name: s\n      secret: {secretName: slack}\n  steps:\n    - name: x\n      image: a\n      script: cat /s/token\n      volumeMounts:\n        - name: s\n          mountPath: /s/token\n          subPath: token\n", "mounted by itself"},
		"a whole directory":                {"tasks/go.yaml", "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: go}\nspec:\n  volumes:\n    - name: s\n      secret: {secretName: slack}\n  steps:\n    - name: x\n      image: a\n      script: cp -r /s /work\n      volumeMounts:\n        - name: s\n          mountPath: /s\n", "reads the directory"},
		"a workspace":                      {"runs/go.yaml", "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: go}\nspec:\n  taskRef: {name: push}\n  workspaces:\n    - name: dockerconfig\n      secret: {secretName: regcred}\n", "a workspace or a parameter hands it"},
		"keys that are named":              {"tasks/go.yaml", tekton("    - name: x\n      image: a\n      script: |\n        aws configure set aws_secret_access_key $AWS_SECRET_ACCESS_KEY\n        aws s3 ls\n      env:\n        - name: AWS_SECRET_ACCESS_KEY\n          valueFrom: {secretKeyRef: {name: aws, key: t}}\n"), "session token beside them"},
	} {
		dir := t.TempDir()
		put(t, dir, c.file, c.text)
		p := planOf(t, dir, Options{Broker: "https://proviso.acme.example"})
		if len(p.Items) == 0 {
			t.Errorf("%s: the scan sees no secret", name)
		}
		for _, it := range p.Items {
			switch {
			case it.Patch != nil:
				t.Errorf("%s: there is a patch:\n%s", name, p.Text(it.Patch.File))
			case len(it.Manual) == 0 || !strings.Contains(it.Manual[0].Why, c.why):
				t.Errorf("%s: %+v; want %q", name, it.Manual, c.why)
			case len(it.Manual[0].Steps) == 0:
				t.Errorf("%s: no steps for a person", name)
			}
		}
	}
}

// A pod's token for Proviso names Proviso in the file itself: without its URL
// there is no patch, and the reason asks for it.
func TestPodsNeedTheBrokersURL(t *testing.T) {
	for _, it := range planOf(t, clone(t, "kube"), Options{Only: []string{"erp-db"}}).Items {
		if it.Patch != nil || !strings.Contains(it.Manual[0].Why, "--broker URL") {
			t.Errorf("%v %+v", it.Patch, it.Manual)
		}
	}
}

// What trusts the cluster's issuer lets in one service account and nobody else.
func TestTrustInPodsIsExact(t *testing.T) {
	set := map[string]string{"kubernetes_issuer_acme": "oidc.acme.example", "pipeline_namespace_acme_jobs": "ci", "pipeline_service_account_acme_jobs": "deployer"}
	p := planOf(t, clone(t, "kube"), Options{Broker: "https://proviso.acme.example", Set: set})
	found, err := trust.Scan(t.Context(), filepath.Join(write(t, p), "trust"), trust.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pod := func(sub string) trust.Identity {
		return trust.Identity{Issuer: "https://oidc.acme.example", Audiences: []string{"sts.amazonaws.com"}, Claims: map[string][]string{"sub": {sub}}}
	}
	roles := 0
	for i := range found.Trusts {
		tr := &found.Trusts[i]
		if tr.Kind != trust.AWSRole {
			continue
		}
		roles++
		if got := accepted(found, tr, pod("system:serviceaccount:ci:deployer")); got != trust.Yes {
			t.Errorf("%s refuses its own pods: %s", tr.File, got)
		}
		for _, sub := range []string{"system:serviceaccount:ci:default", "system:serviceaccount:other:deployer", "system:serviceaccount:ci:deployer2"} {
			if accepted(found, tr, pod(sub)) == trust.Yes {
				t.Errorf("%s lets in %s", tr.File, sub)
			}
		}
	}
	if roles == 0 {
		t.Error("no role was written")
	}
}
