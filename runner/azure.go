package runner

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// AzureConfig takes the attested documents that Azure's metadata service gives
// a virtual machine, made over a challenge of this broker (their nonce).
type AzureConfig struct {
	// Subscriptions are the ids of the subscriptions whose machines are ours.
	// Required: anybody's machine gets a good document.
	Subscriptions []string `yaml:"subscriptions" json:"subscriptions"`
	// Machines, if there are any, are the ids (vmId) of the only machines.
	Machines []string `yaml:"machines,omitempty" json:"machines,omitempty"`
	// Roots is a file with the root certificates that Azure's signing certificate
	// must chain to. Required. Microsoft lists them in its documentation of
	// Azure's certificate authorities.
	Roots string `yaml:"roots" json:"roots"`
	// Intermediates is a file with certificates between the two: Azure sends the
	// leaf only, and this broker fetches nothing on a stranger's word.
	Intermediates string `yaml:"intermediates,omitempty" json:"intermediates,omitempty"`
	// Cloud is public (the default), usgovernment or china: whose name the signing
	// certificate must have.
	Cloud string `yaml:"cloud,omitempty" json:"cloud,omitempty"`
	// MaxAge is how old a document may be. Default 5m, at most 6h.
	MaxAge time.Duration `yaml:"max_age,omitempty" json:"max_age,omitempty"`
}

// azureNames are the names of the signing certificates, by cloud.
var azureNames = map[string]string{"public": "metadata.azure.com", "usgovernment": "metadata.azure.us", "china": "metadata.azure.cn"}

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

func (c *AzureConfig) kind() string { return AttestationAzure }

func (c *AzureConfig) files() []*string { return []*string{&c.Roots, &c.Intermediates} }

func (c *AzureConfig) check(bad badFunc) {
	needPins(bad, ".subscriptions", "every machine of every customer gets such a document; write the ids of your own subscriptions", c.Subscriptions)
	for path, list := range map[string][]string{".subscriptions": c.Subscriptions, ".machines": c.Machines} {
		for i, id := range list {
			if !uuid.MatchString(id) {
				bad(path+"["+itoa(i)+"]", "%q is no id: a UUID in lower case", id)
			}
		}
	}
	if c.Roots == "" {
		bad(".roots", "is missing: nothing can be verified without the roots of Azure's signing certificate; write a PEM file")
	}
	if _, ok := azureNames[cmp.Or(c.Cloud, "public")]; !ok {
		bad(".cloud", "is %q; write public, usgovernment or china", c.Cloud)
	}
	checkAge(bad, c.MaxAge, 6*time.Hour)
}

type azureKind struct {
	entry
	conf                 AzureConfig
	roots, intermediates *x509.CertPool
	v                    *Verifier
}

func (c *AzureConfig) open(v *Verifier, e entry) error {
	k := &azureKind{entry: e, conf: *c, roots: x509.NewCertPool(), intermediates: x509.NewCertPool(), v: v}
	k.conf.Cloud, k.conf.MaxAge = cmp.Or(c.Cloud, "public"), cmp.Or(c.MaxAge, 5*time.Minute)
	var all []*x509.Certificate
	for _, f := range []struct {
		member, path string
		pool         *x509.CertPool
	}{{"roots", c.Roots, k.roots}, {"intermediates", c.Intermediates, k.intermediates}} {
		if f.path == "" {
			continue
		}
		certs, err := readCertificates(f.member, f.path)
		if err != nil {
			return err
		}
		for _, cert := range certs {
			f.pool.AddCert(cert)
		}
		all = append(all, certs...)
	}
	v.addEntry(AttestationAzure, k.verify)
	v.tell(e, c.kind(), func(now time.Time) (string, error) {
		found, err := certificatesState(count(len(all), "authority's certificate"), all, now)
		return count(len(c.Subscriptions), "subscription") + "; " + found, err
	})
	return nil
}

// AzureNonce is what the metadata service is asked to put into the document for
// a challenge: 32 letters and digits, the most that it takes.
func AzureNonce(broker, challenge, thumbprint string) string {
	sum := proviso.EvidenceNonce(broker, challenge, thumbprint)
	return hex.EncodeToString(sum[:16])
}

// verify takes {"challenge": ..., "signature": ...}, the signature as the
// metadata service gives it.
func (k *azureKind) verify(_ context.Context, shown Shown) (Finding, error) {
	members, err := readEvidence(shown.Text, "challenge", "signature")
	if err != nil {
		return Finding{}, err
	}
	ch, err := k.v.challenges.check(members[0])
	if err != nil {
		return Finding{}, err
	}
	signed, err := parseCMS(members[1])
	if err != nil {
		return Finding{}, err
	}
	now := k.v.now()
	if err := k.trusted(signed, now); err != nil {
		return Finding{}, err
	}
	// Only the bytes that were signed are read from here on.
	doc, err := document.Parse(signed.content, document.Limits{Bytes: maxEvidence, Depth: 4, Members: 256})
	if err != nil || doc.Kind() != document.Object {
		return Finding{}, refuse(CodeEvidenceMalformed, "the attested document is no JSON object that can be read in one way only").Because(err)
	}
	if said, _ := doc.Get("nonce").Text(); said != AzureNonce(k.v.audience, ch.text, shown.Key) {
		return Finding{}, refuse(CodeNonceInvalid, "the attested document was not made over this challenge, for this broker and the key that the request proves")
	}
	end, err := k.inTime(doc, now)
	if err != nil {
		return Finding{}, err
	}
	f, err := k.admit(doc)
	if err != nil {
		return Finding{}, err
	}
	if err := k.v.challenges.use(ch); err != nil {
		return Finding{}, err
	}
	f.Assurance, f.Key, f.Hash, f.Expires = 3, shown.Key, hashOf(members[1]), end
	return f, nil
}

// trusted anchors everything on the certificate that signed: it, and not some
// other certificate in the message, has the name and the chain.
func (k *azureKind) trusted(signed *signedData, now time.Time) error {
	leaf := signed.signer()
	if leaf == nil {
		return refuse(CodeEvidenceSigner, "the attested document does not bring the certificate that signed it")
	}
	if err := signed.verify(leaf); err != nil {
		return err
	}
	name := azureNames[k.conf.Cloud]
	if !slices.ContainsFunc(leaf.DNSNames, func(san string) bool { return san == name || strings.HasSuffix(san, "."+name) }) {
		return notHere(CodeEvidenceSigner, "the attested document was signed by %s, and Azure signs as %s", quoted(strings.Join(leaf.DNSNames, ", ")), name)
	}
	between := k.intermediates.Clone()
	for _, cert := range signed.certificates {
		between.AddCert(cert) // candidates: each still needs a chain to a root
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: k.roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return notHere(CodeEvidenceSigner, "the certificate that signed the attested document has no valid chain to a configured root; its issuer is %s: perhaps the intermediate is missing here", quoted(leaf.Issuer.CommonName)).
			because(err)
	}
	return nil
}

// azureTime is how the documents write times.
const azureTime = "01/02/06 15:04:05 -0700"

func (k *azureKind) inTime(doc document.Value, now time.Time) (end time.Time, err error) {
	var at [2]time.Time
	for i, name := range []string{"createdOn", "expiresOn"} {
		s, err := text(doc, "the attested document", "timeStamp", name)
		if err != nil {
			return end, err
		}
		if at[i], err = time.Parse(azureTime, s); err != nil {
			return end, refuse(CodeEvidenceMalformed, "the attested document's %s is no time of the documented form, MM/DD/YY hh:mm:ss -0000", name)
		}
	}
	created, expires := at[0], at[1]
	switch {
	case !now.Before(expires):
		return end, refuse(CodeEvidenceStale, "the attested document expired at %s, it is %s; get a fresh one", stamp(expires), stamp(now))
	case created.Sub(now) > skew:
		return end, refuse(CodeEvidenceStale, "the attested document was made at %s, it is %s; check the clocks", stamp(created), stamp(now))
	case now.Sub(created) >= k.conf.MaxAge:
		return end, refuse(CodeEvidenceStale, "the attested document was made %s ago, at most %s is taken here; get a fresh one", now.Sub(created).Round(time.Second), k.conf.MaxAge)
	}
	return expires, nil
}

func (k *azureKind) admit(doc document.Value) (Finding, error) {
	const what = "the attested document"
	subscription, err := text(doc, what, "subscriptionId")
	if err != nil {
		return Finding{}, err
	}
	machine, err := text(doc, what, "vmId")
	if err != nil {
		return Finding{}, err
	}
	// Azure writes ids in either case; pins are in lower case.
	subscription, machine = strings.ToLower(subscription), strings.ToLower(machine)
	if !slices.Contains(k.conf.Subscriptions, subscription) {
		return Finding{}, notHere(CodeEvidencePin, "the attested document is genuine, and its subscription %s is none that this broker's operator configured", quoted(subscription))
	}
	if len(k.conf.Machines) > 0 && !slices.Contains(k.conf.Machines, machine) {
		return Finding{}, notHere(CodeEvidencePin, "the attested document is genuine, and its machine %s is none that this broker's operator configured", quoted(machine))
	}
	found := map[string]string{"subscription": subscription}
	found["sku"], _ = doc.Get("sku").Text()
	return k.finding(machine, "", found)
}
