package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The deep parts by themselves: what they must not take for a credential first.

func TestScriptsDontUse(t *testing.T) {
	for what, script := range map[string]string{
		"a comment":                 "make # $DEPLOY_TOKEN\n",
		"single quotes' own dollar": `echo \$DEPLOY_TOKEN`,
		"a variable of its own":     "DEPLOY_TOKEN=$(openssl rand -hex 8)\necho $DEPLOY_TOKEN",
		"a loop's variable":         "for DEPLOY_TOKEN in a b; do echo $DEPLOY_TOKEN; done",
		"a question":                `[ -z "$DEPLOY_TOKEN" ] && exit 1`,
		"a read":                    "read DEPLOY_TOKEN\necho $DEPLOY_TOKEN",
	} {
		for _, u := range readScript(script, nil).uses {
			if u.name == "DEPLOY_TOKEN" {
				t.Errorf("%s: %q is taken for a use: %+v", what, script, u)
			}
		}
	}
}

func TestScriptsUse(t *testing.T) {
	for script, want := range map[string]string{
		`docker login -u "$U" -p "${P}" ghcr.io`:                                 "P registry/container ghcr.io 0",
		"echo \"$P\" |\n  docker login --password-stdin":                         "P registry/container docker.io 1",
		"docker login --password-stdin <<< \"$P\"":                               "P registry/container docker.io 0",
		"cat > ~/.npmrc <<EOF\n//npm.example.com/:_authToken=$P\nEOF":            "P registry/npm npm.example.com 0",
		"T=$P\ncurl -H \"Authorization: Bearer $T\" https://api.example.com":     "P http/api api.example.com 1",
		"git push https://bot:${P}@github.com/a/b.git":                           "P vcs/github github.com/a/b 0",
		"if true; then twine upload -p $P dist/*; fi":                            "P registry/pypi pypi.org 0",
		"export GEM_HOST_API_KEY=$P\ngem push a.gem":                             "P registry/rubygems rubygems.org 0",
		"curl \\\n  -u \"x:$P\" \\\n  https://nexus.example.com/repository/":     "P registry/nexus nexus.example.com 0",
		"npm config set //registry.npmjs.org/:_authToken \"$P\"":                 "P registry/npm registry.npmjs.org 0",
		"x=`echo $P | docker login --password-stdin quay.io`":                    "P registry/container quay.io 0",
		"sshpass -p \"$P\" ssh deploy@www.example.com ls":                        "P ssh/host www.example.com 0",
		"psql \"postgres://app:$P@db.example.com/x\"":                            "P database db.example.com 0",
		"curl -H \"PRIVATE-TOKEN: $P\" \"$CI_API_V4_URL/projects\"":              "P vcs/gitlab $CI_API_V4_URL 0",
		"Invoke-RestMethod -Headers @{Authorization=\"$env:P\"} https://a.b.com": "",
	} {
		found := ""
		for _, u := range readScript(script, nil).uses {
			if u.name == "P" && u.use.known() && found == "" {
				found = fmt.Sprintf("%s %s %s %d", u.name, u.use.res.Kind, u.use.res.Name, u.line)
			}
		}
		if want != "" && found != want {
			// The line of a continued or piped command may be the one that holds the variable.
			if f, w := strings.Fields(found), strings.Fields(want); len(f) < 4 || !slices.Equal(f[:3], w[:3]) {
				t.Errorf("%q: %q, expected %q", script, found, want)
			}
		}
	}
}

func TestConditionsKeepOutsidersOut(t *testing.T) {
	w := &ghWorkflow{r: &reader{src: &source{}}}
	for cond, want := range map[string]truth{
		"github.repository == 'a/b'":                                         yes, // says nothing about who starts it
		"github.event.pull_request.head.repo.full_name == github.repository": no,
		"github.event_name == 'push'":                                        no,
		"github.event_name != 'pull_request_target' || github.actor == 'me'": no,
		"contains(github.event.pull_request.labels.*.name, 'safe')":          no,
		"always()": yes,
		"github.event_name == 'pull_request_target' && !cancelled()": yes,
		"false": no,
		"contains(fromJSON('[\"OWNER\"]'), github.event.comment.author_association)":  no,
		"github.event.pull_request.merged == true":                                    no,
		"startsWith(github.ref, 'refs/tags/')":                                        no,
		"github.event_name == 'push' || github.event_name == 'pull_request_target'":   yes,
		"!(github.event.pull_request.head.repo.fork)":                                 no,
		"github.event_name == 'pull_request_target' && github.event.action == 'open'": maybe,
	} {
		_, got := w.condition(parseExpr(cond), "pull_request_target")
		if got != want && !(want == yes && got == maybe) {
			t.Errorf("%s: an outsider's run is %v, expected %v", cond, got, want)
		}
	}
}

func TestMergeKeys(t *testing.T) {
	docs, problems := parseYAML("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\nd:\n  <<: *c0\n")
	if len(problems) != 1 || !strings.Contains(problems[0].why, "c0") {
		t.Fatalf("an unknown anchor: %+v", problems)
	}
	v := &view{}
	c := v.get(docs[0], "c")
	for key, want := range map[string]string{"x": "3", "y": "1", "z": "2"} {
		if got := v.str(v.get(c, key)); got != want {
			t.Errorf("%s is %q, expected %q: the mapping's own wins, then the earlier merge", key, got, want)
		}
	}
	var keys []string
	for k := range v.pairs(c) {
		keys = append(keys, k.Value)
	}
	if !slices.Equal(keys, []string{"x", "y", "z"}) {
		t.Errorf("keys %v", keys)
	}
}

func TestABrokenLineHidesOnlyItself(t *testing.T) {
	docs, problems := parseYAML("a: 1\nb: c: d\ne: 2\n")
	v := &view{}
	if len(problems) == 0 || problems[0].line != 2 || len(docs) != 1 || v.str(v.get(docs[0], "e")) != "2" {
		t.Errorf("docs %v, problems %+v", docs, problems)
	}
}

func TestGroovyIds(t *testing.T) {
	calls := parseGroovy("def a = 'one'\ndef b = x ?: 'two'\ndef c = cond ? 'three' : 'four'\nuse(id: a)\nuse(id: b)\nuse(id: \"${a}-x\")\nuse(id: c)\nuse(id: f(y))\n")
	f := newJenkins(&reader{src: &source{}}, calls)
	f.survey(calls, 0)
	want := [][]string{{"one"}, {"two"}, {"one-x"}, {"three", "four"}, nil}
	i := 0
	for _, c := range calls {
		if c.name != "use" {
			continue
		}
		if got := f.ids(named(c, "id")); !slices.Equal(got, want[i]) {
			t.Errorf("use %d: %v, expected %v", i+1, got, want[i])
		}
		i++
	}
	if i != len(want) {
		t.Errorf("%d calls were found, expected %d", i, len(want))
	}
}

func TestMergeOfTwoRoots(t *testing.T) {
	one := func(root string) *Inventory {
		p := Path{File: "a.yml", Job: "j", Credential: Credential{Kind: StaticSecret, Name: "T"}, Resource: Resource{"registry/npm", "x"}}
		p.ID = p.id()
		return &Inventory{Version: Version, Root: root, Files: []File{{File: "a.yml"}}, Paths: []Path{p}, Findings: []Finding{{File: "a.yml", Paths: []string{p.ID}}}}
	}
	if a := one("a"); Merge([]*Inventory{a}) != a {
		t.Error("one inventory is not given back as it is")
	}
	m := Merge([]*Inventory{one("a"), one("b")})
	if len(m.Paths) != 2 || m.Paths[0].File != "a/a.yml" || m.Paths[1].File != "b/a.yml" || m.Paths[0].ID == m.Paths[1].ID {
		t.Fatalf("paths %+v", m.Paths)
	}
	for i, f := range m.Findings {
		if f.Paths[0] != m.Paths[i].ID {
			t.Errorf("a finding of %s names the path %s", f.File, f.Paths[0])
		}
	}
}
