package runner

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// TPMConfig takes quotes of TPM 2.0 chips, made over a challenge of this broker
// with an attestation key that was enrolled before.
type TPMConfig struct {
	// Machines is a file with the enrolled machines, a JSON list of
	// {"name": "builder-1", "ak": "..."}: the name becomes input.runner.id, ak is
	// what "proviso runner enroll" prints on the machine (the key's public area in
	// base64). Optional members are region, attributes and pcrs. Required.
	Machines string `yaml:"machines" json:"machines"`
	// PCRs are the registers that measure the machine's software (SHA-256 bank),
	// by number, each with the values that are accepted, in hex:
	// {"7": [0a1b...]}. A machine's own pcrs in the file replace those of the same
	// number. Without any, the quote proves which machine it is, and not what runs
	// on it: its assurance is 3, else 4.
	PCRs map[string][]string `yaml:"pcrs,omitempty" json:"pcrs,omitempty"`
}

const (
	maxTPMMachines = 1 << 16
	maxMachineFile = 32 << 20
	pcrCount       = 24
)

func (c *TPMConfig) kind() string { return AttestationTPM }

func (c *TPMConfig) files() []*string { return []*string{&c.Machines} }

func (c *TPMConfig) check(bad badFunc) {
	if c.Machines == "" {
		bad(".machines", "is missing: a quote counts only under a key that was enrolled; write the file that lists the machines and their keys")
	}
	for _, number := range slices.Sorted(maps.Keys(c.PCRs)) {
		if _, err := parsePCR(number, c.PCRs[number]); err != nil {
			bad(".pcrs."+number, "%v", err)
		}
	}
}

// pcrPolicy are the accepted values, by register.
type pcrPolicy map[int][][32]byte

func parsePCR(number string, values []string) ([][32]byte, error) {
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n >= pcrCount || strconv.Itoa(n) != number {
		return nil, fmt.Errorf("is no register: their numbers are 0 to %d", pcrCount-1)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("accepts no value, so no machine would be taken; write at least one, or leave the register out")
	}
	out := make([][32]byte, len(values))
	for i, v := range values {
		b, err := hex.DecodeString(v)
		if err != nil || len(b) != 32 {
			return nil, fmt.Errorf("%q is no SHA-256 in hex, 64 digits", v)
		}
		out[i] = [32]byte(b)
	}
	return out, nil
}

// machine is an enrolled one.
type machine struct {
	name, region string
	attributes   map[string]string
	public       crypto.PublicKey
	pcrs         pcrPolicy
}

type tpmKind struct {
	entry
	machines map[string]*machine // by the name of their key, in hex
	v        *Verifier
}

func (c *TPMConfig) open(v *Verifier, e entry) error {
	k := &tpmKind{entry: e, machines: map[string]*machine{}, v: v}
	base := pcrPolicy{}
	for number, values := range c.PCRs {
		n, _ := strconv.Atoi(number)
		base[n], _ = parsePCR(number, values) // checked by Check
	}
	data, err := readFile(c.Machines, maxMachineFile)
	if err != nil {
		return &fileError{"machines", err}
	}
	doc, err := document.Parse(data, document.Limits{Bytes: maxMachineFile, Depth: 6, Members: 1 << 20})
	if err != nil {
		return &fileError{"machines", fmt.Errorf("%s: %w", c.Machines, err)}
	}
	if doc.Kind() != document.Array || len(doc.Items()) == 0 || len(doc.Items()) > maxTPMMachines {
		return &fileError{"machines", fmt.Errorf("%s is no list of 1 to %d machines", c.Machines, maxTPMMachines)}
	}
	names := map[string]bool{}
	for i, item := range doc.Items() {
		id, m, err := readMachine(item, base)
		if err == nil && (names[m.name] || k.machines[id] != nil) {
			err = fmt.Errorf("its name or its key is another machine's too")
		}
		if err != nil {
			return &fileError{"machines", fmt.Errorf("%s: machine %d: %w", c.Machines, i, err)}
		}
		names[m.name], k.machines[id] = true, m
	}
	v.addEntry(AttestationTPM, k.verify)
	v.tell(e, c.kind(), func(time.Time) (string, error) {
		measured := 0
		for _, m := range k.machines {
			measured += min(len(m.pcrs), 1)
		}
		return fmt.Sprintf("%s enrolled, %d of them with registers that are held to values", count(len(k.machines), "machine"), measured), nil
	})
	return nil
}

func readMachine(item document.Value, base pcrPolicy) (id string, m *machine, err error) {
	m = &machine{attributes: map[string]string{}, pcrs: maps.Clone(base)}
	var encoded string
	for _, f := range item.Fields() {
		switch f.Name {
		case "name":
			m.name, _ = f.Value.Text()
		case "region":
			m.region, _ = f.Value.Text()
		case "ak":
			encoded, _ = f.Value.Text()
		case "attributes":
			for _, a := range f.Value.Fields() {
				value, ok := a.Value.Text()
				if !ok || !isName(a.Name) {
					return "", nil, fmt.Errorf("the attribute %s is no text, or its name is not of lower-case letters, digits and underscores", quoted(a.Name))
				}
				m.attributes[a.Name] = value
			}
		case "pcrs":
			for _, p := range f.Value.Fields() {
				var values []string
				for _, v := range p.Value.Items() {
					s, _ := v.Text()
					values = append(values, s)
				}
				n, _ := strconv.Atoi(p.Name)
				if m.pcrs[n], err = parsePCR(p.Name, values); err != nil {
					return "", nil, fmt.Errorf("pcrs.%s %w", p.Name, err)
				}
			}
		default:
			return "", nil, fmt.Errorf("%s is no member that there is; name, ak, region, attributes and pcrs are", quoted(f.Name))
		}
	}
	if !isValue(m.name) || m.region != "" && !isValue(m.region) {
		return "", nil, fmt.Errorf("it needs a name of letters, digits, dots, dashes and underscores")
	}
	area, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(area) == 0 {
		return "", nil, fmt.Errorf("ak is not the public area of a key in base64")
	}
	m.public, err = attestationKey(area)
	return keyName(area), m, err
}

// keyName is a key's name as a TPM computes it (TPM 2.0 part 1, section 16):
// the hash of its public area, which holds its attributes too.
func keyName(area []byte) string {
	sum := sha256.Sum256(area)
	return fmt.Sprintf("%04x%x", uint16(tpm2.TPMAlgSHA256), sum)
}

// attestationKey reads the public area of a key that signs nothing but what the
// TPM itself has made: with any other key, whoever controls the machine could
// write a quote and have it signed.
func attestationKey(area []byte) (crypto.PublicKey, error) {
	public, err := unmarshalTPM[tpm2.TPMTPublic](area)
	if err != nil {
		return nil, fmt.Errorf("ak is not the public area of a key: %w", err)
	}
	a := public.ObjectAttributes
	if !a.Restricted || !a.SignEncrypt || a.Decrypt || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || public.NameAlg != tpm2.TPMAlgSHA256 {
		return nil, fmt.Errorf("ak is no attestation key: it must be made in the TPM, fixed to it, restricted, and only sign")
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, fmt.Errorf("ak: %w", err)
	}
	if err := checkStrength(key); err != nil {
		return nil, fmt.Errorf("ak: %w", err)
	}
	return key, nil
}

// unmarshalTPM reads a TPM's structure, all of it and in one way only: what is
// written again must be what was read.
func unmarshalTPM[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](data []byte) (*T, error) {
	v, err := tpm2.Unmarshal[T, P](data)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(tpm2.Marshal(*v), data) {
		return nil, fmt.Errorf("it isn't written as a TPM writes it")
	}
	return v, nil
}

// quote is a quote as a client sends it.
type quote struct {
	challenge, ak       string
	attested, signature []byte
	pcrs                map[int][32]byte
}

func readQuote(raw string) (quote, error) {
	var q quote
	doc, err := document.Parse([]byte(raw), document.Limits{Bytes: maxEvidence, Depth: 3, Members: 64})
	if err != nil || doc.Kind() != document.Object {
		return q, refuse(CodeEvidenceMalformed, "the quote is no JSON object that can be read in one way only").Because(err)
	}
	q.pcrs = map[int][32]byte{}
	for _, f := range doc.Fields() {
		s, isText := f.Value.Text()
		switch f.Name {
		case "challenge":
			q.challenge = s
		case "ak":
			q.ak = s
		case "quote", "signature":
			b, err := base64.StdEncoding.Strict().DecodeString(s)
			if err != nil {
				return q, refuse(CodeEvidenceMalformed, "the quote's %s is not canonical base64", f.Name)
			}
			if f.Name == "quote" {
				q.attested = b
			} else {
				q.signature = b
			}
		case "pcrs":
			isText = f.Value.Kind() == document.Object
			for _, p := range f.Value.Fields() {
				value, _ := p.Value.Text()
				values, err := parsePCR(p.Name, []string{value})
				if err != nil {
					return q, refuse(CodeEvidenceMalformed, "the quote's register %s: %v", quoted(p.Name), err)
				}
				n, _ := strconv.Atoi(p.Name)
				q.pcrs[n] = values[0]
			}
		default:
			return q, refuse(CodeEvidenceMalformed, "the quote has a member %s, which it has not; challenge, ak, quote, signature and pcrs are", quoted(f.Name))
		}
		if !isText {
			return q, refuse(CodeEvidenceMalformed, "the quote's %s is of another type", f.Name)
		}
	}
	if q.attested == nil || q.signature == nil {
		return q, refuse(CodeEvidenceMalformed, "quote or signature is missing")
	}
	return q, nil
}

func (k *tpmKind) verify(_ context.Context, shown Shown) (Finding, error) {
	q, err := readQuote(shown.Text)
	if err != nil {
		return Finding{}, err
	}
	ch, err := k.v.challenges.check(q.challenge)
	if err != nil {
		return Finding{}, err
	}
	m := k.machines[q.ak]
	if m == nil {
		return Finding{}, notHere(CodeEvidenceSigner, "the quote is by a key that is not enrolled here; an operator adds what \"proviso runner enroll\" prints on the machine to the list of machines")
	}
	if err := verifyTPM(m.public, q.attested, q.signature); err != nil {
		return Finding{}, err
	}
	// Only the bytes that were signed are read from here on.
	want := proviso.EvidenceNonce(k.v.audience, ch.text, shown.Key)
	selected, digest, err := readAttested(q.attested, want[:])
	if err != nil {
		return Finding{}, err
	}
	if err := m.pcrs.hold(q.pcrs, selected, digest); err != nil {
		return Finding{}, err
	}
	if err := k.v.challenges.use(ch); err != nil {
		return Finding{}, err
	}
	f, err := k.finding(m.name, m.region, m.attributes)
	f.Assurance, f.Key, f.Hash, f.Expires = 3, shown.Key, hashOf(string(q.attested)), ch.end
	if len(m.pcrs) > 0 {
		f.Assurance = 4
	}
	return f, err
}

// verifyTPM verifies a TPM's signature. The key says which algorithm it is,
// not the signature.
func verifyTPM(public crypto.PublicKey, signed, raw []byte) error {
	s, err := unmarshalTPM[tpm2.TPMTSignature](raw)
	if err != nil {
		return refuse(CodeEvidenceMalformed, "the quote's signature can't be read").Because(err)
	}
	sum := sha256.Sum256(signed)
	good := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if sig, err := s.Signature.ECDSA(); err == nil && s.SigAlg == tpm2.TPMAlgECDSA && sig.Hash == tpm2.TPMAlgSHA256 {
			good = ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(sig.SignatureR.Buffer), new(big.Int).SetBytes(sig.SignatureS.Buffer))
		}
	case *rsa.PublicKey:
		if sig, err := s.Signature.RSASSA(); err == nil && s.SigAlg == tpm2.TPMAlgRSASSA && sig.Hash == tpm2.TPMAlgSHA256 {
			good = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig.Sig.Buffer) == nil
		} else if sig, err := s.Signature.RSAPSS(); err == nil && s.SigAlg == tpm2.TPMAlgRSAPSS && sig.Hash == tpm2.TPMAlgSHA256 {
			good = rsa.VerifyPSS(key, crypto.SHA256, sum[:], sig.Sig.Buffer, nil) == nil
		}
	}
	if !good {
		return refuse(CodeEvidenceSignature, "the quote's signature is not the enrolled key's, with SHA-256")
	}
	return nil
}

// readAttested reads what the TPM has signed: which registers, their digest.
func readAttested(attested, nonce []byte) (selected []int, digest []byte, err error) {
	a, err := unmarshalTPM[tpm2.TPMSAttest](attested)
	if err != nil {
		return nil, nil, refuse(CodeEvidenceMalformed, "the quote can't be read").Because(err)
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestQuote {
		return nil, nil, refuse(CodeEvidenceMalformed, "what the key has signed is no quote of a TPM")
	}
	if !bytes.Equal(a.ExtraData.Buffer, nonce) {
		return nil, nil, refuse(CodeNonceInvalid, "the quote was not made over this challenge, for this broker and the key that the request proves")
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return nil, nil, refuse(CodeEvidenceMalformed, "the quote says nothing of registers").Because(err)
	}
	banks := info.PCRSelect.PCRSelections
	if len(banks) != 1 || banks[0].Hash != tpm2.TPMAlgSHA256 {
		return nil, nil, refuse(CodeEvidenceMalformed, "the quote is of %d banks of registers; exactly one, SHA-256, is expected", len(banks))
	}
	for i, b := range banks[0].PCRSelect {
		for bit := range 8 {
			if b&(1<<bit) != 0 {
				selected = append(selected, i*8+bit)
			}
		}
	}
	return selected, info.PCRDigest.Buffer, nil
}

// hold compares the registers with the policy: the values are those that were
// quoted, every register of the policy is among them, and its value is accepted.
func (p pcrPolicy) hold(values map[int][32]byte, selected []int, digest []byte) error {
	h := sha256.New()
	for _, n := range selected {
		value, ok := values[n]
		if !ok {
			return refuse(CodeEvidenceMalformed, "the register %d was quoted, and its value wasn't sent", n)
		}
		h.Write(value[:])
	}
	if !bytes.Equal(h.Sum(nil), digest) || len(values) != len(selected) {
		return refuse(CodeEvidencePCR, "the registers' values are not those that were quoted; make the quote anew")
	}
	for _, n := range slices.Sorted(maps.Keys(p)) {
		value, ok := values[n]
		if !ok {
			return refuse(CodeEvidencePCR, "the register %d was not quoted, and the operator wants to see it; quote the registers %s", n, p.numbers())
		}
		if !slices.Contains(p[n], value) {
			return refuse(CodeEvidencePCR, "the register %d has the value %x, which the operator doesn't accept: the machine started other software than it should, or was updated and the new value isn't configured yet", n, value)
		}
	}
	return nil
}

func (p pcrPolicy) numbers() string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(p)) {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ", ")
}
