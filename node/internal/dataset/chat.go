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

// messagesOf returns a row as a conversation.
func messagesOf(row shard.Row) []shard.Message {
	if row.Messages != nil {
		return row.Messages
	}
	return []shard.Message{
		{Role: "user", Content: Chat.Prompt(row.Instruction, row.Input)},
		{Role: "assistant", Content: row.Output},
	}
}

// input is what the chat template renders. There is no clock in it: a row is
// the same on every machine and every day.
func (e *Encoder) input(list []shard.Message) chat.Input {
	in := chat.Input{Tokens: e.chat.Tokens, Messages: make([]chat.Message, len(list))}
	for i, m := range list {
		in.Messages[i] = chat.Message{Role: m.Role, Content: m.Content}
	}
	return in
}

// EncodeMessages returns the tokens that the answer to a conversation
// continues. Their number is not bounded.
//
// Whether they begin with BOS is what the template says, not the tokenizer, so
// that there are never two.
func (e *Encoder) EncodeMessages(list []shard.Message) ([]int32, error) {
	if e.chat == nil {
		return nil, fmt.Errorf("encode messages: %w", e.Accepts(shard.FormatMessages))
	}
	in := e.input(list)
	in.GenerationPrompt = true
	r, err := e.chat.Template.Render(in)
	if err != nil {
		return nil, fmt.Errorf("encode messages: %w", err)
	}
	return e.rendered(nil, &r, 0, len(r.Text)), nil
}

// rendered appends the tokens of a part of a rendered conversation.
func (e *Encoder) rendered(ids []int32, r *chat.Rendered, begin, end int) []int32 {
	var foreign []tokenizer.Range
	for _, f := range r.Foreign {
		if f.Begin, f.End = max(f.Begin, begin), min(f.End, end); f.Begin < f.End {
			foreign = append(foreign, tokenizer.Range{Begin: f.Begin - begin, End: f.End - begin})
		}
	}
	return e.tok.AppendEncode(ids, r.Text[begin:end], tokenizer.EncodeOptions{ParseSpecial: true, Foreign: foreign, Continues: begin > 0})
}

func (e *Encoder) encodeChat(list []shard.Message) (train.Sample, error) {
	for shortened := false; ; shortened = true {
		s, bytes, err := e.conversation(list)
		if err != nil {
			return train.Sample{}, err
		}
		if len(s.IDs) <= e.maxTokens {
			if shortened {
				e.cut++
			}
			return s, nil
		}
		rest, ok := withoutEarliest(list, bytes, bytes*(len(s.IDs)-e.maxTokens)/len(s.IDs))
		if !ok || e.drop {
			return train.Sample{}, e.tooLong(len(s.IDs))
		}
		list = rest
	}
}

// conversation returns a conversation of any length, and its length in bytes.
func (e *Encoder) conversation(list []shard.Message) (s train.Sample, bytes int, err error) {
	r, answers, err := e.chat.Template.RenderAnswers(e.input(list))
	if err != nil {
		return s, 0, err
	}
	at := 0
	for i, a := range answers {
		s.IDs = e.rendered(s.IDs, &r, at, a.Begin)
		ignoreRest(&s)
		at = e.answer(&s, &r, a, i == len(answers)-1)
	}
	if len(s.IDs) > 0 {
		s.Labels[0] = train.NotCounted
	}
	if s.Counted() == 0 {
		return s, 0, errors.New("the chat template leaves out what the assistant says")
	}
	return s, len(r.Text), nil
}

// answer appends the tokens of an answer that the loss counts, and of the last
// one nothing else. It returns where the rest of the text begins.
func (e *Encoder) answer(s *train.Sample, r *chat.Rendered, a chat.Answer, last bool) int {
	tail := e.rendered(nil, r, a.Content, a.End)
	stop := slices.IndexFunc(tail, func(id int32) bool {
		return id != e.tok.BOS() && (e.tok.Special(id) || slices.Contains(e.tok.Stop(), id))
	})
	end := a.Content
	if stop >= 0 {
		end = a.End
	}
	from := len(s.IDs)
	s.IDs = e.rendered(s.IDs, r, a.Begin, end)
	// A special token ends what is before it, so that what is behind has the
	// same tokens alone as in the whole.
	uncounted := 0
	if stop >= 0 {
		uncounted = len(tail) - stop - 1
	} else if last {
		s.IDs = append(s.IDs, e.tok.EOS())
	}
	if last {
		s.IDs, uncounted = s.IDs[:len(s.IDs)-uncounted], 0
	}
	s.Labels = append(s.Labels, s.IDs[from:len(s.IDs)-uncounted]...)
	ignoreRest(s)
	return end
}

// ignoreRest labels the tokens that have no label yet as not counted.
func ignoreRest(s *train.Sample) {
	for len(s.Labels) < len(s.IDs) {
		s.Labels = append(s.Labels, train.NotCounted)
	}
}

// withoutEarliest leaves out the turns behind the system prompt up to one that
// begins with the user: at least one, and about excess bytes of all those that
// the conversation is rendered to.
func withoutEarliest(list []shard.Message, bytes, excess int) ([]shard.Message, bool) {
	around := bytes // what the template writes for each message
	for _, m := range list {
		around -= len(m.Content)
	}
	around = max(around, 0) / max(len(list), 1)
	system := 0
	if len(list) > 0 && list[0].Role == "system" {
		system = 1
	}
	best, size := -1, 0
	for i := system; i < len(list); i++ {
		if i > system && list[i].Role == "user" && slices.ContainsFunc(list[i:], byAssistant) {
			best = i
			if size >= excess {
				break
			}
		}
		size += len(list[i].Content) + around
	}
	if best < 0 {
		return nil, false
	}
	return append(slices.Clone(list[:system]), list[best:]...), true
}

func byAssistant(m shard.Message) bool { return m.Role == "assistant" }
