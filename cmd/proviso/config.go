package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso/broker"
	"github.com/proviso-ci/proviso/credential"
	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/identity"
	"github.com/proviso-ci/proviso/pass"
	"github.com/proviso-ci/proviso/policy"
	"github.com/proviso-ci/proviso/runner"
	"github.com/proviso-ci/proviso/server"
)

// Config is the broker's configuration file: one YAML document, read strictly.
// An unknown key, a wrong type or an unsafe value is an error that names file,
// line and column and says what to write instead. Each part is documented at
// its own type; paths are relative to the file.
type Config struct {
	// Server is the broker's HTTP face.
	Server server.Config `yaml:"server"`
	// Store is the directory of everything that must outlive a restart: the
	// record, replay keys, signing keys. Losing it means losing all of these;
	// back it up as one.
	Store string `yaml:"store"`
	// Issuers are the CI platforms whose jobs may ask.
	Issuers []identity.IssuerConfig `yaml:"issuers"`
	// Runners are the trust domains whose workloads are believed as runners.
	Runners []runner.Config `yaml:"runners,omitempty"`
	// TrustDomain is the broker's own SPIFFE trust domain, for grants of the kinds
	// x509-svid and jwt-svid and for a fleet of its own; absent when it has none.
	TrustDomain credential.DomainConfig `yaml:"trust_domain,omitempty"`
	// Fleet are the runners of the broker's own trust domain.
	Fleet broker.FleetConfig `yaml:"fleet,omitempty"`
	// Policy is where the Rego is.
	Policy policy.Config `yaml:"policy"`
	// Grants are what can be asked for, by name.
	Grants map[string]broker.GrantConfig `yaml:"grants"`
	// Facts are the sources that the broker asks by itself.
	Facts facts.Config `yaml:"facts,omitempty"`
	// Keys are Proviso's own signing keys.
	Keys pass.KeyringConfig `yaml:"keys,omitempty"`
	// CA is the authority for credentials of kind x509.
	CA credential.CAConfig `yaml:"ca,omitempty"`
	// Audit is the record.
	Audit AuditConfig `yaml:"audit,omitempty"`
	// Telemetry is off until it is configured.
	Telemetry TelemetryConfig `yaml:"telemetry,omitempty"`
	// Log is the operator's log on standard error.
	Log LogConfig `yaml:"log,omitempty"`

	file string                   // it was read from
	at   func(path string) string // file:line:column of a path
}

// AuditConfig is the "audit" part.
type AuditConfig struct {
	// Origin names the log in its checkpoints (C2SP tlog-checkpoint), as
	// "proviso.example.com/log". Default: the server's host with "/log". It can't
	// be changed once the log has an entry.
	Origin string `yaml:"origin,omitempty"`
}

// TelemetryConfig is the "telemetry" part.
type TelemetryConfig struct {
	// OTLP is the URL of an OpenTelemetry collector (OTLP over HTTP), as
	// "http://127.0.0.1:4318"; without a path it is asked at /v1/traces. Traces
	// are off when it is empty.
	OTLP string `yaml:"otlp,omitempty"`
	// Sample is the share of requests that are traced, above 0 to 1. Default 1.
	Sample float64 `yaml:"sample,omitempty"`
}

// LogConfig is the "log" part.
type LogConfig struct {
	// Level is debug, info, warn or error. Default info.
	Level string `yaml:"level,omitempty"`
	// Format is json or text. Default json.
	Format string `yaml:"format,omitempty"`
}

// problem is one thing that is wrong with a configuration, at its place.
type problem struct {
	path    string // YAML path without "$.", as "grants.deploy.policy"
	message string
	warning bool // a finding: it works, and somebody should think about it
}

// configErrors are all problems of one file, in the file's order.
type configErrors struct {
	file     string
	problems []string
}

func (e *configErrors) Error() string {
	return fmt.Sprintf("the configuration %s can't be used:\n  %s", e.file, strings.Join(e.problems, "\n  "))
}

const maxConfigBytes = 4 << 20

// readConfig reads and checks a configuration file. The warnings are findings
// that don't keep the broker from starting.
func readConfig(name string) (*Config, []string, error) {
	data, err := readFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("there is no configuration %s: name yours with --config FILE, or write one as docs/quickstart.md shows", name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("can't read the configuration: %w", err)
	}
	return parseConfig(name, data)
}

// readFile reads a file that people write.
func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err == nil && len(data) > maxConfigBytes {
		err = fmt.Errorf("%s is over %d MiB", name, maxConfigBytes>>20)
	}
	return data, err
}

func parseConfig(name string, data []byte) (*Config, []string, error) {
	if err := unset(name, data); err != nil {
		return nil, nil, err
	}
	var c Config
	d, err := decode(name, data, &c)
	if err != nil {
		return nil, nil, err
	}
	c.file, c.at = name, d.place
	var warnings []string
	var problems []problem
	found := c.check()
	c.resolvePaths(filepath.Dir(name))
	for _, p := range found {
		if p.warning {
			warnings = append(warnings, c.describe(p))
		} else {
			problems = append(problems, p)
		}
	}
	sortByPlace(warnings)
	if err := c.wrong(problems); err != nil {
		return nil, warnings, err
	}
	return &c, warnings, nil
}

// describe gives a problem with its place in the file.
func (c *Config) describe(p problem) string { return c.at(p.path) + ": " + p.path + " " + p.message }

// wrong makes an error of problems, nil if there are none.
func (c *Config) wrong(problems []problem) error {
	if len(problems) == 0 {
		return nil
	}
	e := &configErrors{file: c.file}
	for _, p := range problems {
		e.problems = append(e.problems, c.describe(p))
	}
	sortByPlace(e.problems)
	return e
}

// sortByPlace puts problems into the order of the file.
func sortByPlace(lines []string) {
	at := func(s string) (line, column int) {
		if m := placeInText.FindStringSubmatch(s); m != nil {
			line, _ = strconv.Atoi(m[1])
			column, _ = strconv.Atoi(m[2])
		}
		return line, column
	}
	sort.SliceStable(lines, func(i, j int) bool {
		li, ci := at(lines[i])
		lj, cj := at(lines[j])
		return li < lj || li == lj && ci < cj
	})
}

var placeInText = regexp.MustCompile(`:([0-9]+):([0-9]+): `)
