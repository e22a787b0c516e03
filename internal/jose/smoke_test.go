package jose_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/proviso-ci/proviso/internal/jose"
)

func TestRoundTrip(t *testing.T) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jose.Sign(priv, jose.ES256, "k1", "JWT", []byte(`{"sub":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jose.Parse(compact, jose.Profile{Typ: []string{"JWT"}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := jose.NewKey("k1", jose.ES256, priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	set, err := jose.NewKeySet(key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := jose.ParseKeySet(set.AppendJSON(nil), []jose.Alg{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	found, err := again.Find(tok.Header.Kid, tok.Header.Alg)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Verify(found); err != nil {
		t.Fatal(err)
	}
}
