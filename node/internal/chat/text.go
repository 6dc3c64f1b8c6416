package chat

import (
	"slices"
	"strings"
)

// origin says who wrote a byte: the template (0), the conversation's message of
// that number (from 1), or somebody else (-1).
type origin int32

const (
	byTemplate origin = 0
	byOther    origin = -1
)

// text is a string that knows who wrote it. All that templates do to strings
// keeps that, so that in what is rendered the words of a user can be told from
// those of the template.
type text struct {
	s    string
	runs []run // ascending, the last ends at len(s); nil: all is the template's
}

// run is a part of a text, up to end, by one writer.
type run struct {
	end int
	by  origin
}

func plain(s string) text { return text{s: s} }

func written(s string, by origin) text {
	if by == byTemplate || s == "" {
		return text{s: s}
	}
	return text{s, []run{{len(s), by}}}
}

// slice returns t[begin:end].
func (t text) slice(begin, end int) text {
	if begin >= end {
		return text{}
	}
	if begin == 0 && end == len(t.s) || t.runs == nil {
		return text{t.s[begin:end], t.runs}
	}
	var runs []run
	first, _ := slices.BinarySearchFunc(t.runs, begin+1, func(r run, at int) int { return r.end - at })
	for _, r := range t.runs[first:] {
		runs = append(runs, run{min(r.end, end) - begin, r.by})
		if r.end >= end {
			break
		}
	}
	return text{t.s[begin:end], runs}
}

// writer returns who wrote t, as far as that is not the template: the first
// one if there are several.
func (t text) writer() origin {
	for _, r := range t.runs {
		if r.by != byTemplate {
			return r.by
		}
	}
	return byTemplate
}

// like returns s as written by the writer of t: what was made of t as a whole.
func (t text) like(s string) text { return written(s, t.writer()) }

// builder makes a text of parts.
type builder struct {
	b    []byte
	runs []run
}

func (b *builder) add(t text) {
	if t.s == "" {
		return
	}
	at := len(b.b)
	b.b = append(b.b, t.s...)
	if t.runs == nil {
		b.ends(len(b.b), byTemplate)
		return
	}
	for _, r := range t.runs {
		b.ends(at+r.end, r.by)
	}
}

func (b *builder) addString(s string) { b.add(text{s: s}) }

func (b *builder) ends(end int, by origin) {
	if n := len(b.runs); n > 0 && b.runs[n-1].by == by {
		b.runs[n-1].end = end
		return
	}
	b.runs = append(b.runs, run{end, by})
}

func (b *builder) len() int { return len(b.b) }

func (b *builder) text() text {
	t := text{s: string(b.b)}
	if len(b.runs) > 1 || len(b.runs) == 1 && b.runs[0].by != byTemplate {
		t.runs = slices.Clone(b.runs)
	}
	return t
}

func (t text) trimLeft(cut func(rune) bool) text {
	return t.slice(len(t.s)-len(strings.TrimLeftFunc(t.s, cut)), len(t.s))
}

func (t text) trimRight(cut func(rune) bool) text {
	return t.slice(0, len(strings.TrimRightFunc(t.s, cut)))
}

// split cuts t at sep, at most n times when n is not negative.
func (t text) split(sep string, n int) []text {
	var out []text
	at := 0
	for n != 0 {
		i := strings.Index(t.s[at:], sep)
		if i < 0 {
			break
		}
		out = append(out, t.slice(at, at+i))
		at += i + len(sep)
		n--
	}
	return append(out, t.slice(at, len(t.s)))
}

// rsplit is split from the end.
func (t text) rsplit(sep string, n int) []text {
	var out []text
	end := len(t.s)
	for n != 0 {
		i := strings.LastIndex(t.s[:end], sep)
		if i < 0 {
			break
		}
		out = append(out, t.slice(i+len(sep), end))
		end = i
		n--
	}
	out = append(out, t.slice(0, end))
	slices.Reverse(out)
	return out
}

// fields cuts t at white space, at most n times when n is not negative.
func (t text) fields(n int) []text {
	var out []text
	t = t.trimLeft(isSpace)
	for t.s != "" {
		end := strings.IndexFunc(t.s, isSpace)
		if n == 0 || end < 0 {
			end = len(t.s)
		}
		out = append(out, t.slice(0, end))
		t = t.slice(end, len(t.s)).trimLeft(isSpace)
		n--
	}
	return out
}

// replace puts to where from is, at most n times when n is not negative. An
// empty from is before each character and at the end.
func (t text) replace(from string, to text, n int) text {
	if n == 0 {
		return t
	}
	var b builder
	at := 0
	if from == "" {
		for i := range t.s {
			if n == 0 {
				break
			}
			b.add(t.slice(at, i))
			b.add(to)
			at = i
			n--
		}
		b.add(t.slice(at, len(t.s)))
		if n != 0 {
			b.add(to)
		}
		return b.text()
	}
	for n != 0 {
		i := strings.Index(t.s[at:], from)
		if i < 0 {
			break
		}
		b.add(t.slice(at, at+i))
		b.add(to)
		at += i + len(from)
		n--
	}
	if at == 0 {
		return t
	}
	b.add(t.slice(at, len(t.s)))
	return b.text()
}
