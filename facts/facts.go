// Package facts finds out what else is true, and puts together the whole
// document that policy decides on.
//
// A policy's input has six parts: identity (the job's verified token), runner
// (its verified evidence), resource (the grant's own words), context, intent
// and origin. Context holds side by side what the broker found out by itself,
// what the grant says, and what the job declared; origin says of every key of
// context which of the three it is, and of each fact its source and its age.
// The struct [Input] defines the document; its schema and its manual are
// generated from it.
//
// A declared value can neither set nor shadow a verified one: the keys of
// context are divided between the three once, when the configuration is read,
// and a request that declares a key of the others is refused. What is unknown is
// absent, never null, "", false or 0, so a policy that wants it says no.
//
// Cheap facts (the job's branch and commit, the time in the policy's zone) are
// always there. Everything that has to be asked for is gathered only if the
// grant's policy reads it: the commit's signature from the broker's own mirror
// of the repository, tickets and rotas from HTTP sources. Sources are asked at the same
// time, under one deadline. A source that fails, is late or answers nonsense
// leaves its facts absent, with an [Absence] that says why; it can never widen
// anything, and it never fails an exchange by itself.
package facts

import (
	"strings"

	"github.com/proviso-ci/proviso"
	"github.com/proviso-ci/proviso/internal/document"
)

// Resource is what a grant gives access to, in the grant's own words: the
// "resource" member of a grant's configuration, and input.resource.
type Resource struct {
	// Name of the resource; where the grant has none, the grant's name.
	Name string `json:"name,omitempty" yaml:"name,omitempty"`
	// Service that is deployed, read or debugged. Also context.service.
	Service string `json:"service,omitempty" yaml:"service,omitempty"`
	// Environment, as "production". Also context.environment.
	Environment string `json:"environment,omitempty" yaml:"environment,omitempty"`
	// Tenant that owns the resource; policies compare it with identity.tenant.
	Tenant string `json:"tenant,omitempty" yaml:"tenant,omitempty"`
	// Kind, as "database" or "cluster".
	Kind string `json:"kind,omitempty" yaml:"kind,omitempty"`
	// Labels are the operator's own words.
	Labels map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
}

// Needs says which parts of the input a policy reads. What it doesn't read is
// not gathered. The zero Needs reads nothing that has to be gathered.
type Needs struct {
	// All: the policy reads its input in a way that can't be told in advance.
	All bool
	// Paths are the references to input, without "input", as
	// "context.ticket_approved". A path stands for everything below it.
	Paths []string
}

// Reads reports whether the policy reads the value at path, something below
// it, or something that contains it.
func (n Needs) Reads(path string) bool {
	if n.All {
		return true
	}
	for _, p := range n.Paths {
		if p == path || within(p, path) || within(path, p) || p == "" {
			return true
		}
	}
	return false
}

// within reports whether the path inner lies below the path outer.
func within(inner, outer string) bool {
	return len(inner) > len(outer) && inner[len(outer)] == '.' && strings.HasPrefix(inner, outer)
}

// Absence is a fact that policy reads and that could not be found out.
type Absence struct {
	// Key is the input path, as "context.ticket_approved".
	Key string
	// Source is the source's name in the configuration, or "git".
	Source string
	// Code is the cause in one word.
	Code proviso.Code
	// Why is a sentence for the job's log: it names no address and no secret.
	Why string
	// Err is the cause for the operator's log.
	Err error
}

// Remark says why a fact that is there is as it is: commit_signed is false,
// because the key that signed is revoked.
type Remark struct {
	// Key is the input path, as "context.commit_signed".
	Key string
	// Source, Code, Why and Err are as in Absence.
	Source string
	Code   proviso.Code
	Why    string
	Err    error
}

// Known is the whole policy input, what is missing from it, and remarks on what
// is there. Only Gather makes one for the flow.
type Known struct {
	input   document.Value
	absent  []Absence
	remarks []Remark
}

// Recorded gives an input that was known earlier (a recorded decision, a
// policy's test case, an AuthZEN request) the form that policies decide on. No
// part of the flow to a credential calls it.
func Recorded(input document.Value, absent ...Absence) Known {
	return Known{input: input, absent: absent}
}

// Input is the document that policy decides on.
func (k Known) Input() document.Value { return k.input }

// Absent lists the facts that could not be found out, in the order of their keys.
func (k Known) Absent() []Absence { return k.absent }

// Remarks explain facts that are there, for whoever reads a refusal.
func (k Known) Remarks() []Remark { return k.remarks }

// IsZero reports whether nothing was gathered.
func (k Known) IsZero() bool { return k.input.IsAbsent() }
