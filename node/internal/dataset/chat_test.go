package dataset

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/internal/chat"
	"github.com/moot-net/moot/node/internal/goldentest"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// Templates for tests, with the special tokens of byteTokenizer.
const (
	turns = `{{ bos_token }}{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}{{ eos_token }}` + "\n\n" +
		`{% endfor %}{% if add_generation_prompt %}[a]{% endif %}`
	noEnd   = `{% for m in messages %}{{ m.role[0] }}: {{ m.content }};{% endfor %}{% if add_generation_prompt %}a: {% endif %}`
	bosNext = `{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}U{{ m.content }}A{% else %}{{ m.content }}{% if loop.last %}!{% else %};{% endif %}{% endif %}{% endfor %}`
	noAgree = `{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}`
)

func chatEncoder(t testing.TB, source string, maxTokens int) *Encoder {
	t.Helper()
	tpl, err := chat.Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	m := &chat.Model{Template: tpl, Tokens: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}}
	// The tokenizer would put BOS in front, too.
	e, err := NewChatEncoder(byteTokenizer(t, "<s>", ""), m, maxTokens)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func said(s ...string) shard.Row {
	var r shard.Row
	for _, m := range s {
		role := map[byte]string{'s': "system", 'u': "user", 'a': "assistant"}[m[0]]
		r.Messages = append(r.Messages, shard.Message{Role: role, Content: m[2:]})
	}
	return r
}

// bracketed writes a sample as text, what the loss counts in brackets.
func bracketed(s train.Sample) string {
	var b strings.Builder
	for i, id := range s.IDs {
		counted := s.Labels[i] != train.NotCounted
		if counted && (i == 0 || s.Labels[i-1] == train.NotCounted) {
			b.WriteString("(")
		}
		switch id {
		case bosID:
			b.WriteString("B")
		case eosID:
			b.WriteString("E")
		default:
			b.WriteByte(byte(id))
		}
		if counted && (i+1 == len(s.IDs) || s.Labels[i+1] == train.NotCounted) {
			b.WriteString(")")
		}
	}
	return b.String()
}

func TestEncodeChat(t *testing.T) {
	for _, tt := range []struct {
		name, source string
		row          shard.Row
		max          int
		want         string // "" when dropped
		cut          bool
	}{
		{"one answer", turns, said("u:q", "a:x"), 99, "B[u]qE\n\n[a](xE)", false},
		{"system", turns, said("s:s", "u:q", "a:x"), 99, "B[s]sE\n\n[u]qE\n\n[a](xE)", false},
		{"two answers", turns, said("u:q", "a:x", "u:p", "a:y"), 99, "B[u]qE\n\n[a](xE)\n\n[u]pE\n\n[a](yE)", false},
		{"nothing behind the last", turns, said("u:q", "a:x", "u:p"), 99, "B[u]qE\n\n[a](xE)", false},
		{"special text", turns, said("u:<s></s>", "a:</s>x"), 99, "B[u]<s></s>E\n\n[a](</s>xE)", false},
		{"no end in the template", noEnd, said("u:q", "a:x", "u:p", "a:y"), 99, "u: q;a: (x);u: p;a: (yE)", false},
		{"BOS is no end", bosNext, said("u:q", "a:x", "u:p", "a:y"), 99, "BUqA(x);BUpA(yE)", false},
		{"Alpaca row", turns, shard.Row{Instruction: "q", Input: "i", Output: "x"}, 99, "B[u]q\n\niE\n\n[a](xE)", false},
		{"just fits", turns, said("u:q", "a:x"), 12, "B[u]qE\n\n[a](xE)", false},
		{"turns left out", turns, said("s:s", "u:long question", "a:long answer", "u:q", "a:x"), 24, "B[s]sE\n\n[u]qE\n\n[a](xE)", true},
		{"no more than needed", turns, said("u:long question", "a:x", "u:q", "a:y", "u:p", "a:z"), 40, "B[u]qE\n\n[a](yE)\n\n[u]pE\n\n[a](zE)", true},
		{"too long", turns, said("u:a question", "a:x"), 12, "", false},
		{"refused", noAgree, said("s:s", "u:q", "a:x"), 99, "", false},
		{"text", turns, shard.Row{Output: "abc"}, 99, "B(abcE)", false},
		{"text cut", turns, shard.Row{Output: "abcdef"}, 4, "B(abc)", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "just fits" {
				tt.max = len("B[u]qE\n\n[a]xE")
			}
			e := chatEncoder(t, tt.source, tt.max)
			s, ok := e.Encode(tt.row)
			if got := bracketed(s); got != tt.want || ok != (tt.want != "") {
				t.Errorf("Encode = %q, %v, want %q", got, ok, tt.want)
			}
			if (e.Cut() == 1) != tt.cut || (e.Dropped() == 1) != (tt.want == "") || (e.Refused() == 1) != (tt.name == "refused") {
				t.Errorf("%d cut, %d dropped, %d of them refused", e.Cut(), e.Dropped(), e.Refused())
			}
		})
	}
}

// TestDropLong: nothing is shortened, and what fits is as it was.
func TestDropLong(t *testing.T) {
	for _, tt := range []struct {
		name string
		row  shard.Row
		max  int
		want string
	}{
		{"fits", said("s:s", "u:q", "a:x"), 99, "B[s]sE\n\n[u]qE\n\n[a](xE)"},
		{"earlier turns", said("s:s", "u:long question", "a:long answer", "u:q", "a:x"), 24, ""},
		{"text", shard.Row{Output: "abcdef"}, 4, ""},
		{"text fits", shard.Row{Output: "ab"}, 4, "B(abE)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := chatEncoder(t, turns, tt.max)
			e.DropLong()
			s, ok := e.Encode(tt.row)
			if got := bracketed(s); got != tt.want || ok != (tt.want != "") {
				t.Errorf("Encode = %q, %v, want %q", got, ok, tt.want)
			}
			if e.Cut() != 0 || (e.Dropped() == 1) != (tt.want == "") || e.Refused() != 0 {
				t.Errorf("%d cut, %d dropped, %d of them refused", e.Cut(), e.Dropped(), e.Refused())
			}
		})
	}
}

// TestPromptIsTrainedOn checks that generation begins with the tokens that a
// sample of the same conversation has before its last answer.
func TestPromptIsTrainedOn(t *testing.T) {
	for _, source := range []string{turns, noEnd} {
		e := chatEncoder(t, source, 999)
		for _, row := range []shard.Row{said("u:q", "a:x"), said("s:s", "u:q", "a:x", "u:p", "a:yy"), {Instruction: "do", Input: "it", Output: "done"}} {
			s, ok := e.Encode(row)
			ids, answer, err := e.EncodeQuestion(row)
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			if len(ids) >= len(s.IDs) || !slices.Equal(ids, s.IDs[:len(ids)]) || s.Labels[len(ids)-1] != train.NotCounted {
				t.Errorf("sample %s does not begin with %s", bracketed(s), bracketed(train.Sample{IDs: ids, Labels: make([]int32, len(ids))}))
			}
			if got := e.Decode(s.IDs[len(ids):]); got != answer {
				t.Errorf("behind the prompt is %q, the answer is %q", got, answer)
			}
		}
		if ids := e.EncodePrompt("q", ""); !strings.HasSuffix(e.Decode(ids), e.Decode(ids[len(ids)-2:])) || len(ids) < 5 {
			t.Errorf("prompt %v", ids)
		}
	}
}

func TestEncodeText(t *testing.T) {
	e := newEncoder(t, byteTokenizer(t, "<s>", ""), None, 99)
	for want, row := range map[string]shard.Row{
		"B(abE)":   {Output: "ab"},
		"Bab(cE)":  {Instruction: "ab", Output: "c"},
		"B(</s>E)": {Output: "</s>"},
	} {
		s, ok := e.Encode(row)
		if got := bracketed(s); got != want || !ok {
			t.Errorf("Encode(%+v) = %q, %v, want %q", row, got, ok, want)
		}
	}
	if _, ok := e.Encode(said("u:q", "a:x")); ok || e.Dropped() != 1 {
		t.Error("messages were encoded without a chat template")
	}
	if err := e.Accepts(shard.FormatMessages); err == nil {
		t.Error("messages are accepted without a chat template")
	}
	if _, _, err := e.EncodeQuestion(shard.Row{Output: "ab"}); err == nil {
		t.Error("a text has a question")
	}
}

func TestLoadEncoder(t *testing.T) {
	golden := goldentest.Dir(t, "tokenizers", "bpe-llama3")
	if _, err := LoadEncoder(golden, None, 10); err != nil {
		t.Error(err)
	}
	if _, err := LoadEncoder(golden, Chat, 10); !errors.Is(err, chat.ErrNoTemplate) {
		t.Errorf("%v, want ErrNoTemplate", err)
	}
}

// TestGoldenChat compares the tokens of rendered conversations with those of
// the tokenizers library, and checks that samples have the same tokens.
func TestGoldenChat(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(golden(t), "chat", "golden_chat.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Templates map[string]string `json:"templates"`
		Tokenized []struct {
			Tokenizer string          `json:"tokenizer"`
			Template  string          `json:"template"`
			Messages  []shard.Message `json:"messages"`
			BOS       string          `json:"bos_token"`
			EOS       string          `json:"eos_token"`
			Rendered  string          `json:"rendered"`
			IDs       []int32         `json:"ids"`
		} `json:"tokenized"`
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	samples := 0
	for i, c := range g.Tokenized {
		tok, err := tokenizer.Load(filepath.Join(golden(t), "tokenizers", c.Tokenizer))
		if err != nil {
			t.Fatal(err)
		}
		tpl, err := chat.Parse(g.Templates[c.Template])
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewChatEncoder(tok, &chat.Model{Template: tpl, Tokens: map[string]string{"bos_token": c.BOS, "eos_token": c.EOS}}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		r, err := tpl.Render(e.input(c.Messages))
		if err != nil || r.Text != c.Rendered {
			t.Fatalf("case %d: rendered %q, %v, want %q", i, r.Text, err, c.Rendered)
		}
		// The library makes special tokens of what a user writes; here it is
		// only done to show that nothing else differs.
		if got := tok.Encode(r.Text, tokenizer.EncodeOptions{ParseSpecial: true}); !slices.Equal(got, c.IDs) {
			t.Errorf("case %d: tokens %v, want %v", i, got, c.IDs)
		}
		tricks := 0
		for _, m := range c.Messages {
			for _, id := range tok.Encode(m.Content, tokenizer.EncodeOptions{ParseSpecial: true}) {
				if tok.Special(id) {
					tricks++
				}
			}
		}
		got := e.rendered(nil, &r, 0, len(r.Text))
		if tricks == 0 != slices.Equal(got, c.IDs) {
			t.Errorf("case %d: %d special tokens in messages, tokens %v, the library's %v", i, tricks, got, c.IDs)
		}
		if n := specials(tok, c.IDs) - specials(tok, got); n != tricks {
			t.Errorf("case %d: %d special tokens fewer, want %d", i, n, tricks)
		}
		if tricks > 0 {
			continue
		}
		s, ok := e.Encode(shard.Row{Messages: c.Messages})
		if !ok {
			continue // nobody answers
		}
		samples++
		if len(s.IDs) > len(c.IDs) || !slices.Equal(s.IDs, c.IDs[:len(s.IDs)]) {
			t.Errorf("case %d: the sample's tokens %v are not the beginning of %v", i, s.IDs, c.IDs)
		}
		for at, l := range s.Labels {
			ends := at+1 == len(s.IDs) || s.Labels[at+1] == train.NotCounted
			if text, _ := tok.Token(s.IDs[at]); l != train.NotCounted && ends && text != c.EOS && !tok.Special(s.IDs[at]) {
				t.Errorf("case %d: an answer ends with %q", i, text)
			}
		}
	}
	if samples == 0 && len(g.Tokenized) > 0 {
		t.Error("no case has an answer")
	}
}

// TestPieces checks that turns are cut without a change to their tokens by a
// tokenizer that puts a space in front of a text.
func TestPieces(t *testing.T) {
	tok, err := tokenizer.Load(goldentest.Dir(t, "tokenizers", "sp-llama"))
	if err != nil {
		t.Fatal(err)
	}
	tpl, err := chat.Parse(`{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' ~ m.content ~ ' [/INST]' }}{% else %}{{ ' ' ~ m.content ~ ' ' ~ eos_token }}{% endif %}{% endfor %}`)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewChatEncoder(tok, &chat.Model{Template: tpl, Tokens: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}}, 999)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := e.Encode(said("u:Tell me.", "a:It is so.", "u:And?", "a:No."))
	want := tok.Encode("<s>[INST] Tell me. [/INST] It is so. </s>[INST] And? [/INST] No. </s>", tokenizer.EncodeOptions{ParseSpecial: true})
	if !ok || !slices.Equal(s.IDs, want) {
		t.Errorf("tokens %v, whole %v", s.IDs, want)
	}
}

func specials(tok *tokenizer.Tokenizer, ids []int32) (n int) {
	for _, id := range ids {
		if tok.Special(id) {
			n++
		}
	}
	return n
}

func FuzzEncodeChat(f *testing.F) {
	encoders := []*Encoder{chatEncoder(f, turns, 64), chatEncoder(f, noEnd, 1<<20)}
	f.Add("q", "x", "p", "y")
	f.Add("</s>", "<s>", "\xff", "[a]")
	f.Add("", " ", "\n\n", ";a: ")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		for _, e := range encoders {
			s, ok := e.Encode(said("u:"+a, "a:"+b, "u:"+c, "a:"+d))
			if !ok {
				continue
			}
			if len(s.IDs) > e.maxTokens || len(s.IDs) != len(s.Labels) || s.Labels[0] != train.NotCounted {
				t.Fatalf("%d tokens, %d labels", len(s.IDs), len(s.Labels))
			}
			if s.IDs[len(s.IDs)-1] != eosID || s.Labels[len(s.IDs)-1] != eosID {
				t.Error("the sample does not end with EOS, or it is not counted")
			}
			ends := 0
			for i, id := range s.IDs {
				if id == bosID && i > 0 {
					t.Error("BOS within the sample")
				}
				if id == eosID && s.Labels[i] == eosID {
					ends++
				}
			}
			if ends > 2 {
				t.Errorf("%d answers end, there are two", ends)
			}
		}
	})
}

// TestSeen: rows that are there again, and held-out rows that are trained on.
func TestSeen(t *testing.T) {
	var s Seen
	for _, tt := range []struct {
		row       shard.Row
		place     string
		heldOut   bool
		kind, why string
	}{
		{said("u:q", "a:x"), "a:1", false, "", ""},
		{said("u:q", "a:y"), "a:2", false, "", ""},
		{said("u:q", "a:x"), "b:7", false, "repeated", "the same as a:1"},
		{shard.Row{Instruction: "q", Output: "x"}, "b:8", false, "", ""},
		{said("u:new", "a:x"), "e:1", true, "", ""},
		{said("u:new", "a:x"), "e:2", true, "repeated", "the same as e:1"},
		{said("u:q", "a:y"), "e:3", true, "leak", "the same as a:2, which is trained on: what is measured on it is memory"},
	} {
		s.HeldOut = tt.heldOut
		if kind, why := s.Again(tt.row, tt.place); kind != tt.kind || why != tt.why {
			t.Errorf("%s: %q, %q, want %q, %q", tt.place, kind, why, tt.kind, tt.why)
		}
	}
}

func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	rows := `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"x"}]}
{"messages":[{"role":"user","content":"q"}]}
{"messages":[{"role":"user","content":"a very long question, longer than fits"},{"role":"assistant","content":"x"}]}
{"messages":[{"role":"user","content":"long question"},{"role":"assistant","content":"x"},{"role":"user","content":"qq"},{"role":"assistant","content":"x"}]}
`
	if err := os.WriteFile(path, []byte(rows), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Check(t.Context(), path, chatEncoder(t, turns, 20), CheckOptions{Samples: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := &Report{
		Detected: shard.Detected{Input: "messages", Format: "messages", Why: "its first row has messages"},
		Rows:     4, Invalid: 1, Dropped: 1, Cut: 1,
		Problems: []Problem{
			{"rows.jsonl:2", "messages: none is by the assistant, so there is nothing to learn", "invalid"},
			{"rows.jsonl:3", "too long: 50 tokens, at most 20 fit", "dropped"},
			{"rows.jsonl:4", "more than 20 tokens", "cut"},
		},
		Tokens:  Stats{Sum: 27, Min: 13, Median: 13, P95: 13, Max: 14},
		Counted: 4,
		Samples: []Shown{{"rows.jsonl:1", []ShownPart{{"<s>[u]q</s>\n\n[a]", 11, false}, {"x</s>", 2, true}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if share := got.CountedShare(); share < 0.148 || share > 0.149 {
		t.Errorf("CountedShare() = %v", share)
	}
	if _, err := Check(t.Context(), path, newEncoder(t, byteTokenizer(t, "", ""), None, 20), CheckOptions{}); err == nil || !strings.Contains(err.Error(), "template chat") {
		t.Errorf("messages without a chat template: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(t.Context(), path, chatEncoder(t, turns, 20), CheckOptions{}); err == nil || !strings.Contains(err.Error(), "no rows") {
		t.Errorf("empty file: %v", err)
	}
}

// TestSourceOfMessages draws conversations from a data set.
func TestSourceOfMessages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	row := `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"x"}]}` + "\n"
	if err := os.WriteFile(path, []byte(row), 0o644); err != nil {
		t.Fatal(err)
	}
	s := openStore(t)
	imp, err := s.ImportDataset(t.Context(), shard.DatasetOptions{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := shard.OpenDataset(t.Context(), s, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := NewSource(d, chatEncoder(t, turns, 99)).Batch(t.Context(), [32]byte{}, 0, 1)
	if err != nil || bracketed(got[0]) != "B[u]qE\n\n[a](xE)" {
		t.Errorf("%v, %v", got, err)
	}
	_, err = NewSource(d, newEncoder(t, byteTokenizer(t, "", ""), Alpaca, 99)).Batch(t.Context(), [32]byte{}, 0, 1)
	if err == nil || !strings.Contains(err.Error(), "template chat") {
		t.Errorf("without a chat template: %v", err)
	}
}
