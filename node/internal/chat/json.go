package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parseValue reads JSON as Python does: members keep their order, numbers
// without a point are integers. by is who wrote it.
func parseValue(raw []byte, by origin) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := decodeValue(d, by, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the value")
	}
	return v, nil
}

func decodeValue(d *json.Decoder, by origin, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case string:
		return written(t, by), nil
	case json.Number:
		return parseNumber(string(t))
	case json.Delim:
		if t == '[' {
			return decodeList(d, by, depth)
		}
		return decodeDict(d, by, depth)
	}
	return t, nil // nil, bool
}

func parseNumber(s string) (any, error) {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i, nil
		}
	}
	return strconv.ParseFloat(s, 64)
}

func decodeList(d *json.Decoder, by origin, depth int) (any, error) {
	l := &list{}
	for d.More() {
		v, err := decodeValue(d, by, depth+1)
		if err != nil {
			return nil, err
		}
		l.items = append(l.items, v)
	}
	_, err := d.Token()
	return l, err
}

func decodeDict(d *json.Decoder, by origin, depth int) (any, error) {
	m := newDict(0)
	for d.More() {
		k, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := k.(string) // the decoder lets nothing else stand there
		v, err := decodeValue(d, by, depth+1)
		if err != nil {
			return nil, err
		}
		m.set(written(key, by), v)
	}
	_, err := d.Token()
	return m, err
}

// jsonStyle is how tojson writes.
type jsonStyle struct {
	indent   string // "" and not lines: on one line
	lines    bool
	comma    string
	colon    string
	ascii    bool
	sortKeys bool
}

// json writes v as Python's json.dumps.
func (st *state) json(b *builder, v any, s *jsonStyle, depth int) {
	st.work(1)
	st.deep(depth)
	switch v := v.(type) {
	case nil:
		b.addString("null")
	case bool:
		b.addString(strconv.FormatBool(v))
	case int64:
		b.addString(strconv.FormatInt(v, 10))
	case float64:
		b.addString(jsonFloat(v))
	case text:
		st.touch(len(v.s))
		b.add(v.like(jsonString(v.s, s.ascii)))
	case *list:
		st.jsonItems(b, s, depth, "[", "]", len(v.items), func(i int) {
			st.json(b, v.items[i], s, depth+1)
		})
	case *dict:
		order := make([]int, len(v.keys))
		for i := range order {
			order[i] = i
		}
		if s.sortKeys {
			st.sort(len(order), func(i int) any { return v.keys[order[i]] }, func(to []int) {
				order = to
			}, false)
		}
		st.jsonItems(b, s, depth, "{", "}", len(v.keys), func(i int) {
			i = order[i]
			st.jsonKey(b, v.keys[i], s)
			b.addString(s.colon)
			st.json(b, v.values[i], s, depth+1)
		})
	default:
		panic(fail("%s cannot be written as JSON", describe(v)))
	}
	st.size(b.len())
}

func (st *state) jsonKey(b *builder, k any, s *jsonStyle) {
	switch k := k.(type) {
	case text:
		st.touch(len(k.s))
		b.add(k.like(jsonString(k.s, s.ascii)))
	case nil, bool, int64, float64:
		b.addString(`"`)
		st.json(b, k, s, 0)
		b.addString(`"`)
	default:
		panic(fail("%s cannot be a key in JSON", typeName(k)))
	}
}

func (st *state) jsonItems(b *builder, s *jsonStyle, depth int, open, end string, n int, item func(i int)) {
	b.addString(open)
	if n == 0 {
		b.addString(end)
		return
	}
	line := func(depth int) {
		if s.lines {
			st.product(int64(len(s.indent)), int64(depth))
			b.addString("\n" + strings.Repeat(s.indent, depth))
		}
	}
	for i := range n {
		if i > 0 {
			b.addString(s.comma)
		}
		line(depth + 1)
		item(i)
	}
	line(depth)
	b.addString(end)
}

func jsonFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case math.IsNaN(f):
		return "NaN"
	}
	return formatFloat(f)
}

func jsonString(s string, ascii bool) string {
	b := append(make([]byte, 0, len(s)+2), '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r < 0x20 || ascii && r >= 0x7F && r < 0x10000:
			if r == 0x7F {
				b = append(b, 0x7F)
				continue
			}
			b = fmt.Appendf(b, `\u%04x`, r)
		case ascii && r >= 0x10000:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, '"'))
}
