package chat

import (
	"fmt"
	"slices"
	"strconv"
)

// parser makes nodes of tokens, by the grammar of Jinja.
type parser struct {
	tokens []token
	at     int
	depth  int
	loops  int // open for blocks of this macro
}

// maxDepth bounds what is nested in a template, and in values.
const maxDepth = 100

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != kindEnd {
		p.at++
	}
	return t
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", p.peek().line, fmt.Sprintf(format, args...))
}

func (p *parser) is(k kind, text string) bool {
	t := p.peek()
	return t.kind == k && t.text == text
}

func (p *parser) op(text string) bool { return p.is(kindOp, text) }

func (p *parser) word(text string) bool { return p.is(kindName, text) }

// accept passes over a token if it is there.
func (p *parser) accept(k kind, text string) bool {
	if p.is(k, text) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(k kind, text string) error {
	if !p.accept(k, text) {
		return p.errorf("unexpected %s, expected %s", p.peek(), token{kind: k, text: text})
	}
	return nil
}

func (p *parser) name() (string, error) {
	if p.peek().kind != kindName {
		return "", p.errorf("unexpected %s, expected a name", p.peek())
	}
	return p.next().text, nil
}

func (p *parser) enter() error {
	if p.depth++; p.depth > maxDepth {
		return p.errorf("nested deeper than %d", maxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// body reads up to a block that begins with one of the names, which is returned
// and passed over. No names: up to the end.
func (p *parser) body(ends ...string) ([]node, string, error) {
	if err := p.enter(); err != nil {
		return nil, "", err
	}
	defer p.leave()
	var out []node
	for {
		t := p.next()
		switch t.kind {
		case kindEnd:
			if len(ends) > 0 {
				return nil, "", p.errorf("the template ends where %q is missing", ends[len(ends)-1])
			}
			return out, "", nil
		case kindData:
			out = append(out, &dataNode{plain(t.text)})
		case kindOpen:
			e, err := p.tuple(true)
			if err != nil {
				return nil, "", err
			}
			if err := p.expect(kindClose, ""); err != nil {
				return nil, "", err
			}
			out = append(out, &printNode{t.line, e})
		case kindBlock:
			name, err := p.name()
			if err != nil {
				return nil, "", err
			}
			if slices.Contains(ends, name) {
				return out, name, nil
			}
			n, err := p.statement(name, t.line)
			if err != nil {
				return nil, "", err
			}
			out = append(out, n)
		default:
			return nil, "", p.errorf("unexpected %s", t)
		}
	}
}

func (p *parser) endBlock() error { return p.expect(kindBlockEnd, "") }

// until reads the rest of a block, then its body up to its only end.
func (p *parser) until(end string) ([]node, error) {
	if err := p.endBlock(); err != nil {
		return nil, err
	}
	body, _, err := p.body(end)
	if err != nil {
		return nil, err
	}
	return body, p.endBlock()
}

func (p *parser) statement(name string, line int) (node, error) {
	switch name {
	case "for":
		return p.forBlock(line)
	case "if":
		return p.ifBlock(line)
	case "set":
		return p.setBlock(line)
	case "macro":
		return p.macro(line)
	case "call":
		return p.callBlock(line)
	case "filter":
		e, err := p.filter(&nameExpr{bodyName})
		if err == nil {
			e, err = p.postFilters(e)
		}
		if err != nil {
			return nil, err
		}
		body, err := p.until("endfilter")
		return &filterNode{line, e, body}, err
	case "with":
		return p.withBlock(line)
	case "generation":
		body, err := p.until("endgeneration")
		return &generationNode{body}, err
	case "break", "continue":
		if p.loops == 0 {
			return nil, p.errorf("%s outside of a loop", name)
		}
		return &jumpNode{name == "break"}, p.endBlock()
	}
	return nil, p.errorf("block %q is not supported", name)
}

func (p *parser) forBlock(line int) (node, error) {
	n := &forNode{line: line}
	var err error
	if n.target, err = p.target(false); err != nil {
		return nil, err
	}
	if err := p.expect(kindName, "in"); err != nil {
		return nil, err
	}
	if n.in, err = p.tuple(false); err != nil {
		return nil, err
	}
	if p.accept(kindName, "if") {
		if n.filter, err = p.expression(); err != nil {
			return nil, err
		}
	}
	n.recursive = p.accept(kindName, "recursive")
	if err := p.endBlock(); err != nil {
		return nil, err
	}
	p.loops++
	var end string
	n.body, end, err = p.body("else", "endfor")
	p.loops--
	if err != nil {
		return nil, err
	}
	if end == "else" {
		n.orElse, err = p.until("endfor")
		return n, err
	}
	return n, p.endBlock()
}

func (p *parser) ifBlock(line int) (node, error) {
	n := &ifNode{line: line}
	for {
		test, err := p.tuple(false)
		if err != nil {
			return nil, err
		}
		if err := p.endBlock(); err != nil {
			return nil, err
		}
		body, end, err := p.body("elif", "else", "endif")
		if err != nil {
			return nil, err
		}
		n.tests, n.bodies = append(n.tests, test), append(n.bodies, body)
		switch end {
		case "else":
			n.orElse, err = p.until("endif")
			return n, err
		case "endif":
			return n, p.endBlock()
		}
	}
}

func (p *parser) setBlock(line int) (node, error) {
	t, err := p.target(true)
	if err != nil {
		return nil, err
	}
	if p.accept(kindOp, "=") {
		e, err := p.tuple(true)
		if err != nil {
			return nil, err
		}
		return &setNode{line: line, target: t, value: e}, p.endBlock()
	}
	n := &setNode{line: line, target: t, ofBody: true}
	if n.value, err = p.postFilters(&nameExpr{bodyName}); err != nil {
		return nil, err
	}
	n.body, err = p.until("endset")
	return n, err
}

// bodyName is the variable that holds the text of a block while filters are
// applied to it. No template can write it.
const bodyName = "#body"

// target reads what can be assigned to: names, and attributes of a namespace
// where that is allowed.
func (p *parser) target(attributes bool) (*target, error) {
	if p.accept(kindOp, "(") {
		t, err := p.target(attributes)
		if err != nil {
			return nil, err
		}
		return t, p.expect(kindOp, ")")
	}
	t := &target{}
	for {
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		one := targetName{name: name}
		if attributes && p.accept(kindOp, ".") {
			if one.attr, err = p.name(); err != nil {
				return nil, err
			}
		}
		t.names = append(t.names, one)
		if !p.accept(kindOp, ",") {
			return t, nil
		}
		t.tuple = true
		if p.peek().kind != kindName || p.word("in") {
			return t, nil
		}
	}
}

// signature reads the parameters of a macro.
func (p *parser) signature(m *macro) error {
	if err := p.expect(kindOp, "("); err != nil {
		return err
	}
	for !p.accept(kindOp, ")") {
		if len(m.params) > 0 {
			if err := p.expect(kindOp, ","); err != nil {
				return err
			}
			if p.accept(kindOp, ")") {
				return nil
			}
		}
		name, err := p.name()
		if err != nil {
			return err
		}
		m.params = append(m.params, name)
		var value expr
		if p.accept(kindOp, "=") {
			if value, err = p.expression(); err != nil {
				return err
			}
		} else if len(m.defaults) > 0 && m.defaults[len(m.defaults)-1] != nil {
			return p.errorf("parameter %q without a default follows one with a default", name)
		}
		m.defaults = append(m.defaults, value)
	}
	return nil
}

// inMacro reads the body of one: loops outside of it cannot be left from it.
func (p *parser) inMacro(m *macro, end string) error {
	loops := p.loops
	p.loops = 0
	defer func() { p.loops = loops }()
	var err error
	m.body, err = p.until(end)
	return err
}

func (p *parser) macro(line int) (node, error) {
	name, err := p.name()
	if err != nil {
		return nil, err
	}
	m := &macro{name: name}
	if err := p.signature(m); err != nil {
		return nil, err
	}
	return &macroNode{line, m}, p.inMacro(m, "endmacro")
}

func (p *parser) callBlock(line int) (node, error) {
	m := &macro{name: "caller"}
	if p.op("(") {
		if err := p.signature(m); err != nil {
			return nil, err
		}
	}
	e, err := p.unary(true)
	if err != nil {
		return nil, err
	}
	call, ok := e.(*callExpr)
	if !ok {
		return nil, p.errorf("a call block needs a call")
	}
	call.caller = m
	return &printNode{line, call}, p.inMacro(m, "endcall")
}

func (p *parser) withBlock(line int) (node, error) {
	n := &withNode{line: line}
	for p.peek().kind != kindBlockEnd {
		if len(n.targets) > 0 {
			if err := p.expect(kindOp, ","); err != nil {
				return nil, err
			}
		}
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		if err := p.expect(kindOp, "="); err != nil {
			return nil, err
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		n.targets, n.values = append(n.targets, name), append(n.values, e)
	}
	var err error
	n.body, err = p.until("endwith")
	return n, err
}

// tuple reads an expression, or several that make a tuple.
func (p *parser) tuple(conditional bool) (expr, error) {
	return p.tupleOf(func() (expr, error) {
		if conditional {
			return p.expression()
		}
		return p.or()
	}, false)
}

func (p *parser) tupleOf(one func() (expr, error), empty bool) (expr, error) {
	var items []expr
	tuple := false
	for !p.tupleEnds() {
		e, err := one()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
		if !p.accept(kindOp, ",") {
			break
		}
		tuple = true
	}
	switch {
	case tuple || empty && len(items) == 0:
		return &listExpr{items, true}, nil
	case len(items) == 0:
		return nil, p.errorf("unexpected %s, expected an expression", p.peek())
	}
	return items[0], nil
}

func (p *parser) tupleEnds() bool {
	k := p.peek().kind
	return k == kindClose || k == kindBlockEnd || k == kindEnd || p.op(")")
}

// expression reads one with an inline if.
func (p *parser) expression() (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	e, err := p.or()
	if err != nil {
		return nil, err
	}
	for p.word("if") {
		line := p.next().line
		test, err := p.or()
		if err != nil {
			return nil, err
		}
		c := &condExpr{line: line, test: test, then: e}
		if p.accept(kindName, "else") {
			if c.orElse, err = p.expression(); err != nil {
				return nil, err
			}
		}
		e = c
	}
	return e, nil
}

func (p *parser) or() (expr, error) {
	return p.logic("or", func() (expr, error) { return p.logic("and", p.not) })
}

func (p *parser) logic(word string, sub func() (expr, error)) (expr, error) {
	left, err := sub()
	for n := 0; err == nil && p.word(word); n++ {
		if n >= maxChain {
			return nil, p.errorf("more than %d operators in a row", maxChain)
		}
		p.next()
		var right expr
		if right, err = sub(); err == nil {
			left = &logicExpr{word == "and", left, right}
		}
	}
	return left, err
}

// maxChain bounds operators in a row: they nest to the left.
const maxChain = 500

func (p *parser) not() (expr, error) {
	if !p.word("not") {
		return p.comparison()
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	p.next()
	e, err := p.not()
	return &notExpr{e}, err
}

func (p *parser) comparison() (expr, error) {
	first, err := p.sum()
	if err != nil {
		return nil, err
	}
	c := &compareExpr{line: p.peek().line, first: first}
	for {
		t := p.peek()
		op := t.text
		switch {
		case t.kind == kindOp && slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, op):
		case p.word("in"):
		case p.word("not") && p.tokens[p.at+1].kind == kindName && p.tokens[p.at+1].text == "in":
			p.next()
			op = "not in"
		default:
			if len(c.ops) == 0 {
				return first, nil
			}
			return c, nil
		}
		p.next()
		right, err := p.sum()
		if err != nil {
			return nil, err
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, right)
	}
}

func (p *parser) sum() (expr, error) { return p.binary(p.concat, "+", "-") }

func (p *parser) concat() (expr, error) { return p.binary(p.product, "~") }

func (p *parser) product() (expr, error) { return p.binary(p.power, "*", "/", "//", "%") }

func (p *parser) power() (expr, error) {
	return p.binary(func() (expr, error) { return p.unary(true) }, "**")
}

func (p *parser) binary(sub func() (expr, error), ops ...string) (expr, error) {
	left, err := sub()
	for n := 0; err == nil; n++ {
		t := p.peek()
		if t.kind != kindOp || !slices.Contains(ops, t.text) {
			break
		}
		if n >= maxChain {
			return nil, p.errorf("more than %d operators in a row", maxChain)
		}
		p.next()
		var right expr
		if right, err = sub(); err == nil {
			left = &binaryExpr{t.line, t.text, left, right}
		}
	}
	return left, err
}

func (p *parser) unary(filters bool) (expr, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	t := p.peek()
	var e expr
	var err error
	if t.kind == kindOp && (t.text == "-" || t.text == "+") {
		p.next()
		e, err = p.unary(false)
		e = &signExpr{t.line, t.text == "-", e}
	} else {
		e, err = p.primary()
	}
	if err != nil {
		return nil, err
	}
	if e, err = p.postfix(e); err != nil || !filters {
		return e, err
	}
	return p.postFilters(e)
}

func (p *parser) primary() (expr, error) {
	t := p.next()
	switch t.kind {
	case kindName:
		switch t.text {
		case "true", "True":
			return &valueExpr{true}, nil
		case "false", "False":
			return &valueExpr{false}, nil
		case "none", "None":
			return &valueExpr{}, nil
		}
		return &nameExpr{t.text}, nil
	case kindString:
		s := t.text
		for p.peek().kind == kindString {
			s += p.next().text
		}
		return &valueExpr{plain(s)}, nil
	case kindInt:
		n, err := strconv.ParseInt(t.text, 10, 64)
		return &valueExpr{n}, err
	case kindFloat:
		f, err := strconv.ParseFloat(t.text, 64)
		return &valueExpr{f}, err
	case kindOp:
		switch t.text {
		case "(":
			e, err := p.tupleOf(p.expression, true)
			if err != nil {
				return nil, err
			}
			return e, p.expect(kindOp, ")")
		case "[":
			items, err := p.list("]")
			return &listExpr{items, false}, err
		case "{":
			return p.dict()
		}
	}
	return nil, fmt.Errorf("line %d: unexpected %s", t.line, t)
}

// list reads expressions up to a closing bracket; a comma may end them.
func (p *parser) list(end string) ([]expr, error) {
	var items []expr
	for !p.accept(kindOp, end) {
		if len(items) > 0 {
			if err := p.expect(kindOp, ","); err != nil {
				return nil, err
			}
			if p.accept(kindOp, end) {
				break
			}
		}
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		items = append(items, e)
	}
	return items, nil
}

func (p *parser) dict() (expr, error) {
	d := &dictExpr{line: p.peek().line}
	for !p.accept(kindOp, "}") {
		if len(d.keys) > 0 {
			if err := p.expect(kindOp, ","); err != nil {
				return nil, err
			}
			if p.accept(kindOp, "}") {
				break
			}
		}
		k, err := p.expression()
		if err != nil {
			return nil, err
		}
		if err := p.expect(kindOp, ":"); err != nil {
			return nil, err
		}
		v, err := p.expression()
		if err != nil {
			return nil, err
		}
		d.keys, d.values = append(d.keys, k), append(d.values, v)
	}
	return d, nil
}

// postfix reads attributes, subscripts and calls.
func (p *parser) postfix(e expr) (expr, error) {
	for n := 0; ; n++ {
		t := p.peek()
		var err error
		switch {
		case n >= maxChain:
			return nil, p.errorf("more than %d attributes in a row", maxChain)
		case p.op("."):
			p.next()
			switch a := p.next(); a.kind {
			case kindName:
				e = &attrExpr{t.line, e, a.text}
			case kindInt:
				i, _ := strconv.ParseInt(a.text, 10, 64)
				e = &itemExpr{t.line, e, &valueExpr{i}}
			default:
				return nil, p.errorf("unexpected %s after a dot", a)
			}
		case p.op("["):
			p.next()
			if e, err = p.subscript(e, t.line); err != nil {
				return nil, err
			}
		case p.op("("):
			if e, err = p.call(e); err != nil {
				return nil, err
			}
		default:
			return e, nil
		}
	}
}

func (p *parser) subscript(of expr, line int) (expr, error) {
	var parts [3]expr
	colons := 0
	for {
		if p.accept(kindOp, ":") {
			if colons++; colons > 2 {
				return nil, p.errorf("more than two colons in a slice")
			}
			continue
		}
		if p.accept(kindOp, "]") {
			break
		}
		if parts[colons] != nil {
			return nil, p.errorf("unexpected %s in a subscript", p.peek())
		}
		var err error
		if parts[colons], err = p.expression(); err != nil {
			return nil, err
		}
	}
	if colons > 0 {
		return &sliceExpr{line, of, parts}, nil
	}
	if parts[0] == nil {
		return nil, p.errorf("empty subscript")
	}
	return &itemExpr{line, of, parts[0]}, nil
}

func (p *parser) call(of expr) (expr, error) {
	c := &callExpr{line: p.peek().line, of: of}
	var err error
	c.args, err = p.arguments()
	return c, err
}

func (p *parser) arguments() (argExprs, error) {
	var a argExprs
	if err := p.expect(kindOp, "("); err != nil {
		return a, err
	}
	for n := 0; !p.accept(kindOp, ")"); n++ {
		if n > 0 {
			if err := p.expect(kindOp, ","); err != nil {
				return a, err
			}
			if p.accept(kindOp, ")") {
				break
			}
		}
		if p.peek().kind == kindName && p.tokens[p.at+1].kind == kindOp && p.tokens[p.at+1].text == "=" {
			name := p.next().text
			p.next()
			e, err := p.expression()
			if err != nil {
				return a, err
			}
			if slices.Contains(a.names, name) {
				return a, p.errorf("argument %q is there twice", name)
			}
			a.names, a.named = append(a.names, name), append(a.named, e)
			continue
		}
		if len(a.names) > 0 {
			return a, p.errorf("an argument without a name follows one with a name")
		}
		e, err := p.expression()
		if err != nil {
			return a, err
		}
		a.pos = append(a.pos, e)
	}
	return a, nil
}

// postFilters reads filters, tests, and calls of what they give.
func (p *parser) postFilters(e expr) (expr, error) {
	for n := 0; ; n++ {
		var err error
		switch {
		case n >= maxChain:
			return nil, p.errorf("more than %d filters in a row", maxChain)
		case p.accept(kindOp, "|"):
			e, err = p.filter(e)
		case p.word("is"):
			p.next()
			e, err = p.test(e)
		case p.op("("):
			e, err = p.call(e)
		default:
			return e, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *parser) filter(of expr) (expr, error) {
	f := &filterExpr{line: p.peek().line, of: of}
	var err error
	if f.name, err = p.name(); err != nil {
		return nil, err
	}
	if filters[f.name] == nil {
		return nil, p.errorf("filter %q is not supported", f.name)
	}
	if p.op("(") {
		f.args, err = p.arguments()
	}
	return f, err
}

func (p *parser) test(of expr) (expr, error) {
	t := &testExpr{line: p.peek().line, of: of}
	t.not = p.accept(kindName, "not")
	var err error
	if t.name, err = p.name(); err != nil {
		return nil, err
	}
	if tests[t.name] == nil {
		return nil, p.errorf("test %q is not supported", t.name)
	}
	next := p.peek()
	switch {
	case p.op("("):
		t.args, err = p.arguments()
	case next.kind == kindString || next.kind == kindInt || next.kind == kindFloat || p.op("[") || p.op("{"),
		next.kind == kindName && !slices.Contains([]string{"else", "or", "and", "is", "if", "in", "not", "recursive"}, next.text):
		var e expr
		if e, err = p.primary(); err == nil {
			e, err = p.postfix(e)
		}
		t.args.pos = []expr{e}
	}
	return t, err
}
