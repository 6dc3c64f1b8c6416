package dataset

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// Encoder makes samples of rows and tokens of prompts. Only the accessor
// Dropped depends on the calls before it.
type Encoder struct {
	// constant after NewEncoder
	tok       *tokenizer.Tokenizer
	template  Template
	maxTokens int

	dropped int
}

// NewEncoder returns an Encoder that drops samples of more than maxTokens. The
// tokenizer must have a token that ends a text.
func NewEncoder(tok *tokenizer.Tokenizer, template Template, maxTokens int) (*Encoder, error) {
	switch {
	case template != Alpaca && template != None:
		return nil, fmt.Errorf("encode rows: there is no template %d", int(template))
	case tok.EOS() < 0:
		return nil, errors.New("encode rows: the tokenizer names no eos_token, so an answer could not end")
	case maxTokens < 2:
		return nil, fmt.Errorf("encode rows: at most %d tokens in a sample, must be at least 2", maxTokens)
	}
	return &Encoder{tok: tok, template: template, maxTokens: maxTokens}, nil
}

// Encode returns the row as a sample: the tokens of EncodePrompt, then those of
// the output and EOS, which alone the loss counts. It reports false, and counts
// the row as dropped, when these are more than the greatest number of tokens.
//
// Prompt and output are turned into tokens apart, so that no token is part of
// both, and generation begins with exactly the tokens that were trained on.
// What looks like a special token in a row is ordinary text.
func (e *Encoder) Encode(row shard.Row) (train.Sample, bool) {
	ids := e.EncodePrompt(row.Instruction, row.Input)
	prompt := len(ids)
	ids = e.tok.AppendEncode(ids, row.Output, tokenizer.EncodeOptions{})
	ids = append(ids, e.tok.EOS())
	if len(ids) > e.maxTokens {
		e.dropped++
		return train.Sample{}, false
	}
	labels := slices.Clone(ids)
	for i := range max(prompt, 1) {
		labels[i] = train.NotCounted
	}
	return train.Sample{IDs: ids, Labels: labels}, true
}

// EncodePrompt returns the tokens that an answer continues, beginning with
// what the model expects at the beginning of a text. Their number is not
// bounded.
func (e *Encoder) EncodePrompt(instruction, input string) []int32 {
	text := e.template.Prompt(instruction, input)
	bare := e.tok.Encode(text, tokenizer.EncodeOptions{})
	ids := e.tok.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	// Some tokenizers also add tokens after a text; here it goes on.
	for start := range len(ids) - len(bare) + 1 {
		if slices.Equal(ids[start:start+len(bare)], bare) {
			return ids[:start+len(bare)]
		}
	}
	return ids
}

// Decode returns the text of an answer's tokens.
func (e *Encoder) Decode(ids []int32) string { return e.tok.Decode(ids, true) }

// Stop lists the tokens that end an answer. The caller must not change it.
func (e *Encoder) Stop() []int32 { return e.tok.Stop() }

// Dropped returns how many rows Encode has dropped, a row as often as it was
// given.
func (e *Encoder) Dropped() int { return e.dropped }
