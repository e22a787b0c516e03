package facts

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/proviso-ci/proviso/internal/document"
)

// Config is the "facts" part of the configuration: the sources that the broker
// asks by itself. A source is asked only for a grant whose policy reads one of
// its keys.
type Config struct {
	// Timeout bounds the time in which all sources of one request together have
	// to answer. What comes later is absent. Default 5s.
	Timeout time.Duration `yaml:"timeout,omitempty" json:"timeout,omitempty"`
	// Git verifies the commit that a job's token names, in the broker's own
	// mirror of the repository: context.commit_signed and its relatives.
	Git *GitConfig `yaml:"git,omitempty" json:"git,omitempty"`
	// HTTP are systems that answer GET with JSON: tickets, rotas, freezes.
	HTTP []HTTPConfig `yaml:"http,omitempty" json:"http,omitempty"`
}

// ResolvePaths makes relative file names relative to dir.
func (c *Config) ResolvePaths(dir string) {
	resolve := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if c.Git != nil {
		resolve(&c.Git.Dir)
		resolve(&c.Git.AllowedSigners)
		resolve(&c.Git.RevokedKeys)
		resolve(&c.Git.OpenPGPKeyring)
		for i := range c.Git.Repositories {
			resolve(&c.Git.Repositories[i].TokenFile)
			resolve(&c.Git.Repositories[i].CAFile)
		}
	}
	for i := range c.HTTP {
		resolve(&c.HTTP[i].BearerFile)
		resolve(&c.HTTP[i].CAFile)
	}
}

// Problem is one thing that is wrong with the configuration. Path begins below
// "facts", as "http[0].keys.ticket_approved".
type Problem struct {
	Path, Message string
}

func (p Problem) Error() string { return "facts." + p.Path + " " + p.Message }

// Check finds what is wrong with a configuration without reading any file.
func Check(c Config) []Problem {
	var problems []Problem
	bad := func(path, message string, args ...any) {
		problems = append(problems, Problem{path, fmt.Sprintf(message, args...)})
	}
	if c.Timeout < 0 || c.Timeout > time.Minute {
		bad("timeout", "is %s; write a time up to 1m: a job is waiting", c.Timeout)
	}
	if c.Git != nil {
		c.Git.check(bad)
	}
	checkHTTP(c.HTTP, bad)
	return problems
}

// New checks the configuration and makes a Gatherer. Its error joins one
// Problem for each thing that is wrong. Nothing is asked yet.
func New(c Config, opt Options) (*Gatherer, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Zone == nil {
		opt.Zone = time.UTC
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "proviso"
	}
	var problems []error
	for _, p := range Check(c) {
		problems = append(problems, p)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	g := &Gatherer{
		zone: opt.Zone, zoneName: document.StringOf(opt.Zone.String()), now: opt.Now, log: opt.Log,
		timeout: c.Timeout, extra: map[string]string{},
	}
	if g.timeout == 0 {
		g.timeout = defaultTimeout
	}
	if c.Git != nil {
		s, err := newGit(*c.Git, opt)
		if err != nil {
			problems = append(problems, err)
		} else {
			g.sources = append(g.sources, s)
		}
	}
	for i, hc := range c.HTTP {
		s, err := newHTTP(hc, fmt.Sprintf("http[%d]", i), opt, g.extra)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		g.sources = append(g.sources, s)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return g, nil
}
