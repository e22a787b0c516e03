package policy

import "encoding/json"

// anyOf parses JSON the way a program does that uses OPA as a library.
func anyOf(text string) (any, error) {
	var v any
	err := json.Unmarshal([]byte(text), &v)
	return v, err
}
