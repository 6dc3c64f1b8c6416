package chat

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Values of a template are nil, bool, int64, float64 and the types below.
type (
	// undefined is what a name that nothing was set to stands for.
	undefined struct{ name string }
	// list is a list or a tuple; it does not change.
	list struct {
		items []any
		tuple bool
	}
	// dict keeps the order of its keys; it does not change once made.
	dict struct {
		keys   []any
		values []any
		index  map[string]int
	}
	// namespace is the one thing that a template can change.
	namespace struct{ vars map[string]any }
	// function is what can be called.
	function struct {
		name string
		call func(st *state, a args) any
	}
)

// args are those of a call.
type args struct {
	pos   []any
	names []string
	named []any
}

func newDict(n int) *dict { return &dict{index: make(map[string]int, n)} }

// set is for whoever makes the dict.
func (d *dict) set(key, value any) bool {
	h, ok := hashKey(key)
	if !ok {
		return false
	}
	if i, ok := d.index[h]; ok {
		d.values[i] = value
		return true
	}
	d.index[h] = len(d.keys)
	d.keys, d.values = append(d.keys, key), append(d.values, value)
	return true
}

func (d *dict) get(key any) (any, bool) {
	h, ok := hashKey(key)
	if !ok {
		return nil, false
	}
	i, ok := d.index[h]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// hashKey is the same for keys that are equal.
func hashKey(v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return "n", true
	case bool:
		if v {
			return "i1", true
		}
		return "i0", true
	case int64:
		return "i" + strconv.FormatInt(v, 10), true
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<62 {
			return "i" + strconv.FormatInt(int64(v), 10), true
		}
		return "f" + strconv.FormatFloat(v, 'g', -1, 64), true
	case text:
		return "s" + v.s, true
	case *list:
		if !v.tuple || len(v.items) > 16 {
			return "", false
		}
		var b strings.Builder
		for _, x := range v.items {
			if _, nested := x.(*list); nested {
				return "", false
			}
			h, ok := hashKey(x)
			if !ok {
				return "", false
			}
			fmt.Fprintf(&b, "%d:%s", len(h), h)
		}
		return "t" + b.String(), true
	}
	return "", false
}

// typeName is the name that messages and repr use.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case undefined:
		return "undefined"
	case bool:
		return "bool"
	case int64:
		return "int"
	case float64:
		return "float"
	case text:
		return "string"
	case *list:
		if v.tuple {
			return "tuple"
		}
		return "list"
	case *dict:
		return "dict"
	case *namespace:
		return "namespace"
	case *function:
		return "function"
	case *loop:
		return "loop"
	}
	return "value"
}

func truthy(v any) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case text:
		return v.s != ""
	case *list:
		return len(v.items) > 0
	case *dict:
		return len(v.keys) > 0
	}
	return true
}

// number returns v as a float; whole says that it is an integer.
func number(v any) (f float64, whole, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true, true
		}
		return 0, true, true
	case int64:
		return float64(v), true, true
	case float64:
		return v, false, true
	}
	return 0, false, false
}

func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case int64:
		return v, true
	}
	return 0, false
}

// str is what printing v gives.
func (st *state) str(v any) text {
	if t, ok := v.(text); ok {
		return t
	}
	var b builder
	st.repr(&b, v, 0)
	return b.text()
}

// repr writes v as Python does within lists; depth bounds what is nested.
func (st *state) repr(b *builder, v any, depth int) {
	st.work(1)
	st.deep(depth)
	switch v := v.(type) {
	case nil:
		b.addString("None")
	case undefined:
	case bool:
		if v {
			b.addString("True")
		} else {
			b.addString("False")
		}
	case int64:
		b.addString(strconv.FormatInt(v, 10))
	case float64:
		b.addString(formatFloat(v))
	case text:
		st.touch(len(v.s))
		b.add(v.like(quote(v.s)))
	case *list:
		st.reprList(b, v, depth)
	case *dict:
		b.addString("{")
		for i, k := range v.keys {
			if i > 0 {
				b.addString(", ")
			}
			st.repr(b, k, depth+1)
			b.addString(": ")
			st.repr(b, v.values[i], depth+1)
		}
		b.addString("}")
	default:
		b.addString("<" + typeName(v) + ">")
	}
	st.size(b.len())
}

func (st *state) reprList(b *builder, v *list, depth int) {
	open, end := "[", "]"
	if v.tuple {
		open, end = "(", ")"
		if len(v.items) == 1 {
			end = ",)"
		}
	}
	b.addString(open)
	for i, x := range v.items {
		if i > 0 {
			b.addString(", ")
		}
		st.repr(b, x, depth+1)
	}
	b.addString(end)
}

// quote writes a string as Python's repr.
func quote(s string) string {
	q := byte('\'')
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		q = '"'
	}
	b := append(make([]byte, 0, len(s)+2), q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == ' ' || unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x100:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(append(b, q))
}

// formatFloat writes a float as Python's repr.
func formatFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// equal is ==.
func (st *state) equal(a, b any, depth int) bool {
	st.work(1)
	st.deep(depth)
	if x, _, ok := number(a); ok {
		y, _, ok := number(b)
		if i, whole := a.(int64); whole {
			if j, whole := b.(int64); whole {
				return i == j
			}
		}
		return ok && x == y
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case undefined:
		_, ok := b.(undefined)
		return ok
	case text:
		b, ok := b.(text)
		st.touch(min(len(a.s), len(b.s)))
		return ok && a.s == b.s
	case *list:
		b, ok := b.(*list)
		if !ok || len(a.items) != len(b.items) || a.tuple != b.tuple {
			return false
		}
		for i := range a.items {
			if !st.equal(a.items[i], b.items[i], depth+1) {
				return false
			}
		}
		return true
	case *dict:
		b, ok := b.(*dict)
		if !ok || len(a.keys) != len(b.keys) {
			return false
		}
		for i, k := range a.keys {
			v, ok := b.get(k)
			if !ok || !st.equal(a.values[i], v, depth+1) {
				return false
			}
		}
		return true
	}
	return a == b
}

// compare orders two values of a kind: numbers, strings, lists.
func (st *state) compare(a, b any, depth int) int {
	st.work(1)
	st.deep(depth)
	x, _, ok1 := number(a)
	y, _, ok2 := number(b)
	switch {
	case ok1 && ok2 && x < y:
		return -1
	case ok1 && ok2 && x > y:
		return 1
	case ok1 && ok2:
		return 0
	}
	if s, ok := a.(text); ok {
		if t, ok := b.(text); ok {
			st.touch(min(len(s.s), len(t.s)))
			return strings.Compare(s.s, t.s)
		}
	}
	if s, ok := a.(*list); ok {
		if t, ok := b.(*list); ok && s.tuple == t.tuple {
			for i := range min(len(s.items), len(t.items)) {
				if !st.equal(s.items[i], t.items[i], depth+1) {
					return st.compare(s.items[i], t.items[i], depth+1)
				}
			}
			return len(s.items) - len(t.items)
		}
	}
	panic(fail("%s and %s have no order", typeName(a), typeName(b)))
}

// items returns what a loop over v goes through.
func (st *state) items(v any) []any {
	switch v := v.(type) {
	case undefined:
		return nil
	case *list:
		return v.items
	case *dict:
		return v.keys
	case text:
		st.work(8 * len(v.s))
		out := make([]any, 0, len(v.s))
		for at := 0; at < len(v.s); {
			_, n := utf8.DecodeRuneInString(v.s[at:])
			out = append(out, v.slice(at, at+n))
			at += n
		}
		return out
	}
	panic(fail("%s cannot be iterated", typeName(v)))
}

func length(v any) (int64, bool) {
	switch v := v.(type) {
	case undefined:
		return 0, true
	case text:
		return int64(utf8.RuneCountInString(v.s)), true
	case *list:
		return int64(len(v.items)), true
	case *dict:
		return int64(len(v.keys)), true
	}
	return 0, false
}
