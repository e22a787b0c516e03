package server

import (
	"strings"
	"testing"
	"time"
)

// Each value that the door can't safely stand on is refused, with what to write
// instead.
func TestValidateRefusesUnsafeDoors(t *testing.T) {
	good := Config{Listen: "127.0.0.1:8080", URL: "https://proviso.example.com"}
	if problems := good.Validate(); len(problems) > 0 {
		t.Fatalf("a good configuration: %v", problems)
	}
	for _, c := range []struct {
		name          string
		change        func(*Config)
		path, message string
	}{
		{"no address", func(c *Config) { c.Listen = "" }, "listen", "is missing"},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "listen", "is not host:port"},
		{"every address in clear", func(c *Config) { c.Listen = ":8080" }, "listen", "tokens would cross the network in clear"},
		{"a public address in clear", func(c *Config) { c.Listen = "192.0.2.7:8080" }, "listen", "add tls: {cert, key} or listen on 127.0.0.1"},
		{"a name in clear", func(c *Config) { c.Listen = "proviso.example.com:80" }, "listen", "in clear"},
		{"a certificate without a key", func(c *Config) { c.TLS.Cert = "tls.crt" }, "tls", "needs both"},
		{"a key without a certificate", func(c *Config) { c.TLS.Key = "tls.key" }, "tls", "needs both"},
		{"no URL", func(c *Config) { c.URL = "" }, "url", "is missing"},
		{"a host", func(c *Config) { c.URL = "proviso.example.com" }, "url", "is not an absolute URL"},
		{"a password in the URL", func(c *Config) { c.URL = "https://a:b@proviso.example.com" }, "url", "is not an absolute URL"},
		{"a slash at the end", func(c *Config) { c.URL += "/" }, "url", "must end after the host"},
		{"a path", func(c *Config) { c.URL += "/proviso" }, "url", "must end after the host"},
		{"a query", func(c *Config) { c.URL += "?a=b" }, "url", "must end after the host"},
		{"an empty fragment", func(c *Config) { c.URL += "#" }, "url", "must end after the host"},
		{"http elsewhere", func(c *Config) { c.URL = "http://proviso.example.com" }, "url", "must be https"},
		{"another scheme", func(c *Config) { c.URL = "ftp://proviso.example.com" }, "url", "must be https"},
		{"capitals", func(c *Config) { c.URL = "https://Proviso.example.com" }, "url", "lower case"},
		{"operations without a port", func(c *Config) { c.Operations = "127.0.0.1" }, "operations", "is not host:port"},
		{"a drain of minus one", func(c *Config) { c.Drain = -time.Second }, "drain", "is negative"},
		{"connections of minus one", func(c *Config) { c.Limits.Connections = -1 }, "limits.connections", "is negative"},
		{"requests of minus one", func(c *Config) { c.Limits.Requests = -1 }, "limits.requests", "is negative"},
		{"a rate of minus one", func(c *Config) { c.Limits.IssuerRate = -1 }, "limits.issuer_rate", "is negative"},
		{"a time of minus one", func(c *Config) { c.Limits.RequestTime = -1 }, "limits.request_time", "is negative"},
	} {
		bad := good
		c.change(&bad)
		problems := bad.Validate()
		if len(problems) != 1 || problems[0].Path != c.path || !strings.Contains(problems[0].Message, c.message) {
			t.Errorf("%s: got %v, want one problem of %s with %q", c.name, problems, c.path, c.message)
		}
		if _, err := New(bad, Parts{}); err == nil {
			t.Errorf("%s: a server was made of it", c.name)
		}
	}
	for _, fine := range []string{"http://127.0.0.1:8080", "http://localhost", "http://[::1]:80", "https://proviso.example.com:8443"} {
		if why := checkURL(fine); why != "" {
			t.Errorf("%s: %s", fine, why)
		}
	}
}

// What is left open has a bound all the same.
func TestDefaultsBoundEverything(t *testing.T) {
	c := Config{}.WithDefaults()
	if c.Drain <= 0 || c.Limits.Connections <= 0 || c.Limits.Requests <= 0 || c.Limits.IssuerRate <= 0 || c.Limits.RequestTime <= 0 {
		t.Errorf("a bound is missing: %+v", c)
	}
	own := Limits{Connections: 1, Requests: 2, IssuerRate: 3, RequestTime: 4}
	if got := (Config{Limits: own, Drain: 5}).WithDefaults(); got.Limits != own || got.Drain != 5 {
		t.Errorf("a configured bound was replaced: %+v", got)
	}
}
