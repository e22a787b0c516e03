package jose_test

import (
	"testing"
	"time"

	proviso "github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
	"github.com/proviso-ci/proviso/internal/jose"
)

func TestTime(t *testing.T) {
	for _, tt := range []struct {
		claims  string
		present bool
		exp     proviso.Code // for exp; claim_type for others
	}{
		{`{"t":1790000000}`, true, ""},
		{`{"t":946684800}`, true, ""},
		{`{"t":4102444799}`, true, ""},
		{`{}`, false, ""},
		{`{"T":1790000000}`, false, ""},
		{`{"t":null}`, true, proviso.CodeExpInvalid},
		{`{"t":"1790000000"}`, true, proviso.CodeExpInvalid},
		{`{"t":1790000000.0}`, true, proviso.CodeExpInvalid},
		{`{"t":1790000000.5}`, true, proviso.CodeExpInvalid},
		{`{"t":1.79e9}`, true, proviso.CodeExpInvalid},
		{`{"t":true}`, true, proviso.CodeExpInvalid},
		{`{"t":[1790000000]}`, true, proviso.CodeExpInvalid},
		{`{"t":{}}`, true, proviso.CodeExpInvalid},
		{`{"t":0}`, true, proviso.CodeExpInvalid},
		{`{"t":-1790000000}`, true, proviso.CodeExpInvalid},
		{`{"t":946684799}`, true, proviso.CodeExpInvalid},
		{`{"t":4102444800}`, true, proviso.CodeExpInvalid},
		{`{"t":1790000000000}`, true, proviso.CodeExpInvalid}, // milliseconds
		{`{"t":9007199254740991}`, true, proviso.CodeExpInvalid},
	} {
		v, err := document.Parse([]byte(tt.claims), document.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		got, present, err := jose.Time(v, "t")
		want := tt.exp
		if want != "" {
			want = proviso.CodeClaimType
		}
		if present != tt.present || codeOf(t, err) != want || (err != nil || !present) != got.IsZero() {
			t.Errorf("%s: %v %v %v, want code %q", tt.claims, got, present, err, want)
		}
		if n, ok := v.Get("t").Integer(); err == nil && present && (!ok || !got.Equal(time.Unix(n, 0))) {
			t.Errorf("%s: %v", tt.claims, got)
		}
		renamed := v
		if x := v.Get("t"); !x.IsAbsent() {
			renamed = document.ObjectOf(document.Member("exp", x))
		}
		if _, _, err := jose.Time(renamed, "exp"); codeOf(t, err) != tt.exp {
			t.Errorf("%s as exp: %v, want %q", tt.claims, err, tt.exp)
		}
	}
}
