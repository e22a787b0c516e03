package runner_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/runner"
	"github.com/proviso-ci/proviso/store"
)

func TestMalformedBundleIsRefused(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	key := func(doc map[string]any, i int) map[string]any { return doc["keys"].([]any)[i].(map[string]any) }
	cases := map[string]struct {
		change func(doc map[string]any)
		raw    string
		word   string
	}{
		"not JSON":              {raw: "{", word: "JSON"},
		"bytes after the value": {raw: `{"keys":[]}{}`, word: "JSON"},
		"a list":                {raw: `[]`, word: "object"},
		"no keys":               {raw: `{"spiffe_sequence":1}`, word: "keys"},
		"keys null":             {raw: `{"keys":null}`, word: "keys"},
		"sequence twice":        {raw: `{"keys":[],"spiffe_sequence":9,"spiffe_sequence":1}`, word: "twice"},
		"negative sequence":     {change: func(d map[string]any) { d["spiffe_sequence"] = -1 }, word: "spiffe_sequence"},
		"sequence as text":      {change: func(d map[string]any) { d["spiffe_sequence"] = "2" }, word: "spiffe_sequence"},
		"hint of zero":          {change: func(d map[string]any) { d["spiffe_refresh_hint"] = 0 }, word: "spiffe_refresh_hint"},
		"negative hint":         {change: func(d map[string]any) { d["spiffe_refresh_hint"] = -5 }, word: "spiffe_refresh_hint"},
		"private key":           {change: func(d map[string]any) { key(d, 1)["d"] = key(d, 1)["x"] }, word: "private"},
		"no kid":                {change: func(d map[string]any) { delete(key(d, 1), "kid") }, word: "kid"},
		"kid twice": {change: func(d map[string]any) {
			d["keys"] = append(d["keys"].([]any), key(d, 1))
		}, word: "another key"},
		"two certificates": {change: func(d map[string]any) {
			x := key(d, 0)["x5c"].([]any)
			key(d, 0)["x5c"] = append(x, x[0])
		}, word: "exactly one"},
		"no certificate": {change: func(d map[string]any) { delete(key(d, 0), "x5c") }, word: "exactly one"},
		"other certificate": {change: func(d map[string]any) {
			key(d, 0)["x5c"] = key(newAuthority(t, domain, frozen).bundle(1), 0)["x5c"]
		}, word: "do not match"},
		"point not on the curve": {change: func(d map[string]any) { key(d, 1)["y"] = key(d, 1)["x"] }, word: ""},
		"key is a text":          {change: func(d map[string]any) { d["keys"] = []any{"x"} }, word: "not an object"},
		"too many keys": {change: func(d map[string]any) {
			var keys []any
			for i := range 300 {
				keys = append(keys, map[string]any{"use": "other", "kid": fmt.Sprint(i)})
			}
			d["keys"] = keys
		}, word: "at most"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := []byte(c.raw)
			if c.change != nil {
				doc := deepCopy(t, a.bundle(2))
				c.change(doc)
				var err error
				if data, err = json.Marshal(doc); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := runner.ParseBundle(domain, data)
			if err == nil || !strings.Contains(err.Error(), string(proviso.CodeBundleMalformed)) || !strings.Contains(err.Error(), c.word) {
				t.Errorf("got %v, want %s naming %q", err, proviso.CodeBundleMalformed, c.word)
			}
		})
	}
}

func deepCopy(t *testing.T, doc map[string]any) map[string]any {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// A changed file is taken over; a rollback, a reused sequence, a broken or
// missing file is refused loudly, once, and the last good bundle stays.
func TestBundleReload(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	var log bytes.Buffer
	v, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Now: func() time.Time { return frozen },
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	old := a.token(a.claims(), nil)
	taken := func(token string) bool {
		_, err := verify(v, runner.Evidence{JWTSVID: token})
		return err == nil
	}
	a.jwtKey = newECKey(t)
	a.write(7)
	if err := v.ReloadNow(); err != nil || taken(old) || !taken(a.token(a.claims(), nil)) {
		t.Fatalf("a newer bundle was not taken over: %v", err)
	}
	now := a.token(a.claims(), nil)
	refused := func(code proviso.Code, write func()) {
		t.Helper()
		write()
		for range 3 { // said once
			if err := v.ReloadNow(); err == nil {
				t.Errorf("%s: taken over", code)
			}
		}
		st := v.Status()[0]
		if st.Code != code || st.Sequence != 7 || st.Problem == nil {
			t.Errorf("status %+v, want %s with sequence 7", st, code)
		}
		if !taken(now) {
			t.Errorf("%s: the last good bundle is not in use any more", code)
		}
		if n := strings.Count(log.String(), "is refused"); n != 1 {
			t.Errorf("%s was said %d times", code, n)
		}
		log.Reset()
	}
	other := newAuthority(t, domain, frozen)
	refused(proviso.CodeBundleRollback, func() { a.write(6) })
	refused(proviso.CodeBundleRollback, func() { a.write(nil) })
	refused(proviso.CodeBundleSequenceReused, func() { a.writeDocument(other.bundle(7)) })
	refused(proviso.CodeBundleMalformed, func() {
		if err := os.WriteFile(a.file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	refused(proviso.CodeBundleMalformed, func() {
		if err := os.Remove(a.file); err != nil {
			t.Fatal(err)
		}
	})
	a.write(7) // the same again: nothing is wrong any more
	if err := v.ReloadNow(); err != nil || v.Status()[0].Problem != nil {
		t.Error(err)
	}
	hinted := a.bundle(7) // the same keys, as SPIRE's endpoint gives them
	hinted["spiffe_refresh_hint"] = 77
	a.writeDocument(hinted)
	if err := v.ReloadNow(); err != nil || v.Status()[0].Problem != nil {
		t.Error("another refresh hint under the same sequence:", err)
	}
	a.writeDocument(map[string]any{"keys": []any{}, "spiffe_sequence": 8}) // a domain may withdraw everything
	if err := v.ReloadNow(); err != nil || taken(now) {
		t.Errorf("withdrawn keys are still believed: %v", err)
	}
}

// What was withdrawn stays withdrawn when the broker is started again: an older
// bundle is no better then. Another source of the bundle, which the operator
// writes down, begins anew.
func TestAnOlderBundleAfterARestart(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	dir := t.TempDir()
	start := func(code proviso.Code) {
		t.Helper()
		db, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		v, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Now: func() time.Time { return frozen }, Log: quiet, Store: db})
		if err == nil {
			v.Close()
		}
		if code == "" && err != nil || code != "" && (err == nil || !strings.Contains(err.Error(), string(code)) || !strings.Contains(err.Error(), "proviso runner bundle forget "+domain)) {
			t.Errorf("%v, want %q", err, code)
		}
	}
	a.write(nil)
	start("") // no sequence, nothing to remember
	a.write(6)
	start("")
	a.write(7)
	start("")
	start("")
	a.write(6)
	start(proviso.CodeBundleRollback)
	a.write(nil)
	start(proviso.CodeBundleRollback)
	a.writeDocument(newAuthority(t, domain, frozen).bundle(7))
	start(proviso.CodeBundleSequenceReused)
	a.write(7)
	start("")
	a.file = write(t, "elsewhere.json", nil)
	a.write(1)
	start("")
}

// Verify looks after the file by itself, at most once per interval.
func TestBundleIsReadAgainWhenDue(t *testing.T) {
	a := newAuthority(t, domain, frozen)
	now := frozen
	v, err := runner.New([]runner.Config{a.config("fleet")}, runner.Options{Audience: broker, Now: func() time.Time { return now }, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	a.jwtKey = newECKey(t)
	a.write(2)
	token := a.token(a.claims(), nil)
	_, err = verify(v, runner.Evidence{JWTSVID: token})
	wantRefusal(t, err, proviso.CodeJWTSignature, "")
	now = now.Add(3 * time.Second)
	if _, err := verify(v, runner.Evidence{JWTSVID: token}); err != nil {
		t.Error(err)
	}
}

// One key in the bundles of two domains would let either speak for the other.
func TestSharedKeyIsRefused(t *testing.T) {
	a, b := newAuthority(t, domain, frozen), newAuthority(t, "partner.example", frozen)
	configs := []runner.Config{a.config("fleet"), b.config("partner")}
	shared := b.bundle(2)
	shared["keys"] = append(shared["keys"].([]any), a.bundle(1)["keys"].([]any)[1])
	shared["keys"].([]any)[2].(map[string]any)["kid"] = "jwt-9"
	b.writeDocument(shared)
	_, err := runner.New(configs, runner.Options{Audience: broker, Log: quiet})
	if err == nil || !strings.Contains(err.Error(), string(proviso.CodeBundleSharedKey)) {
		t.Errorf("at the start: %v", err)
	}
	b.write(1)
	v := newVerifier(t, frozen, configs...)
	b.writeDocument(shared)
	if err := v.ReloadNow(); err == nil || v.Status()[1].Code != proviso.CodeBundleSharedKey {
		t.Errorf("later: %v", err)
	}
}

func TestConfigProblems(t *testing.T) {
	good := runner.Config{Name: "fleet", TrustDomain: domain, Bundle: runner.Bundle{File: "bundle.json"}, Path: "/region/{region}/runner/{id}"}
	cases := map[string]struct {
		change func(c *runner.Config)
		path   string
	}{
		"no name":             {func(c *runner.Config) { c.Name = "" }, "[0].name"},
		"no domain":           {func(c *runner.Config) { c.TrustDomain = "" }, "[0].trust_domain"},
		"domain as an ID":     {func(c *runner.Config) { c.TrustDomain = "spiffe://" + domain }, "[0].trust_domain"},
		"domain in capitals":  {func(c *runner.Config) { c.TrustDomain = "Runners.acme.example" }, "[0].trust_domain"},
		"no bundle":           {func(c *runner.Config) { c.Bundle.File = "" }, "[0].bundle"},
		"no path":             {func(c *runner.Config) { c.Path = "" }, "[0].path"},
		"no id":               {func(c *runner.Config) { c.Path = "/region/{region}" }, "[0].path"},
		"relative path":       {func(c *runner.Config) { c.Path = "runner/{id}" }, "[0].path"},
		"part of a segment":   {func(c *runner.Config) { c.Path = "/runner-{id}" }, "[0].path"},
		"id twice":            {func(c *runner.Config) { c.Path = "/{id}/{id}" }, "[0].path"},
		"dots":                {func(c *runner.Config) { c.Path = "/../{id}" }, "[0].path"},
		"empty segment":       {func(c *runner.Config) { c.Path = "//{id}" }, "[0].path"},
		"trailing slash":      {func(c *runner.Config) { c.Path = "/{id}/" }, "[0].path"},
		"overlap":             {func(c *runner.Config) { c.Paths = []string{"/region/eu/runner/{id}"} }, "[0].paths[0]"},
		"environment":         {func(c *runner.Config) { c.Environment = "cloud" }, "[0].environment"},
		"region twice":        {func(c *runner.Config) { c.Region = "eu" }, "[0].region"},
		"attribute id":        {func(c *runner.Config) { c.Attributes = map[string]string{"id": "x"} }, "[0].attributes.id"},
		"attribute name":      {func(c *runner.Config) { c.Attributes = map[string]string{"A b": "x"} }, "[0].attributes.A b"},
		"bind to nothing":     {func(c *runner.Config) { c.Bind = "agent" }, "[0].bind"},
		"negative lifetime":   {func(c *runner.Config) { c.MaxX509Lifetime = -1 }, "[0].max_x509_lifetime"},
		"negative lifetime 2": {func(c *runner.Config) { c.MaxJWTLifetime = -1 }, "[0].max_jwt_lifetime"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := good
			c.change(&cfg)
			problems := runner.Check([]runner.Config{cfg})
			if len(problems) != 1 || problems[0].Path != c.path || problems[0].Message == "" {
				t.Errorf("got %v, want one problem at %s", problems, c.path)
			}
		})
	}
	if p := runner.Check([]runner.Config{good}); len(p) > 0 {
		t.Error(p)
	}
	twin := good
	twin.Name, twin.TrustDomain = "fleet", domain
	if p := runner.Check([]runner.Config{good, twin}); len(p) != 2 || p[0].Path != "[1].name" || p[1].Path != "[1].trust_domain" {
		t.Errorf("one domain in two entries: %v", p)
	}
	_, err := runner.New([]runner.Config{good}, runner.Options{Audience: broker, Log: quiet})
	var p runner.Problem
	if !errors.As(err, &p) || p.Path != "[0].bundle.file" {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := runner.New(nil, runner.Options{}); err == nil {
		t.Error("no audience: JWT-SVIDs of everybody would be taken")
	}
}
