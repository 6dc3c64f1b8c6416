package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// preTokenizer cuts a piece of text into smaller ones. first is true for the
// piece at the beginning of the whole text.
type preTokenizer func(s string, first bool, yield func(string))

// byteLevelSettings are those of a pre-tokenizer, a decoder or a
// post-processor of type ByteLevel. Offsets are not what this package returns.
type byteLevelSettings struct {
	header
	AddPrefixSpace *bool `json:"add_prefix_space"`
	TrimOffsets    *bool `json:"trim_offsets"`
	UseRegex       *bool `json:"use_regex"`
}

func isTrue(b *bool) bool { return b == nil || *b }

// parsePreTokenizer returns the steps, and whether they end with bytes being
// written in the byte-level alphabet. Here that is implied: no text is ever
// rewritten, the vocabulary is read as bytes instead. So nothing may follow.
func parsePreTokenizer(raw json.RawMessage, depth int) (steps []preTokenizer, bytes bool, err error) {
	kind, err := kindOf(raw, depth)
	if err != nil || kind == "" {
		return nil, false, err
	}
	switch kind {
	case "Sequence":
		var v struct {
			header
			PreTokenizers []json.RawMessage `json:"pretokenizers"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, false, err
		}
		for _, r := range v.PreTokenizers {
			if bytes {
				return nil, false, fmt.Errorf("%w: a pre-tokenizer after ByteLevel", ErrUnsupported)
			}
			more, b, err := parsePreTokenizer(r, depth+1)
			if err != nil {
				return nil, false, err
			}
			steps, bytes = append(steps, more...), b
		}
		return steps, bytes, nil
	case "ByteLevel":
		var v byteLevelSettings
		if err := strict(raw, &v); err != nil {
			return nil, false, err
		}
		if isTrue(v.AddPrefixSpace) {
			steps = append(steps, prefixSpace)
		}
		if isTrue(v.UseRegex) {
			steps = append(steps, pattern{}.cut)
		}
		return steps, true, nil
	case "Split":
		step, err := parseSplit(raw)
		return []preTokenizer{step}, false, err
	case "Metaspace":
		m, err := parseMetaspace(raw)
		if err != nil {
			return nil, false, err
		}
		return []preTokenizer{m.cut}, false, nil
	}
	return nil, false, fmt.Errorf("%w: pre-tokenizer %q", ErrUnsupported, kind)
}

func prefixSpace(s string, _ bool, yield func(string)) {
	if !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	yield(s)
}

// cut yields the pieces of s.
func (p pattern) cut(s string, _ bool, yield func(string)) {
	for len(s) > 0 {
		n := p.next(s)
		yield(s[:n])
		s = s[n:]
	}
}

func parseSplit(raw json.RawMessage) (preTokenizer, error) {
	var v struct {
		header
		Pattern  textPattern `json:"pattern"`
		Behavior string      `json:"behavior"`
		Invert   bool        `json:"invert"`
	}
	if err := strict(raw, &v); err != nil {
		return nil, err
	}
	if v.Pattern.Regex == nil {
		return nil, fmt.Errorf("%w: Split at a text", ErrUnsupported)
	}
	p, ok := patterns(*v.Pattern.Regex)
	if !ok {
		return nil, fmt.Errorf("%w: Split with the expression %q", ErrUnsupported, *v.Pattern.Regex)
	}
	// These expressions match every character, so that what is between the
	// matches is empty and most behaviours are the same.
	isolated := v.Behavior == "Isolated" && !v.Invert || v.Behavior == "Removed" && v.Invert
	if !isolated {
		return nil, fmt.Errorf("%w: Split with behavior %q and invert %t", ErrUnsupported, v.Behavior, v.Invert)
	}
	return p.cut, nil
}

// metaspace writes spaces as a visible character, and puts one in front.
type metaspace struct {
	replacement string
	always      bool // in front of each piece between added tokens
	never       bool
	split       bool
}

func parseMetaspace(raw json.RawMessage) (metaspace, error) {
	var v struct {
		header
		Replacement    string  `json:"replacement"`
		AddPrefixSpace *bool   `json:"add_prefix_space"` // before there were schemes
		PrependScheme  *string `json:"prepend_scheme"`
		StrRep         string  `json:"str_rep"` // an old copy of replacement
		Split          *bool   `json:"split"`
	}
	if err := strict(raw, &v); err != nil {
		return metaspace{}, err
	}
	if len([]rune(v.Replacement)) != 1 {
		return metaspace{}, fmt.Errorf("Metaspace replacement is %q, must be one character", v.Replacement)
	}
	m := metaspace{replacement: v.Replacement, split: isTrue(v.Split)}
	scheme := "always"
	if v.PrependScheme != nil {
		scheme = *v.PrependScheme
	}
	if v.AddPrefixSpace != nil && !*v.AddPrefixSpace {
		if v.PrependScheme != nil && scheme != "never" {
			return metaspace{}, fmt.Errorf("Metaspace has add_prefix_space false and prepend_scheme %q", scheme)
		}
		scheme = "never"
	}
	switch scheme {
	case "always":
		m.always = true
	case "never":
		m.never = true
	case "first":
	default:
		return metaspace{}, fmt.Errorf("%w: Metaspace prepend_scheme %q", ErrUnsupported, scheme)
	}
	return m, nil
}

func (m metaspace) cut(s string, first bool, yield func(string)) {
	s = strings.ReplaceAll(s, " ", m.replacement)
	if (m.always || first && !m.never) && !strings.HasPrefix(s, m.replacement) {
		s = m.replacement + s
	}
	for m.split && s != "" {
		_, size := utf8.DecodeRuneInString(s)
		next := strings.Index(s[size:], m.replacement)
		if next < 0 {
			break
		}
		yield(s[:size+next])
		s = s[size+next:]
	}
	if s != "" {
		yield(s)
	}
}
