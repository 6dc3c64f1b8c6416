package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// preTokenizer cuts a piece of text into smaller ones.
type preTokenizer func(s string, at place, yield func(string))

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
		var behind []preTokenizer
		for _, r := range v.PreTokenizers {
			more, b, err := parsePreTokenizer(r, depth+1)
			switch {
			case err != nil:
				return nil, false, err
			case bytes && b:
				return nil, false, fmt.Errorf("%w: two ByteLevel", ErrUnsupported)
			case bytes:
				behind = append(behind, more...)
			default:
				steps, bytes = append(steps, more...), b
			}
		}
		if len(behind) > 0 {
			steps = append(steps, alphabetical(newByteLevel(), behind))
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
	case "Punctuation":
		var v struct {
			header
			Behavior string `json:"behavior"`
		}
		v.Behavior = "Isolated"
		if err := strict(raw, &v); err != nil {
			return nil, false, err
		}
		p := &splitter{find: findRunes(isPunctuation), behavior: v.Behavior}
		return []preTokenizer{p.cut}, false, p.check()
	case "Digits":
		var v struct {
			header
			Individual bool `json:"individual_digits"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, false, err
		}
		p := &splitter{find: findRunes(unicode.IsNumber), behavior: "Contiguous"}
		if v.Individual {
			p.behavior = "Isolated"
		}
		return []preTokenizer{p.cut}, false, nil
	case "Whitespace":
		e, err := compile(`\w+|[^\w\s]+`)
		if err != nil {
			return nil, false, err
		}
		p := &splitter{find: e.each, behavior: "Removed", invert: true}
		return []preTokenizer{p.cut}, false, strict(raw, &struct{ header }{})
	case "WhitespaceSplit":
		p := &splitter{find: findRunes(unicode.IsSpace), behavior: "Removed"}
		return []preTokenizer{p.cut}, false, strict(raw, &struct{ header }{})
	case "Metaspace":
		m, err := parseMetaspace(raw)
		if err != nil {
			return nil, false, err
		}
		return []preTokenizer{m.cut}, false, nil
	}
	return nil, false, fmt.Errorf("%w: pre-tokenizer %q", ErrUnsupported, kind)
}

func prefixSpace(s string, at place, yield func(string)) {
	if at != continued && !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	yield(s)
}

// cut yields the pieces of s.
func (p pattern) cut(s string, _ place, yield func(string)) {
	for len(s) > 0 {
		n := p.next(s)
		yield(s[:n])
		s = s[n:]
	}
}

// splitter cuts a text at what it finds, in one of the ways that the
// tokenizers library has names for.
type splitter struct {
	find     func(s string, yield func(part string, matches bool))
	behavior string
	invert   bool // what is found is what is not
}

func (p *splitter) check() error {
	switch p.behavior {
	case "Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous":
		return nil
	}
	return fmt.Errorf("%w: Split with behavior %q", ErrUnsupported, p.behavior)
}

func (p *splitter) cut(s string, _ place, yield func(string)) {
	held := "" // a piece that may still grow
	wasMatch := false
	flush := func() {
		if held != "" {
			yield(held)
		}
		held = ""
	}
	end := 0
	p.find(s, func(part string, matches bool) {
		begin := end
		end += len(part)
		matches = matches != p.invert
		grows := false
		switch p.behavior {
		case "Removed":
			flush()
			if matches {
				return
			}
		case "MergedWithPrevious":
			grows = matches && !wasMatch
		case "MergedWithNext":
			grows = wasMatch && !matches
		case "Contiguous":
			grows = matches == wasMatch
		}
		if grows && held != "" {
			held = s[begin-len(held) : end]
		} else {
			flush()
			held = part
		}
		wasMatch = matches
	})
	flush()
}

// findText finds a text in another.
func findText(what string) func(string, func(string, bool)) {
	return func(s string, yield func(string, bool)) {
		for s != "" {
			at := strings.Index(s, what)
			if at < 0 {
				break
			}
			if at > 0 {
				yield(s[:at], false)
			}
			yield(what, true)
			s = s[at+len(what):]
		}
		if s != "" {
			yield(s, false)
		}
	}
}

// findRunes finds single characters.
func findRunes(is func(rune) bool) func(string, func(string, bool)) {
	return func(s string, yield func(string, bool)) {
		for s != "" {
			at := strings.IndexFunc(s, is)
			if at < 0 {
				yield(s, false)
				return
			}
			if at > 0 {
				yield(s[:at], false)
			}
			_, n := utf8.DecodeRuneInString(s[at:])
			yield(s[at:at+n], true)
			s = s[at+n:]
		}
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
	p := &splitter{behavior: v.Behavior, invert: v.Invert}
	switch {
	case v.Pattern.String != nil && *v.Pattern.String != "":
		p.find = findText(*v.Pattern.String)
	case v.Pattern.Regex == nil:
		return nil, errors.New("nothing to look for in Split")
	default:
		// The known expressions match every character, so that what is
		// between the matches is empty.
		known, ok := patterns(*v.Pattern.Regex)
		if ok && (v.Behavior == "Isolated" && !v.Invert || v.Behavior == "Removed" && v.Invert) {
			return known.cut, nil
		}
		e, err := compile(*v.Pattern.Regex)
		if err != nil {
			return nil, err
		}
		p.find = e.each
	}
	return p.cut, p.check()
}

// isPunctuation is that of the tokenizers library.
func isPunctuation(r rune) bool {
	return r < utf8.RuneSelf && (r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~') ||
		unicode.IsPunct(r)
}

// alphabetical applies steps to a text that is written in the byte-level
// alphabet, for pre-tokenizers that stand behind ByteLevel.
func alphabetical(a *byteLevel, steps []preTokenizer) preTokenizer {
	return func(s string, at place, yield func(string)) {
		b := make([]byte, 0, 2*len(s))
		for i := range len(s) {
			b = utf8.AppendRune(b, a.char[s[i]])
		}
		chain(string(b), at, steps, func(s string) {
			raw, _ := a.bytes(s)
			yield(raw)
		})
	}
}

func chain(s string, at place, steps []preTokenizer, yield func(string)) {
	if len(steps) == 0 {
		yield(s)
		return
	}
	steps[0](s, at, func(s string) {
		chain(s, at, steps[1:], yield)
		at = later
	})
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
		return metaspace{}, fmt.Errorf("replacement of Metaspace is %q, must be one character", v.Replacement)
	}
	m := metaspace{replacement: v.Replacement, split: isTrue(v.Split)}
	scheme := "always"
	if v.PrependScheme != nil {
		scheme = *v.PrependScheme
	}
	if v.AddPrefixSpace != nil && !*v.AddPrefixSpace {
		if v.PrependScheme != nil && scheme != "never" {
			return metaspace{}, fmt.Errorf("in Metaspace add_prefix_space is false and prepend_scheme is %q", scheme)
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

func (m metaspace) cut(s string, at place, yield func(string)) {
	s = strings.ReplaceAll(s, " ", m.replacement)
	if (m.always && at != continued || at == first && !m.never) && !strings.HasPrefix(s, m.replacement) {
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
