package facts

import (
	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/internal/document"
)

// Input is the document that a policy decides on, version 1. Whatever is
// unknown is absent: undefined in Rego, never null, "", false or 0.
type Input struct {
	// Identity is who asks: verified, from the job's token.
	Identity Identity `json:"identity"`
	// Runner is what executes the job: verified, from its own evidence. Absent
	// when the request shows none.
	Runner *Runner `json:"runner,omitempty"`
	// Resource is what the grant gives access to, in the grant's own words.
	Resource Resource `json:"resource"`
	// Context is what is known and what is wanted, side by side; origin tells which is which.
	Context Context `json:"context"`
	// Intent is what the request declared, and nothing else.
	Intent Intent `json:"intent"`
	// Origin says of every key of context where its value comes from.
	Origin map[string]Origin `json:"origin"`
}

// Identity is input.identity.
type Identity struct {
	identity.Identity
	// OnCall: a source of facts that is configured for it says that who asks is on call now.
	OnCall *bool `json:"on_call,omitempty"`
	// Claims are the token's own claims, as they are. Only for a policy that
	// reads them; names and types differ from platform to platform.
	Claims map[string]any `json:"claims,omitempty"`
}

// Runner is input.runner.
type Runner struct {
	// ID of the runner, unique within its trust domain.
	ID string `json:"id"`
	// Region where it runs, from its SPIFFE ID's path or the configuration.
	Region string `json:"region,omitempty"`
	// SPIFFEID in full.
	SPIFFEID string `json:"spiffe_id,omitempty"`
	// TrustDomain that vouches for it.
	TrustDomain string `json:"trust_domain,omitempty"`
	// Attestation is the kind of evidence that was verified; docs/runners.md says
	// what each kind proves.
	Attestation string `json:"attestation"`
	// Assurance is how much that proves: 1 the CI platform's word, 2 a signed
	// word that works for whoever copies it, 3 a copy is useless, 4 the machine's
	// software was measured too. Policies compare with >=.
	Assurance int `json:"assurance"`
	// Bound: the evidence and the job's token are tied to each other, by what
	// binding says.
	Bound bool `json:"bound"`
	// Binding says by what: platform (the CI platform names this runner in the
	// job's token), key (both name one key, which the request proves), mtls (the
	// token came over a connection of the runner's own key, and is taken from no
	// other runner from then on). The strongest that holds; absent where nothing
	// ties them.
	Binding string `json:"binding,omitempty"`
	// Environment is self-hosted or hosted.
	Environment string `json:"environment,omitempty"`
	// Attributes are the further variables of the path template and the
	// configuration's own.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Context is input.context. Facts were found out by the broker, the grant's
// values are configured, and the intent's are declared by the job: true only if
// something else makes them so.
type Context struct {
	// Time is the time of day in the policy's zone, "HH:MM": it compares as text.
	Time string `json:"time"`
	// Weekday in the policy's zone, in English: Monday to Sunday.
	Weekday string `json:"weekday"`
	// Date in the policy's zone, "YYYY-MM-DD".
	Date string `json:"date"`
	// Timestamp is the instant in RFC 3339, in the policy's zone.
	Timestamp string `json:"timestamp"`
	// Zone is the policy's time zone, as "Europe/Berlin".
	Zone string `json:"zone"`

	// Branch that the job's token names, by its short name.
	Branch string `json:"branch,omitempty"`
	// Tag that the job's token names, by its short name.
	Tag string `json:"tag,omitempty"`
	// Ref that the job's token names, in full.
	Ref string `json:"ref,omitempty"`
	// Commit that the job's token names: its object id in hex.
	Commit string `json:"commit,omitempty"`
	// Event that started the job, in the platform's word.
	Event string `json:"event,omitempty"`

	// CommitSigned is true if the broker itself verified, in its own mirror of
	// the repository, that exactly this commit is on the branch or tag that the
	// token names and carries the signature of an allowed signer; false if it
	// looked and that is not so; absent if it could not look.
	CommitSigned *bool `json:"commit_signed,omitempty"`
	// CommitSigner is who signed: the principal of the allowed signers, or the
	// e-mail address of the OpenPGP key. Only with commit_signed true.
	CommitSigner string `json:"commit_signer,omitempty"`
	// CommitSignerKey is the fingerprint of the key that signed: SHA256:... for
	// SSH, hex for OpenPGP. Only with commit_signed true.
	CommitSignerKey string `json:"commit_signer_key,omitempty"`
	// CommitSignatureKind is ssh or openpgp. Only with commit_signed true.
	CommitSignatureKind string `json:"commit_signature_kind,omitempty"`
	// CommitProblem is why commit_signed is false, in one word of the list of
	// refusal codes, as git_unsigned.
	CommitProblem string `json:"commit_problem,omitempty"`
	// CommitOnBranch: the commit can be reached from the branch that the token
	// names (is the commit of the tag that it names).
	CommitOnBranch *bool `json:"commit_on_branch,omitempty"`
	// CommitAuthor is the author's e-mail address as the commit says: anybody's word.
	CommitAuthor string `json:"commit_author,omitempty"`
	// CommitCommitter is the committer's e-mail address as the commit says. With
	// commit_signed true it belongs to the signer, unless the configuration waives that.
	CommitCommitter string `json:"commit_committer,omitempty"`
	// CommitUnsignedAncestors counts the commits without a good signature that
	// this commit merged in: reachable from it, but not from its first parent.
	CommitUnsignedAncestors *int `json:"commit_unsigned_ancestors,omitempty"`

	// TicketApproved: the ticket system says that the ticket is approved.
	TicketApproved *bool `json:"ticket_approved,omitempty"`
	// Ticket is what else the ticket system says of it.
	Ticket map[string]any `json:"ticket,omitempty"`
	// Approvals by people.
	Approvals map[string]any `json:"approvals,omitempty"`
	// OnCall: who asks is on call now. The same as identity.on_call.
	OnCall *bool `json:"on_call,omitempty"`
	// Freeze: changes are frozen now.
	Freeze *bool `json:"freeze,omitempty"`
	// Provenance of what is to be deployed.
	Provenance map[string]any `json:"provenance,omitempty"`

	// Service is the grant's (resource.service).
	Service string `json:"service,omitempty"`
	// Environment is the grant's (resource.environment); where the grant names
	// none, the environment that the platform admitted the job to.
	Environment string `json:"environment,omitempty"`

	Intent
}

// Intent is input.intent, and the declared part of input.context.
type Intent struct {
	// Action that the job wants to do, as deploy_hotfix.
	Action string `json:"action,omitempty"`
	// Purpose of it, as debug.
	Purpose string `json:"purpose,omitempty"`
	// Annotation is free text. A policy that looks for words in it believes
	// whoever writes them; ticket_approved is checked.
	Annotation string `json:"annotation,omitempty"`
	// TicketID that the job names. That it is approved is ticket_approved; that
	// it is about this service only a policy can tell, from context.ticket.
	TicketID string `json:"ticket_id,omitempty"`
	// RequestedTTL is the wished lifetime in minutes, 1 or more.
	RequestedTTL int `json:"requested_ttl,omitempty"`
	// Scope that the request asks for.
	Scope []string `json:"scope,omitempty"`
}

// Origin is where one key of context comes from.
type Origin struct {
	// Source is "grant", "intent", or "fact:" and the source's name: fact:clock,
	// fact:job, fact:git, or fact: and the name of a configured source.
	Source string `json:"source"`
	// Age of a fact in whole seconds: since the clock was read, the job's token
	// issued, the mirror fetched, the answer received. Absent for what is no fact.
	Age *int `json:"age,omitempty"`
}

// Who a key of context belongs to. The three sets are disjoint, which is what
// keeps a declared value from ever standing where a fact or the grant's value
// is read.
var (
	factKeys = []string{
		"approvals", "branch", "commit", "commit_author", "commit_committer", "commit_on_branch", "commit_problem",
		"commit_signature_kind", "commit_signed", "commit_signer", "commit_signer_key", "commit_unsigned_ancestors",
		"date", "event", "freeze", "on_call", "provenance", "ref", "tag", "ticket", "ticket_approved", "time",
		"timestamp", "weekday", "zone",
	}
	grantKeys  = []string{"environment", "service"}
	intentKeys = []string{"action", "annotation", "purpose", "requested_ttl", "scope", "ticket_id"}
)

// IntentDocument gives input.intent: what was declared, and nothing else.
func IntentDocument(intent proviso.Intent, scope []string) document.Value {
	var ttl document.Value
	if intent.RequestedTTL > 0 {
		ttl = document.IntOf(int64(intent.RequestedTTL))
	}
	return document.ObjectOf(
		document.Member("action", document.StringOf(intent.Action)),
		document.Member("annotation", document.StringOf(intent.Annotation)),
		document.Member("purpose", document.StringOf(intent.Purpose)),
		document.Member("requested_ttl", ttl),
		document.Member("scope", document.StringsOf(scope)),
		document.Member("ticket_id", document.StringOf(intent.TicketID)),
	)
}

// document gives input.resource.
func (r Resource) document() document.Value {
	var labels document.Value
	if len(r.Labels) > 0 {
		fields := make([]document.Field, 0, len(r.Labels))
		for name, value := range r.Labels {
			fields = append(fields, document.Member(name, document.StringOf(value)))
		}
		labels = document.ObjectOf(fields...)
	}
	return document.ObjectOf(
		document.Member("environment", document.StringOf(r.Environment)),
		document.Member("kind", document.StringOf(r.Kind)),
		document.Member("labels", labels),
		document.Member("name", document.StringOf(r.Name)),
		document.Member("service", document.StringOf(r.Service)),
		document.Member("tenant", document.StringOf(r.Tenant)),
	)
}
