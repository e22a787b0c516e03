package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/proviso-ci/proviso"
)

// testTimeout bounds one test of a policy; suiteTimeout all of them together.
const (
	testTimeout  = 2 * time.Second
	suiteTimeout = 60 * time.Second
)

// TestResult is one test_ rule of a policy's own tests.
type TestResult struct {
	Package string        `json:"package"`
	Name    string        `json:"name"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Passed  bool          `json:"passed"`
	Skipped bool          `json:"skipped,omitempty"`
	Error   string        `json:"error,omitempty"`
	Output  string        `json:"output,omitempty"`
	Took    time.Duration `json:"took"`
}

// runTests runs every test_ rule: a revision whose own tests fail doesn't
// become active. It gives the number of those that passed.
func runTests(ctx context.Context, prog *program) (Problems, int) {
	results, problems := prog.test(ctx)
	passed := 0
	for _, r := range results {
		if r.Passed {
			passed++
			continue
		}
		why := "it is not true"
		if r.Error != "" {
			why = r.Error
		}
		p := Problem{Code: proviso.CodePolicyTests, File: r.File, Line: r.Line, Message: fmt.Sprintf("the test %s failed: %s", r.Name, why)}
		if r.Skipped {
			p.Warning, p.Message = true, fmt.Sprintf("the test %s is skipped", r.Name)
		}
		problems = append(problems, p)
	}
	return problems, passed
}

// test compiles the modules together with their tests, in a compiler of its
// own so that no test is part of a decision, and runs them.
func (p *program) test(ctx context.Context) ([]TestResult, Problems) {
	if len(p.tests) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, suiteTimeout)
	defer cancel()
	all := append(slices.Clone(p.modules), p.tests...)
	compiler := p.newCompiler().WithEnablePrintStatements(true)
	ch, err := tester.NewRunner().
		SetCompiler(compiler).
		SetStore(p.store).
		SetModules(syntaxOf(all)).
		SetTimeout(testTimeout).
		RaiseBuiltinErrors(true).
		CapturePrintOutput(true).
		SetParallel(1).
		RunTests(ctx, p.txn)
	if err != nil {
		if list := (ast.Errors)(nil); errors.As(err, &list) {
			return nil, p.compileProblems(list, all)
		}
		return nil, Problems{{Code: proviso.CodePolicyTests, Message: "the tests can't be run: " + err.Error()}}
	}
	var out []TestResult
	for r := range ch {
		t := TestResult{Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, Passed: r.Pass(), Skipped: r.Skip,
			Output: string(r.Output), Took: r.Duration}
		if r.Location != nil {
			t.File, t.Line = r.Location.File, r.Location.Row
		}
		if r.Error != nil {
			t.Error = r.Error.Error()
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b TestResult) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	if ctx.Err() != nil {
		return out, Problems{{Code: proviso.CodePolicyTests, Message: fmt.Sprintf("the tests did not end within %v", suiteTimeout)}}
	}
	return out, nil
}
