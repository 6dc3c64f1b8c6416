package chat

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// args has its arguments by position or by name. get returns the i-th one.
func (a *args) get(i int, name string) (any, bool) {
	if i < len(a.pos) {
		return a.pos[i], true
	}
	for k, n := range a.names {
		if n == name {
			return a.named[k], true
		}
	}
	return nil, false
}

// atMost refuses arguments that nobody would look at.
func (a *args) atMost(what string, names ...string) {
	if len(a.pos) > len(names) {
		panic(fail("%s takes at most %d arguments", what, len(names)))
	}
next:
	for _, n := range a.names {
		for i, name := range names {
			if n == name && i >= len(a.pos) {
				continue next
			}
		}
		panic(fail("%s has no argument %s", what, n))
	}
}

func (a *args) text(i int, name string, missing text) text {
	v, ok := a.get(i, name)
	if !ok {
		return missing
	}
	t, ok := v.(text)
	if !ok {
		panic(fail("%s is %s, must be a string", name, describe(v)))
	}
	return t
}

func (a *args) int(i int, name string, missing int64) int64 {
	v, ok := a.get(i, name)
	if !ok {
		return missing
	}
	n, ok := integer(v)
	if !ok {
		panic(fail("%s is %s, must be an integer", name, describe(v)))
	}
	return n
}

func (a *args) bool(i int, name string, missing bool) bool {
	v, ok := a.get(i, name)
	if !ok {
		return missing
	}
	return truthy(v)
}

// globals are the functions that every template can call.
var globals = map[string]func(st *state, a args) any{
	"range": func(st *state, a args) any {
		a.atMost("range", "start", "stop", "step")
		begin, end, step := int64(0), a.int(0, "start", 0), a.int(2, "step", 1)
		if len(a.pos) > 1 {
			begin, end = end, a.int(1, "stop", 0)
		}
		if step == 0 {
			panic(fail("range with step 0"))
		}
		l := &list{}
		for i := begin; step > 0 && i < end || step < 0 && i > end; i += step {
			if len(l.items) >= maxRange {
				panic(failure{fmt.Errorf("%w: a range of more than %d", ErrTooMuch, maxRange)})
			}
			st.work(1)
			l.items = append(l.items, i)
		}
		return l
	},
	"dict": func(_ *state, a args) any {
		d := newDict(len(a.names))
		if len(a.pos) == 1 {
			if from, ok := a.pos[0].(*dict); ok {
				for i, k := range from.keys {
					d.set(k, from.values[i])
				}
			}
		}
		for i, n := range a.names {
			d.set(plain(n), a.named[i])
		}
		return d
	},
	"namespace": func(_ *state, a args) any {
		ns := &namespace{vars: make(map[string]any)}
		for _, v := range a.pos {
			if d, ok := v.(*dict); ok {
				for i, k := range d.keys {
					if name, ok := k.(text); ok {
						ns.vars[name.s] = d.values[i]
					}
				}
			}
		}
		for i, n := range a.names {
			ns.vars[n] = a.named[i]
		}
		return ns
	},
	"raise_exception": func(_ *state, a args) any {
		panic(failure{&Refusal{Message: a.text(0, "message", text{}).s}})
	},
}

// method returns the method of a string, list or dict.
func method(of any, name string) (any, bool) {
	switch of := of.(type) {
	case text:
		if f, ok := textMethods[name]; ok {
			return &function{name: name, call: func(st *state, a args) any {
				st.touch(len(of.s))
				return f(st, of, a)
			}}, true
		}
	case *dict:
		if f, ok := dictMethods[name]; ok {
			return &function{name: name, call: func(st *state, a args) any {
				st.work(len(of.keys))
				return f(st, of, a)
			}}, true
		}
	case *list:
		if f, ok := listMethods[name]; ok {
			return &function{name: name, call: func(st *state, a args) any { return f(st, of, a) }}, true
		}
	}
	return nil, false
}

var dictMethods = map[string]func(st *state, d *dict, a args) any{
	"keys":   func(_ *state, d *dict, _ args) any { return &list{items: d.keys} },
	"values": func(_ *state, d *dict, _ args) any { return &list{items: d.values} },
	"items":  func(_ *state, d *dict, _ args) any { return pairs(d) },
	"copy":   func(_ *state, d *dict, _ args) any { return d },
	"get": func(_ *state, d *dict, a args) any {
		k, _ := a.get(0, "key")
		if v, ok := d.get(k); ok {
			return v
		}
		v, _ := a.get(1, "default")
		return v
	},
	"update": refused("update"), "pop": refused("pop"), "setdefault": refused("setdefault"),
	"clear": refused("clear"), "popitem": refused("popitem"),
}

func refused(name string) func(*state, *dict, args) any {
	return func(*state, *dict, args) any { panic(fail("%s would change a dict", name)) }
}

func pairs(d *dict) *list {
	l := &list{items: make([]any, len(d.keys))}
	for i, k := range d.keys {
		l.items[i] = &list{[]any{k, d.values[i]}, true}
	}
	return l
}

var listMethods = map[string]func(st *state, l *list, a args) any{
	"index": func(st *state, l *list, a args) any {
		v, _ := a.get(0, "value")
		for i, x := range l.items {
			if st.equal(x, v, 0) {
				return int64(i)
			}
		}
		panic(fail("value is not in the list"))
	},
	"count": func(st *state, l *list, a args) any {
		v, _ := a.get(0, "value")
		n := int64(0)
		for _, x := range l.items {
			if st.equal(x, v, 0) {
				n++
			}
		}
		return n
	},
	"copy":   func(_ *state, l *list, _ args) any { return l },
	"append": func(*state, *list, args) any { panic(fail("append would change a list")) },
	"extend": func(*state, *list, args) any { panic(fail("extend would change a list")) },
	"insert": func(*state, *list, args) any { panic(fail("insert would change a list")) },
	"pop":    func(*state, *list, args) any { panic(fail("pop would change a list")) },
}

// cutset is what strip removes: white space, or the characters of an argument.
func cutset(a args) func(rune) bool {
	v, ok := a.get(0, "chars")
	if !ok || v == nil {
		return isSpace
	}
	chars := a.text(0, "chars", text{}).s
	return func(r rune) bool { return strings.ContainsRune(chars, r) }
}

// separated is split and rsplit.
func separated(st *state, t text, a args, right bool) any {
	a.atMost("split", "sep", "maxsplit")
	n := int(max(min(a.int(1, "maxsplit", -1), maxText), -1))
	sep, ok := a.get(0, "sep")
	var parts []text
	switch {
	case !ok || sep == nil:
		if right && n >= 0 {
			panic(fail("rsplit at white space with a limit is not supported"))
		}
		parts = t.fields(n)
	default:
		by := a.text(0, "sep", text{}).s
		if by == "" {
			panic(fail("empty separator"))
		}
		if right {
			parts = t.rsplit(by, n)
		} else {
			parts = t.split(by, n)
		}
	}
	st.work(len(parts))
	return texts(parts)
}

func texts(parts []text) *list {
	l := &list{items: make([]any, len(parts))}
	for i, p := range parts {
		l.items[i] = p
	}
	return l
}

// affix is startswith and endswith.
func affix(st *state, t text, a args, has func(s, affix string) bool) any {
	if len(a.pos) != 1 || len(a.names) > 0 {
		panic(fail("startswith and endswith are known with one argument only"))
	}
	switch v := a.pos[0].(type) {
	case text:
		return has(t.s, v.s)
	case *list:
		st.work(len(v.items))
		for _, x := range v.items {
			if p, ok := x.(text); ok && has(t.s, p.s) {
				return true
			}
		}
		return false
	}
	panic(fail("startswith and endswith take a string"))
}

// find returns the place in characters, -1 if there is none.
func find(t text, at int) int64 {
	if at < 0 {
		return -1
	}
	return int64(utf8.RuneCountInString(t.s[:at]))
}

// every is the tests that Python's strings have, which "" does not pass.
func every(f func(rune) bool) func(*state, text, args) any {
	return func(_ *state, t text, _ args) any {
		return t.s != "" && strings.IndexFunc(t.s, func(r rune) bool { return !f(r) }) < 0
	}
}

var textMethods = map[string]func(st *state, t text, a args) any{
	"strip":      func(_ *state, t text, a args) any { return t.trimLeft(cutset(a)).trimRight(cutset(a)) },
	"lstrip":     func(_ *state, t text, a args) any { return t.trimLeft(cutset(a)) },
	"rstrip":     func(_ *state, t text, a args) any { return t.trimRight(cutset(a)) },
	"split":      func(st *state, t text, a args) any { return separated(st, t, a, false) },
	"rsplit":     func(st *state, t text, a args) any { return separated(st, t, a, true) },
	"splitlines": func(st *state, t text, a args) any { return splitLines(st, t, a.bool(0, "keepends", false)) },
	"startswith": func(st *state, t text, a args) any { return affix(st, t, a, strings.HasPrefix) },
	"endswith":   func(st *state, t text, a args) any { return affix(st, t, a, strings.HasSuffix) },
	"replace":    replaceText,
	"upper":      func(_ *state, t text, _ args) any { return t.like(strings.ToUpper(t.s)) },
	"lower":      func(_ *state, t text, _ args) any { return t.like(strings.ToLower(t.s)) },
	"title":      func(_ *state, t text, _ args) any { return t.like(title(t.s)) },
	"capitalize": func(_ *state, t text, _ args) any { return t.like(capitalize(t.s)) },
	"removeprefix": func(_ *state, t text, a args) any {
		p := a.text(0, "prefix", text{}).s
		return t.slice(len(t.s)-len(strings.TrimPrefix(t.s, p)), len(t.s))
	},
	"removesuffix": func(_ *state, t text, a args) any {
		return t.slice(0, len(strings.TrimSuffix(t.s, a.text(0, "suffix", text{}).s)))
	},
	"find":  func(_ *state, t text, a args) any { return find(t, strings.Index(t.s, a.text(0, "sub", text{}).s)) },
	"rfind": func(_ *state, t text, a args) any { return find(t, strings.LastIndex(t.s, a.text(0, "sub", text{}).s)) },
	"index": func(_ *state, t text, a args) any {
		at := strings.Index(t.s, a.text(0, "sub", text{}).s)
		if at < 0 {
			panic(fail("substring not found"))
		}
		return find(t, at)
	},
	"count":   func(_ *state, t text, a args) any { return int64(strings.Count(t.s, a.text(0, "sub", text{}).s)) },
	"join":    func(st *state, t text, a args) any { v, _ := a.get(0, "iterable"); return join(st, st.items(v), t) },
	"format":  func(st *state, t text, a args) any { return st.braces(t, a) },
	"isdigit": every(unicode.IsDigit), "isnumeric": every(unicode.IsNumber), "isalpha": every(unicode.IsLetter),
	"isspace": every(isSpace), "isdecimal": every(unicode.IsDigit),
	"isalnum": every(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
	"isupper": func(_ *state, t text, _ args) any { return strings.ToUpper(t.s) == t.s && strings.ToLower(t.s) != t.s },
	"islower": func(_ *state, t text, _ args) any { return strings.ToLower(t.s) == t.s && strings.ToUpper(t.s) != t.s },
}

func replaceText(st *state, t text, a args) any {
	a.atMost("replace", "old", "new", "count")
	from, to := a.text(0, "old", text{}), a.text(1, "new", text{})
	n := int64(-1)
	if v, ok := a.get(2, "count"); ok && v != nil {
		n = a.int(2, "count", -1)
	}
	found := int64(strings.Count(t.s, from.s))
	st.work(int(found))
	st.product(int64(max(len(to.s), 1)), found)
	return t.replace(from.s, to, int(max(min(n, maxText), -1)))
}

func splitLines(st *state, t text, keep bool) any {
	l := &list{}
	for t.s != "" {
		at := strings.IndexFunc(t.s, func(r rune) bool {
			return r >= '\n' && r <= '\r' || r >= 0x1C && r <= 0x1E || r == 0x85 || r == 0x2028 || r == 0x2029
		})
		if at < 0 {
			l.items = append(l.items, t)
			break
		}
		_, n := utf8.DecodeRuneInString(t.s[at:])
		if strings.HasPrefix(t.s[at:], "\r\n") {
			n = 2
		}
		end := at
		if keep {
			end += n
		}
		st.work(1)
		l.items = append(l.items, t.slice(0, end))
		t = t.slice(at+n, len(t.s))
	}
	return l
}

// title writes each letter that follows no letter in upper case.
func title(s string) string {
	inWord := false
	return strings.Map(func(r rune) rune {
		was := inWord
		inWord = unicode.IsLetter(r)
		if was {
			return unicode.ToLower(r)
		}
		return unicode.ToTitle(r)
	}, s)
}

func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

func join(st *state, items []any, sep text) text {
	var b builder
	for i, x := range items {
		t := st.str(x)
		st.work(1)
		st.made(len(t.s) + len(sep.s))
		if i > 0 {
			b.add(sep)
		}
		b.add(t)
		st.size(b.len())
	}
	return b.text()
}

// braces is str.format with {}, {0} and {name}.
func (st *state) braces(t text, a args) text {
	var b builder
	next := 0
	for at := 0; at < len(t.s); {
		i := strings.IndexAny(t.s[at:], "{}")
		if i < 0 {
			b.add(t.slice(at, len(t.s)))
			break
		}
		b.add(t.slice(at, at+i))
		at += i
		if strings.HasPrefix(t.s[at:], "{{") || strings.HasPrefix(t.s[at:], "}}") {
			b.add(t.slice(at, at+1))
			at += 2
			continue
		}
		end := strings.IndexByte(t.s[at:], '}')
		if t.s[at] == '}' || end < 0 {
			panic(fail("format with a single brace"))
		}
		name := t.s[at+1 : at+end]
		at += end + 1
		i, err := strconv.Atoi(name)
		if name == "" {
			i, err = next, nil
			next++
		}
		if err != nil {
			i = len(a.pos)
		}
		v, ok := a.get(max(i, 0), name)
		if !ok || i < 0 {
			panic(fail("format has no argument %.40q", name))
		}
		b.add(st.str(v))
		st.made(b.len())
	}
	return b.text()
}

// percent is the % of a string, with %s, %d and %%.
func (st *state) percent(t text, v any) text {
	items := []any{v}
	if l, ok := v.(*list); ok && l.tuple {
		items = l.items
	}
	var b builder
	for at := 0; at < len(t.s); {
		i := strings.IndexByte(t.s[at:], '%')
		if i < 0 || at+i+1 >= len(t.s) {
			b.add(t.slice(at, len(t.s)))
			break
		}
		b.add(t.slice(at, at+i))
		verb := t.s[at+i+1]
		at += i + 2
		switch {
		case verb == '%':
			b.addString("%")
			continue
		case verb != 's' && verb != 'd':
			panic(fail("format %%%c is not supported", verb))
		case len(items) == 0:
			panic(fail("too few arguments for a format"))
		}
		b.add(st.str(items[0]))
		st.made(b.len())
		items = items[1:]
	}
	if len(items) > 0 {
		panic(fail("too many arguments for a format"))
	}
	return b.text()
}
