package chat

import (
	"math"
	"sort"
	"strconv"
	"strings"
)

type (
	filter func(st *state, v any, a args) any
	test   func(st *state, v any, a args) bool
)

// filters are those that published templates use, and their relatives.
var filters = map[string]filter{
	"trim": func(st *state, v any, a args) any {
		t := st.str(v)
		st.touch(len(t.s))
		return t.trimLeft(cutset(a)).trimRight(cutset(a))
	},
	"upper":      onText("upper"),
	"lower":      onText("lower"),
	"title":      onText("title"),
	"capitalize": onText("capitalize"),
	"replace": func(st *state, v any, a args) any {
		for i, x := range a.pos {
			a.pos[i] = asText(st, i < 2, x)
		}
		return replaceText(st, st.str(v), a)
	},
	"string": func(st *state, v any, _ args) any { return st.str(v) },
	"safe":   func(st *state, v any, _ args) any { return st.str(v) },
	"escape": escapeHTML,
	"e":      escapeHTML,
	"length": lengthOf,
	"count":  lengthOf,
	"first": func(st *state, v any, _ args) any {
		if items := st.items(v); len(items) > 0 {
			return items[0]
		}
		return undefined{"first of nothing"}
	},
	"last": func(st *state, v any, _ args) any {
		if items := st.items(v); len(items) > 0 {
			return items[len(items)-1]
		}
		return undefined{"last of nothing"}
	},
	"join": func(st *state, v any, a args) any {
		items := st.items(v)
		if _, ok := a.get(1, "attribute"); ok {
			items = mapped(st, items, a.attribute(1))
		}
		d, ok := a.get(0, "d")
		if !ok {
			d = text{}
		}
		return join(st, items, st.str(d))
	},
	"default": defaultOf,
	"d":       defaultOf,
	"tojson":  toJSON,
	"items": func(st *state, v any, _ args) any {
		switch v := v.(type) {
		case undefined:
			return &list{}
		case *dict:
			st.work(len(v.keys))
			return pairs(v)
		}
		panic(fail("items of %s, must be a dict", typeName(v)))
	},
	"list":    func(st *state, v any, _ args) any { return &list{items: st.items(v)} },
	"int":     toInt,
	"float":   toFloat,
	"abs":     absolute,
	"round":   round,
	"sum":     sum,
	"min":     func(st *state, v any, a args) any { return extreme(st, v, -1) },
	"max":     func(st *state, v any, a args) any { return extreme(st, v, 1) },
	"reverse": reverse,
	"sort":    sorted,
	"unique":  unique,
	"dictsort": func(st *state, v any, _ args) any {
		d, ok := v.(*dict)
		if !ok {
			panic(fail("dictsort of %s, must be a dict", typeName(v)))
		}
		out := pairs(d)
		st.sort(len(out.items), func(i int) any { return folded(d.keys[i]) }, func(order []int) {
			out.items = permuted(out.items, order)
		}, false)
		return out
	},
	"indent":     indent,
	"map":        mapFilter,
	"select":     func(st *state, v any, a args) any { return chosen(st, v, a, 0, true) },
	"reject":     func(st *state, v any, a args) any { return chosen(st, v, a, 0, false) },
	"selectattr": func(st *state, v any, a args) any { return chosen(st, v, a, 1, true) },
	"rejectattr": func(st *state, v any, a args) any { return chosen(st, v, a, 1, false) },
	"groupby":    groupBy,
	"wordcount": func(st *state, v any, _ args) any {
		t := st.str(v)
		st.touch(len(t.s))
		return int64(len(strings.Fields(t.s)))
	},
	"format": func(st *state, v any, a args) any {
		return st.percent(st.str(v), &list{a.pos, true})
	},
}

func asText(st *state, yes bool, v any) any {
	if yes {
		return st.str(v)
	}
	return v
}

// onText is a filter that is a method of strings.
func onText(name string) filter {
	return func(st *state, v any, a args) any {
		t := st.str(v)
		st.made(len(t.s))
		return textMethods[name](st, t, a)
	}
}

func escapeHTML(st *state, v any, _ args) any {
	t := st.str(v)
	for _, r := range [][2]string{{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {`"`, "&#34;"}} {
		st.work(strings.Count(t.s, r[0]))
		st.made(len(t.s))
		t = t.replace(r[0], plain(r[1]), -1)
	}
	return t
}

func lengthOf(st *state, v any, _ args) any {
	n, ok := length(v)
	if !ok {
		panic(fail("%s has no length", typeName(v)))
	}
	if t, ok := v.(text); ok {
		st.touch(len(t.s))
	}
	return n
}

func defaultOf(_ *state, v any, a args) any {
	_, missing := v.(undefined)
	if missing || a.bool(1, "boolean", false) && !truthy(v) {
		d, ok := a.get(0, "default_value")
		if !ok {
			return text{}
		}
		return d
	}
	return v
}

// toJSON is json.dumps as transformers calls it: characters stay as they are.
func toJSON(st *state, v any, a args) any {
	a.atMost("tojson", "ensure_ascii", "indent", "separators", "sort_keys")
	// Where there is one argument without a name it is indent in old templates
	// of Jinja's own filter.
	s := jsonStyle{comma: ", ", colon: ": ", ascii: a.bool(0, "ensure_ascii", false), sortKeys: a.bool(3, "sort_keys", false)}
	if v, ok := a.get(1, "indent"); ok && v != nil {
		s.lines, s.comma = true, ","
		if t, ok := v.(text); ok {
			s.indent = t.s
		} else {
			s.indent = strings.Repeat(" ", int(min(max(a.int(1, "indent", 0), 0), 64)))
		}
	}
	if v, ok := a.get(2, "separators"); ok && v != nil {
		l, ok := v.(*list)
		if !ok || len(l.items) != 2 {
			panic(fail("separators of tojson are two strings"))
		}
		s.comma, s.colon = st.str(l.items[0]).s, st.str(l.items[1]).s
	}
	var b builder
	st.json(&b, v, &s, 0)
	st.touch(b.len())
	return b.text()
}

func toInt(st *state, v any, a args) any {
	missing, ok := a.get(0, "default")
	if !ok {
		missing = int64(0)
	}
	switch v := v.(type) {
	case text:
		s := strings.TrimFunc(v.s, isSpace)
		if n, err := strconv.ParseInt(s, int(min(max(a.int(1, "base", 10), 2), 36)), 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return toInt(st, f, a)
		}
	case float64:
		if math.Abs(v) < 1<<62 {
			return int64(v)
		}
	case int64, bool:
		n, _ := integer(v)
		return n
	}
	return missing
}

func toFloat(_ *state, v any, a args) any {
	if t, ok := v.(text); ok {
		if f, err := strconv.ParseFloat(strings.TrimFunc(t.s, isSpace), 64); err == nil {
			return f
		}
	}
	if f, _, ok := number(v); ok {
		return f
	}
	if d, ok := a.get(0, "default"); ok {
		return d
	}
	return 0.0
}

func absolute(_ *state, v any, _ args) any {
	f, _, ok := number(v)
	switch {
	case !ok:
		panic(fail("abs of %s, must be a number", typeName(v)))
	case f < 0:
		return arithmetic("*", v, int64(-1))
	}
	return arithmetic("+", v, int64(0))
}

func round(_ *state, v any, a args) any {
	f, _, ok := number(v)
	if !ok {
		panic(fail("round of %s, must be a number", typeName(v)))
	}
	digits := math.Pow(10, float64(min(max(a.int(0, "precision", 0), -20), 20)))
	switch how := a.text(1, "method", plain("common")).s; how {
	case "ceil":
		return math.Ceil(f*digits) / digits
	case "floor":
		return math.Floor(f*digits) / digits
	case "common":
		return math.RoundToEven(f*digits) / digits
	default:
		panic(fail("round has no method %.40q", how))
	}
}

func sum(st *state, v any, a args) any {
	items := st.items(v)
	if _, ok := a.get(0, "attribute"); ok {
		items = mapped(st, items, a.attribute(0))
	}
	total, ok := a.get(1, "start")
	if !ok {
		total = int64(0)
	}
	for _, x := range items {
		st.work(1)
		total = arithmetic("+", total, x)
	}
	return total
}

func extreme(st *state, v any, sign int) any {
	items := st.items(v)
	if len(items) == 0 {
		return undefined{"extreme of nothing"}
	}
	best := items[0]
	for _, x := range items[1:] {
		if st.compare(folded(x), folded(best), 0)*sign > 0 {
			best = x
		}
	}
	return best
}

func reverse(st *state, v any, _ args) any {
	items := st.items(v)
	st.work(len(items))
	out := make([]any, len(items))
	for i, x := range items {
		out[len(items)-1-i] = x
	}
	if _, ok := v.(text); ok {
		return join(st, out, text{})
	}
	return &list{items: out}
}

// folded is what sort compares by: case does not matter.
func folded(v any) any {
	if t, ok := v.(text); ok {
		return plain(strings.ToLower(t.s))
	}
	return v
}

// sort finds the stable order of n things by their keys.
func (st *state) sort(n int, key func(i int) any, done func(order []int), descending bool) {
	order := make([]int, n)
	keys := make([]any, n)
	for i := range order {
		st.work(1)
		order[i], keys[i] = i, key(i)
	}
	sort.SliceStable(order, func(i, j int) bool {
		if descending {
			i, j = j, i
		}
		return st.compare(keys[order[i]], keys[order[j]], 0) < 0
	})
	done(order)
}

func permuted(items []any, order []int) []any {
	out := make([]any, len(items))
	for i, at := range order {
		out[i] = items[at]
	}
	return out
}

func sorted(st *state, v any, a args) any {
	a.atMost("sort", "reverse", "case_sensitive", "attribute")
	items := st.items(v)
	keys := items
	if v, ok := a.get(2, "attribute"); ok && v != nil {
		keys = mapped(st, items, a.attribute(2))
	}
	exact := a.bool(1, "case_sensitive", false)
	out := &list{}
	st.sort(len(items), func(i int) any {
		if exact {
			return keys[i]
		}
		return folded(keys[i])
	}, func(order []int) { out.items = permuted(items, order) }, a.bool(0, "reverse", false))
	return out
}

func unique(st *state, v any, a args) any {
	exact := a.bool(0, "case_sensitive", false)
	items := st.items(v)
	keys := items
	if _, ok := a.get(1, "attribute"); ok {
		keys = mapped(st, items, a.attribute(1))
	}
	out, seen := &list{}, map[string]bool{}
	for i, x := range items {
		k := keys[i]
		if !exact {
			k = folded(k)
		}
		h, ok := hashKey(k)
		if !ok {
			panic(fail("unique of %s", typeName(k)))
		}
		st.work(1)
		if !seen[h] {
			seen[h] = true
			out.items = append(out.items, x)
		}
	}
	return out
}

// indent puts spaces in front of lines; empty ones and the first stay.
func indent(st *state, v any, a args) any {
	a.atMost("indent", "width", "first", "blank")
	width := plain("    ")
	if w, ok := a.get(0, "width"); ok {
		if t, ok := w.(text); ok {
			width = t
		} else {
			width = plain(strings.Repeat(" ", int(min(max(a.int(0, "width", 4), 0), 1000))))
		}
	}
	lines := st.str(v).split("\n", -1)
	st.product(int64(len(width.s)+1), int64(len(lines)))
	var b builder
	for i, line := range lines {
		if i > 0 {
			b.addString("\n")
		}
		if i > 0 && (line.s != "" || a.bool(2, "blank", false)) || i == 0 && a.bool(1, "first", false) {
			b.add(width)
		}
		b.add(line)
	}
	st.made(b.len())
	return b.text()
}

// attribute is the argument that says what of an item counts: names with dots
// between them, or a number.
func (a *args) attribute(i int) func(st *state, v any) any {
	v, _ := a.get(i, "attribute")
	if n, ok := integer(v); ok {
		return func(st *state, v any) any { return st.item(v, n) }
	}
	t, ok := v.(text)
	if !ok {
		panic(fail("attribute is %s, must be a name", describe(v)))
	}
	path := strings.Split(t.s, ".")
	return func(st *state, v any) any {
		for _, name := range path {
			var key any = plain(name)
			if n, err := strconv.ParseInt(name, 10, 64); err == nil {
				key = n
			}
			v = st.item(v, key)
		}
		return v
	}
}

func mapped(st *state, items []any, f func(st *state, v any) any) []any {
	out := make([]any, len(items))
	for i, x := range items {
		st.work(1)
		out[i] = f(st, x)
	}
	return out
}

func mapFilter(st *state, v any, a args) any {
	items := st.items(v)
	if len(a.pos) == 0 {
		get := a.attribute(0)
		missing, ok := a.get(1, "default")
		return &list{items: mapped(st, items, func(st *state, v any) any {
			v = get(st, v)
			if _, undef := v.(undefined); undef && ok {
				return missing
			}
			return v
		})}
	}
	name := a.text(0, "filter", text{}).s
	f := st.filters[name]
	if f == nil {
		panic(fail("filter %.40q is not supported", name))
	}
	rest := args{a.pos[1:], a.names, a.named}
	return &list{items: mapped(st, items, func(st *state, v any) any {
		return f(st, v, args{append([]any(nil), rest.pos...), rest.names, rest.named})
	})}
}

// chosen is select and its relatives; with attrs 1 the first argument says what
// of an item the test is on.
func chosen(st *state, v any, a args, attrs int, want bool) any {
	get := func(_ *state, v any) any { return v }
	if attrs == 1 {
		get = a.attribute(0)
	}
	holds := func(_ *state, v any, _ args) bool { return truthy(v) }
	var rest args
	if len(a.pos) > attrs {
		name := a.text(attrs, "test", text{}).s
		if holds = st.tests[name]; holds == nil {
			panic(fail("test %.40q is not supported", name))
		}
		rest = args{a.pos[attrs+1:], a.names, a.named}
	}
	out := &list{}
	for _, x := range st.items(v) {
		st.work(1)
		if holds(st, get(st, x), rest) == want {
			out.items = append(out.items, x)
		}
	}
	return out
}

func groupBy(st *state, v any, a args) any {
	items := st.items(v)
	keys := mapped(st, items, a.attribute(0))
	out := &list{}
	st.sort(len(items), func(i int) any { return folded(keys[i]) }, func(order []int) {
		for _, i := range order {
			if n := len(out.items); n > 0 {
				last := out.items[n-1].(*list)
				if st.equal(folded(last.items[0]), folded(keys[i]), 0) {
					group := last.items[1].(*list)
					group.items = append(group.items, items[i])
					continue
				}
			}
			out.items = append(out.items, &list{[]any{keys[i], &list{items: []any{items[i]}}}, true})
		}
	}, false)
	return out
}

// tests are what can follow "is".
var tests = map[string]test{
	"defined":   func(_ *state, v any, _ args) bool { _, undef := v.(undefined); return !undef },
	"undefined": func(_ *state, v any, _ args) bool { _, undef := v.(undefined); return undef },
	"none":      func(_ *state, v any, _ args) bool { return v == nil },
	"string":    func(_ *state, v any, _ args) bool { _, ok := v.(text); return ok },
	"number":    func(_ *state, v any, _ args) bool { _, _, ok := number(v); return ok },
	"integer":   func(_ *state, v any, _ args) bool { _, ok := v.(int64); return ok },
	"float":     func(_ *state, v any, _ args) bool { _, ok := v.(float64); return ok },
	"boolean":   func(_ *state, v any, _ args) bool { _, ok := v.(bool); return ok },
	"true":      func(_ *state, v any, _ args) bool { return v == true },
	"false":     func(_ *state, v any, _ args) bool { return v == false },
	"mapping":   func(_ *state, v any, _ args) bool { _, ok := v.(*dict); return ok },
	"iterable":  func(_ *state, v any, _ args) bool { _, ok := length(v); return ok },
	"sequence":  func(_ *state, v any, _ args) bool { _, ok := length(v); return ok },
	"callable":  func(_ *state, v any, _ args) bool { _, ok := v.(*function); return ok },
	"odd":       func(_ *state, v any, _ args) bool { return remainder(v, 2) != 0 },
	"even":      func(_ *state, v any, _ args) bool { return remainder(v, 2) == 0 },
	"divisibleby": func(_ *state, v any, a args) bool {
		n := a.int(0, "num", 0)
		if n == 0 {
			panic(fail("division by zero"))
		}
		return remainder(v, n) == 0
	},
	"lower": func(st *state, v any, _ args) bool { return truthy(textMethods["islower"](st, st.str(v), args{})) },
	"upper": func(st *state, v any, _ args) bool { return truthy(textMethods["isupper"](st, st.str(v), args{})) },
	"in":    func(st *state, v any, a args) bool { in, _ := a.get(0, "seq"); return st.contains(in, v) },
	"sameas": func(_ *state, v any, a args) bool {
		other, _ := a.get(0, "other")
		switch v.(type) {
		case nil, bool, int64:
			return v == other
		}
		panic(fail("sameas is known for none, booleans and integers only"))
	},
	"eq": comparing("=="), "equalto": comparing("=="), "ne": comparing("!="),
	"lt": comparing("<"), "lessthan": comparing("<"), "le": comparing("<="),
	"gt": comparing(">"), "greaterthan": comparing(">"), "ge": comparing(">="),
}

func comparing(op string) test {
	return func(st *state, v any, a args) bool {
		other, _ := a.get(0, "other")
		return st.holds(op, v, other)
	}
}

func remainder(v any, by int64) int64 {
	n, ok := integer(v)
	if !ok {
		panic(fail("%s has no remainder", describe(v)))
	}
	return n % by
}
