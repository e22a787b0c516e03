package plan

import (
	"github.com/proviso-ci/proviso/inventory"
)

// Version is the version of the document. A reader of another version must refuse it.
const Version = 1

// Plan is an ordered migration of static secrets. Its JSON form is
// docs/schema/plan.schema.json.
type Plan struct {
	Version int `json:"version"`
	// Roots are the scanned directories, as they were given.
	Roots []string `json:"roots"`
	// Route says how items federate that can do so both ways.
	Route Route `json:"route"`
	// Summary counts.
	Summary Summary `json:"summary"`
	// Foundations are set up once, before the items that name them.
	Foundations []Foundation `json:"foundations"`
	// Waves hold the ids of items in the order of work.
	Waves []Wave `json:"waves"`
	// Items are in the order of work.
	Items []Item `json:"items"`
	// Variables are what no file of the repositories can tell.
	Variables []Variable `json:"variables"`
	// Done are secrets of the last earlier inventory that no pipeline names any more.
	Done []Done `json:"done"`
	// BurnDown compares with an earlier inventory, when one was given.
	BurnDown *BurnDown `json:"burn_down,omitempty"`
	// Files are what `proviso plan --write` writes, by name.
	Files []File `json:"files"`

	called []string // the roots as people call them
}

// Route says whom a target trusts.
type Route string

// The routes. Where a target knows only one of them, that one is taken.
const (
	// Direct lets the target trust the CI platform's own issuer.
	Direct Route = "direct"
	// ThroughProviso lets the target trust Proviso, so that policy decides each use and the record has it.
	ThroughProviso Route = "proviso"
)

// Via is how one item gets its credential in the end.
type Via string

// The ways of an item.
const (
	ViaDirect   Via = "direct"   // the target trusts the CI platform's issuer
	ViaProviso  Via = "proviso"  // Proviso decides, and the target or a secrets manager trusts Proviso
	ViaPlatform Via = "platform" // the token that the platform gives to the job anyway
	ViaNone     Via = "none"     // no better credential exists; the secret is fenced in
)

// Summary counts what there is to do. Secrets are distinct per repository.
type Summary struct {
	Secrets     int `json:"secrets"`     // items: static credentials
	Identifiers int `json:"identifiers"` // kept as secrets, no credential
	Fetched     int `json:"fetched"`     // places that read a static value from a secrets manager at run time: no items
	Places      int `json:"places"`      // jobs and steps that use them
	Patched     int `json:"patched"`     // places that a patch changes
	Manual      int `json:"manual"`      // places that a person changes
	NoneBetter  int `json:"none_better"` // items for which nothing better exists
}

// Wave is a set of items that can be done together.
type Wave struct {
	Number int      `json:"number"`
	Title  string   `json:"title"`
	Why    string   `json:"why"`
	Items  []string `json:"items"`
}

// Foundation is trust that is set up once for many items.
type Foundation struct {
	ID    string `json:"id"` // "aws-trusts-github"
	Title string `json:"title"`
	Why   string `json:"why"`
	// Files are names in Plan.Files: Terraform, commands or YAML; choose one.
	Files []string `json:"files"`
	// NeededBy are ids of items.
	NeededBy []string `json:"needed_by"`
}

// Item is one static secret, or one pair of halves of a secret, of one repository.
type Item struct {
	// ID is stable as long as the secret's name and repository are.
	ID   string `json:"id"`
	Wave int    `json:"wave"`
	// Repository is "owner/name" from the clone's remote, else its directory's name.
	Repository string `json:"repository"`
	// Directory is where the repository lies below the root.
	Directory string       `json:"directory"`
	CI        inventory.CI `json:"ci"`
	// Secrets are the names that go away together; Identifiers were kept like secrets beside them.
	Secrets     []string `json:"secrets"`
	Identifiers []string `json:"identifiers,omitempty"`
	// Source is where the value comes from when it is not the platform.
	Source   string             `json:"source,omitempty"`
	Resource inventory.Resource `json:"resource"`
	Places   []Place            `json:"places"`
	// Reach is the widest of the places.
	Reach inventory.Trust `json:"reach"`
	// Score orders: Risk (1 to 100) over Effort (1 to 10).
	Risk   int    `json:"risk"`
	Effort int    `json:"effort"`
	Why    string `json:"why"`
	// Method names the row of the table, Replacement says it in a sentence.
	Method      string `json:"method"`
	Replacement string `json:"replacement"`
	Via         Via    `json:"via"`
	// DependsOn are ids of foundations.
	DependsOn []string `json:"depends_on"`
	Patch     *Patch   `json:"patch,omitempty"`
	// Manual are places that no safe patch can be made for.
	Manual []Manual `json:"manual"`
	Grant  *Grant   `json:"grant,omitempty"`
	// Record is what Proviso's record says of the grant, when it was given: the
	// new way is in use already.
	Record *Use `json:"record,omitempty"`
	// Standing says in a sentence how far the dual run is, by the record.
	Standing string `json:"standing,omitempty"`
	Trust    *Trust `json:"trust,omitempty"`
	// Reuse is a trust of the scanned files that takes the jobs already.
	Reuse *Reuse `json:"reuse,omitempty"`
	// Prepare are the steps before the patch, besides the trust configuration.
	Prepare []Step  `json:"prepare"`
	DualRun DualRun `json:"dual_run"`
	// Proof are the steps that show that the old way is out of use.
	Proof []Step `json:"proof"`
	// Deletion are the steps that end the static secret, in their order: first
	// what can be undone.
	Deletion []Step   `json:"deletion"`
	Notes    []string `json:"notes,omitempty"`
}

// Place is where a secret is used.
type Place struct {
	Path        string          `json:"path"` // id of the access path
	File        string          `json:"file"`
	Line        int             `json:"line"`
	Job         string          `json:"job"`
	Step        string          `json:"step,omitempty"`
	Secret      string          `json:"secret"`
	ExposedVia  string          `json:"exposed_via"`
	Reach       inventory.Reach `json:"reach"`
	Runner      string          `json:"runner"`
	Resource    string          `json:"resource"`
	Patched     bool            `json:"patched"`
	Environment string          `json:"environment,omitempty"`
}

// Patch is a change of the pipelines of one repository.
type Patch struct {
	// File is the name in Plan.Files: a unified diff for `git apply` in the
	// repository. Patches of one repository apply in the order of items.
	File string `json:"file"`
	// Changes are the changed pipelines, below the repository.
	Changes []string `json:"changes"`
	// Added and Removed count lines.
	Added   int `json:"added"`
	Removed int `json:"removed"`
	// Variables are settings of the CI platform that the patched pipelines read.
	Variables []string `json:"variables,omitempty"`
}

// Manual is a place that a person has to change.
type Manual struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Job  string `json:"job"`
	Step string `json:"step,omitempty"`
	// Why says why there is no patch.
	Why string `json:"why"`
	// Steps say what to do.
	Steps []string `json:"steps"`
}

// Grant is what Proviso has to know.
type Grant struct {
	Name string `json:"name"`
	// Package is the Rego package that guards it.
	Package string `json:"package"`
	// Files are names in Plan.Files: the grant, the policy, its tests.
	Files []string `json:"files"`
	// Now is true when the patch asks for the grant; else it is for `--route proviso`.
	Now bool `json:"now"`
}

// Trust is what the target has to know.
type Trust struct {
	Summary string `json:"summary"`
	// Files are names in Plan.Files: the same as Terraform and as commands.
	Files []string `json:"files"`
}

// Step is one thing to do: a command, or a sentence where there is none.
type Step struct {
	Do      string `json:"do"`
	Command string `json:"command,omitempty"`
}

// DualRun is the time in which both ways are open.
type DualRun struct {
	Days  int      `json:"days"`
	Until string   `json:"until"`
	Watch []string `json:"watch"`
	// Back is how to go back.
	Back string `json:"back"`
}

// Variable is a value that no file can tell. Everything that needs it refuses
// to work until it is set.
type Variable struct {
	Name string `json:"name"` // "repository_id_acme_shop"
	// What says what it is, How is a command or place that tells it.
	What string `json:"what"`
	How  string `json:"how"`
	// Value is set by `proviso plan --set NAME=VALUE`.
	Value string `json:"value,omitempty"`
	// In are the files that ask for it.
	In []string `json:"in"`
}

// File is a generated text.
type File struct {
	Name       string `json:"name"` // with slashes, below the directory of --write
	Text       string `json:"text"`
	Executable bool   `json:"executable,omitempty"`
}

// Text gives the content of a file, "" when there is none of that name.
func (p *Plan) Text(name string) string {
	for i := range p.Files {
		if p.Files[i].Name == name {
			return p.Files[i].Text
		}
	}
	return ""
}

// Item gives an item by its id, nil when there is none.
func (p *Plan) Item(id string) *Item {
	for i := range p.Items {
		if p.Items[i].ID == id {
			return &p.Items[i]
		}
	}
	return nil
}
