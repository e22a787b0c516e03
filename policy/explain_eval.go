package policy

import (
	"errors"
	"maps"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// env is the values of a body's variables, as far as the conditions before gave
// them any. It is never changed after it was made.
type env map[ast.Var]*ast.Term

func (e env) with(more env) env {
	if len(more) == 0 {
		return e
	}
	out := make(env, len(e)+len(more))
	maps.Copy(out, e)
	maps.Copy(out, more)
	return out
}

// What evaluating one condition by itself can come to, besides values.
var (
	// errUnbound: the condition needs a variable that has no value (yet).
	errUnbound = errors.New("a variable has no value")
	// errBudget: the time or the number of queries is used up.
	errBudget = errors.New("the explanation's time is over")
	errEnough = errors.New("enough results")
)

// spend takes one query from the budget.
func (x *explainer) spend() bool {
	if x.queries++; x.queries > explainQueries || x.cancel.Cancelled() || x.queries%16 == 0 && time.Now().After(x.deadline) {
		x.cut = true
	}
	return !x.cut
}

// solutions gives the ways in which a condition holds under e: each is e with
// the values of the variables that the condition binds. None means that it
// doesn't hold.
func (x *explainer) solutions(cond *ast.Expr, e env) ([]env, error) {
	if holds, known := x.quickCondition(cond, e); known {
		if holds {
			return []env{e}, nil
		}
		return nil, nil
	}
	vars := variables(cond)
	results, err := x.query(vars, e, cond.Copy())
	if err != nil {
		return nil, err
	}
	out := make([]env, 0, len(results))
	for _, r := range results {
		more := env{}
		for v, t := range r {
			if vars[v] && e[v] == nil && !v.IsWildcard() && t.IsGround() {
				more[v] = t
			}
		}
		out = append(out, e.with(more))
	}
	return out, nil
}

// values gives the values that a term has under e, none if it is undefined.
func (x *explainer) values(t *ast.Term, e env, most int) []*ast.Term {
	if v, known := x.quick(t, e); known {
		if v == nil {
			return nil
		}
		return []*ast.Term{v}
	}
	const out = ast.Var("__value__")
	results, err := x.query(variables(t), e, ast.Equality.Expr(ast.NewTerm(out), t.Copy()))
	if err != nil {
		return nil
	}
	var list []*ast.Term
	for _, r := range results {
		v := r[out]
		if v == nil || !v.IsGround() || len(list) >= most {
			continue
		}
		seen := false
		for _, old := range list {
			seen = seen || old.Equal(v)
		}
		if !seen {
			list = append(list, v)
		}
	}
	return list
}

// query lets OPA evaluate one condition, with the variables of e that it uses
// put before it as equations.
func (x *explainer) query(vars map[ast.Var]bool, e env, cond *ast.Expr) ([]topdown.QueryResult, error) {
	if !x.spend() {
		return nil, errBudget
	}
	var body ast.Body
	for v := range vars {
		if value := e[v]; value != nil {
			body.Append(ast.Equality.Expr(ast.NewTerm(v), value))
		}
	}
	body.Append(cond)
	compiled, err := x.prog.compiler.QueryCompiler().Compile(body)
	if err != nil {
		var list ast.Errors
		if errors.As(err, &list) {
			for _, e := range list {
				if e.Code == ast.UnsafeVarErr {
					return nil, errUnbound
				}
			}
			return nil, nil // types that never fit: the condition can't hold
		}
		return nil, err
	}
	return x.run(compiled)
}

func (x *explainer) run(body ast.Body) (out []topdown.QueryResult, err error) {
	defer func() {
		if r := recover(); r != nil {
			out, err = nil, errors.New("the evaluator panicked")
		}
	}()
	err = topdown.NewQuery(body).
		WithCompiler(x.prog.compiler).
		WithStore(x.prog.store).
		WithTransaction(x.prog.txn).
		WithInput(x.input).
		WithCancel(x.cancel).
		WithMetrics(noMetrics).
		WithStrictBuiltinErrors(true).
		Iter(x.ctx, func(r topdown.QueryResult) error {
			if len(out) >= explainEnvs {
				return errEnough
			}
			out = append(out, r)
			return nil
		})
	switch {
	case errors.Is(err, errEnough):
		return out, nil
	case topdown.IsCancel(err):
		x.cut = true
		return nil, errBudget
	}
	return out, err
}

// quickCondition decides the commonest conditions without a query: a
// comparison of two values at hand, and a value by itself.
func (x *explainer) quickCondition(c *ast.Expr, e env) (holds, known bool) {
	if c.Negated || len(c.With) > 0 {
		return false, false
	}
	switch t := c.Terms.(type) {
	case *ast.Term:
		v, known := x.quick(t, e)
		return v != nil && !isFalse(v), known
	case []*ast.Term:
		if len(t) != 3 {
			return false, false
		}
		op := t[0].Value.String()
		if _, isVar := t[1].Value.(ast.Var); isVar && e[t[1].Value.(ast.Var)] == nil {
			return false, false
		}
		a, knownA := x.quick(t[1], e)
		b, knownB := x.quick(t[2], e)
		if !knownA || !knownB || !isComparison(op) {
			return false, false
		}
		return a != nil && b != nil && compare(op, a, b), true
	}
	return false, false
}

func isFalse(t *ast.Term) bool {
	b, ok := t.Value.(ast.Boolean)
	return ok && !bool(b)
}

func isComparison(op string) bool {
	switch op {
	case "equal", "eq", "neq", "lt", "lte", "gt", "gte":
		return true
	}
	return false
}

func compare(op string, a, b *ast.Term) bool {
	n := a.Value.Compare(b.Value)
	switch op {
	case "equal", "eq":
		return n == 0
	case "neq":
		return n != 0
	case "lt":
		return n < 0
	case "lte":
		return n <= 0
	case "gt":
		return n > 0
	}
	return n >= 0
}

// quick gives a term's value without a query where that is plain: constants,
// variables with a value, and references into input or into such a variable.
// nil with known is "undefined".
func (x *explainer) quick(t *ast.Term, e env) (v *ast.Term, known bool) {
	switch val := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String:
		return t, true
	case ast.Var:
		v := e[val]
		return v, v != nil
	case ast.Ref:
		return x.quickRef(val, e)
	case *ast.Array, ast.Object, ast.Set:
		if ast.IsConstant(val) {
			return t, true
		}
	}
	return nil, false
}

func (x *explainer) quickRef(ref ast.Ref, e env) (v *ast.Term, known bool) {
	at := x.input
	head, ok := ref[0].Value.(ast.Var)
	switch {
	case !ok:
		return nil, false
	case head == ast.InputRootDocument.Value.(ast.Var):
	case e[head] != nil:
		at = e[head]
	default:
		return nil, false
	}
	for _, t := range ref[1:] {
		key := t
		if name, isVar := t.Value.(ast.Var); isVar {
			if key = e[name]; key == nil {
				return nil, false
			}
		} else if !ast.IsScalar(t.Value) {
			return nil, false
		}
		if at = member(at, key); at == nil {
			return nil, true
		}
	}
	return at, true
}

// member gives the element of a collection at key, nil if there is none.
func member(t, key *ast.Term) *ast.Term {
	switch c := t.Value.(type) {
	case ast.Object:
		return c.Get(key)
	case *ast.Array:
		return c.Get(key)
	case ast.Set:
		if c.Contains(key) {
			return key
		}
	}
	return nil
}

// variables lists the variables that occur in a node, those of nested
// comprehensions too.
func variables(node any) map[ast.Var]bool {
	out := map[ast.Var]bool{}
	ast.NewGenericVisitor(func(n any) bool {
		if v, ok := n.(ast.Var); ok && v != ast.InputRootDocument.Value && v != ast.DefaultRootDocument.Value {
			out[v] = true
		}
		return false
	}).Walk(node)
	return out
}
