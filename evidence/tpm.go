package evidence

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TPMVariable names the TPM's device, or the Unix socket of a software TPM.
const TPMVariable = "PROVISO_TPM"

// defaultTPM is the kernel's own resource manager.
const defaultTPM = "/dev/tpmrm0"

// attestationTemplate is the machine's attestation key: made anew from the
// TPM's endorsement seed each time, always the same, and nowhere stored. It is
// restricted, so it signs only what the TPM itself has made.
var attestationTemplate = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
		UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
	}),
}

// TPM is a machine's TPM with its attestation key loaded.
type TPM struct {
	tpm  transport.TPMCloser
	key  tpm2.TPMHandle
	name tpm2.TPM2BName
	area []byte
}

// OpenTPM opens a TPM, by default the one that TPMVariable names or the
// kernel's, and makes its attestation key.
func OpenTPM(path string) (*TPM, error) {
	if path == "" {
		path = os.Getenv(TPMVariable)
	}
	if path == "" {
		path = defaultTPM
	}
	t, err := openTPM(path)
	if err != nil {
		return nil, fmt.Errorf("the TPM at %s can't be opened: %w", path, err)
	}
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(attestationTemplate)}.Execute(t)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the TPM at %s makes no attestation key: %w", path, err), t.Close())
	}
	public, err := made.OutPublic.Contents()
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return &TPM{tpm: t, key: made.ObjectHandle, name: made.Name, area: tpm2.Marshal(*public)}, nil
}

// Close unloads the key and closes the TPM.
func (t *TPM) Close() error {
	_, err := tpm2.FlushContext{FlushHandle: t.key}.Execute(t.tpm)
	return errors.Join(err, t.tpm.Close())
}

// Key is the attestation key's public area in base64: what an operator enrolls.
func (t *TPM) Key() string { return base64.StdEncoding.EncodeToString(t.area) }

// registers are those that are quoted: all that measure what was started,
// firmware to kernel (PC Client Platform TPM Profile, section 3.3.4).
var registers = []uint{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14}

// Quote has the TPM sign its registers and a nonce, as the broker's kind "tpm"
// reads it.
func (t *TPM) Quote(challenge string, nonce [32]byte) (string, error) {
	selection := tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(registers...)}}}
	quoted, err := tpm2.Quote{
		SignHandle:     tpm2.AuthHandle{Handle: t.key, Name: t.name, Auth: tpm2.PasswordAuth(nil)},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection,
	}.Execute(t.tpm)
	if err != nil {
		return "", fmt.Errorf("the TPM makes no quote: %w", err)
	}
	attested, err := quoted.Quoted.Contents()
	if err != nil {
		return "", err
	}
	values, err := t.Registers()
	if err != nil {
		return "", err
	}
	return marshal(struct {
		Challenge string            `json:"challenge"`
		AK        string            `json:"ak"`
		Quote     []byte            `json:"quote"`
		Signature []byte            `json:"signature"`
		PCRs      map[string]string `json:"pcrs"`
	}{challenge, hex.EncodeToString(t.name.Buffer), tpm2.Marshal(*attested), tpm2.Marshal(quoted.Signature), values})
}

// Registers reads the registers that are quoted, in hex by number.
func (t *TPM) Registers() (map[string]string, error) {
	values := map[string]string{}
	for _, n := range registers { // one at a time: a TPM gives eight at most, and fewer if it likes
		read, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
			Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(n)}}}}.Execute(t.tpm)
		if err != nil || len(read.PCRValues.Digests) != 1 {
			return nil, fmt.Errorf("the TPM doesn't give its register %d (SHA-256): %w", n, err)
		}
		values[strconv.Itoa(int(n))] = hex.EncodeToString(read.PCRValues.Digests[0].Buffer)
	}
	return values, nil
}
