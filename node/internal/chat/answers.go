package chat

import "strings"

// Answer is where an assistant's turn is in a rendered conversation, in bytes.
type Answer struct {
	Message int // index of the message, -1 when the template wrote it all
	// Begin is where the generation prompt ends and an answer begins.
	Begin int
	// Content is where the message's own words end.
	Content int
	// End is where the template's text behind them ends, such as the token that
	// ends a turn.
	End int
}

// RenderAnswers renders a conversation and says where its answers are.
//
// A template that marks its answers with generation blocks is believed. For
// others an answer begins where the conversation before it ends when it is
// rendered with a generation prompt, and ends where the conversation up to it
// ends. Templates that render a turn otherwise once another follows, because
// they leave out thoughts, say, give no such places; then it begins with the
// message's own words, and ends before the next ones.
func (t *Template) RenderAnswers(in Input) (Rendered, []Answer, error) {
	r, err := t.Render(in)
	if err != nil {
		return Rendered{}, nil, err
	}
	if len(r.generated) > 0 {
		return r, r.marked.answers(r.generated), nil
	}
	var out []Answer
	for i := range in.Messages {
		if in.Messages[i].Role != "assistant" {
			continue
		}
		a, ok := r.marked.words(i)
		if !ok {
			continue // the template left it out
		}
		before, after := in, in
		before.Messages, before.GenerationPrompt = in.Messages[:i], true
		after.Messages, after.GenerationPrompt = in.Messages[:i+1], false
		if p, err := t.Render(before); err == nil && len(p.Text) <= a.Begin && strings.HasPrefix(r.Text, p.Text) {
			a.Begin = len(p.Text)
		}
		if p, err := t.Render(after); err == nil && len(p.Text) >= a.Content && strings.HasPrefix(r.Text, p.Text) {
			a.End = len(p.Text)
		}
		if n := len(out); n > 0 && a.Begin < out[n-1].End {
			before := &out[n-1]
			before.End = max(before.Content, a.Begin)
			a.Begin = before.End
		}
		if a.Begin < a.Content {
			out = append(out, a)
		}
	}
	return r, out, nil
}

// words returns where message i is, as far as it wrote itself: from its first
// byte to its last one, and to the next one of somebody else.
func (t text) words(i int) (Answer, bool) {
	a := Answer{Message: i, Begin: -1, End: len(t.s)}
	at := 0
	for _, r := range t.runs {
		switch {
		case r.by == origin(i+1):
			if a.Begin < 0 {
				a.Begin = at
			}
			a.Content, a.End = r.end, len(t.s)
		case r.by != byTemplate && a.Begin >= 0 && a.End == len(t.s):
			a.End = at
		}
		at = r.end
	}
	return a, a.Begin >= 0
}

// answers makes answers of the places that a template marked.
func (t text) answers(marked []Range) []Answer {
	var out []Answer
	for _, m := range marked {
		a := Answer{Message: -1, Begin: m.Begin, Content: m.Begin, End: m.End}
		at := 0
		for _, r := range t.runs {
			if r.by > 0 && at < m.End && r.end > m.Begin {
				a.Message, a.Content = int(r.by)-1, min(r.end, m.End)
			}
			at = r.end
		}
		if a.Content == a.Begin {
			a.Content = a.End
		}
		if a.End > a.Begin {
			out = append(out, a)
		}
	}
	return out
}
