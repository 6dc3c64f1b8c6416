package chat

import (
	"math"
	"strings"
	"unicode/utf8"
)

// expr is a part of a template that has a value.
type expr interface {
	eval(st *state, sc *scope) any
}

type (
	valueExpr struct{ v any }
	nameExpr  struct{ name string }
	listExpr  struct {
		items []expr
		tuple bool
	}
	dictExpr struct {
		line         int
		keys, values []expr
	}
	condExpr struct {
		line         int
		test         expr
		then, orElse expr // orElse may be nil
	}
	logicExpr struct {
		and         bool
		left, right expr
	}
	notExpr     struct{ e expr }
	compareExpr struct {
		line  int
		first expr
		ops   []string
		rest  []expr
	}
	binaryExpr struct {
		line        int
		op          string
		left, right expr
	}
	signExpr struct {
		line  int
		minus bool
		e     expr
	}
	attrExpr struct {
		line int
		of   expr
		name string
	}
	itemExpr struct {
		line int
		of   expr
		key  expr
	}
	sliceExpr struct {
		line  int
		of    expr
		parts [3]expr // begin, end, step; each may be nil
	}
	argExprs struct {
		pos   []expr
		names []string
		named []expr
	}
	callExpr struct {
		line   int
		of     expr
		args   argExprs
		caller *macro // of a call block
	}
	filterExpr struct {
		line int
		of   expr
		name string
		args argExprs
	}
	testExpr struct {
		line int
		of   expr
		name string
		args argExprs
		not  bool
	}
)

func (e *valueExpr) eval(st *state, _ *scope) any {
	st.work(1)
	return e.v
}

func (e *nameExpr) eval(st *state, sc *scope) any {
	st.work(1)
	if v, ok := sc.get(e.name); ok {
		return v
	}
	if f, ok := globals[e.name]; ok {
		return &function{name: e.name, call: f}
	}
	return undefined{e.name}
}

func evalAll(st *state, sc *scope, list []expr) []any {
	if len(list) == 0 {
		return nil
	}
	out := make([]any, len(list))
	for i, e := range list {
		out[i] = e.eval(st, sc)
	}
	return out
}

func (a *argExprs) eval(st *state, sc *scope) args {
	return args{evalAll(st, sc, a.pos), a.names, evalAll(st, sc, a.named)}
}

func (e *listExpr) eval(st *state, sc *scope) any {
	st.work(1)
	return &list{evalAll(st, sc, e.items), e.tuple}
}

func (e *dictExpr) eval(st *state, sc *scope) any {
	st.work(1)
	d := newDict(len(e.keys))
	for i, k := range e.keys {
		if key := k.eval(st, sc); !d.set(key, e.values[i].eval(st, sc)) {
			st.line = e.line
			panic(fail("%s cannot be a key", typeName(key)))
		}
	}
	return d
}

func (e *condExpr) eval(st *state, sc *scope) any {
	st.work(1)
	switch {
	case truthy(e.test.eval(st, sc)):
		return e.then.eval(st, sc)
	case e.orElse != nil:
		return e.orElse.eval(st, sc)
	}
	return undefined{"inline if without else"}
}

func (e *logicExpr) eval(st *state, sc *scope) any {
	st.work(1)
	v := e.left.eval(st, sc)
	if truthy(v) == e.and {
		return e.right.eval(st, sc)
	}
	return v
}

func (e *notExpr) eval(st *state, sc *scope) any { return !truthy(e.e.eval(st, sc)) }

func (e *compareExpr) eval(st *state, sc *scope) any {
	left := e.first.eval(st, sc)
	for i, op := range e.ops {
		right := e.rest[i].eval(st, sc)
		st.line = e.line
		if !st.holds(op, left, right) {
			return false
		}
		left = right
	}
	return true
}

func (st *state) holds(op string, a, b any) bool {
	switch op {
	case "==":
		return st.equal(a, b, 0)
	case "!=":
		return !st.equal(a, b, 0)
	case "in":
		return st.contains(b, a)
	case "not in":
		return !st.contains(b, a)
	case "<":
		return st.compare(a, b, 0) < 0
	case "<=":
		return st.compare(a, b, 0) <= 0
	case ">":
		return st.compare(a, b, 0) > 0
	}
	return st.compare(a, b, 0) >= 0
}

func (st *state) contains(in, v any) bool {
	switch in := in.(type) {
	case undefined:
		return false
	case text:
		t, ok := v.(text)
		if !ok {
			panic(fail("%s cannot be in a string", typeName(v)))
		}
		st.touch(len(in.s))
		return strings.Contains(in.s, t.s)
	case *list:
		for _, x := range in.items {
			if st.equal(x, v, 0) {
				return true
			}
		}
		return false
	case *dict:
		st.work(1)
		_, ok := in.get(v)
		return ok
	}
	panic(fail("%s holds nothing that could be in it", typeName(in)))
}

func (e *binaryExpr) eval(st *state, sc *scope) any {
	a, b := e.left.eval(st, sc), e.right.eval(st, sc)
	st.work(1)
	st.line = e.line
	switch e.op {
	case "~":
		return st.concat(st.str(a), st.str(b))
	case "+":
		if s, ok := a.(text); ok {
			if t, ok := b.(text); ok {
				return st.concat(s, t)
			}
		}
		if s, ok := a.(*list); ok {
			if t, ok := b.(*list); ok && s.tuple == t.tuple {
				st.work(len(s.items) + len(t.items))
				return &list{append(append([]any(nil), s.items...), t.items...), s.tuple}
			}
		}
	case "*":
		if n, ok := integer(b); ok {
			if v, ok := st.repeat(a, n); ok {
				return v
			}
		}
		if n, ok := integer(a); ok {
			if v, ok := st.repeat(b, n); ok {
				return v
			}
		}
	case "%":
		if s, ok := a.(text); ok {
			return st.percent(s, b)
		}
	}
	return arithmetic(e.op, a, b)
}

func (st *state) concat(a, b text) text {
	switch {
	case a.s == "":
		return b
	case b.s == "":
		return a
	}
	st.made(len(a.s) + len(b.s))
	if a.runs == nil && b.runs == nil {
		return text{s: a.s + b.s}
	}
	var out builder
	out.add(a)
	out.add(b)
	return out.text()
}

// repeat is a string or a list times n.
func (st *state) repeat(v any, n int64) (any, bool) {
	n = max(n, 0)
	switch v := v.(type) {
	case text:
		st.product(int64(len(v.s)), n)
		var b builder
		for range n {
			b.add(v)
		}
		return b.text(), true
	case *list:
		st.product(64*int64(len(v.items)), n)
		var out []any
		for range n {
			out = append(out, v.items...)
		}
		return &list{out, v.tuple}, true
	}
	return nil, false
}

func arithmetic(op string, a, b any) any {
	x, whole1, ok1 := number(a)
	y, whole2, ok2 := number(b)
	if !ok1 || !ok2 {
		panic(fail("%s %s %s cannot be computed", describe(a), op, describe(b)))
	}
	if y == 0 && (op == "/" || op == "//" || op == "%") {
		panic(fail("division by zero"))
	}
	if whole1 && whole2 && op != "/" {
		i, _ := integer(a)
		j, _ := integer(b)
		if v, ok := intArithmetic(op, i, j); ok {
			return v
		}
	}
	switch op {
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	case "/":
		return x / y
	case "//":
		return math.Floor(x / y)
	case "%":
		return x - y*math.Floor(x/y)
	}
	return math.Pow(x, y)
}

// intArithmetic computes with integers; what is outside of 64 bits is an error.
func intArithmetic(op string, i, j int64) (any, bool) {
	tooLarge := func(ok bool) {
		if !ok {
			panic(fail("number too large"))
		}
	}
	switch op {
	case "+":
		r := i + j
		tooLarge((r > i) == (j > 0))
		return r, true
	case "-":
		r := i - j
		tooLarge((r < i) == (j > 0))
		return r, true
	case "*":
		r := i * j
		tooLarge(i == 0 || r/i == j && (i != -1 || j != math.MinInt64))
		return r, true
	case "//", "%":
		tooLarge(i != math.MinInt64 || j != -1)
		q, r := i/j, i%j
		if r != 0 && (r < 0) != (j < 0) {
			q, r = q-1, r+j
		}
		if op == "%" {
			return r, true
		}
		return q, true
	}
	if j < 0 {
		return nil, false
	}
	f := math.Pow(float64(i), float64(j))
	tooLarge(math.Abs(f) < 1<<53)
	return int64(f), true
}

func describe(v any) string {
	if u, ok := v.(undefined); ok {
		return "undefined " + u.name
	}
	return typeName(v)
}

func (e *signExpr) eval(st *state, sc *scope) any {
	v := e.e.eval(st, sc)
	st.line = e.line
	if e.minus {
		return arithmetic("*", v, int64(-1))
	}
	return arithmetic("+", v, int64(0))
}

func (e *attrExpr) eval(st *state, sc *scope) any {
	of := e.of.eval(st, sc)
	st.work(1)
	st.line = e.line
	if v, ok := method(of, e.name); ok {
		return v
	}
	return st.attribute(of, e.name)
}

// attribute returns what has that name, behind methods.
func (st *state) attribute(of any, name string) any {
	switch of := of.(type) {
	case undefined:
		panic(fail("%s is undefined, so it has no %q", of.name, name))
	case *dict:
		if v, ok := of.get(plain(name)); ok {
			return v
		}
	case *namespace:
		if v, ok := of.vars[name]; ok {
			return v
		}
	case *loop:
		if v, ok := of.attr(name); ok {
			return v
		}
	}
	return undefined{name}
}

func (e *itemExpr) eval(st *state, sc *scope) any {
	of, key := e.of.eval(st, sc), e.key.eval(st, sc)
	st.line = e.line
	return st.item(of, key)
}

// item returns of[key].
func (st *state) item(of, key any) any {
	st.work(1)
	switch of := of.(type) {
	case undefined:
		panic(fail("%s is undefined, so it has no items", of.name))
	case *dict:
		if v, ok := of.get(key); ok {
			return v
		}
	case *list:
		if i, ok := integer(key); ok {
			if i < 0 {
				i += int64(len(of.items))
			}
			if i >= 0 && i < int64(len(of.items)) {
				return of.items[i]
			}
			return undefined{"item"}
		}
	case text:
		if i, ok := integer(key); ok {
			runes, _ := length(of)
			st.touch(len(of.s))
			if i < 0 {
				i += runes
			}
			if i >= 0 && i < runes {
				return st.sliceText(of, i, i+1)
			}
			return undefined{"character"}
		}
	}
	if name, ok := key.(text); ok {
		if v, ok := method(of, name.s); ok {
			return v
		}
		if _, isDict := of.(*dict); !isDict {
			return st.attribute(of, name.s)
		}
	}
	return undefined{st.str(key).s}
}

// sliceText returns the characters from begin to end.
func (st *state) sliceText(t text, begin, end int64) text {
	st.touch(len(t.s))
	at := func(n int64) int {
		if n == 0 {
			return 0
		}
		for i := range t.s {
			if n == 0 {
				return i
			}
			n--
		}
		return len(t.s)
	}
	return t.slice(at(begin), at(end))
}

func (e *sliceExpr) eval(st *state, sc *scope) any {
	of := e.of.eval(st, sc)
	var given [3]*int64
	for i, p := range e.parts {
		if p == nil {
			continue
		}
		v := p.eval(st, sc)
		if v == nil {
			continue
		}
		n, ok := integer(v)
		if !ok {
			st.line = e.line
			panic(fail("slice of %s, must be of integers", describe(v)))
		}
		given[i] = &n
	}
	st.line = e.line
	switch of := of.(type) {
	case undefined:
		panic(fail("%s is undefined, so it has no slice", of.name))
	case text:
		st.touch(len(of.s))
		begin, end, step := bounds(int64(utf8.RuneCountInString(of.s)), given)
		if step == 1 {
			return st.sliceText(of, begin, max(begin, end))
		}
		var b builder
		for _, c := range pick(st.items(of), begin, end, step) {
			b.add(c.(text))
		}
		return b.text()
	case *list:
		begin, end, step := bounds(int64(len(of.items)), given)
		out := pick(of.items, begin, end, step)
		st.work(len(out))
		return &list{out, of.tuple}
	}
	panic(fail("%s has no slice", typeName(of)))
}

// bounds are those of Python's slices.
func bounds(n int64, given [3]*int64) (begin, end, step int64) {
	step = 1
	if given[2] != nil {
		step = *given[2]
	}
	if step == 0 {
		panic(fail("slice with step 0"))
	}
	step = max(step, -n-1)
	low, high := int64(0), n
	if step < 0 {
		low, high = -1, n-1
	}
	clamp := func(p *int64, missing int64) int64 {
		if p == nil {
			return missing
		}
		v := *p
		if v < 0 {
			v += n
		}
		return min(max(v, low), high)
	}
	if step > 0 {
		return clamp(given[0], low), clamp(given[1], high), step
	}
	return clamp(given[0], high), clamp(given[1], low), step
}

func pick(items []any, begin, end, step int64) []any {
	if step == 1 {
		return items[begin:max(begin, end)]
	}
	var out []any
	for i := begin; step > 0 && i < end || step < 0 && i > end; i += step {
		out = append(out, items[i])
		if step > 0 && i > math.MaxInt64-step {
			break
		}
	}
	return out
}

func (e *callExpr) eval(st *state, sc *scope) any {
	st.enter()
	defer st.leave()
	of := e.of.eval(st, sc)
	a := e.args.eval(st, sc)
	st.line = e.line
	if e.caller != nil {
		a.names = append(append([]string(nil), a.names...), "caller")
		a.named = append(a.named, e.caller.function(sc))
	}
	switch f := of.(type) {
	case *function:
		v := f.call(st, a)
		st.line = e.line
		return v
	case *loop:
		if f.again != nil && len(a.pos) == 1 {
			return f.again(st, a.pos[0])
		}
	}
	panic(fail("%s cannot be called", describe(of)))
}

func (e *filterExpr) eval(st *state, sc *scope) any {
	of := e.of.eval(st, sc)
	a := e.args.eval(st, sc)
	st.work(1)
	st.line = e.line
	return filters[e.name](st, of, a)
}

func (e *testExpr) eval(st *state, sc *scope) any {
	of := e.of.eval(st, sc)
	a := e.args.eval(st, sc)
	st.work(1)
	st.line = e.line
	return tests[e.name](st, of, a) != e.not
}
