package plan

import (
	"os/exec"
	"strings"
	"testing"
)

// Where a Jenkinsfile hands a credential on in a way that a patch would have to
// guess about, there is none.
func TestJenkinsRefuses(t *testing.T) {
	stage := func(steps string) string {
		return "pipeline {\n  agent any\n  stages {\n    stage('Go') {\n      when { branch 'main' }\n      steps {\n" + steps + "\n      }\n    }\n  }\n}\n"
	}
	slack := func(steps string) string {
		return stage("withCredentials([string(credentialsId: 'slack', variable: 'SLACK_TOKEN')]) {\n" + steps + "\n}")
	}
	for name, c := range map[string]struct{ text, why string }{
		"a value that is changed": {slack(`sh "curl -H 'Authorization: Bearer ${SLACK_TOKEN.trim()}' https://slack.com/api/x"`), "something is done with the value"},
		"a quoted here-document":  {slack("sh \"\"\"\ncat > x <<'END'\ntoken: ${SLACK_TOKEN}\nEND\n\"\"\""), "here-document"},
		"strings put together":    {slack(`sh 'curl -H "Authorization: Bearer $SLACK_TOKEN" ' + url`), "from several strings"},
		"Groovy's own step":       {slack(`echo "the token is ${SLACK_TOKEN}"`), "read by Groovy itself"},
		"two keys of an agent":    {stage("sshagent(['deploy-key', 'other-key']) {\nsh 'ssh deploy@example.com x'\n}"), "several keys"},
		"a library's step":        {stage("sshagent(['deploy-key']) {\ndeployTo('prod')\nsh 'ssh deploy@example.com x'\n}"), "deployTo in the block may need"},
		"a checkout's argument":   {stage("git credentialsId: 'git-login', url: 'https://git.example.com/x'"), "argument of"},
		"an encoded file":         {stage("withCredentials([file(credentialsId: 'release-keystore', variable: 'STORE')]) {\nsh 'cp $STORE app.jks'\n}"), "is no text"},
		"a key with a passphrase": {stage("withCredentials([sshUserPrivateKey(credentialsId: 'deploy', keyFileVariable: 'KEY', passphraseVariable: 'PHRASE')]) {\nsh 'ssh -i $KEY deploy@example.com x'\n}"), "has a passphrase"},
		"keys that are named":     {stage("withCredentials([[$class: 'AmazonWebServicesCredentialsBinding', credentialsId: 'aws-prod']]) {\nsh 'docker run -e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY x'\n}"), "session token beside the keys"},
		"a login for all stages":  {"pipeline {\n  agent any\n  environment {\n    VAULT_TOKEN = credentials('vault-token')\n  }\n  stages { stage('Go') { when { branch 'main' }\n steps { sh 'vault kv get secret/x' } } }\n}\n", "every command of every stage"},
		"a login that stays":      {stage("withCredentials([file(credentialsId: 'gcp-key', variable: 'GCP_KEY')]) {\nsh 'gcloud auth activate-service-account --key-file=$GCP_KEY'\n}\nsh 'gcloud run deploy erp'"), "behind the block"},
		"a variable of the patch": {stage("withEnv(['value=x']) { withCredentials([string(credentialsId: 'slack', variable: 'SLACK_TOKEN')]) {\nsh 'curl -d \"$value\" -H \"Authorization: Bearer $SLACK_TOKEN\" https://slack.com/api/x'\n} }"), "one of that name"},
		"a trap of another form":  {stage("withCredentials([file(credentialsId: 'app-env', variable: 'ENV_FILE')]) {\nsh '''\ntrap \"rm x\" EXIT\ncp $ENV_FILE .env\n'''\n}"), "a trap of its own"},
	} {
		dir := t.TempDir()
		put(t, dir, "Jenkinsfile", c.text)
		p := planOf(t, dir, Options{Broker: "https://proviso.acme.example"})
		if len(p.Items) == 0 {
			t.Errorf("%s: the scan sees no secret", name)
		}
		for _, it := range p.Items {
			if it.Patch != nil || len(it.Manual) == 0 || !strings.Contains(it.Manual[0].Why, c.why) {
				t.Errorf("%s: %+v; want %q", name, it.Manual, c.why)
			}
		}
	}
}

// Where a block has commands besides those that name the variable, a note says
// what the patch can't see.
func TestJenkinsNotesWhatItCannotSee(t *testing.T) {
	p := planOf(t, clone(t, "jenkins"), Options{Only: []string{"npm-token"}})
	if notes := strings.Join(p.Items[0].Notes, "\n"); p.Items[0].Patch == nil || !strings.Contains(notes, "reads NPM_TOKEN without naming it") {
		t.Errorf("%s", notes)
	}
}

// What Groovy wrote into a command, the shell reads in its place: a real shell
// prints the same both ways, whatever quotes stand around it.
func TestTheShellReadsWhatGroovyWrote(t *testing.T) {
	const value = "s3cr-et/Va+lue=="
	for _, command := range []string{
		`printf '%s\\n' ${TOKEN}`,
		`printf '%s\\n' "Bearer ${TOKEN}"`,
		`printf '%s\\n' 'Bearer ${TOKEN}' '${TOKEN}' '${TOKEN} x' '${TOKEN}${TOKEN}-$TOKEN' x'$TOKEN'y`,
		`printf '%s\\n' \"${env.TOKEN}\" "\$(printf '%s' '$TOKEN')"`,
		`X=\$(printf %s ${TOKEN}); printf '%s\\n' "\${X}" # it's '${TOKEN}'`,
		`(printf '%s\\n' '$TOKEN'; echo "\$(printf '%s' "(" '$TOKEN') '$TOKEN'")`,
		"cat <<END\ntoken: '${TOKEN}'\nEND\necho '${TOKEN}'",
		"sh -c \"printf '%s\\\\n' '${TOKEN}'\"",
		"printf '%s\\\\n' \\\n  ${TOKEN}",
		"echo\necho \\\"${TOKEN}\\\"",
	} {
		source := `sh """` + command + "\n\"\"\""
		g, ok := readGroovy(source + "\n")
		if !ok || len(g.literals) != 1 {
			t.Fatalf("%s is no string", source)
		}
		s, err := commandText(g.literals[0], g.text)
		if err != nil {
			t.Fatal(err)
		}
		released, err := s.release([]string{"TOKEN"})
		if err != nil {
			t.Fatal(err)
		}
		marked := strings.Join(s.shell, "\n")
		for i, m := range s.marks { // as Groovy would have it
			if mark := string(firstMark + rune(i)); m == `\` {
				marked = strings.ReplaceAll(marked, mark+"\n", "")
			} else {
				marked = strings.ReplaceAll(marked, mark, value)
			}
		}
		again, ok := readGroovy(`sh """` + strings.Join(released.written, "\n") + "\n\"\"\"\n")
		if !ok || len(again.literals) != 1 {
			t.Fatalf("%s gives no string", command)
		}
		patched, err := commandText(again.literals[0], again.text)
		if err != nil {
			t.Fatal(err)
		}
		now := strings.Join(patched.shell, "\n")
		for i := range patched.marks { // ends of lines that Groovy takes away
			now = strings.ReplaceAll(now, string(firstMark+rune(i))+"\n", "")
		}
		if strings.Contains(now, value) || run(t, now, value) != run(t, marked, value) {
			t.Errorf("%s became\n%s, which prints %q", command, now, run(t, now, value))
		}
	}
}

func run(t *testing.T, script, token string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TOKEN=" + token}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}
