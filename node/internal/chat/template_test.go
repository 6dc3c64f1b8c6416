package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestJinja compares with Jinja itself on one construct at a time.
func TestJinja(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "jinja.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vars  map[string]json.RawMessage `json:"vars"`
		Cases [][2]*string               `json:"cases"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		tpl, err := Parse(*c[0])
		var got Rendered
		if err == nil {
			got, err = tpl.Render(Input{Vars: file.Vars})
		}
		switch {
		case err != nil && c[1] != nil:
			t.Errorf("%q: %v, want %q", *c[0], err, *c[1])
		case err == nil && c[1] == nil:
			t.Errorf("%q: rendered %q, want an error", *c[0], got.Text)
		case err == nil && got.Text != *c[1]:
			t.Errorf("%q: rendered %q, want %q", *c[0], got.Text, *c[1])
		}
	}
	if len(file.Cases) < 500 {
		t.Errorf("%d cases", len(file.Cases))
	}
}

func mustParse(t testing.TB, source string) *Template {
	t.Helper()
	tpl, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

// TestForeign checks that words keep their writer through all that is done to
// them.
func TestForeign(t *testing.T) {
	const c = "{{ messages[0]['content']"
	for _, tt := range []struct{ source, want string }{
		{"<{{ messages[0].content }}>", "<(ab XY cd)>"},
		{"<" + c + "|upper }}>", "<(AB XY CD)>"},
		{"<" + c + ".split(' ')[1] }}>", "<(XY)>"},
		{"<" + c + "[3:5] ~ '!' }}>", "<(XY)!>"},
		{"<" + c + "[::-1] }}>", "<(dc YX ba)>"},
		{"<" + c + ".replace('XY', '<s>') }}>", "<(ab )<s>( cd)>"},
		{"{{ 'a-b'.replace('-', messages[0].content) }}", "a(ab XY cd)b"},
		{c + "|tojson }}", `("ab XY cd")`},
		{"{{ messages[0]|tojson }}", `{("role"): "user", ("content"): ("ab XY cd")}`},
		{c + ".split()|join('|') }}", "(ab)|(XY)|(cd)"},
		{"{% set x %}[{{ messages[0].content }}]{% endset %}{{ x|trim }}{{ x[:3] }}", "[(ab XY cd)][(ab)"},
		{"{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(messages[0].content) ~ 'z' }}", "<(ab XY cd)>z"},
		{"{{ '%s!' % messages[0].content }}{{ '{}'.format(messages[0].content) }}", "(ab XY cd)!(ab XY cd)"},
		{"{% for ch in messages[0].content[:2] %}{{ ch }}{{ ch }}{% endfor %}", "(aabb)"},
		{"{{ [messages[0].content] }}", "[('ab XY cd')]"},
		{"{{ messages[0].content * 2 }}", "(ab XY cdab XY cd)"},
		{"{% for k in messages[0] %}{{ k }} {% endfor %}", "(role) (content) "},
		{"{{ tools[0].name }}", "(<s>)"},
		{c + ".strip('abcd') }}", "( XY )"},
		{c + "|indent|title }}", "(Ab Xy Cd)"},
		{"{{ bos_token ~ messages[0].role }}", "<s>user"},
	} {
		in := Input{
			Messages: []Message{{Role: "user", Content: "ab XY cd"}},
			Tokens:   map[string]string{"bos_token": "<s>"}, Tools: json.RawMessage(`[{"name":"<s>"}]`),
		}
		if strings.Contains(tt.want, `("content")`) || strings.Contains(tt.want, "(content)") {
			if err := json.Unmarshal([]byte(`{"role":"user","content":"ab XY cd"}`), &in.Messages[0]); err != nil {
				t.Fatal(err)
			}
		}
		r, err := mustParse(t, tt.source).Render(in)
		if err != nil {
			t.Errorf("%s: %v", tt.source, err)
			continue
		}
		if got := bracketed(r); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.source, got, tt.want)
		}
	}
}

// bracketed writes the foreign parts in brackets.
func bracketed(r Rendered) string {
	var b strings.Builder
	at := 0
	for _, f := range r.Foreign {
		b.WriteString(r.Text[at:f.Begin] + "(" + r.Text[f.Begin:f.End] + ")")
		at = f.End
	}
	return b.String() + r.Text[at:]
}

// Templates in the shape of published ones.
const (
	chatml = `{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}` +
		`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`
	inst = `{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' ~ m.content ~ ' [/INST]' }}` +
		`{% else %}{{ ' ' ~ m.content ~ ' ' ~ eos_token }}{% endif %}{% endfor %}`
	forgetful = `{% for m in messages %}{{ '<' ~ m.role ~ '>' }}{% set c = m.content %}` +
		`{% if m.role == 'assistant' and not loop.last %}{% set c = c.split('</think>')[-1] %}{% endif %}{{ c ~ '<end>' }}{% endfor %}` +
		`{% if add_generation_prompt %}<assistant>{% endif %}`
	changing = `{% for m in messages %}{% if m.role == 'assistant' %}>{% endif %}{{ m.content }}` +
		`{% if loop.last and not add_generation_prompt %}<end>{% else %};{% endif %}{% endfor %}`
	marked = `{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content ~ '<end>' }}{% endgeneration %}` +
		`{% else %}U:{{ m.content }}{% endif %}{% endfor %}`
)

func TestAnswers(t *testing.T) {
	said := func(s ...string) []Message {
		var m []Message
		for i, c := range s {
			m = append(m, Message{[]string{"user", "assistant"}[i%2], c, nil})
		}
		return m
	}
	for _, tt := range []struct {
		name, source string
		messages     []Message
		want         []string // text of each, with | at Content
	}{
		{"one", chatml, said("q", "a"), []string{"a|<|im_end|>\n"}},
		{"two", chatml, said("q", "a", "q2", "a2"), []string{"a|<|im_end|>\n", "a2|<|im_end|>\n"}},
		{"open question", chatml, said("q", "a", "q2"), []string{"a|<|im_end|>\n"}},
		{"the same words again", chatml, said("a", "a", "a", "a"), []string{"a|<|im_end|>\n", "a|<|im_end|>\n"}},
		{"template's words", chatml, said("q", "<|im_end|>\n"), []string{"<|im_end|>\n|<|im_end|>\n"}},
		{"no generation prompt", inst, said("q", "a", "q2", "a2"), []string{" a| </s>", " a2| </s>"}},
		{"thoughts left out", forgetful, said("q", "t</think>a", "q2", "t2</think>a2"), []string{"a|<end><user>", "t2</think>a2|<end>"}},
		{"marked", marked, said("q", "a", "q2", "a2"), []string{"a|<end>", "a2|<end>"}},
		{"another end", changing, said("q", "a", "q2", "a2"), []string{">a|;", ">a2|<end>"}},
		{"two in a row", changing, []Message{{"user", "q", nil}, {"assistant", "a", nil}, {"assistant", "b", nil}}, []string{">a|;", ">b|<end>"}},
		{"none", chatml, said("q"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, answers, err := mustParse(t, tt.source).RenderAnswers(Input{
				Messages: tt.messages, Tokens: map[string]string{"bos_token": "<s>", "eos_token": "</s>"},
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, a := range answers {
				got = append(got, r.Text[a.Begin:a.Content]+"|"+r.Text[a.Content:a.End])
				if a.Message != 2*i+1 && tt.name != "two in a row" {
					t.Errorf("answer %d is message %d", i, a.Message)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHostile checks that no template takes long or much.
func TestHostile(t *testing.T) {
	nested := strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000)
	for name, source := range map[string]string{
		"loops":         `{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}`,
		"doubling":      `{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
		"repeat":        `{{ 'x' * 99999999999 }}`,
		"repeat list":   `{{ [1] * 9999999999 }}`,
		"lists":         `{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
		"shared lists":  `{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}`,
		"shared equal":  `{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}`,
		"deep value":    `{% set ns = namespace(s=[1]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s|tojson }}`,
		"recursion":     `{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`,
		"two recursive": `{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}`,
		"loop in loop":  `{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}`,
		"range":         `{{ range(99999999)|list }}`,
		"replace":       `{% set a = 'x' * 1000000 %}{{ a.replace('', a) }}`,
		"join":          `{{ range(99999)|join('x' * 100000) }}`,
		"indent":        `{{ ('\n' * 100000)|indent('x' * 1000000) }}`,
		"json indent":   `{{ ([[1]] * 100000)|tojson(indent='x' * 100000) }}`,
		"search":        `{% set a = 'x' * 10000000 %}{% for i in range(99999) %}{{ 'y' in a }}{% endfor %}`,
		"power":         `{{ 9 ** 9 ** 9 ** 9 }}`,
		"big number":    `{{ 9223372036854775807 + 1 }}`,
		"brackets":      `{{ ` + nested + ` }}`,
		"nots":          `{{ ` + strings.Repeat("not ", 50000) + `1 }}`,
		"signs":         `{{ ` + strings.Repeat("-", 50000) + `1 }}`,
		"sum":           `{{ 1` + strings.Repeat("+1", 50000) + ` }}`,
		"filters":       `{{ 1` + strings.Repeat("|abs", 50000) + ` }}`,
		"attributes":    `{{ a` + strings.Repeat(".a", 50000) + ` }}`,
		"ifs":           strings.Repeat(`{% if 1 %}`, 50000),
		"elses":         `{{ 1` + strings.Repeat(" if 0 else 1", 50000) + ` }}`,
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			tpl, err := Parse(source)
			if err == nil {
				_, err = tpl.Render(Input{})
			}
			if err == nil {
				t.Error("no error")
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	var refusal *Refusal
	_, err := mustParse(t, "\n{{ raise_exception('no ' ~ 'tools') }}").Render(Input{})
	if !errors.As(err, &refusal) || refusal.Message != "no tools" {
		t.Errorf("raise_exception: %v", err)
	}
	if want := "render chat template: line 2: the template refuses it: no tools"; err == nil || err.Error() != want {
		t.Errorf("raise_exception: %v, want %s", err, want)
	}
	_, err = mustParse(t, `{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}`).Render(Input{})
	if !errors.Is(err, ErrTooMuch) {
		t.Errorf("endless loop: %v, want ErrTooMuch", err)
	}
	for source, want := range map[string]string{
		"a\n{% if x %}":      "parse chat template: line 2: the template ends where \"endif\" is missing",
		"{{ x | nosuch }}":   `parse chat template: line 1: filter "nosuch" is not supported`,
		"{% include 'x' %}":  `parse chat template: line 1: block "include" is not supported`,
		"{{ x is nosuch }}":  `parse chat template: line 1: test "nosuch" is not supported`,
		"\n\n{{ 'a' + 1 }}":  `render chat template: line 3: string + int cannot be computed`,
		"{{ messages[0].a.b": `parse chat template: line 1: tag is not closed, }} is missing`,
	} {
		tpl, err := Parse(source)
		if err == nil {
			_, err = tpl.Render(Input{})
		}
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", source, err, want)
		}
	}
}

func TestNow(t *testing.T) {
	const source = `{% if strftime_now is defined %}{{ strftime_now('%d %b %Y, %-d. %H:%M %%') }}{% else %}no clock{% endif %}`
	for want, now := range map[string]time.Time{
		"no clock":                {},
		"05 Mar 2024, 5. 13:07 %": time.Date(2024, 3, 5, 13, 7, 0, 0, time.UTC),
	} {
		r, err := mustParse(t, source).Render(Input{Now: now})
		if err != nil || r.Text != want {
			t.Errorf("at %v: %q, %v, want %q", now, r.Text, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	write := func(dir, name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ name, config, file, want string }{
		{"text", `{"chat_template":"A{{ bos_token }}","bos_token":"<s>"}`, "", "A<s>"},
		{"token as an object", `{"chat_template":"A{{ bos_token }}","bos_token":{"content":"<b>"},"pad_token":null}`, "", "A<b>"},
		{"named", `{"chat_template":[{"name":"tool_use","template":"T"},{"name":"default","template":"D"}]}`, "", "D"},
		{"file first", `{"chat_template":"A","eos_token":"</s>"}`, "F{{ eos_token }}\n", "F</s>"},
		{"no config", "", "F", "F"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.config != "" {
				write(dir, "tokenizer_config.json", tt.config)
			}
			if tt.file != "" {
				write(dir, "chat_template.jinja", tt.file)
			}
			m, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := m.Template.Render(Input{Tokens: m.Tokens}); err != nil || r.Text != tt.want {
				t.Errorf("rendered %q, %v, want %q", r.Text, err, tt.want)
			}
		})
	}
	dir := t.TempDir()
	if _, err := Load(dir); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("empty folder: %v, want ErrNoTemplate", err)
	}
	write(dir, "tokenizer_config.json", `{"chat_template":[{"name":"rag","template":"T"}]}`)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "rag") {
		t.Errorf("no default: %v", err)
	}
}

// FuzzRender checks that no template and no message makes it panic, and that
// the parts of what is rendered are in order and end at characters.
func FuzzRender(f *testing.F) {
	for _, s := range []string{chatml, inst, forgetful, marked, `{{ messages|tojson(indent=2) }}`, `{{ messages|map(attribute='role')|sort|join }}`} {
		f.Add(s, "a é <s>", "b\n")
	}
	b, err := os.ReadFile(filepath.Join("testdata", "jinja.json"))
	if err != nil {
		f.Fatal(err)
	}
	var file struct {
		Cases [][2]*string `json:"cases"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		f.Fatal(err)
	}
	for _, c := range file.Cases {
		f.Add(*c[0], "x", "y")
	}
	f.Fuzz(func(t *testing.T, source, question, answer string) {
		tpl, err := Parse(source)
		if err != nil {
			return
		}
		in := Input{
			Messages: []Message{{"user", question, nil}, {"assistant", answer, nil}},
			Tokens:   map[string]string{"bos_token": "<s>", "eos_token": "</s>"},
			Vars:     map[string]json.RawMessage{"x": json.RawMessage("3"), "l": json.RawMessage(`[3,1,2]`), "s": json.RawMessage(`"Hello"`), "d": json.RawMessage(`{"a":[1]}`)},
		}
		r, answers, err := tpl.RenderAnswers(in)
		if err != nil {
			return
		}
		at := 0
		for _, p := range r.Foreign {
			if p.Begin < at || p.End <= p.Begin || p.End > len(r.Text) {
				t.Fatalf("foreign parts %v of %d bytes", r.Foreign, len(r.Text))
			}
			at = p.End
		}
		at = 0
		for _, a := range answers {
			if a.Begin < at || a.Content <= a.Begin || a.End < a.Content || a.End > len(r.Text) {
				t.Fatalf("answers %v of %d bytes", answers, len(r.Text))
			}
			at = a.End
		}
	})
}
