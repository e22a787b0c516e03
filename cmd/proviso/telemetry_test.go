package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/lab"
)

// collector is an OpenTelemetry collector: what it is sent, as it was sent.
type collector struct {
	url string

	mu    sync.Mutex
	paths []string
	got   bytes.Buffer
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	listener := made(net.Listen("tcp", "127.0.0.1:0"))(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paths = append(c.paths, r.Method+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
		c.got.Write(body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	c.url = "http://" + listener.Addr().String()
	return c
}

func (c *collector) received() (paths []string, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.paths), c.got.String()
}

// A collector that is configured gets one span for each stage of a request, the
// refusal's code, the decision's id, and no secret.
func TestTracesOfAnExchange(t *testing.T) {
	c := newCollector(t)
	var secrets []string
	t.Run("the broker's life", func(t *testing.T) {
		s := newSite(t, plan{sections: "telemetry: {otlp: \"" + c.url + "\"}"})
		s.serve()
		token := s.token(lab.Job{})
		granted := s.ask(exchangeForm(token, "deploy"))
		if granted.granted == nil {
			t.Fatalf("%s", granted)
		}
		secrets = append(secrets, token, granted.granted.AccessToken)
		if again := s.ask(exchangeForm(token, "deploy")); again.refused.Code != proviso.CodeReplay {
			t.Fatalf("%s", again)
		}
		if _, sent := c.received(); strings.Contains(sent, "exchange") {
			t.Error("a request has waited for the collector")
		}
	})
	paths, text := c.received() // what was left was flushed at the end
	if len(paths) == 0 || paths[0] != "POST /v1/traces application/x-protobuf" {
		t.Fatalf("the collector got %v", paths)
	}
	for _, span := range []string{"exchange", "exchange job", "exchange runner", "exchange facts", "exchange policy", "exchange record", "exchange credential"} {
		// In protobuf a string is its length and its bytes.
		if !strings.Contains(text, string(rune(len(span)))+span) {
			t.Errorf("no span is called %q", span)
		}
	}
	for _, attribute := range []string{"proviso.decision", "proviso.grant", "deploy", "proviso.issuer", "github", "proviso.code", string(proviso.CodeReplay), "service.name"} {
		if !strings.Contains(text, attribute) {
			t.Errorf("the spans don't say %q", attribute)
		}
	}
	for _, secret := range secrets {
		if parts := strings.Split(secret, "."); strings.Contains(text, parts[2]) || strings.Contains(text, parts[1]) {
			t.Error("a span holds a token")
		}
	}
}

// Without a collector in the configuration nothing is sent, whatever the
// environment says; and one that isn't there costs traces, not requests.
func TestTracesAreOffUntilConfigured(t *testing.T) {
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.url)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", c.url+"/v1/traces")
	t.Run("none configured", func(t *testing.T) {
		s := newSite(t, plan{})
		s.serve()
		if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
			t.Errorf("%s", r)
		}
	})
	if paths, _ := c.received(); len(paths) > 0 {
		t.Errorf("the collector of the environment got %v", paths)
	}
	t.Run("one that isn't there", func(t *testing.T) {
		s := newSite(t, plan{sections: "telemetry: {otlp: \"http://127.0.0.1:1\", sample: 0.5}"})
		s.serve()
		if r := s.ask(exchangeForm(s.token(lab.Job{}), "deploy")); r.granted == nil {
			t.Errorf("%s", r)
		}
	})
}
