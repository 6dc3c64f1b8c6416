package shard

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestImportFormats(t *testing.T) {
	chat := []Row{
		{Messages: []Message{{"system", "Be brief."}, {"user", "Hi"}, {"assistant", "Hello é"}}},
		{Messages: []Message{{"user", "1+1"}, {"assistant", "2"}, {"user", "+1"}, {"assistant", "3"}}},
	}
	const chatLines = `{"messages":[{"content":"Be brief.","role":"system"},{"content":"Hi","role":"user"},{"content":"Hello é","role":"assistant"}]}` + "\n" +
		`{"messages":[{"content":"1+1","role":"user"},{"content":"2","role":"assistant"},{"content":"+1","role":"user"},{"content":"3","role":"assistant"}]}` + "\n"
	for _, tt := range []struct {
		name, file, content string
		detected            Detected
		template            string
		rows                []Row
		lines               string
		warning             string
	}{
		{
			"messages", "a.jsonl", `{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello \u00e9"}],"id":3}` + "\n" +
				`{"messages":[{"role":"user","content":[{"type":"text","text":"1"},{"type":"text","text":"+1"}]},{"role":"assistant","content":"2","tool_calls":[]},{"role":"user","content":"+1"},{"role":"assistant","content":"3"}]}`,
			Detected{"messages", "messages", "its first row has messages"},
			"chat", chat, chatLines,
			`fields other than messages were left out: "id"`,
		},
		{
			"ShareGPT", "a.json", `[{"id":"x","system":"Be brief.","conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello é"}]},
				{"conversations":[{"from":"user","value":"1+1"},{"from":"chatgpt","value":"2"},{"from":"human","value":"+1"},{"from":"model","value":"3"}]}]`,
			Detected{"sharegpt", "messages", "its first row has conversations"},
			"chat", chat, chatLines,
			`fields other than conversations were left out: "id"`,
		},
		{
			"completion", "a.jsonl", `{"completion":"b","prompt":"a"}`,
			Detected{"completion", "completion", "its first row has prompt and completion"},
			"none",
			[]Row{{Instruction: "a", Output: "b"}},
			`{"completion":"b","prompt":"a"}` + "\n", "",
		},
		{
			"text", "a.jsonl", `{"text":"a \ud83c\udf89"}`,
			Detected{"text", "text", "its first row has text"},
			"none",
			[]Row{{Output: "a 🎉"}},
			`{"text":"a 🎉"}` + "\n", "",
		},
		{
			"plain text", "a.TXT", "\ufeffone\ntwo\r\n\n \n\nthree",
			Detected{"text", "text", "its first row has text"},
			"none",
			[]Row{{Output: "one\ntwo"}, {Output: "three"}},
			`{"text":"one\ntwo"}` + "\n" + `{"text":"three"}` + "\n", "",
		},
		{
			"table", "a.csv", "\ufeffoutput,instruction,n\n\"b, \"\"c\"\"\nd\",a,1\ne,f,2\n",
			Detected{"alpaca", "alpaca", "its first row has instruction and output"},
			"alpaca",
			[]Row{{Instruction: "a", Output: "b, \"c\"\nd"}, {Instruction: "f", Output: "e"}},
			`{"input":"","instruction":"a","output":"b, \"c\"\nd"}` + "\n" + `{"input":"","instruction":"f","output":"e"}` + "\n",
			`fields other than instruction, input and output were left out: "n"`,
		},
		{
			"table with tabs", "a.tsv", "prompt\tcompletion\na\tb\n",
			Detected{"completion", "completion", "its first row has prompt and completion"},
			"none",
			[]Row{{Instruction: "a", Output: "b"}},
			`{"completion":"b","prompt":"a"}` + "\n", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testStore(t)
			imp := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, tt.file, tt.content)}})
			if imp.Detected != tt.detected || imp.Index.Format != tt.detected.Format || imp.Index.Template != tt.template {
				t.Errorf("detected %+v, index %s with template %s; want %+v, template %s", imp.Detected, imp.Index.Format, imp.Index.Template, tt.detected, tt.template)
			}
			rows, _ := all(t, s, imp)
			if diff := cmp.Diff(tt.rows, rows); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			out := filepath.Join(t.TempDir(), "out")
			if err := s.Materialize(t.Context(), imp.Root, out, MaterializeOptions{MaxBytes: imp.Bytes}); err != nil {
				t.Fatal(err)
			}
			if got := readTree(t, out)["train/00000.jsonl"]; got != tt.lines {
				t.Errorf("shard is %q, want %q", got, tt.lines)
			}
			if got := strings.Join(imp.Warnings, ";"); got != tt.warning {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

// TestSameConversations checks that the CID does not depend on the form in
// which the conversations came.
func TestSameConversations(t *testing.T) {
	s := testStore(t)
	a := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "a.jsonl", `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}`)}})
	b := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "b.json", `[{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}]`)}})
	if a.Root != b.Root {
		t.Errorf("%s and %s", a.Root, b.Root)
	}
}

func TestBadInput(t *testing.T) {
	user := `{"role":"user","content":"q"}`
	for _, tt := range []struct{ name, file, content, want string }{
		{"unknown fields", "a.jsonl", "\n" + `{"question":"a","answer":"b"}`, `a.jsonl:2: cannot tell the format: invalid: its fields are "answer", "question"; known are messages`},
		{"role", "a.jsonl", `{"messages":[{"role":"bot","content":"x"}]}`, `a.jsonl:1: messages[0]: role is "bot", must be one of system, user, assistant, tool`},
		{"no answer", "a.jsonl", `{"messages":[` + user + `]}`, "a.jsonl:1: messages: none is by the assistant"},
		{"no messages", "a.jsonl", `{"messages":[]}`, "a.jsonl:1: messages: none is by the assistant"},
		{"not a list", "a.jsonl", `{"messages":{}}`, "a.jsonl:1: messages is not a list"},
		{"null", "a.jsonl", `{"messages":null}`, "a.jsonl:1: messages is not a list"},
		{"empty answer", "a.jsonl", `{"messages":[` + user + `,{"role":"assistant","content":" "}]}`, "a.jsonl:1: messages[1]: content of the assistant is empty"},
		{"late system", "a.jsonl", `{"messages":[` + user + `,{"role":"system","content":"x"}]}`, "a.jsonl:1: messages[1]: role is system, which only the first may have"},
		{"content", "a.jsonl", `{"messages":[{"role":"user","content":7}]}`, "a.jsonl:1: messages[0]: content is not a string"},
		{"no content", "a.jsonl", `{"messages":[{"role":"user"}]}`, "a.jsonl:1: messages[0]: no content"},
		{"picture", "a.jsonl", `{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, `a.jsonl:1: messages[0]: content[0]: type is "image_url", only text is supported`},
		{"tool calls", "a.jsonl", `{"messages":[` + user + `,{"role":"assistant","content":null,"tool_calls":[{}]}]}`, "a.jsonl:1: messages[1]: tool_calls are not supported"},
		{"from", "a.json", `[{"conversations":[{"from":"alien","value":"x"}]}]`, `a.json: row 1: conversations[0]: from is "alien", which stands for no role that is known`},
		{"completion", "a.jsonl", `{"prompt":"a","completion":" "}`, "a.jsonl:1: completion is empty"},
		{"prompt", "a.jsonl", `{"prompt":"","completion":"b"}`, "a.jsonl:1: prompt is empty"},
		{"text", "a.jsonl", `{"text":"\n"}`, "a.jsonl:1: text is empty"},
		{"twice", "a.jsonl", `{"text":"a","text":"b"}`, "a.jsonl:1: text is there twice"},
		{"half a pair", "a.jsonl", `{"text":"\ud800"}`, "a.jsonl:1: text has half a surrogate pair"},
		{"ragged table", "a.csv", "text\na\n\"b\nc\",d\n", "a.csv:3: 2 fields, the first line has 1"},
		{"broken table", "a.csv", "text\na\"b\n", "a.csv:2: invalid: bare \" in non-quoted-field"},
		{"open quote", "a.csv", "text\n\"a" + strings.Repeat("x", maxRawRowBytes), `a.csv:2: invalid: extraneous or missing " in quoted-field`},
		{"endless row", "a.csv", "text\n" + strings.Repeat("x", maxRawRowBytes+9000), "a.csv: too large: a row of more than"},
		{"not UTF-8", "a.csv", "text\n\xff\n", "a.csv:2: text is not UTF-8"},
		{"UTF-16", "a.jsonl", "\xff\xfe{\x00}\x00", "a.jsonl: invalid: it is in UTF-16; save it as UTF-8"},
		{"table in UTF-16", "a.csv", "\xfe\xff\x00t\x00e", "a.csv: invalid: it is in UTF-16"},
		{"text in UTF-16", "a.txt", "\xff\xfet\x00", "a.txt: invalid: it is in UTF-16"},
		{"semicolons", "a.csv", "instruction;output\na;b\n", `a.csv:1: invalid: its first line has no comma, and ";" in it`},
		{"tabs", "a.csv", "instruction\toutput\na\tb\n", `a.csv:1: invalid: its first line has no comma, and "\t" in it`},
		{"only names", "a.csv", "text\n", "no rows"},
		{"long text", "a.txt", strings.Repeat("x\n", maxRawRowBytes/2+1), "without an empty line"},
		{"Parquet", "a.parquet", "PAR1", "a.parquet: invalid: too short for a Parquet file"},
		{"large", "a.jsonl", `{"text":"` + strings.Repeat("x", MaxRowBytes) + `"}`, "a.jsonl:1: too large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := testStore(t).ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, tt.file, tt.content)}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	alpaca := writeRows(t, "a.jsonl", `{"instruction":"a","output":"b"}`)
	chat := writeRows(t, "b.jsonl", `{"messages":[`+user+`,{"role":"assistant","content":"x"}]}`)
	_, err := testStore(t).ImportDataset(t.Context(), DatasetOptions{Files: []string{alpaca, chat}})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "the rows of a.jsonl are alpaca and those of b.jsonl are messages") {
		t.Errorf("two formats: %v", err)
	}
	_, err = testStore(t).ImportDataset(t.Context(), DatasetOptions{Files: []string{alpaca}, Format: "xml"})
	if err == nil || !strings.Contains(err.Error(), `format is "xml"`) {
		t.Errorf("unknown format: %v", err)
	}
	_, err = testStore(t).ImportDataset(t.Context(), DatasetOptions{Files: []string{alpaca}, Format: FormatText})
	if err == nil || !strings.Contains(err.Error(), "a.jsonl:1: no text") {
		t.Errorf("forced format: %v", err)
	}
}

// TestHeldOutFormats checks that rows of one prompt stay together in every
// format, and that rows of text do not all count as one.
func TestHeldOutFormats(t *testing.T) {
	for format, content := range map[string]string{
		"text":       "one\n\ntwo\n\nthree\n\nfour\n\nfive\n\nsix\n\nseven\n\neight",
		"completion": strings.Repeat(`{"prompt":"p","completion":"c"}`+"\n", 2) + `{"prompt":"q","completion":"c"}`,
		"messages":   strings.Repeat(`{"messages":[{"role":"user","content":"p"},{"role":"assistant","content":"c"}]}`+"\n", 2) + `{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"c"}]}`,
	} {
		s := testStore(t)
		file := "a.jsonl"
		if format == "text" {
			file = "a.txt"
		}
		imp := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, file, content)}, EvalFraction: 0.25})
		train, eval := all(t, s, imp)
		if len(train) == 0 || len(eval) == 0 || format == "text" && len(eval) != 2 {
			t.Errorf("%s: %d rows and %d held out", format, len(train), len(eval))
		}
		for _, r := range eval {
			for _, q := range train {
				a, _ := r.hashes(format)
				if b, _ := q.hashes(format); a == b {
					t.Errorf("%s: a prompt is on both sides", format)
				}
			}
		}
	}
}

func TestFormatLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := func(name string) string { return rapid.String().Draw(t, name) + "x" }
		format := rapid.SampledFrom([]string{FormatMessages, FormatCompletion, FormatText}).Draw(t, "format")
		var want Row
		switch format {
		case FormatMessages:
			for range rapid.IntRange(0, 3).Draw(t, "turns") {
				want.Messages = append(want.Messages, Message{"user", rapid.String().Draw(t, "user")})
			}
			want.Messages = append(want.Messages, Message{"assistant", word("assistant")})
		case FormatCompletion:
			want = Row{Instruction: word("prompt"), Output: word("completion")}
		default:
			want.Output = word("text")
		}
		line := appendRow(nil, format, want)
		got, err := parseRowLine(format, line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q reads as %+v, %v", line, got, err)
		}
		if bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", line)
		}
	})
}

// Whatever the file, the rows that come out are valid and their lines read back.
func FuzzInput(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"}]}]}`), byte(0))
	f.Add([]byte(`[{"conversations":[{"from":"gpt","value":"a"}],"system":"s"}]`), byte(0))
	f.Add([]byte("text,n\n\"a\nb\",1\nc\n"), byte(1))
	f.Add([]byte("a\n\n b \r\n\r\nc"), byte(2))
	f.Fuzz(func(t *testing.T, data []byte, kind byte) {
		scan := []func(context.Context, string, *bytes.Reader, func(rawRow) error) error{
			func(ctx context.Context, n string, r *bytes.Reader, fn func(rawRow) error) error {
				return scanRows(ctx, n, r, fn)
			},
			func(ctx context.Context, n string, r *bytes.Reader, fn func(rawRow) error) error {
				return scanTable(ctx, n, r, ',', fn)
			},
			func(ctx context.Context, n string, r *bytes.Reader, fn func(rawRow) error) error {
				return scanText(ctx, n, r, fn)
			},
		}[kind%3]
		last := 0
		_ = scan(context.Background(), "f", bytes.NewReader(data), func(raw rawRow) error {
			if raw.at <= last {
				t.Errorf("row %d after %d", raw.at, last)
			}
			last = raw.at
			if raw.bad != nil {
				return nil
			}
			o, err := parseObject(raw.raw)
			if err != nil {
				return nil
			}
			d, err := o.detect()
			if err != nil {
				return nil
			}
			r, _, err := parseInput(d.Input, raw.raw)
			if err != nil {
				return nil
			}
			line := appendRow(nil, d.Format, r)
			if len(line) > MaxRowBytes {
				return nil
			}
			if got, err := parseRowLine(d.Format, line); err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%+v comes back as %+v, %v", r, got, err)
			}
			return nil
		})
	})
}
