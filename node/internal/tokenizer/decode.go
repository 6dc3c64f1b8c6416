package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// decodeStep rewrites the list of tokens that are to be joined.
type decodeStep func(tokens []string) []string

// parseDecoder returns the steps that make a text of tokens.
func parseDecoder(raw json.RawMessage, depth int) ([]decodeStep, error) {
	kind, err := kindOf(raw, depth)
	if err != nil || kind == "" {
		return nil, err
	}
	switch kind {
	case "Sequence":
		var v struct {
			header
			Decoders []json.RawMessage `json:"decoders"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, err
		}
		var steps []decodeStep
		for _, r := range v.Decoders {
			more, err := parseDecoder(r, depth+1)
			if err != nil {
				return nil, err
			}
			steps = append(steps, more...)
		}
		return steps, nil
	case "ByteLevel":
		return []decodeStep{decodeByteLevel(newByteLevel())}, strict(raw, &byteLevelSettings{})
	case "ByteFallback":
		return []decodeStep{decodeByteFallback}, strict(raw, &struct{ header }{})
	case "Fuse":
		return []decodeStep{fuse}, strict(raw, &struct{ header }{})
	case "Replace":
		replace, err := parseReplace(raw)
		return []decodeStep{each(replace)}, err
	case "Strip":
		var v struct {
			header
			Content string `json:"content"`
			Start   int    `json:"start"`
			Stop    int    `json:"stop"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, err
		}
		if utf8.RuneCountInString(v.Content) != 1 {
			return nil, fmt.Errorf("content of Strip is %q, must be one character", v.Content)
		}
		return []decodeStep{each(func(s string) string {
			for i := 0; i < v.Start && strings.HasPrefix(s, v.Content); i++ {
				s = s[len(v.Content):]
			}
			for i := 0; i < v.Stop && strings.HasSuffix(s, v.Content); i++ {
				s = s[:len(s)-len(v.Content)]
			}
			return s
		})}, nil
	case "Metaspace":
		m, err := parseMetaspace(raw)
		if err != nil {
			return nil, err
		}
		return []decodeStep{m.decode}, nil
	}
	return nil, fmt.Errorf("%w: decoder %q", ErrUnsupported, kind)
}

// each applies f to every token.
func each(f func(string) string) decodeStep {
	return func(tokens []string) []string {
		for i, s := range tokens {
			tokens[i] = f(s)
		}
		return tokens
	}
}

func fuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// decodeByteLevel joins the bytes that the tokens stand for. A token that is
// not in the alphabet stands for itself.
func decodeByteLevel(a *byteLevel) decodeStep {
	return func(tokens []string) []string {
		var b strings.Builder
		for _, s := range tokens {
			if raw, ok := a.bytes(s); ok {
				s = raw
			}
			b.WriteString(s)
		}
		return []string{lossy(b.String())}
	}
}

// byteToken returns the byte of a token such as <0x0A>.
func byteToken(s string) (byte, bool) {
	if len(s) != 6 || s[:3] != "<0x" || s[5] != '>' {
		return 0, false
	}
	v := 0
	for _, c := range []byte(s[3:5]) {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | int(c-'0')
		case c >= 'A' && c <= 'F':
			v = v<<4 | int(c-'A'+10)
		case c >= 'a' && c <= 'f':
			v = v<<4 | int(c-'a'+10)
		default:
			return 0, false
		}
	}
	return byte(v), true
}

// decodeByteFallback makes characters of runs of byte tokens. A run that is
// not UTF-8 as a whole becomes one replacement character per byte.
func decodeByteFallback(tokens []string) []string {
	out := make([]string, 0, len(tokens))
	var bytes []byte
	flush := func() {
		switch {
		case len(bytes) == 0:
		case utf8.Valid(bytes):
			out = append(out, string(bytes))
		default:
			for range bytes {
				out = append(out, string(utf8.RuneError))
			}
		}
		bytes = bytes[:0]
	}
	for _, s := range tokens {
		if b, ok := byteToken(s); ok {
			bytes = append(bytes, b)
			continue
		}
		flush()
		out = append(out, s)
	}
	flush()
	return out
}

// decode undoes cut: the space in front of the first token was not written.
func (m metaspace) decode(tokens []string) []string {
	for i, s := range tokens {
		s = strings.ReplaceAll(s, m.replacement, " ")
		if i == 0 && !m.never {
			s = strings.TrimPrefix(s, " ")
		}
		tokens[i] = s
	}
	return tokens
}
