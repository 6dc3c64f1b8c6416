package tokenizer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// expression is a regular expression as the tokenizers library has them: the
// syntax of Oniguruma, of which Go's package has no lookahead and no possessive
// repeats. It is matched by backtracking, with what was tried remembered once a
// match takes long, so that its time is bounded by text and expression.
type expression struct {
	code []inst
}

type opcode uint8

const (
	opSet    opcode = iota // one character of set
	opRepeat               // of set, min to max of them, as many as possible
	opSplit                // go on at x, or else at y
	opJump                 // to x
	opMatch
	opLook      // sub matches here, or with not it does not
	opBehind    // the character before is of set, or with not it is not
	opAtomic    // sub, without trying again
	opLineBegin // ^
	opLineEnd   // $
)

type inst struct {
	op       opcode
	not      bool
	x, y     int
	min, max int // max -1: no bound
	set      *charSet
	sub      *expression
}

// Bounds on an expression and on matching it.
const (
	maxExpression   = 1 << 14 // instructions
	maxRepeat       = 1000
	regexDepth      = 100
	rememberAfter   = 1 << 12 // steps of one match
	maxRemembered   = 1 << 18 // of one match
	stepsPerByte    = 256     // of a text; what is left then is one piece
	stepsOfAnything = 1 << 16
)

// charSet is a set of characters.
type charSet struct {
	ascii  [2]uint64 // with not applied
	ranges []rune    // pairs
	tables []*unicode.RangeTable
	nots   []*unicode.RangeTable // characters outside of one of them
	sets   []*charSet
	not    bool
}

func (c *charSet) has(r rune) bool {
	if r < utf8.RuneSelf {
		return c.ascii[r>>6]>>(r&63)&1 != 0
	}
	return c.slow(r) != c.not
}

func (c *charSet) slow(r rune) bool {
	for i := 0; i < len(c.ranges); i += 2 {
		if r >= c.ranges[i] && r <= c.ranges[i+1] {
			return true
		}
	}
	for _, t := range c.tables {
		if unicode.Is(t, r) {
			return true
		}
	}
	for _, t := range c.nots {
		if !unicode.Is(t, r) {
			return true
		}
	}
	for _, s := range c.sets {
		if s.has(r) {
			return true
		}
	}
	return false
}

// finish makes the table of ASCII.
func (c *charSet) finish() *charSet {
	c.ascii = [2]uint64{}
	for r := range rune(utf8.RuneSelf) {
		if c.slow(r) != c.not {
			c.ascii[r>>6] |= 1 << (r & 63)
		}
	}
	return c
}

func (c *charSet) addRange(lo, hi rune, fold bool) {
	c.ranges = append(c.ranges, lo, hi)
	if !fold || hi-lo > 1<<12 {
		return
	}
	for r := lo; r <= hi; r++ {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			c.ranges = append(c.ranges, f, f)
		}
	}
}

// compile reads an expression.
func compile(source string) (*expression, error) {
	if len(source) > maxExpression {
		return nil, fmt.Errorf("expression of %d bytes, at most %d", len(source), maxExpression)
	}
	p := &regexParser{s: source}
	n, err := p.alternatives(0)
	if err == nil && p.s != "" {
		err = fmt.Errorf("%q is left over", p.s)
	}
	var e *expression
	if err == nil {
		e, err = assemble(n)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: expression %q: %w", ErrUnsupported, source, err)
	}
	return e, nil
}

// regexNode is a part of an expression.
type regexNode struct {
	op       opcode // opSet, opLook, opBehind, opAtomic, edges; opRepeat of parts[0]; opSplit: one of parts; opMatch: all parts
	not      bool
	min, max int
	lazy     bool
	set      *charSet
	parts    []*regexNode
}

type regexParser struct {
	s    string
	fold bool
}

func (p *regexParser) take(prefix string) bool {
	rest, ok := strings.CutPrefix(p.s, prefix)
	if ok {
		p.s = rest
	}
	return ok
}

func (p *regexParser) alternatives(depth int) (*regexNode, error) {
	if depth > regexDepth {
		return nil, fmt.Errorf("groups are nested deeper than %d", regexDepth)
	}
	fold := p.fold
	defer func() { p.fold = fold }()
	n := &regexNode{op: opSplit}
	for {
		branch := &regexNode{op: opMatch}
		for p.s != "" && p.s[0] != '|' && p.s[0] != ')' {
			atom, err := p.repeated(depth)
			if err != nil {
				return nil, err
			}
			if atom != nil {
				branch.parts = append(branch.parts, atom)
			}
		}
		n.parts = append(n.parts, branch)
		if !p.take("|") {
			break
		}
	}
	if len(n.parts) == 1 {
		return n.parts[0], nil
	}
	return n, nil
}

func (p *regexParser) repeated(depth int) (*regexNode, error) {
	n, err := p.atom(depth)
	for err == nil && n != nil {
		low, high, ok, repeatErr := p.repeat()
		if repeatErr != nil || !ok {
			return n, repeatErr
		}
		r := &regexNode{op: opRepeat, min: low, max: high, parts: []*regexNode{n}}
		n = r
		switch {
		case p.take("?"):
			r.lazy = true
		case p.take("+"):
			n = &regexNode{op: opAtomic, parts: []*regexNode{r}}
		}
		if depth++; depth > regexDepth {
			err = fmt.Errorf("repeats are nested deeper than %d", regexDepth)
		}
	}
	return n, err
}

// repeat reads how often, if that is said.
func (p *regexParser) repeat() (low, high int, ok bool, err error) {
	switch {
	case p.take("*"):
		return 0, -1, true, nil
	case p.take("+"):
		return 1, -1, true, nil
	case p.take("?"):
		return 0, 1, true, nil
	}
	end := strings.IndexByte(p.s, '}')
	if !strings.HasPrefix(p.s, "{") || end < 0 {
		return 0, 0, false, nil
	}
	from, to, comma := strings.Cut(p.s[1:end], ",")
	if from != "" {
		low, err = strconv.Atoi(from)
	}
	switch {
	case err != nil || from == "" && to == "":
		return 0, 0, false, nil // the braces themselves
	case !comma:
		high = low
	case to == "":
		high = -1
	default:
		high, err = strconv.Atoi(to)
	}
	if err != nil || low < 0 || low > maxRepeat || high > maxRepeat || high >= 0 && high < low {
		return 0, 0, false, fmt.Errorf("repeat %q", p.s[:end+1])
	}
	p.s = p.s[end+1:]
	return low, high, true, nil
}

func (p *regexParser) atom(depth int) (*regexNode, error) {
	switch {
	case p.take("("):
		return p.group(depth)
	case p.take("["):
		set, err := p.class(depth)
		return &regexNode{op: opSet, set: set}, err
	case p.take("."):
		return &regexNode{op: opSet, set: (&charSet{ranges: []rune{'\n', '\n'}, not: true}).finish()}, nil
	case p.take("^"):
		return &regexNode{op: opLineBegin}, nil
	case p.take("$"):
		return &regexNode{op: opLineEnd}, nil
	case p.take(`\b`), p.take(`\B`):
		return nil, fmt.Errorf("word edges")
	case strings.HasPrefix(p.s, "*"), strings.HasPrefix(p.s, "+"), strings.HasPrefix(p.s, "?"):
		return nil, fmt.Errorf("%q repeats nothing", p.s[:1])
	}
	c := &charSet{}
	r, err := p.member(c)
	if err != nil {
		return nil, err
	}
	if r >= 0 {
		c.addRange(r, r, p.fold)
	}
	return &regexNode{op: opSet, set: c.finish()}, nil
}

func (p *regexParser) group(depth int) (*regexNode, error) {
	n := &regexNode{}
	fold := p.fold
	switch {
	case p.take("?:"):
	case p.take("?i:"):
		p.fold = true
	case p.take("?i)"):
		p.fold = true // to the end of the group around it
		return nil, nil
	case p.take("?="):
		n.op = opLook
	case p.take("?!"):
		n.op, n.not = opLook, true
	case p.take("?<="):
		n.op = opBehind
	case p.take("?<!"):
		n.op, n.not = opBehind, true
	case p.take("?>"):
		n.op = opAtomic
	case p.take("?"):
		return nil, fmt.Errorf("group (?%.8s", p.s)
	}
	body, err := p.alternatives(depth + 1)
	p.fold = fold
	if err != nil {
		return nil, err
	}
	if !p.take(")") {
		return nil, fmt.Errorf("group is not closed")
	}
	switch n.op {
	case opLook, opAtomic:
		n.parts = []*regexNode{body}
		return n, nil
	case opBehind:
		if body.op == opMatch && len(body.parts) == 1 && body.parts[0].op == opSet {
			n.set = body.parts[0].set
			return n, nil
		}
		return nil, fmt.Errorf("a look behind at more than one character")
	}
	return body, nil
}

// member reads a character, which it returns, or a class, which it adds to c
// and returns -1.
func (p *regexParser) member(c *charSet) (rune, error) {
	r, n := utf8.DecodeRuneInString(p.s)
	if r == utf8.RuneError && n < 2 {
		return 0, fmt.Errorf("not UTF-8, or it ends too early")
	}
	p.s = p.s[n:]
	if r != '\\' {
		return r, nil
	}
	r, n = utf8.DecodeRuneInString(p.s)
	p.s = p.s[n:]
	if at := strings.IndexRune("nrtfv0ae", r); at >= 0 && n > 0 {
		return rune("\n\r\t\f\v\x00\a\x1b"[at]), nil
	}
	switch r {
	case 's':
		c.tables = append(c.tables, unicode.White_Space)
	case 'S':
		c.nots = append(c.nots, unicode.White_Space)
	case 'd':
		c.tables = append(c.tables, unicode.Nd)
	case 'D':
		c.nots = append(c.nots, unicode.Nd)
	case 'w':
		c.tables = append(c.tables, unicode.L, unicode.M, unicode.Nd, unicode.Pc)
	case 'W':
		c.sets = append(c.sets, (&charSet{tables: []*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd, unicode.Pc}, not: true}).finish())
	case 'p', 'P':
		return -1, p.property(c, r == 'P')
	case 'x', 'u':
		return p.hex(r)
	default:
		if n == 0 || r >= utf8.RuneSelf || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return 0, fmt.Errorf("escape \\%c", r)
		}
		return r, nil
	}
	return -1, nil
}

func (p *regexParser) hex(kind rune) (rune, error) {
	width := 4
	if kind == 'x' {
		width = 2
	}
	digits := ""
	if kind == 'x' && p.take("{") {
		end := strings.IndexByte(p.s, '}')
		if end < 0 {
			return 0, fmt.Errorf("\\x{ is not closed")
		}
		digits, p.s = p.s[:end], p.s[end+1:]
	} else {
		if len(p.s) < width {
			return 0, fmt.Errorf("\\%c is cut short", kind)
		}
		digits, p.s = p.s[:width], p.s[width:]
	}
	v, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || v > unicode.MaxRune {
		return 0, fmt.Errorf("\\%c%.8s is no character", kind, digits)
	}
	return rune(v), nil
}

// property reads the name behind \p.
func (p *regexParser) property(c *charSet, not bool) error {
	name := ""
	if p.take("{") {
		end := strings.IndexByte(p.s, '}')
		if end < 0 {
			return fmt.Errorf("\\p{ is not closed")
		}
		name, p.s = p.s[:end], p.s[end+1:]
		if rest, ok := strings.CutPrefix(name, "^"); ok {
			name, not = rest, !not
		}
	} else if p.s != "" {
		name, p.s = p.s[:1], p.s[1:]
	}
	t := propertyTable(name)
	switch {
	case t == nil:
		return fmt.Errorf("property %q", name)
	case not:
		c.nots = append(c.nots, t)
	default:
		c.tables = append(c.tables, t)
	}
	return nil
}

func propertyTable(name string) *unicode.RangeTable {
	if t, ok := unicode.Categories[name]; ok {
		return t
	}
	long := map[string]*unicode.RangeTable{
		"letter": unicode.L, "number": unicode.N, "punctuation": unicode.P, "punct": unicode.P, "symbol": unicode.S,
		"separator": unicode.Z, "mark": unicode.M, "other": unicode.C, "alpha": alphabetic(), "alphabetic": alphabetic(),
		"space": unicode.White_Space, "whitespace": unicode.White_Space, "digit": unicode.Nd, "upper": unicode.Lu, "lower": unicode.Ll,
		"uppercaseletter": unicode.Lu, "lowercaseletter": unicode.Ll, "titlecaseletter": unicode.Lt, "modifierletter": unicode.Lm,
		"otherletter": unicode.Lo, "decimalnumber": unicode.Nd,
	}
	plain := strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
	if t, ok := long[plain]; ok {
		return t
	}
	for _, tables := range []map[string]*unicode.RangeTable{unicode.Scripts, unicode.Properties, unicode.Categories} {
		for n, t := range tables {
			if strings.ToLower(strings.ReplaceAll(n, "_", "")) == plain {
				return t
			}
		}
	}
	return nil
}

// alphabetic is the property of that name as far as it is made of categories.
func alphabetic() *unicode.RangeTable {
	return rangeUnion(unicode.L, unicode.Nl, unicode.Other_Alphabetic)
}

func rangeUnion(tables ...*unicode.RangeTable) *unicode.RangeTable {
	u := &unicode.RangeTable{}
	for _, t := range tables {
		for _, r := range t.R16 {
			u.R32 = append(u.R32, unicode.Range32{Lo: uint32(r.Lo), Hi: uint32(r.Hi), Stride: uint32(r.Stride)})
		}
		u.R32 = append(u.R32, t.R32...)
	}
	slices.SortFunc(u.R32, func(a, b unicode.Range32) int { return int(a.Lo) - int(b.Lo) })
	return flat(u)
}

// flat makes ranges of stride 1 that do not overlap, as unicode.Is wants them.
func flat(t *unicode.RangeTable) *unicode.RangeTable {
	var points []unicode.Range32
	for _, r := range t.R32 {
		if r.Stride == 1 {
			points = append(points, r)
			continue
		}
		for c := r.Lo; c <= r.Hi; c += r.Stride {
			points = append(points, unicode.Range32{Lo: c, Hi: c, Stride: 1})
		}
	}
	slices.SortFunc(points, func(a, b unicode.Range32) int { return int(a.Lo) - int(b.Lo) })
	out := &unicode.RangeTable{}
	for _, r := range points {
		if n := len(out.R32); n > 0 && r.Lo <= out.R32[n-1].Hi+1 {
			out.R32[n-1].Hi = max(out.R32[n-1].Hi, r.Hi)
			continue
		}
		out.R32 = append(out.R32, r)
	}
	return out
}

// class reads a set behind its opening bracket. One within another adds to it.
func (p *regexParser) class(depth int) (*charSet, error) {
	if depth > regexDepth {
		return nil, fmt.Errorf("sets are nested deeper than %d", regexDepth)
	}
	c := &charSet{not: p.take("^")}
	for first := true; ; first = false {
		switch {
		case p.s == "":
			return nil, fmt.Errorf("set is not closed")
		case !first && p.take("]"):
			return c.finish(), nil
		case strings.HasPrefix(p.s, "&&"):
			return nil, fmt.Errorf("sets that intersect")
		case strings.HasPrefix(p.s, "[:"):
			return nil, fmt.Errorf("class %.12s", p.s)
		case p.take("["):
			inner, err := p.class(depth + 1)
			if err != nil {
				return nil, err
			}
			c.sets = append(c.sets, inner)
			continue
		}
		lo, err := p.member(c)
		if err != nil {
			return nil, err
		}
		if lo < 0 {
			continue
		}
		hi := lo
		if len(p.s) > 1 && p.s[0] == '-' && p.s[1] != ']' {
			p.s = p.s[1:]
			if hi, err = p.member(c); err != nil {
				return nil, err
			}
			if hi < lo {
				return nil, fmt.Errorf("range from %q to %q", lo, hi)
			}
		}
		c.addRange(lo, hi, p.fold)
	}
}

// assemble makes code of a tree.
func assemble(n *regexNode) (*expression, error) {
	e := &expression{}
	if err := e.emit(n); err != nil {
		return nil, err
	}
	e.code = append(e.code, inst{op: opMatch})
	return e, nil
}

func (e *expression) add(i inst) int {
	e.code = append(e.code, i)
	return len(e.code) - 1
}

func (e *expression) emit(n *regexNode) error {
	if len(e.code) > maxExpression {
		return fmt.Errorf("more than %d instructions", maxExpression)
	}
	switch n.op {
	case opSet:
		e.add(inst{op: opSet, set: n.set})
	case opLineBegin, opLineEnd:
		e.add(inst{op: n.op})
	case opBehind:
		e.add(inst{op: opBehind, set: n.set, not: n.not})
	case opLook, opAtomic:
		sub, err := assemble(n.parts[0])
		if err != nil {
			return err
		}
		e.add(inst{op: n.op, not: n.not, sub: sub})
	case opMatch:
		for _, part := range n.parts {
			if err := e.emit(part); err != nil {
				return err
			}
		}
	case opSplit:
		var ends []int
		for i, part := range n.parts {
			split := -1
			if i+1 < len(n.parts) {
				split = e.add(inst{op: opSplit})
				e.code[split].x = len(e.code)
			}
			if err := e.emit(part); err != nil {
				return err
			}
			if split >= 0 {
				ends = append(ends, e.add(inst{op: opJump}))
				e.code[split].y = len(e.code)
			}
		}
		for _, at := range ends {
			e.code[at].x = len(e.code)
		}
	case opRepeat:
		return e.emitRepeat(n)
	}
	return nil
}

func (e *expression) emitRepeat(n *regexNode) error {
	body := n.parts[0]
	if body.op == opMatch && len(body.parts) == 1 {
		body = body.parts[0]
	}
	if body.op == opSet && !n.lazy {
		e.add(inst{op: opRepeat, set: body.set, min: n.min, max: n.max})
		return nil
	}
	for range n.min {
		if err := e.emit(body); err != nil {
			return err
		}
	}
	split := func() int {
		at := e.add(inst{op: opSplit})
		e.code[at].x = at + 1
		return at
	}
	leave := func(at, to int) {
		e.code[at].y = to
		if n.lazy {
			e.code[at].x, e.code[at].y = e.code[at].y, e.code[at].x
		}
	}
	if n.max < 0 {
		at := split()
		if err := e.emit(body); err != nil {
			return err
		}
		e.add(inst{op: opJump, x: at})
		leave(at, len(e.code))
		return nil
	}
	var splits []int
	for range n.max - n.min {
		splits = append(splits, split())
		if err := e.emit(body); err != nil {
			return err
		}
	}
	for _, at := range splits {
		leave(at, len(e.code))
	}
	return nil
}

// regexState is the memory of matching a text.
type regexState struct {
	s     string
	stack []retry
	left  int // steps for the whole text
}

// retry is where to go on when what was tried does not match. For a repeat that
// can give up characters, they are those from low to at.
type retry struct{ pc, at, low int }

// match returns the end of the match that begins at a place, -1 if there is
// none.
func (m *regexState) match(e *expression, at int) int {
	s, base := m.s, len(m.stack)
	defer func() { m.stack = m.stack[:base] }()
	pc, steps := 0, 0
	var seen map[[2]int]struct{}
	for {
		if steps++; steps > rememberAfter && seen == nil {
			seen = map[[2]int]struct{}{}
		}
		if m.left--; m.left < 0 {
			return -1
		}
		i := &e.code[pc]
		ok := true
		switch i.op {
		case opSet:
			r, n := rune(0), 1
			if at < len(s) && s[at] < utf8.RuneSelf {
				r = rune(s[at])
			} else {
				r, n = utf8.DecodeRuneInString(s[at:])
			}
			ok = n > 0 && at < len(s) && i.set.has(r)
			at += n
			pc++
		case opRepeat:
			at, ok = m.repeat(i, pc, at)
			pc++
		case opSplit:
			if seen != nil {
				key := [2]int{pc, at}
				if _, twice := seen[key]; twice {
					ok = false
					break
				}
				seen[key] = struct{}{}
				if len(seen) > maxRemembered {
					m.left = -1
					return -1
				}
			}
			m.stack = append(m.stack, retry{i.y, at, -1})
			pc = i.x
		case opJump:
			pc = i.x
		case opMatch:
			return at
		case opLook:
			ok = (m.match(i.sub, at) >= 0) != i.not
			pc++
		case opAtomic:
			end := m.match(i.sub, at)
			ok = end >= 0
			at = end
			pc++
		case opBehind:
			r, n := utf8.DecodeLastRuneInString(s[:at])
			ok = (n > 0 && i.set.has(r)) != i.not
			pc++
		case opLineBegin:
			ok = at == 0 || s[at-1] == '\n'
			pc++
		case opLineEnd:
			ok = at == len(s) || s[at] == '\n'
			pc++
		}
		if ok {
			continue
		}
		n := len(m.stack) - 1
		if n < base {
			return -1
		}
		top := &m.stack[n]
		pc, at = top.pc, top.at
		if top.low < 0 {
			m.stack = m.stack[:n]
			continue
		}
		_, size := utf8.DecodeLastRuneInString(s[:at])
		at -= size
		top.at = at
		if at <= top.low {
			m.stack = m.stack[:n]
		}
	}
}

// repeat takes as many characters of a set as there are, and notes that it
// could give some up.
func (m *regexState) repeat(i *inst, pc, at int) (int, bool) {
	s, low, n := m.s, at, 0
	for at < len(s) && n != i.max {
		r, size := rune(s[at]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[at:])
		}
		if !i.set.has(r) {
			break
		}
		at += size
		if n++; n == i.min {
			low = at
		}
	}
	m.left -= n / 4
	if n < i.min {
		return at, false
	}
	if at > low {
		m.stack = append(m.stack, retry{pc + 1, at, low})
	}
	return at, true
}

// each calls yield for the parts of s that match and those between them. A
// text for which it would take too long ends with one part.
func (e *expression) each(s string, yield func(part string, matches bool)) {
	m := regexState{s: s, left: stepsOfAnything + stepsPerByte*len(s)}
	rest, at := 0, 0
	for at < len(s) {
		end := m.match(e, at)
		if end <= at {
			_, n := utf8.DecodeRuneInString(s[at:])
			at += n
			if m.left < 0 {
				break
			}
			continue
		}
		if at > rest {
			yield(s[rest:at], false)
		}
		yield(s[at:end], true)
		rest, at = end, end
	}
	if rest < len(s) {
		yield(s[rest:], false)
	}
}
