package runner

import (
	"slices"
	"strconv"
	"time"

	"github.com/proviso-ci/proviso/identity"
)

// PlatformConfig takes the CI platform's own word about the runner, which is in
// the job's verified token: GitLab's runner_id, Buildkite's agent_id and
// cluster, GitHub's runner_environment. It is no evidence of the machine's: a
// stolen job token carries it along, and so does a job on an impostor's runner.
// Its assurance is 1, which a grant with runner: required takes only where it
// says assurance: 1.
type PlatformConfig struct {
	// Issuer is the name of the entry of issuers whose word this is. Required.
	Issuer string `yaml:"issuer" json:"issuer"`
	// Environments are those that count: hosted (by the platform), self-hosted.
	Environments []string `yaml:"environments,omitempty" json:"environments,omitempty"`
	// IDs are the platform's identifiers of the runners that count.
	IDs []string `yaml:"ids,omitempty" json:"ids,omitempty"`
	// Clusters are the identifiers of the clusters whose agents count (Buildkite).
	Clusters []string `yaml:"clusters,omitempty" json:"clusters,omitempty"`
}

func (c *PlatformConfig) kind() string { return AttestationPlatform }

func (c *PlatformConfig) files() []*string { return nil }

func (c *PlatformConfig) check(bad badFunc) {
	if c.Issuer == "" {
		bad(".issuer", "is missing: write the name of the entry of issuers whose word about its runners counts")
	}
	if len(c.Environments)+len(c.IDs)+len(c.Clusters) == 0 {
		bad(".environments", "is missing, and so are ids and clusters: every runner would count; name at least one of them")
	}
	for i, name := range c.Environments {
		if name != "self-hosted" && name != "hosted" {
			bad(".environments["+itoa(i)+"]", "is %q: self-hosted or hosted", name)
		}
	}
	for path, list := range map[string][]string{".ids": c.IDs, ".clusters": c.Clusters} {
		if len(list) > 0 {
			needPins(bad, path, "", list)
		}
	}
}

type platformEntry struct {
	entry
	conf *PlatformConfig
}

func (c *PlatformConfig) open(v *Verifier, e entry) error {
	v.platform = append(v.platform, platformEntry{e, c})
	v.tell(e, c.kind(), func(time.Time) (string, error) {
		return "what the jobs' tokens of " + c.Issuer + " say of the machine: assurance 1, which a grant takes that says so", nil
	})
	return nil
}

// verifyPlatform looks at what the job's token says of its runner, where the
// request shows nothing better. A runner that isn't pinned is no runner, and no
// refusal: nobody showed it, and the grant may want none.
func (v *Verifier) verifyPlatform(job identity.Job) (Runner, error) {
	if job.IsZero() {
		return Runner{}, nil
	}
	for _, p := range v.platform {
		if p.conf.Issuer != job.Issuer() {
			continue
		}
		id := job.Identity()
		said := id.PlatformRunner
		if !pinned(p.conf.Environments, said.Environment) || !pinned(p.conf.IDs, said.ID) || !pinned(p.conf.Clusters, said.Cluster) {
			continue
		}
		name := said.ID
		if name == "" { // GitHub names only the kind of machine
			name = id.Platform + "-" + said.Environment
		}
		f, err := p.finding(name, "", map[string]string{"cluster": said.Cluster, "queue": said.Queue})
		if err != nil {
			return Runner{}, err
		}
		if said.Environment != "" {
			f.Environment = said.Environment
		}
		f.Assurance, f.Hash, f.Expires = 1, job.TokenHash(), job.Expires()
		return f.runner(AttestationPlatform, false), nil
	}
	return Runner{}, nil
}

// pinned reports whether a value is one of the pins; an absent one never is.
func pinned(pins []string, value string) bool {
	return len(pins) == 0 || value != "" && slices.Contains(pins, value)
}

func itoa(n int) string { return strconv.Itoa(n) }
