package audit

import (
	"encoding/json"
	"strconv"

	"github.com/proviso-ci/proviso/internal/document"
)

// Receipt proves that an entry is in the log. As JSON it is
//
//	{"entry": {...}, "index": 73894, "proof": "c2sp.org/tlog-proof@v1\n..."}
//
// and it is checked with the log's public key and nothing else.
type Receipt struct {
	Entry json.RawMessage `json:"entry"` // canonical JSON
	Index int64           `json:"index"`
	Proof string          `json:"proof"` // a C2SP tlog-proof of Entry at Index
}

// AppendJSON appends the receipt as JSON, without encoding/json's second pass
// over the entry.
func (r Receipt) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"entry":`...)
	dst = append(dst, r.Entry...)
	dst = append(dst, `,"index":`...)
	dst = strconv.AppendInt(dst, r.Index, 10)
	dst = append(dst, `,"proof":`...)
	dst = document.AppendString(dst, r.Proof)
	return append(dst, '}')
}
