package chat

// node is a part of a template that writes.
type node interface {
	exec(st *state, sc *scope) jump
}

// jump says how a node ended.
type jump uint8

const (
	goOn jump = iota
	jumpBreak
	jumpContinue
)

type (
	dataNode  struct{ text text }
	printNode struct {
		line int
		e    expr
	}
	forNode struct {
		line      int
		target    *target
		in        expr
		filter    expr // may be nil
		recursive bool
		body      []node
		orElse    []node
	}
	ifNode struct {
		line   int
		tests  []expr
		bodies [][]node
		orElse []node
	}
	setNode struct {
		line   int
		target *target
		value  expr
		ofBody bool // value is of the text of body
		body   []node
	}
	filterNode struct {
		line  int
		value expr
		body  []node
	}
	withNode struct {
		line    int
		targets []string
		values  []expr
		body    []node
	}
	macroNode struct {
		line int
		m    *macro
	}
	generationNode struct{ body []node }
	jumpNode       struct{ leave bool }
)

// target is what is assigned to.
type target struct {
	names []targetName
	tuple bool
}

type targetName struct{ name, attr string }

// macro is a part of a template with parameters.
type macro struct {
	name     string
	params   []string
	defaults []expr // by parameter; nil: none
	body     []node
}

// scope holds the variables of a block; those of the blocks around it can be
// read but not set.
type scope struct {
	vars map[string]any
	up   *scope
}

func (sc *scope) child() *scope { return &scope{up: sc} }

func (sc *scope) set(name string, v any) {
	if sc.vars == nil {
		sc.vars = make(map[string]any, 4)
	}
	sc.vars[name] = v
}

func (sc *scope) get(name string) (any, bool) {
	for s := sc; s != nil; s = s.up {
		if v, ok := s.vars[name]; ok {
			return v, true
		}
	}
	return nil, false
}

func (st *state) run(nodes []node, sc *scope) jump {
	st.enter()
	defer st.leave()
	for _, n := range nodes {
		st.work(1)
		if j := n.exec(st, sc); j != goOn {
			return j
		}
	}
	return goOn
}

// capture returns what nodes write.
func (st *state) capture(nodes []node, sc *scope) text {
	outer := st.out
	st.out = &builder{}
	defer func() { st.out = outer }()
	st.run(nodes, sc)
	return st.out.text()
}

func (st *state) write(t text) {
	st.touch(len(t.s))
	st.out.add(t)
	st.size(st.out.len())
}

func (n *dataNode) exec(st *state, _ *scope) jump {
	st.write(n.text)
	return goOn
}

func (n *printNode) exec(st *state, sc *scope) jump {
	st.line = n.line
	st.write(st.str(n.e.eval(st, sc)))
	return goOn
}

func (n *forNode) exec(st *state, sc *scope) jump {
	st.line = n.line
	return n.loop(st, sc, n.in.eval(st, sc), 0)
}

func (n *forNode) loop(st *state, sc *scope, over any, depth int) jump {
	items := st.items(over)
	st.work(len(items))
	if n.filter != nil {
		var kept []any
		for _, x := range items {
			inner := sc.child()
			n.target.set(st, inner, x)
			if truthy(n.filter.eval(st, inner)) {
				kept = append(kept, x)
			}
		}
		items = kept
	}
	l := &loop{items: items, depth: depth}
	if n.recursive {
		l.again = func(st *state, over any) text {
			outer := st.out
			st.out = &builder{}
			defer func() { st.out = outer }()
			n.loop(st, sc, over, depth+1)
			return st.out.text()
		}
	}
	for i, x := range items {
		l.at = i
		inner := sc.child()
		inner.set("loop", l)
		n.target.set(st, inner, x)
		if st.run(n.body, inner) == jumpBreak {
			break
		}
	}
	if len(items) == 0 {
		return st.run(n.orElse, sc.child())
	}
	return goOn
}

func (n *ifNode) exec(st *state, sc *scope) jump {
	for i, test := range n.tests {
		st.line = n.line
		if truthy(test.eval(st, sc)) {
			return st.run(n.bodies[i], sc)
		}
	}
	return st.run(n.orElse, sc)
}

func (n *setNode) exec(st *state, sc *scope) jump {
	st.line = n.line
	from := sc
	if n.ofBody {
		from = sc.child()
		from.set(bodyName, st.capture(n.body, sc.child()))
	}
	n.target.set(st, sc, n.value.eval(st, from))
	return goOn
}

func (n *filterNode) exec(st *state, sc *scope) jump {
	inner := sc.child()
	inner.set(bodyName, st.capture(n.body, sc.child()))
	st.line = n.line
	st.write(st.str(n.value.eval(st, inner)))
	return goOn
}

func (n *withNode) exec(st *state, sc *scope) jump {
	inner := sc.child()
	for i, name := range n.targets {
		inner.set(name, n.values[i].eval(st, inner))
	}
	return st.run(n.body, inner)
}

func (n *macroNode) exec(st *state, sc *scope) jump {
	sc.set(n.m.name, n.m.function(sc))
	return goOn
}

// exec notes where the answer is; a template that writes it into a variable
// first says nothing of where that goes.
func (n *generationNode) exec(st *state, sc *scope) jump {
	begin := st.out.len()
	j := st.run(n.body, sc.child())
	if st.out == &st.root {
		st.generated = append(st.generated, Range{begin, st.out.len()})
	}
	return j
}

func (n *jumpNode) exec(*state, *scope) jump {
	if n.leave {
		return jumpBreak
	}
	return jumpContinue
}

// set assigns v, or the values in it, to the names.
func (t *target) set(st *state, sc *scope, v any) {
	if !t.tuple {
		t.names[0].set(sc, v)
		return
	}
	items := st.items(v)
	if len(items) != len(t.names) {
		panic(fail("%d values for %d names", len(items), len(t.names)))
	}
	for i, n := range t.names {
		n.set(sc, items[i])
	}
}

func (n targetName) set(sc *scope, v any) {
	if n.attr == "" {
		sc.set(n.name, v)
		return
	}
	of, _ := sc.get(n.name)
	ns, ok := of.(*namespace)
	if !ok {
		panic(fail("%s is no namespace, so its attribute %s cannot be set", n.name, n.attr))
	}
	ns.vars[n.attr] = v
}

// function makes of a macro what can be called. sc is where it was defined.
func (m *macro) function(sc *scope) *function {
	return &function{name: m.name, call: func(st *state, a args) any {
		inner := sc.child()
		rest := m.bind(st, inner, a)
		if len(rest) > 0 {
			panic(fail("macro %s takes %d arguments, not %d", m.name, len(m.params), len(m.params)+len(rest)))
		}
		outer := st.out
		st.out = &builder{}
		defer func() { st.out = outer }()
		st.run(m.body, inner)
		return st.out.text()
	}}
}

// bind sets the parameters and returns the arguments that are too many.
func (m *macro) bind(st *state, sc *scope, a args) []any {
	given := make(map[string]any, len(a.names))
	for i, name := range a.names {
		given[name] = a.named[i]
	}
	for i, name := range m.params {
		v, named := given[name]
		delete(given, name)
		switch {
		case i < len(a.pos) && named:
			panic(fail("macro %s got the argument %s twice", m.name, name))
		case i < len(a.pos):
			v = a.pos[i]
		case named:
		case m.defaults[i] != nil:
			v = m.defaults[i].eval(st, sc)
		default:
			v = undefined{name}
		}
		sc.set(name, v)
	}
	caller, ok := given["caller"]
	if !ok {
		caller = undefined{"caller"}
	}
	sc.set("caller", caller)
	delete(given, "caller")
	for name := range given {
		panic(fail("macro %s has no parameter %s", m.name, name))
	}
	if len(a.pos) > len(m.params) {
		return a.pos[len(m.params):]
	}
	return nil
}

// loop is the variable of that name in a for block.
type loop struct {
	items   []any
	at      int
	depth   int
	changed []any // what loop.changed was last called with
	again   func(st *state, over any) text
}

func (l *loop) attr(name string) (any, bool) {
	n, i := int64(len(l.items)), int64(l.at)
	switch name {
	case "index":
		return i + 1, true
	case "index0":
		return i, true
	case "revindex":
		return n - i, true
	case "revindex0":
		return n - i - 1, true
	case "first":
		return i == 0, true
	case "last":
		return i == n-1, true
	case "length":
		return n, true
	case "depth":
		return int64(l.depth + 1), true
	case "depth0":
		return int64(l.depth), true
	case "previtem":
		if i == 0 {
			return undefined{"previtem"}, true
		}
		return l.items[i-1], true
	case "nextitem":
		if i == n-1 {
			return undefined{"nextitem"}, true
		}
		return l.items[i+1], true
	case "cycle":
		return &function{name: "cycle", call: func(_ *state, a args) any {
			if len(a.pos) == 0 {
				panic(fail("cycle takes at least one argument"))
			}
			return a.pos[l.at%len(a.pos)]
		}}, true
	case "changed":
		return &function{name: "changed", call: func(st *state, a args) any {
			same := l.changed != nil && st.equal(&list{items: l.changed}, &list{items: a.pos}, 0)
			l.changed = append([]any{}, a.pos...)
			return !same
		}}, true
	}
	return nil, false
}
