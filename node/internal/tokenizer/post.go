package tokenizer

import (
	"encoding/json"
	"fmt"
)

// template is what a post-processor puts around a single text.
type template struct {
	prefix, suffix []int32
	set            bool
}

func (t *template) parse(raw json.RawMessage, depth int) error {
	kind, err := kindOf(raw, depth)
	if err != nil || kind == "" {
		return err
	}
	switch kind {
	case "ByteLevel": // changes offsets only
		return strict(raw, &byteLevelSettings{})
	case "Sequence":
		var v struct {
			header
			Processors []json.RawMessage `json:"processors"`
		}
		if err := strict(raw, &v); err != nil {
			return err
		}
		for _, r := range v.Processors {
			if err := t.parse(r, depth+1); err != nil {
				return err
			}
		}
		return nil
	case "RobertaProcessing", "BertProcessing":
		var v struct {
			header
			Sep         tokenPair `json:"sep"`
			Cls         tokenPair `json:"cls"`
			TrimOffsets *bool     `json:"trim_offsets"`
			AddPrefix   *bool     `json:"add_prefix_space"`
		}
		if t.set {
			return fmt.Errorf("%w: two templates", ErrUnsupported)
		}
		t.set = true
		err := strict(raw, &v)
		t.prefix, t.suffix = []int32{v.Cls.id}, []int32{v.Sep.id}
		return err
	case "TemplateProcessing":
		if t.set {
			return fmt.Errorf("%w: two TemplateProcessing", ErrUnsupported)
		}
		t.set = true
		return t.parseTemplate(raw)
	}
	return fmt.Errorf("%w: post-processor %q", ErrUnsupported, kind)
}

// tokenPair is written as a list of a token's text and its number.
type tokenPair struct{ id int32 }

// UnmarshalJSON reads the list.
func (p *tokenPair) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) != 2 {
		return fmt.Errorf("a token of %d values", len(list))
	}
	return json.Unmarshal(list[1], &p.id)
}

// templatePart is a special token, or the place of the text.
type templatePart struct {
	SpecialToken *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"Sequence"`
}

func (t *template) parseTemplate(raw json.RawMessage) error {
	var v struct {
		header
		Single  []templatePart `json:"single"`
		Pair    []templatePart `json:"pair"` // for two texts, which is not done here
		Special map[string]struct {
			ID     string   `json:"id"`
			IDs    []int32  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := strict(raw, &v); err != nil {
		return err
	}
	text := false
	for _, p := range v.Single {
		switch {
		case p.Sequence != nil && p.SpecialToken == nil:
			if text || p.Sequence.ID != "A" {
				return fmt.Errorf("TemplateProcessing: a single text has sequences other than A")
			}
			text = true
		case p.SpecialToken != nil && p.Sequence == nil:
			s, ok := v.Special[p.SpecialToken.ID]
			if !ok {
				return fmt.Errorf("TemplateProcessing: special token %q is not described", p.SpecialToken.ID)
			}
			if text {
				t.suffix = append(t.suffix, s.IDs...)
			} else {
				t.prefix = append(t.prefix, s.IDs...)
			}
		default:
			return fmt.Errorf("TemplateProcessing: a part is neither a special token nor a sequence")
		}
	}
	if !text {
		return fmt.Errorf("TemplateProcessing: the text itself is missing")
	}
	return nil
}
