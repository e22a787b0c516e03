package runner

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// AWSConfig takes the instance identity documents of EC2, in the form that the
// metadata service gives under instance-identity/rsa2048.
//
// Such a document never changes while its machine lives, names no reader, and
// every process on the machine can read it: by itself it proves that somebody
// once saw it. So it counts only together with a key that the request proves
// (DPoP, or a joining agent's certificate request). The first key that comes
// with a machine's document, soon after the machine was launched, is that
// machine's; a document that comes with another one later is refused.
type AWSConfig struct {
	// Accounts are the ids of the accounts whose machines are ours. Required:
	// anybody's machine has a good document.
	Accounts []string `yaml:"accounts" json:"accounts"`
	// Regions are the regions whose machines are ours, each with the file of the
	// certificate that AWS publishes for it (RSA-2048), as
	// {eu-central-1: aws-eu-central-1.pem}. Required.
	Regions map[string]string `yaml:"regions" json:"regions"`
	// MaxAge is how long after its launch a machine can bring its key. Default
	// 15m, at most 24h. Within it, whoever is first with the document is believed.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
}

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

func (c *AWSConfig) kind() string { return AttestationAWS }

// files gives none: the files are a map's values, which resolve rewrites.
func (c *AWSConfig) files() []*string { return nil }

func (c *AWSConfig) check(bad badFunc) {
	needPins(bad, ".accounts", "every machine of every customer has such a document; write the ids of your own accounts", c.Accounts)
	for i, id := range c.Accounts {
		if id != "" && !accountID.MatchString(id) {
			bad(fmt.Sprintf(".accounts[%d]", i), "%q is no account id: twelve digits, in quotes", id)
		}
	}
	if len(c.Regions) == 0 {
		bad(".regions", "is missing: write each region with its certificate's file, as {eu-central-1: aws-eu-central-1.pem}; AWS publishes the certificates in its EC2 manual")
	}
	for _, region := range slices.Sorted(maps.Keys(c.Regions)) {
		if c.Regions[region] == "" || !isValue(region) {
			bad(".regions."+region, "needs the name of a region and the file of its certificate")
		}
	}
	checkAge(bad, c.MaxAge, 24*time.Hour)
}

type awsKind struct {
	entry
	conf    AWSConfig
	signers map[string][]*x509.Certificate // by region
	v       *Verifier
}

func (c *AWSConfig) open(v *Verifier, e entry) error {
	k := &awsKind{entry: e, conf: *c, signers: map[string][]*x509.Certificate{}, v: v}
	k.conf.MaxAge = cmp.Or(c.MaxAge, 15*time.Minute)
	for region, file := range c.Regions {
		certs, err := readCertificates("regions."+region, file)
		if err != nil {
			return err
		}
		k.signers[region] = certs
	}
	v.addEntry(AttestationAWS, k.verify)
	v.tell(e, c.kind(), k.state)
	return nil
}

func (k *awsKind) state(now time.Time) (found string, err error) {
	for _, region := range slices.Sorted(maps.Keys(k.signers)) {
		said, problem := certificatesState(region, k.signers[region], now)
		found, err = strings.TrimPrefix(found+"; "+said, "; "), errors.Join(err, problem)
	}
	return count(len(k.conf.Accounts), "account") + "; " + found, err
}

func (k *awsKind) verify(ctx context.Context, shown Shown) (Finding, error) {
	signed, err := parseCMS(shown.Text)
	if err != nil {
		return Finding{}, err
	}
	now := k.v.now()
	region, err := k.region(signed, now)
	if err != nil {
		return Finding{}, err
	}
	// Only the bytes that were signed are read from here on.
	doc, err := document.Parse(signed.content, document.Limits{Bytes: maxEvidence, Depth: 4, Members: 256})
	if err != nil || doc.Kind() != document.Object {
		return Finding{}, refuse(CodeEvidenceMalformed, "the instance identity document is no JSON object that can be read in one way only").Because(err)
	}
	const what = "the instance identity document"
	var values [4]string
	for i, name := range []string{"accountId", "instanceId", "region", "pendingTime"} {
		if values[i], err = text(doc, what, name); err != nil {
			return Finding{}, err
		}
	}
	account, instance := values[0], values[1]
	if values[2] != region {
		return Finding{}, refuse(CodeEvidenceSigner, "the instance identity document is of the region %s, and was signed with the certificate of %s", quoted(values[2]), region)
	}
	if !slices.Contains(k.conf.Accounts, account) {
		return Finding{}, notHere(CodeEvidencePin, "the instance identity document is genuine, and its account %s is none that this broker's operator configured", quoted(account))
	}
	launched, err := time.Parse(time.RFC3339, values[3])
	if err != nil {
		return Finding{}, refuse(CodeEvidenceMalformed, "the instance identity document's pendingTime is no time of RFC 3339")
	}
	if launched.Sub(now) > skew {
		return Finding{}, refuse(CodeEvidenceStale, "the instance identity document says that the machine was launched at %s, it is %s; check the clocks", stamp(launched), stamp(now))
	}
	found := map[string]string{"account": account}
	for to, from := range map[string]string{"zone": "availabilityZone", "image": "imageId", "instance_type": "instanceType", "architecture": "architecture"} {
		found[to], _ = doc.Get(from).Text()
	}
	f, err := k.finding(instance, region, found)
	if err != nil {
		return Finding{}, err
	}
	m := keyedMachine{names: "aws\n" + account + "\n" + region + "\n" + instance, called: k.name + "/" + instance, launched: launched, maxAge: k.conf.MaxAge}
	if err := k.v.sameKey(ctx, m, shown.Key, now); err != nil {
		return Finding{}, err
	}
	// The document has no end of its own. What is proved anew each time is the
	// key, so the evidence is as fresh as a DPoP proof; an hour bounds what hangs on it.
	f.Assurance, f.Key, f.Hash, f.Expires = 2, shown.Key, hashOf(shown.Text), now.Add(time.Hour)
	return f, nil
}

// region finds the region whose certificate has signed, and verifies that it has.
func (k *awsKind) region(signed *signedData, now time.Time) (string, error) {
	for _, region := range slices.Sorted(maps.Keys(k.signers)) {
		for _, cert := range k.signers[region] {
			if !signed.isSigner(cert) {
				continue
			}
			if err := signed.verify(cert); err != nil {
				return "", err
			}
			if err := validAt(now, cert.NotBefore, cert.NotAfter); err != nil {
				return "", refuse(CodeEvidenceSigner, "the certificate for the region %s that this broker is configured with is not valid now; its operator gets the current one from AWS's manual", region)
			}
			return region, nil
		}
	}
	return "", notHere(CodeEvidenceSigner, "the instance identity document was signed by nobody whose certificate this broker is configured with: it is of another region, or not AWS's")
}

// ErrNoKeyMemory: evidence holds in itself, and whether its key is the one that
// the machine came with first can't be told without Options.Store.
var ErrNoKeyMemory = errors.New("no store for the machines' keys")

// keyedMachine is a machine whose evidence counts only together with its key.
type keyedMachine struct {
	names    string // all that tells it from any other
	called   string // ENTRY/ID, as an operator calls it
	launched time.Time
	maxAge   time.Duration
}

// sameKey holds the rule of evidence that is a copy for whoever has read it: a
// machine's first key, brought within maxAge of its launch, is its only one,
// until an operator allows another, which is brought within maxAge of that.
func (v *Verifier) sameKey(ctx context.Context, m keyedMachine, key string, now time.Time) error {
	if key == "" {
		return refuse(CodeEvidenceKey, "this evidence is the same for whoever has copied it, so it counts only with a key: send a DPoP proof of the key that this machine keeps")
	}
	if v.keys == nil {
		return refuse(proviso.CodeInternal, "the broker has nowhere to remember this machine's key").Because(ErrNoKeyMemory)
	}
	id := sha256.Sum256([]byte(m.names))
	proved, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil || len(proved) != sha256.Size {
		return refuse(proviso.CodeInternal, "the request's key has no thumbprint")
	}
	first, known, err := v.keys.RunnerKey(ctx, id)
	if err != nil {
		return proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeReplayStore)
	}
	if !known || !first.Opened.IsZero() {
		switch age, opened := now.Sub(m.launched), now.Sub(first.Opened); {
		case known && opened >= m.maxAge:
			return refuse(CodeEvidenceStale, "the operator allowed this machine another key %s ago, and it had %s to bring one: let the operator allow it again (proviso runner reattest)", opened.Round(time.Second), m.maxAge)
		case !known && age >= m.maxAge:
			return refuse(CodeEvidenceStale, "the machine was launched %s ago and has never brought a key; within %s of its launch it could have: relaunch it, or let it join by a token", age.Round(time.Second), m.maxAge)
		}
		if first.Key, err = v.keys.BindRunnerKey(ctx, id, [32]byte(proved), m.called, now); err != nil {
			return proviso.AsRefusal(err, proviso.StageRunner, proviso.CodeReplayStore)
		}
	}
	if first.Key != [32]byte(proved) {
		return refuse(CodeEvidenceKey, "this machine came with another key before: either its key file was lost, and the operator can allow another key (proviso runner reattest), or somebody else shows its document")
	}
	return nil
}
