package identity

import (
	"slices"
	"strings"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
	"github.com/proviso-ci/proviso/internal/keyset"
)

// issuer is one checked entry of the configuration together with its row. It
// can't be changed.
type issuer struct {
	name, url, role, broker string

	conf        IssuerConfig // as it was written
	row         *platform
	fields      []field
	job         []claimName
	pins        []pin
	tenant      string
	tenantClaim claimName
	events      []string
	algorithms  []jose.Alg
	replay      string

	audience      string // the one that tokens must have
	audienceFixed bool   // by the platform, for every relying party alike

	maxAge time.Duration

	keys *keyset.Source
}

// pin is one line of require.
type pin struct {
	claim  claimName
	values []string
}

// matches compares a claim's value with the wanted ones.
func (p pin) matches(value string) bool {
	return slices.ContainsFunc(p.values, func(want string) bool {
		if prefix, ok := strings.CutSuffix(want, "/*"); ok {
			rest, ok := strings.CutPrefix(value, prefix+"/")
			return ok && rest != "" && rest != "." && rest != ".." && !strings.Contains(rest, "/")
		}
		return value == want
	})
}

// checkJob refuses a token that the issuer signed for something else than a job.
func (i *issuer) checkJob(c *claims) {
	for _, name := range i.job {
		if !has(name.in(c.doc)) {
			c.refuse(CodeNotAJob, "the token is from %s, but not a job's: it has no claim %s. Send the token that the platform gives to the job itself",
				i.row.title, name.shown)
			return
		}
	}
}

// checkPins refuses a token of somebody else's. What would have been taken is
// for the operator alone: it names other tenants.
func (i *issuer) checkPins(c *claims) {
	for _, p := range i.pins {
		v := p.claim.in(c.doc)
		if !has(v) {
			c.refuse(CodeClaimMissing, "the token has no claim %s, which this broker requires%s", p.claim.shown, prefixed("; ", i.row.askClaims))
			return
		}
		if s, ok := scalar(v); !ok || !p.matches(s) {
			c.refuse(CodeClaimMismatch, "the token's claim %s is %s, which is not one that this broker takes; its operator lists the values under require",
				p.claim.shown, quote(v))
			return
		}
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// identify reads the claims into the platform-neutral form.
func (i *issuer) identify(c *claims) Identity {
	id := Identity{Kind: KindJob, Issuer: i.url, Platform: i.row.name, Role: i.role, Tenant: i.tenant, Audience: AudienceBroker}
	if i.audienceFixed {
		id.Audience = AudiencePlatform
	}
	id.Subject = i.subject(c)
	for k := range i.fields {
		f := &i.fields[k]
		c.fill(&id, f)
		if f.must && !has(f.claim.in(c.doc)) {
			c.refuse(CodeClaimMissing, "the token has no claim %s, which the tokens of %s jobs have%s", f.claim.shown, i.row.title, prefixed("; ", i.row.askClaims))
		}
	}
	if i.tenantClaim.shown != "" {
		if id.Tenant = c.value(i.tenantClaim, text); id.Tenant == "" {
			c.refuse(CodeClaimMissing, "the token has no claim %s, which names the tenant", i.tenantClaim.shown)
		}
	}
	id.PlatformRunner.Environment = hosting(id.PlatformRunner.Environment)
	if i.row.settle != nil {
		i.row.settle(c, &id)
	}
	return id
}

// subject takes sub as it is.
func (i *issuer) subject(c *claims) string {
	v := c.doc.Get("sub")
	s, isText := v.Text()
	switch {
	case v.IsAbsent() && i.row.noSubject:
	case !isText || s == "":
		c.refuse(proviso.CodeSubInvalid, "the token's sub is %s; it must be a text that isn't empty", quote(v))
	case !text.takes(s):
		c.refuse(proviso.CodeSubInvalid, "the token's sub is %s; it must be %s", quote(v), classes[text].want)
	}
	return s
}

// fill reads one claim into one member, unless the member has a value already.
// The claim is read, and so its form checked, in either case.
func (c *claims) fill(id *Identity, f *field) {
	switch f.class {
	case truth:
		b := c.flag(f.claim)
		if f.to == "protected" {
			id.Protected = b
		} else {
			id.PullRequest = b
		}
	case count:
		id.RunAttempt = c.number(f.claim)
	default:
		s := c.value(f.claim, f.class)
		if slot := id.slot(f.to); *slot == "" {
			*slot = s
		}
	}
}

// slot is the member of that name.
func (id *Identity) slot(name string) *string {
	switch name {
	case "repository":
		return &id.Repository
	case "repository_id":
		return &id.RepositoryID
	case "owner_id":
		return &id.OwnerID
	case "ref":
		return &id.Ref
	case "ref_type":
		return &id.RefType
	case "branch":
		return &id.Branch
	case "tag":
		return &id.Tag
	case "commit":
		return &id.Commit
	case "event":
		return &id.Event
	case "workflow":
		return &id.Workflow
	case "workflow_id":
		return &id.WorkflowID
	case "job_workflow":
		return &id.JobWorkflow
	case "environment":
		return &id.Environment
	case "run_id":
		return &id.RunID
	case "job_id":
		return &id.JobID
	case "actor":
		return &id.Actor
	case "actor_id":
		return &id.ActorID
	case "platform_runner.id":
		return &id.PlatformRunner.ID
	case "platform_runner.environment":
		return &id.PlatformRunner.Environment
	case "platform_runner.cluster":
		return &id.PlatformRunner.Cluster
	case "platform_runner.queue":
		return &id.PlatformRunner.Queue
	}
	panic("identity: no member " + name) // a row names a member that targets doesn't have; a test holds it
}

// hosting turns the platforms' words into two; others say nothing that a policy
// could rely on.
func hosting(word string) string {
	switch word {
	case "self-hosted", "hybrid": // Codefresh's hybrid runtime is a cluster of the customer's
		return "self-hosted"
	case "hosted", "github-hosted", "gitlab-hosted", "buildkite-hosted", "cloud":
		return "hosted"
	}
	return ""
}

// Prefixes of references that are not a branch's or tag's but of a change that
// somebody proposes, on the platforms' git servers.
var proposals = []string{"refs/pull/", "refs/merge-requests/", "refs/pull-requests/", "refs/changes/", "refs/for/"}

// checkTrigger decides whether what started the job is on the allow-list, and
// settles what the reference means.
func (i *issuer) checkTrigger(c *claims, id *Identity) {
	rule := &i.row.events
	named := slices.Contains(rule.pull, id.Event)
	proposed := slices.ContainsFunc(proposals, func(p string) bool { return strings.HasPrefix(id.Ref, p) })
	if !named && proposed && rule.claim != "" && !isTrue(id.PullRequest) {
		c.disagree(rule.claim, id.Event, "ref", id.Ref)
	}
	if named || proposed {
		id.PullRequest = yes()
	} else if id.PullRequest == nil && rule.tellsPulls {
		id.PullRequest = new(bool)
	}
	if id.Event != "" {
		i.checkEvent(c, id.Event)
	}
	if !isTrue(id.PullRequest) {
		c.settleReference(id)
		return
	}
	if !named && !slices.ContainsFunc(rule.pull, func(e string) bool { return slices.Contains(i.events, e) }) {
		i.checkEvent(c, "pull_request")
	}
	// The code of a pull request is not the code of the branch that some
	// platforms name for it (its target, or a fork's branch of the same name).
	id.RefType, id.Branch, id.Tag, id.Protected = "", "", "", nil
	if !proposed {
		id.Ref = ""
	}
}

func (i *issuer) checkEvent(c *claims, event string) {
	if slices.Contains(i.events, event) {
		return
	}
	if len(i.events) == 0 {
		c.refuse(CodeEventNotAllowed, "the job was started by %s, and jobs of this kind are not taken", quoted(event))
		return
	}
	c.refuse(CodeEventNotAllowed, "the job was started by %s; this broker takes jobs started by %s. If such jobs shall get something, the operator adds the event to the issuer's events",
		quoted(event), strings.Join(i.events, ", "))
}

// settleReference makes ref, ref_type, branch and tag say the same, and fills
// those that follow from the others.
func (c *claims) settleReference(id *Identity) {
	if branch, ok := strings.CutPrefix(id.Ref, "refs/heads/"); ok {
		c.settle(id, "branch", branch)
		return
	}
	if tag, ok := strings.CutPrefix(id.Ref, "refs/tags/"); ok {
		c.settle(id, "tag", tag)
		return
	}
	switch {
	case id.Ref != "" && strings.HasPrefix(id.Ref, "refs/"): // neither branch nor tag
		id.RefType, id.Branch, id.Tag = "", "", ""
	case id.Ref != "" && (id.RefType == "branch" || id.RefType == "tag"):
		c.settle(id, id.RefType, id.Ref)
	case id.Ref == "" && id.Branch != "":
		c.settle(id, "branch", id.Branch)
	case id.Ref == "" && id.Tag != "":
		c.settle(id, "tag", id.Tag)
	default:
		id.RefType, id.Branch, id.Tag = "", "", ""
	}
}

// settle says that the reference is the branch or tag of this short name.
func (c *claims) settle(id *Identity, kind, name string) {
	ref, same, other, otherKind := "refs/heads/"+name, &id.Branch, &id.Tag, "tag"
	if kind == "tag" {
		ref, same, other, otherKind = "refs/tags/"+name, &id.Tag, &id.Branch, "branch"
	}
	switch {
	case id.RefType != "" && id.RefType != kind:
		c.disagree("ref", ref, "ref_type", id.RefType)
	case *same != "" && *same != name:
		c.disagree("ref", ref, kind, *same)
	case *other != "":
		c.disagree("ref", ref, otherKind, *other)
	}
	id.Ref, id.RefType, *same = ref, kind, name
}

// issuerEnds refuses a token whose tenant claim isn't the one that the issuer's
// own URL names.
func (c *claims) issuerEnds(prefix, claim, value string) {
	at := strings.LastIndex(c.issuer, prefix)
	if at >= 0 && value != "" && c.issuer[at+len(prefix):] != value {
		c.disagree("iss", c.issuer, claim, value)
	}
}

// confirmation reads cnf (RFC 7800): a token that is bound to a key is good
// only together with a proof of that key, so a binding of an unknown kind
// refuses the token.
func (c *claims) confirmation() string {
	cnf := c.doc.Get("cnf")
	if cnf.IsAbsent() {
		return ""
	}
	jkt, ok := cnf.Get("jkt").Text()
	if !ok || len(cnf.Fields()) != 1 || len(jkt) != 43 || !consists(jkt, "-_") {
		c.refuse(proviso.CodeClaimType, "the token is bound to a key in a way that isn't known here; its cnf must have the member jkt, the key's SHA-256 thumbprint, and no other")
		return ""
	}
	return jkt
}

func yes() *bool { b := true; return &b }

func isTrue(b *bool) bool { return b != nil && *b }

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && c-'0' > 9 && (c|0x20)-'a' > 5 {
			return false
		}
	}
	return true
}

// textOf gives a claim that only the record reads, if it has a harmless form.
func textOf(v document.Value) (string, bool) {
	s, ok := v.Text()
	return s, ok && s != "" && text.takes(s)
}
