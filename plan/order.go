package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/proviso-ci/proviso/inventory"
)

// The order is what is won for the work: the reach of the secret times what it
// opens, over how much has to be done by hand.

// weights say how bad the loss of a resource is, 1 to 10; the first prefix counts.
var weights = []struct {
	prefix string
	n      int
}{
	{"cloud/", 10}, {"secret-set/", 10}, {"secrets-manager/", 10}, {"k8s/", 9}, {"iac/", 9}, {"signing/", 8}, {"registry/", 8}, {"store/", 8},
	{"vcs/", 8}, {"database", 8}, {"ssh/", 8}, {"reusable-workflow", 8}, {"storage/", 7}, {"paas/", 7}, {"cdn/", 6}, {"network/", 6},
	{"notify/", 2}, {"scan/", 3}, {"monitoring/", 3}, {"saas/", 4}, {"unknown", 5},
}

func weight(kind string) int {
	for _, w := range weights {
		if strings.HasPrefix(kind, w.prefix) {
			return w.n
		}
	}
	return 4
}

// rate gives an item its risk and its effort.
func (d *draft) rate() {
	reach := map[inventory.Trust]int{inventory.ForkReachable: 10, inventory.TrustUnknown: 6, inventory.Protected: 5}[d.item.Reach]
	jobs := make(map[string]bool)
	bare := false // runs without an environment that could ask for a review
	for _, p := range d.item.Places {
		jobs[p.File+"\x00"+p.Job] = true
		bare = bare || p.Environment == ""
	}
	risk := reach * weight(d.item.Resource.Kind)
	if len(jobs) > 2 {
		risk += 5
	}
	if !bare {
		risk -= 10
	}
	d.item.Risk = min(max(risk, 1), 100)
	effort := d.method.effort
	if d.item.CI != inventory.GitHub && d.method.manual == "" {
		effort += 2
	}
	if d.method.manual != "" {
		effort++
	}
	if len(jobs) > 5 {
		effort++
	}
	if !issues(d.item.CI) && !d.method.platform {
		effort = 9
	}
	d.item.Effort = min(max(effort, 1), 10)
	d.item.Why = fmt.Sprintf("reach %s, opens %s (%d of 10), in %s; effort %d of 10",
		strings.ReplaceAll(string(d.item.Reach), "_", " "), oneLine(d.item.Resource.Kind), weight(d.item.Resource.Kind), plural(len(jobs), "job"), d.item.Effort)
	d.item.Wave = d.wave()
}

// The waves, in their order.
var waves = []Wave{
	{Number: 1, Title: "outsiders reach these", Why: "a fork or a comment can make a job run with the secret: stop that first, also where it takes a day"},
	{Number: 2, Title: "a few lines each", Why: "the target trusts the platform's issuer already, or the job's own token does it"},
	{Number: 3, Title: "clouds and vaults", Why: "one trust per account or cluster, then a role per item"},
	{Number: 4, Title: "handed out by Proviso", Why: "nothing federates: the value moves to a secrets manager, and policy decides who gets it"},
	{Number: 5, Title: "by hand", Why: "the file alone doesn't say enough for a patch"},
}

func (d *draft) wave() int {
	switch {
	case d.item.Reach == inventory.ForkReachable:
		return 1
	case d.item.Via == ViaNone:
		return 5
	case d.method.effort == 1 || d.method.name == "npm":
		return 2
	case d.method.direct, d.method.name == "k8s":
		return 3
	}
	return 4
}

// order sorts by wave, then by what is won for the work.
func order(ds []*draft) {
	slices.SortStableFunc(ds, func(a, b *draft) int {
		return cmp.Or(a.item.Wave-b.item.Wave, b.item.Risk*a.item.Effort-a.item.Risk*b.item.Effort, strings.Compare(a.item.ID, b.item.ID))
	})
}

// listWaves names the waves that have items.
func (p *planner) listWaves() {
	for _, w := range waves {
		w.Items = []string{}
		for _, it := range p.plan.Items {
			if it.Wave == w.Number {
				w.Items = append(w.Items, it.ID)
			}
		}
		if len(w.Items) > 0 {
			p.plan.Waves = append(p.plan.Waves, w)
		}
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return digits(n) + " " + what + "s"
}
