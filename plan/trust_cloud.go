package plan

import (
	"fmt"
	"strings"

	"github.com/proviso-ci/proviso/trust"
)

// foundation adds trust that is set up once, or finds it, and makes the item depend on it.
func (d *draft) foundation(id, title, why string, write func(tf, sh string)) {
	f := d.p.fronts[id]
	if f == nil {
		f = &Foundation{ID: id, Title: title, Why: why, Files: []string{}, NeededBy: []string{}}
		d.p.fronts[id] = f
		tf, script := "trust/000-"+id+".tf", "trust/000-"+id+".sh"
		write(tf, script)
		for _, name := range []string{tf, script} {
			if d.p.files[name] != nil {
				f.Files = append(f.Files, name)
			}
		}
	}
	f.NeededBy = append(f.NeededBy, d.item.ID)
	d.item.DependsOn = append(d.item.DependsOn, id)
}

// trustFiles gives the names of the item's trust configuration, as Terraform and as commands.
func (d *draft) trustFiles(summary string) (tf, script string) {
	tf, script = "trust/"+d.number()+"-"+d.item.ID+".tf", "trust/"+d.number()+"-"+d.item.ID+".sh"
	d.item.Trust = &Trust{Summary: summary, Files: []string{tf, script}}
	return tf, script
}

// trustAWS: an OIDC provider of the account, and a role that only these subjects assume.
func trustAWS(d *draft) {
	f := d.federation()
	provider := "aws-trusts-" + strings.ReplaceAll(f.id, "_", "-")
	d.p.parts["audiences "+provider] = appendNew(d.p.parts["audiences "+provider], f.audience)
	d.foundation(provider, "The AWS account trusts "+f.title, "one OIDC provider for each account, before any role"+d.p.already(trust.AWSRole, f.url), func(tf, script string) {
		d.p.last = append(d.p.last, func() { d.p.awsProvider(tf, script, f, d.p.parts["audiences "+provider], d.p.fronts[provider]) })
	})
	tf, script := d.trustFiles("A role that " + f.title + " tokens for " + d.who() + " may assume, and no other.")
	name := snake(d.item.ID)
	test := "StringEquals"
	if f.like {
		test = "StringLike"
	}
	policies := d.p.ask("policy_arn", d.item.ID, "The ARN of the IAM policy that the role of "+d.item.ID+" gets: what the user of the key may do, less what was never used.", "aws iam list-attached-user-policies --user-name USER; aws accessanalyzer start-policy-generation")
	var subs []string
	for _, s := range f.subjects {
		subs = append(subs, d.p.tf(tf, s))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", oneLine(d.item.Trust.Summary))
	fmt.Fprintf(&b, "data \"aws_iam_policy_document\" \"%s\" {\n  statement {\n    actions = [\"sts:AssumeRoleWithWebIdentity\"]\n\n    principals {\n      type        = \"Federated\"\n      identifiers = [aws_iam_openid_connect_provider.%s.arn]\n    }\n\n", name, f.id)
	fmt.Fprintf(&b, "    condition {\n      test     = \"StringEquals\"\n      variable = %s\n      values   = [%s]\n    }\n\n", d.p.tf(tf, f.host()+":aud"), d.p.tf(tf, f.audience))
	fmt.Fprintf(&b, "    condition {\n      test     = %s\n      variable = %s\n      values   = [%s]\n    }\n  }\n}\n\n", quoted(test), d.p.tf(tf, f.host()+":sub"), strings.Join(subs, ", "))
	fmt.Fprintf(&b, "resource \"aws_iam_role\" \"%s\" {\n  name                 = %s\n  assume_role_policy   = data.aws_iam_policy_document.%s.json\n  max_session_duration = 3600\n}\n\n", name, hcl(d.item.ID), name)
	fmt.Fprintf(&b, "resource \"aws_iam_role_policy_attachment\" \"%s\" {\n  role       = aws_iam_role.%s.name\n  policy_arn = %s\n}\n\n", name, name, d.p.tf(tf, policies))
	fmt.Fprintf(&b, "output \"%s_role\" {\n  value = aws_iam_role.%s.arn\n}\n", name, name)
	d.p.file(tf, b.String(), false)
	d.p.file(script, d.awsScript(script, f, test, policies), true)
}

// awsScript is the same with the CLI.
func (d *draft) awsScript(script string, f *federation, test, policies string) string {
	account := d.p.ask("aws_account_id", d.item.Repository, "The AWS account that the jobs of "+d.item.Repository+" deploy to.", "aws sts get-caller-identity --query Account --output text")
	var subs []string
	for _, s := range f.subjects {
		subs = append(subs, `"`+d.p.heredoc(script, s)+`"`)
	}
	head := d.p.shellHead(script, d.item.Trust.Summary, append([]string{account, policies, f.url, f.audience}, f.subjects...)...)
	host := d.p.heredoc(script, f.host())
	aud, sub := fmt.Sprintf("%q: \"%s\"", host+":aud", d.p.heredoc(script, f.audience)), fmt.Sprintf("%q: [%s]", host+":sub", strings.Join(subs, ", "))
	condition := `"StringEquals": {` + aud + ", " + sub + "}"
	if f.like {
		condition = `"StringEquals": {` + aud + `}, "` + test + `": {` + sub + "}"
	}
	return head + fmt.Sprintf(`trust="$(mktemp)"
trap 'rm -f "$trust"' EXIT
cat > "$trust" <<END
{
  "Version": "2012-10-17",
  "Statement": [{
    "Effect": "Allow",
    "Action": "sts:AssumeRoleWithWebIdentity",
    "Principal": {"Federated": "arn:aws:iam::%s:oidc-provider/%s"},
    "Condition": {%s}
  }]
}
END
`, d.p.heredoc(script, account), host, condition) +
		fmt.Sprintf("aws iam create-role --role-name %s --max-session-duration 3600 --assume-role-policy-document \"file://$trust\"\naws iam attach-role-policy --role-name %s --policy-arn %s\naws iam get-role --role-name %s --query Role.Arn --output text\n",
			sh(d.item.ID), sh(d.item.ID), d.p.shell(script, policies), sh(d.item.ID))
}

func appendNew(list []string, s string) []string {
	for _, x := range list {
		if x == s {
			return list
		}
	}
	return append(list, s)
}

// awsProvider writes the account's OIDC provider, once all audiences are known.
func (p *planner) awsProvider(tf, script string, f *federation, audiences []string, front *Foundation) {
	var list, words []string
	for _, a := range audiences {
		list, words = append(list, p.tf(tf, a)), append(words, p.shell(script, a))
	}
	p.file(tf, fmt.Sprintf("# The account trusts tokens of this issuer, for these audiences. By itself it opens\n# nothing: each role says which of them.\n\nresource \"aws_iam_openid_connect_provider\" %s {\n  url            = %s\n  client_id_list = [%s]\n}\n",
		hcl(f.id), p.tf(tf, f.url), strings.Join(list, ", ")), false)
	p.file(script, p.shellHead(script, "The AWS account trusts "+f.title+".", append([]string{f.url}, audiences...)...)+
		fmt.Sprintf("aws iam create-open-id-connect-provider --url %s --client-id-list %s\n", p.shell(script, f.url), strings.Join(words, " ")), true)
	front.Files = []string{tf, script}
}
