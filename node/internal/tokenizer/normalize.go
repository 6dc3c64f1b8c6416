package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes a text before it is cut into pieces. nil changes nothing.
type normalizer func(s string, at place) string

func anywhere(f func(string) string) normalizer {
	return func(s string, _ place) string { return f(s) }
}

// maxDepth bounds sequences within sequences.
const maxDepth = 8

func parseNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
	kind, err := kindOf(raw, depth)
	if err != nil || kind == "" {
		return nil, err
	}
	switch kind {
	case "NFC":
		return anywhere(norm.NFC.String), strict(raw, &struct{ header }{})
	case "NFD":
		return anywhere(norm.NFD.String), strict(raw, &struct{ header }{})
	case "NFKC":
		return anywhere(norm.NFKC.String), strict(raw, &struct{ header }{})
	case "NFKD":
		return anywhere(norm.NFKD.String), strict(raw, &struct{ header }{})
	case "Prepend":
		var v struct {
			header
			Prepend string `json:"prepend"`
		}
		err := strict(raw, &v)
		return func(s string, at place) string {
			if s == "" || at == continued {
				return s
			}
			return v.Prepend + s
		}, err
	case "Lowercase":
		return anywhere(lowercase), strict(raw, &struct{ header }{})
	case "StripAccents":
		return anywhere(func(s string) string {
			return strings.Map(func(r rune) rune {
				if unicode.Is(unicode.Mn, r) {
					return -1
				}
				return r
			}, s)
		}), strict(raw, &struct{ header }{})
	case "Strip":
		var v struct {
			header
			Left  bool `json:"strip_left"`
			Right bool `json:"strip_right"`
		}
		err := strict(raw, &v)
		return func(s string, at place) string {
			if v.Left && at != continued {
				s = strings.TrimLeftFunc(s, unicode.IsSpace)
			}
			if v.Right {
				s = strings.TrimRightFunc(s, unicode.IsSpace)
			}
			return s
		}, err
	case "Precompiled":
		var v struct {
			header
			Map []byte `json:"precompiled_charsmap"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, err
		}
		m, err := parseCharsMap(v.Map)
		if err != nil || m == nil {
			return nil, err
		}
		return anywhere(m.clusters), nil
	case "Replace":
		replace, err := parseReplace(raw)
		return anywhere(replace), err
	case "Sequence":
		var v struct {
			header
			Normalizers []json.RawMessage `json:"normalizers"`
		}
		if err := strict(raw, &v); err != nil {
			return nil, err
		}
		var list []normalizer
		for _, r := range v.Normalizers {
			n, err := parseNormalizer(r, depth+1)
			if err != nil {
				return nil, err
			}
			if n != nil {
				list = append(list, n)
			}
		}
		return func(s string, at place) string {
			for _, n := range list {
				s = n(s, at)
			}
			return s
		}, nil
	}
	return nil, fmt.Errorf("%w: normalizer %q", ErrUnsupported, kind)
}

// textPattern is what Replace and Split look for: a text, or a regular
// expression.
type textPattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

// lowercase maps each character by itself; one of them becomes two.
func lowercase(s string) string {
	return strings.ToLower(strings.ReplaceAll(s, "\u0130", "i\u0307"))
}

// parseReplace returns what replaces in a text.
func parseReplace(raw json.RawMessage) (func(string) string, error) {
	var v struct {
		header
		Pattern textPattern `json:"pattern"`
		Content string      `json:"content"`
	}
	if err := strict(raw, &v); err != nil {
		return nil, err
	}
	if v.Pattern.Regex != nil {
		e, err := compile(*v.Pattern.Regex)
		if err != nil {
			return nil, err
		}
		return func(s string) string {
			var b strings.Builder
			e.each(s, func(part string, matches bool) {
				if matches {
					part = v.Content
				}
				b.WriteString(part)
			})
			return b.String()
		}, nil
	}
	if v.Pattern.String == nil || *v.Pattern.String == "" {
		return nil, errors.New("nothing to look for in Replace")
	}
	return func(s string) string { return strings.ReplaceAll(s, *v.Pattern.String, v.Content) }, nil
}
