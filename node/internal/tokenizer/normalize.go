package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes a text before it is cut into pieces. nil changes nothing.
type normalizer func(string) string

// maxDepth bounds sequences within sequences.
const maxDepth = 8

func parseNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
	kind, err := kindOf(raw, depth)
	if err != nil || kind == "" {
		return nil, err
	}
	switch kind {
	case "NFC":
		return norm.NFC.String, strict(raw, &struct{ header }{})
	case "NFD":
		return norm.NFD.String, strict(raw, &struct{ header }{})
	case "NFKC":
		return norm.NFKC.String, strict(raw, &struct{ header }{})
	case "NFKD":
		return norm.NFKD.String, strict(raw, &struct{ header }{})
	case "Prepend":
		var v struct {
			header
			Prepend string `json:"prepend"`
		}
		err := strict(raw, &v)
		return func(s string) string {
			if s == "" {
				return s
			}
			return v.Prepend + s
		}, err
	case "Replace":
		from, to, err := parseReplace(raw)
		return func(s string) string { return strings.ReplaceAll(s, from, to) }, err
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
		return func(s string) string {
			for _, n := range list {
				s = n(s)
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

func parseReplace(raw json.RawMessage) (from, to string, err error) {
	var v struct {
		header
		Pattern textPattern `json:"pattern"`
		Content string      `json:"content"`
	}
	if err := strict(raw, &v); err != nil {
		return "", "", err
	}
	switch {
	case v.Pattern.Regex != nil:
		return "", "", fmt.Errorf("%w: Replace with the expression %q", ErrUnsupported, *v.Pattern.Regex)
	case v.Pattern.String == nil || *v.Pattern.String == "":
		return "", "", fmt.Errorf("Replace has no text to look for")
	}
	return *v.Pattern.String, v.Content, nil
}
