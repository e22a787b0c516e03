package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/proviso-ci/proviso"
)

// Challenge asks the broker for a nonce that evidence is to be made over.
func (c *Client) Challenge(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.conf.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.broker.String(), "/")+"/challenge", http.NoBody)
	if err != nil {
		return "", errors.New("the broker's URL can't be asked")
	}
	r.Header.Set("User-Agent", "proviso")
	resp, err := c.http.Do(r)
	if err != nil {
		return "", fmt.Errorf("%s gives no challenge: %w", c.conf.BrokerURL, cause(err))
	}
	defer func() { _ = resp.Body.Close() }()
	var answer proviso.Challenge
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer)
	if resp.StatusCode != http.StatusOK || err != nil || answer.Nonce == "" {
		return "", fmt.Errorf("%s gives no challenge for a runner's evidence: it answers %s", c.conf.BrokerURL, resp.Status)
	}
	return answer.Nonce, nil
}
