package runner

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

// KubernetesConfig takes the service-account tokens that a cluster projects
// into a pod (a volume with a serviceAccountToken source), for this broker as
// audience.
type KubernetesConfig struct {
	// Issuer is the cluster's service-account issuer, as it stands in the tokens'
	// iss (kube-apiserver --service-account-issuer). Required.
	Issuer string `yaml:"issuer" json:"issuer"`
	// ServiceAccounts are those whose pods are runners, as namespace/name. Required.
	ServiceAccounts []string `yaml:"service_accounts" json:"service_accounts"`
	// Cluster is how policies call the cluster: input.runner.attributes.cluster.
	Cluster string `yaml:"cluster,omitempty" json:"cluster,omitempty"`
	// Algorithms of the cluster's keys. Default RS256.
	Algorithms []string `yaml:"algorithms,omitempty" json:"algorithms,omitempty"`
	// MaxAge is how old a token may be. Default 1h, at most 24h: the kubelet gets a
	// new one when four fifths of its life (an hour, by default) are over.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`

	KeySource `yaml:",inline"`
}

func (c *KubernetesConfig) kind() string { return AttestationKubernetes }

func (c *KubernetesConfig) check(bad badFunc) {
	if u, err := url.Parse(c.Issuer); err != nil || u.Host == "" || u.Scheme != "https" && !isLoopback(u.Hostname()) {
		bad(".issuer", "%q is no https URL; write the cluster's issuer exactly as it stands in the tokens' iss", c.Issuer)
	}
	needPins(bad, ".service_accounts", "every pod of the cluster can have such a token; write the runners' own, as ci/runner", c.ServiceAccounts)
	for i, sa := range c.ServiceAccounts {
		if namespace, name, ok := strings.Cut(sa, "/"); sa != "" && (!ok || namespace == "" || name == "" || strings.Contains(name, "/")) {
			bad(".service_accounts["+itoa(i)+"]", "is %q; write namespace/name, as ci/runner", sa)
		}
	}
	checkAlgorithms(bad, c.Algorithms)
	checkAge(bad, c.MaxAge, 24*time.Hour)
	c.KeySource.check(bad)
}

func (c *KubernetesConfig) open(v *Verifier, e entry) error {
	algorithms := algorithmsOf(c.Algorithms, jose.RS256)
	keys, err := c.KeySource.open(v, c.Issuer, algorithms)
	if err != nil {
		return err
	}
	s := &statement{what: "the service-account token", issuer: c.Issuer, audience: v.audience, algorithms: algorithms,
		keys: keys, maxAge: cmp.Or(c.MaxAge, time.Hour), needExp: true}
	v.tell(e, c.kind(), keysState(keys))
	v.addBearer(AttestationKubernetes, s, func(claims document.Value) (Finding, error) { return c.admit(e, claims) })
	return nil
}

// admit holds the claims against the pins. A token that is bound to no pod is a
// secret of the old kind, which outlives every pod.
func (c *KubernetesConfig) admit(e entry, claims document.Value) (Finding, error) {
	const what = "the service-account token"
	k := claims.Get("kubernetes.io")
	if k.Kind() != document.Object {
		return Finding{}, refuse(CodeEvidenceMalformed, "%s has no claim kubernetes.io, so it is no projected token; mount one with a serviceAccountToken volume", what)
	}
	var values [4]string
	for i, path := range [][]string{{"namespace"}, {"serviceaccount", "name"}, {"pod", "name"}, {"pod", "uid"}} {
		var err error
		if values[i], err = text(k, what, path...); err != nil {
			return Finding{}, err
		}
	}
	namespace, account, pod, uid := values[0], values[1], values[2], values[3]
	if sub, _ := claims.Get("sub").Text(); sub != "system:serviceaccount:"+namespace+":"+account {
		return Finding{}, refuse(CodeEvidenceMalformed, "%s names one service account in sub and another in kubernetes.io", what)
	}
	if !slices.Contains(c.ServiceAccounts, namespace+"/"+account) {
		return Finding{}, notHere(CodeEvidencePin, "%s is genuine, and its service account %s is none that this broker's operator configured", what, quoted(namespace+"/"+account))
	}
	found := map[string]string{"cluster": c.Cluster, "namespace": namespace, "service_account": account, "pod": pod, "pod_uid": uid}
	found["node"], _ = k.At("node", "name").Text()
	// A namespace has no dot in it, so the identifier can be read in one way.
	return e.finding(namespace+"."+pod, "", found)
}

// checkAlgorithms wants names of signature algorithms with public keys.
func checkAlgorithms(bad badFunc, names []string) {
	for i, name := range names {
		if !jose.Alg(name).Known() {
			bad(".algorithms["+itoa(i)+"]", "is %q; RS, PS and ES with 256, 384 or 512, and EdDSA are taken", name)
		}
	}
}

func algorithmsOf(names []string, defaults ...jose.Alg) []jose.Alg {
	if len(names) == 0 {
		return defaults
	}
	out := make([]jose.Alg, len(names))
	for i, name := range names {
		out[i] = jose.Alg(name)
	}
	return out
}
