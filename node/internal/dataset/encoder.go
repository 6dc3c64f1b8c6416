package dataset

import (
	"errors"
	"fmt"
	"slices"

	"github.com/moot-net/moot/node/internal/chat"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// Encoder makes samples of rows and tokens of prompts. Only the accessors
// Dropped, Refused and Cut depend on the calls before them.
type Encoder struct {
	// constant after NewEncoder
	tok       *tokenizer.Tokenizer
	template  Template
	chat      *chat.Model // of Chat
	maxTokens int
	drop      bool // rows that are too long

	dropped, refused, cut int
}

// LoadEncoder returns an Encoder by the files of a model.
func LoadEncoder(modelDir string, template Template, maxTokens int) (*Encoder, error) {
	tok, err := tokenizer.Load(modelDir)
	if err != nil {
		return nil, err
	}
	if template != Chat {
		return NewEncoder(tok, template, maxTokens)
	}
	m, err := chat.Load(modelDir)
	if err != nil {
		return nil, err
	}
	return NewChatEncoder(tok, m, maxTokens)
}

// NewEncoder returns an Encoder that drops samples of more than maxTokens. The
// tokenizer must have a token that ends a text. For Chat see NewChatEncoder.
func NewEncoder(tok *tokenizer.Tokenizer, template Template, maxTokens int) (*Encoder, error) {
	switch {
	case template == Chat:
		return nil, errors.New("encode rows: the template chat needs the files of the model")
	case template != Alpaca && template != None:
		return nil, fmt.Errorf("encode rows: there is no template %d", int(template))
	}
	return checked(&Encoder{tok: tok, template: template, maxTokens: maxTokens})
}

// NewChatEncoder is NewEncoder for the chat template of a model.
func NewChatEncoder(tok *tokenizer.Tokenizer, m *chat.Model, maxTokens int) (*Encoder, error) {
	return checked(&Encoder{tok: tok, template: Chat, chat: m, maxTokens: maxTokens})
}

func checked(e *Encoder) (*Encoder, error) {
	switch {
	case e.tok.EOS() < 0:
		return nil, errors.New("encode rows: the tokenizer names no eos_token, so an answer could not end")
	case e.maxTokens < 2:
		return nil, fmt.Errorf("encode rows: at most %d tokens in a sample, must be at least 2", e.maxTokens)
	}
	return e, nil
}

// DropLong makes Encode leave out every row that is too long, instead of
// shortening those that can be shortened. It is called before all else.
func (e *Encoder) DropLong() { e.drop = true }

// Accepts reports why rows of a format cannot be encoded by this template.
func (e *Encoder) Accepts(format string) error {
	if format == shard.FormatMessages && e.template != Chat {
		return fmt.Errorf("rows of messages need the template chat, not %s", e.template)
	}
	return nil
}

// Encode returns the row as a sample. It reports false when the row gives none,
// and counts it as dropped.
//
// An instruction or prompt gives the tokens of EncodePrompt, then those of the
// output and EOS, which alone the loss counts; it is dropped when these are more
// than the greatest number of tokens. Prompt and output are turned into tokens
// apart, so that no token is part of both, and generation begins with exactly
// the tokens that were trained on.
//
// A conversation is rendered by the chat template. The loss counts what the
// assistant says, through the token that ends its turn; where the template
// writes none behind the last one, EOS stands there. Each answer begins a new
// token. Nothing follows the last of them. When it is too long the earliest
// turns behind the system prompt are left out until it fits, which is counted
// as a cut; it is dropped when the last question and answer do not fit, and
// counted as refused too when the template refuses it.
//
// A row of text is what the model expects before a text, the text and EOS, and
// the loss counts all of it. One that is too long is cut, and counted so.
//
// After DropLong nothing is shortened: what is too long is dropped.
//
// What looks like a special token in a row is ordinary text.
func (e *Encoder) Encode(row shard.Row) (train.Sample, bool) {
	s, err := e.encode(row)
	if err != nil {
		e.dropped++
		if !errors.Is(err, errTooLong) {
			e.refused++
		}
		return train.Sample{}, false
	}
	return s, true
}

// errTooLong is the error for a row that does not fit.
var errTooLong = errors.New("too long")

func (e *Encoder) tooLong(tokens int) error {
	return fmt.Errorf("%w: %d tokens, at most %d fit", errTooLong, tokens, e.maxTokens)
}

func (e *Encoder) encode(row shard.Row) (train.Sample, error) {
	switch {
	case isText(row):
		return e.encodeText(row.Output)
	case e.template == Chat:
		return e.encodeChat(messagesOf(row))
	case row.Messages != nil:
		return train.Sample{}, e.Accepts(shard.FormatMessages)
	}
	ids := e.EncodePrompt(row.Instruction, row.Input)
	prompt := len(ids)
	ids = e.tok.AppendEncode(ids, row.Output, tokenizer.EncodeOptions{})
	ids = append(ids, e.tok.EOS())
	if len(ids) > e.maxTokens {
		return train.Sample{}, e.tooLong(len(ids))
	}
	labels := slices.Clone(ids)
	for i := range max(prompt, 1) {
		labels[i] = train.NotCounted
	}
	return train.Sample{IDs: ids, Labels: labels}, nil
}

// isText reports whether a row is plain text.
func isText(row shard.Row) bool { return row.Messages == nil && row.Instruction == "" }

func (e *Encoder) encodeText(text string) (train.Sample, error) {
	ids := append(e.opening(text), e.tok.EOS())
	if len(ids) > e.maxTokens {
		if e.drop {
			return train.Sample{}, e.tooLong(len(ids))
		}
		ids = ids[:e.maxTokens:e.maxTokens]
		e.cut++
	}
	labels := slices.Clone(ids)
	labels[0] = train.NotCounted
	return train.Sample{IDs: ids, Labels: labels}, nil
}

// EncodePrompt returns the tokens that an answer continues, beginning with
// what the model expects at the beginning of a text. Their number is not
// bounded. There are none when the chat template refuses the prompt; why says
// EncodeMessages.
func (e *Encoder) EncodePrompt(instruction, input string) []int32 {
	if e.template == Chat {
		ids, _ := e.EncodeMessages([]shard.Message{{Role: "user", Content: e.template.Prompt(instruction, input)}})
		return ids
	}
	return e.opening(e.template.Prompt(instruction, input))
}

// opening returns the tokens of a text that goes on, with those that the model
// expects before it.
func (e *Encoder) opening(text string) []int32 {
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

// EncodeQuestion returns the tokens that the last answer of a row continues,
// and that answer: what to generate from and what to compare with.
func (e *Encoder) EncodeQuestion(row shard.Row) (ids []int32, answer string, err error) {
	switch {
	case isText(row):
		return nil, "", errors.New("encode question: a row of text has none")
	case e.template != Chat:
		if err := e.Accepts(formatOf(row)); err != nil {
			return nil, "", fmt.Errorf("encode question: %w", err)
		}
		return e.EncodePrompt(row.Instruction, row.Input), row.Output, nil
	}
	list := messagesOf(row)
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Role == "assistant" {
			ids, err := e.EncodeMessages(list[:i])
			return ids, list[i].Content, err
		}
	}
	return nil, "", errors.New("encode question: no message is by the assistant")
}

func formatOf(row shard.Row) string {
	if row.Messages != nil {
		return shard.FormatMessages
	}
	return shard.FormatAlpaca
}

// Decode returns the text of an answer's tokens.
func (e *Encoder) Decode(ids []int32) string { return e.tok.Decode(ids, true) }

// Stop lists the tokens that end an answer. The caller must not change it.
func (e *Encoder) Stop() []int32 { return e.tok.Stop() }

// Dropped returns how many rows Encode has dropped, a row as often as it was
// given.
func (e *Encoder) Dropped() int { return e.dropped }

// Refused returns how many of the dropped rows the chat template refused.
func (e *Encoder) Refused() int { return e.refused }

// Cut returns how many rows Encode has shortened.
func (e *Encoder) Cut() int { return e.cut }
