package lab

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Machine is a virtual machine of a Cloud, as all three of them would call it.
type Machine struct {
	ID       string // AWS's instance id, GCP's number, Azure's vmId
	Owner    string // AWS's account, GCP's project, Azure's subscription
	Zone     string // AWS and GCP: eu-central-1a, europe-west3-a
	Launched time.Time
}

// Cloud is the metadata service of the machine that asks it, and whoever signs
// for it: AWS's (IMDSv2), GCP's and Azure's, on one socket, each with the
// headers that keep a forwarded request out.
type Cloud struct {
	*server
	now func() time.Time

	mu      sync.Mutex
	machine Machine
	session string // IMDSv2's token
	given   map[string]givenToken

	regions map[string]*CloudSigner
	google  *Key
	root    *CloudSigner
	azure   *CloudSigner
}

// givenToken is a token that GCP's metadata server gives again until it is
// nearly over.
type givenToken struct {
	text string
	made time.Time
}

// CloudSigner is a certificate with its key, which signs documents.
type CloudSigner struct {
	Certificate *x509.Certificate
	Key         *rsa.PrivateKey
}

// CloudOptions of a Cloud.
type CloudOptions struct {
	Machine Machine
	Now     func() time.Time // default time.Now
	// Only is the one cloud that answers, aws, gcp or azure; "" is all three.
	Only string
}

// NewCloud starts a cloud's metadata service.
func NewCloud(o CloudOptions) (*Cloud, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cloud{now: o.Now, machine: o.Machine, session: randomSecret(), given: map[string]givenToken{}, regions: map[string]*CloudSigner{}}
	var err error
	if c.google, err = NewKey("RS256"); err != nil {
		return nil, err
	}
	if c.root, err = NewCloudSigner("Lab Root", nil, o.Now(), true); err != nil {
		return nil, err
	}
	if c.azure, err = NewCloudSigner("metadata.azure.com", c.root, o.Now(), false); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, route := range []struct {
		cloud, pattern string
		handler        http.HandlerFunc
	}{
		{"aws", "PUT /latest/api/token", c.serveSession},
		{"aws", "GET /latest/dynamic/instance-identity/rsa2048", c.serveAWS},
		{"gcp", "GET /computeMetadata/v1/instance/id", c.serveID},
		{"gcp", "GET /computeMetadata/v1/instance/service-accounts/default/identity", c.serveGCP},
		{"azure", "GET /metadata/instance/compute/vmId", c.serveID},
		{"azure", "GET /metadata/attested/document", c.serveAzure},
	} {
		if o.Only == "" || o.Only == route.cloud {
			mux.HandleFunc(route.pattern, route.handler)
		}
	}
	c.server, err = serve(mux, nil)
	return c, err
}

// NewCloudSigner makes a certificate for a name, under an issuer or by itself.
func NewCloudSigner(name string, issuer *CloudSigner, now time.Time, isCA bool) (*CloudSigner, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	if isCA {
		template.KeyUsage |= x509.KeyUsageCertSign
	} else {
		template.DNSNames, template.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	parent, signer := (*x509.Certificate)(nil), key
	if issuer != nil {
		parent, signer = issuer.Certificate, issuer.Key
	}
	cert, err := certify(template, parent, signer, key.Public())
	if err != nil {
		return nil, err
	}
	return &CloudSigner{cert, key}, nil
}

// PEM gives the certificate in PEM.
func (s *CloudSigner) PEM() []byte { return pemCertificates(s.Certificate) }

// URL is where the metadata service answers.
func (c *Cloud) URL() string { return c.url }

// Become makes the cloud answer for another machine.
func (c *Cloud) Become(m Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.machine = m
}

// Machine gives the machine that the service answers for.
func (c *Cloud) Machine() Machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.machine
}

// Region gives the signer of an AWS region, which it makes when it is first
// asked for.
func (c *Cloud) Region(name string) (*CloudSigner, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.regions[name]; s != nil {
		return s, nil
	}
	s, err := NewCloudSigner("Amazon Web Services LLC "+name, nil, c.now(), false)
	if err == nil {
		c.regions[name] = s
	}
	return s, err
}

// Google gives the key that signs GCP's tokens, Root the root of Azure's chain,
// Azure its signer.
func (c *Cloud) Google() *Key        { return c.google }
func (c *Cloud) Root() *CloudSigner  { return c.root }
func (c *Cloud) Azure() *CloudSigner { return c.azure }

func regionOf(zone string) string { return strings.TrimRight(zone, "abcdef") }

// AWSClaims is the content of a machine's instance identity document.
func (c *Cloud) AWSClaims(m Machine) map[string]any {
	return map[string]any{"accountId": m.Owner, "instanceId": m.ID, "region": regionOf(m.Zone), "availabilityZone": m.Zone,
		"pendingTime": m.Launched.UTC().Format(time.RFC3339), "imageId": "ami-0abcdef1234567890", "instanceType": "c7g.large",
		"architecture": "arm64", "privateIp": "10.0.0.17", "version": "2017-09-30", "billingProducts": nil,
		"devpayProductCodes": nil, "marketplaceProductCodes": nil, "kernelId": nil, "ramdiskId": nil}
}

// AWS signs an instance identity document for its region.
func (c *Cloud) AWS(claims map[string]any, how CMS) (string, error) {
	region, _ := claims["region"].(string)
	s, err := c.Region(region)
	if err != nil {
		return "", err
	}
	return c.sign(claims, s, how)
}

func (c *Cloud) sign(claims map[string]any, s *CloudSigner, how CMS) (string, error) {
	content, err := json.MarshalIndent(claims, "", "  ")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	how.Time = c.now()
	return how.Sign(content, s.Key, s.Certificate)
}

// GCPClaims is the payload of a machine's identity token.
func (c *Cloud) GCPClaims(m Machine, audience string) map[string]any {
	now := c.now()
	return map[string]any{"iss": "https://accounts.google.com", "aud": audience, "sub": "112233445566778899001", "azp": "112233445566778899001",
		"email": "runner@" + m.Owner + ".iam.gserviceaccount.com", "email_verified": true, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"google": map[string]any{"compute_engine": map[string]any{"project_id": m.Owner, "project_number": 739419398126, "zone": m.Zone,
			"instance_id": m.ID, "instance_name": "runner-1", "instance_creation_timestamp": m.Launched.Unix()}}}
}

// GCP signs an identity token.
func (c *Cloud) GCP(claims map[string]any) (string, error) {
	return c.google.Token(claims)
}

// AzureClaims is the content of a machine's attested document.
func (c *Cloud) AzureClaims(m Machine, nonce string) map[string]any {
	const form = "01/02/06 15:04:05 -0000"
	now := c.now().UTC()
	return map[string]any{"nonce": nonce, "vmId": m.ID, "subscriptionId": m.Owner, "sku": "server", "licenseType": "",
		"plan":      map[string]any{"name": "", "product": "", "publisher": ""},
		"timeStamp": map[string]any{"createdOn": now.Format(form), "expiresOn": now.Add(6 * time.Hour).Format(form)}}
}

// AzureDocument signs an attested document as Azure does: DER, with the leaf alone.
func (c *Cloud) AzureDocument(claims map[string]any, how CMS) (string, error) {
	how.Definite, how.DigestIsSignature = true, !how.SHA1
	if how.Certificates == nil {
		how.Certificates = []*x509.Certificate{c.azure.Certificate}
	}
	return c.sign(claims, c.azure, how)
}

func (c *Cloud) serveSession(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" || r.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "400 - Bad Request", http.StatusBadRequest)
		return
	}
	_, _ = w.Write([]byte(c.session))
}

func (c *Cloud) serveAWS(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-aws-ec2-metadata-token") != c.session {
		http.Error(w, "401 - Unauthorized", http.StatusUnauthorized)
		return
	}
	text, err := c.AWS(c.AWSClaims(c.Machine()), CMS{})
	answerText(w, text, err)
}

func (c *Cloud) serveGCP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	w.Header().Set("Metadata-Flavor", "Google")
	if r.Header.Get("Metadata-Flavor") != "Google" || r.Header.Get("X-Forwarded-For") != "" || q.Get("audience") == "" {
		http.Error(w, "Missing Metadata-Flavor:Google header.", http.StatusForbidden)
		return
	}
	text, err := c.identityToken(q.Get("audience"), q.Get("format"))
	answerText(w, text, err)
}

// identityToken gives the machine's token: the one that it gave before, as long
// as more than a few minutes of its hour are left.
func (c *Cloud) identityToken(audience, format string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	which := fmt.Sprintf("%s %s %s %s", c.machine.Owner, c.machine.ID, audience, format)
	if last := c.given[which]; last.text != "" && c.now().Sub(last.made) < 55*time.Minute {
		return last.text, nil
	}
	claims := c.GCPClaims(c.machine, audience)
	if format != "full" {
		delete(claims, "google")
	}
	text, err := c.GCP(claims)
	if err == nil {
		c.given[which] = givenToken{text, c.now()}
	}
	return text, err
}

func (c *Cloud) serveAzure(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.Header.Get("Metadata") != "true" || r.Header.Get("X-Forwarded-For") != "" || q.Get("api-version") == "" || len(q.Get("nonce")) > 32 {
		http.Error(w, `{"error":"Bad request. Required metadata header not specified"}`, http.StatusBadRequest)
		return
	}
	text, err := c.AzureDocument(c.AzureClaims(c.Machine(), q.Get("nonce")), CMS{})
	if err == nil {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		err = json.NewEncoder(w).Encode(map[string]string{"encoding": "pkcs7", "signature": strings.ReplaceAll(text, "\n", "")})
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (c *Cloud) serveID(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Metadata-Flavor") != "Google" && r.Header.Get("Metadata") != "true" {
		http.Error(w, "a header is missing", http.StatusForbidden)
		return
	}
	answerText(w, c.Machine().ID, nil)
}

func answerText(w http.ResponseWriter, text string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(text))
}
