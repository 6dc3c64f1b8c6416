package shard

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

// Rows whose fields have other names become the same data set as those that
// have the names of the form.
func TestFields(t *testing.T) {
	s := testStore(t)
	plain := writeRows(t, "plain.jsonl", `{"instruction":"Add.","input":"2 + 2","output":"4"}`+"\n"+`{"instruction":"Name a city.","output":"Rome"}`+"\n")
	want := mustImportDataset(t, s, DatasetOptions{Files: []string{plain}})
	fields := Fields{"instruction": "question", "output": "the \"answer\"", "input": "context"}
	for name, file := range map[string]string{
		"rows.jsonl": `{"question":"Add.","context":"2 + 2","the \"answer\"":"4","output":"not this","id":1}` + "\n" + `{"the \"answer\"":"Rome","question":"Name a city."}` + "\n",
		"rows.json":  `[{"question":"Add.","context":"2 + 2","the \"answer\"":"4"},{"question":"Name a city.","context":null,"the \"answer\"":"Rome"}]`,
		"rows.csv":   "question,context,\"the \"\"answer\"\"\",instruction\nAdd.,2 + 2,4,no\nName a city.,,Rome,no\n",
		"rows.parquet": string(parquetBytes(t, []struct {
			Question string  `parquet:"question"`
			Context  *string `parquet:"context"`
			Answer   string  `parquet:"the \"answer\""`
			Picture  []byte  `parquet:"picture"`
		}{{"Add.", ptr("2 + 2"), "4", []byte{1}}, {"Name a city.", nil, "Rome", nil}})),
	} {
		t.Run(name, func(t *testing.T) {
			got := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, name, file)}, Fields: fields})
			if got.Root != want.Root {
				t.Errorf("imported as %s with %+v, want %s", got.Root, got.Detected, want.Root)
			}
		})
	}
}

func TestFieldsRefused(t *testing.T) {
	rows := writeRows(t, "a.jsonl", `{"question":"Add.","answer":"4"}`+"\n"+`{"question":"Add."}`+"\n")
	for _, tt := range []struct {
		fields Fields
		want   string
	}{
		{Fields{"answer": "output"}, `field "answer" is none of a form of rows`},
		{Fields{"output": ""}, `field output is taken from ""`},
		{Fields{"output": strings.Repeat("x", 300)}, "at most 256 bytes"},
		{Fields{"output": "answer", "instruction": "answer"}, `fields instruction and output are both taken from "answer"`},
		{Fields{"output": "reply", "instruction": "question"}, "none of the rows"},
	} {
		_, err := ReadInput(t.Context(), rows, InputOptions{Fields: tt.fields}, func(r InputRow) error {
			if r.Err != nil && strings.HasSuffix(r.Err.Error(), "no reply, which is to be the output") {
				return errors.New("none of the rows")
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.fields, err, tt.want)
		}
	}
	var bad []string
	d, err := ReadInput(t.Context(), rows, InputOptions{Fields: Fields{"output": "answer", "instruction": "question"}}, func(r InputRow) error {
		if r.Err != nil {
			bad = append(bad, r.Place+": "+r.Err.Error())
		}
		return nil
	})
	if err != nil || d.Input != FormatAlpaca || cmp.Diff([]string{"a.jsonl:2: no answer, which is to be the output"}, bad) != "" {
		t.Errorf("%+v, %v, %v", d, bad, err)
	}
}

func TestPreview(t *testing.T) {
	long := strings.Repeat("ä", maxPreviewBytes)
	for _, tt := range []struct {
		name, file string
		n          int
		columns    []string
		rows       []string // place and values, or what is wrong
		input, why string
		suggested  Fields
	}{
		{
			"a.jsonl", `{"question":"2+2?","answer":"4","n":7,"tags":[1]}` + "\n\nnot json\n" + `{"question":"x","o":{}}` + "\n{}\n", 3,
			[]string{"question", "answer", "n", "tags", "o"},
			[]string{"a.jsonl:1|text 2+2?|text 4|other 7|list [1]", "a.jsonl:3 bad", "a.jsonl:4|text x||||object {}"},
			"", "known are messages",
			Fields{"instruction": "question", "output": "answer"},
		},
		{"b.csv", "Prompt,Reply\na,\n", 3, []string{"Prompt", "Reply"}, []string{"b.csv:2|text a|text "}, "", "known are", Fields{"instruction": "Prompt", "output": "Reply"}},
		{"c.json", `[{"input":"a","output":"b"}]`, 3, []string{"input", "output"}, []string{"c.json: row 1|text a|text b"}, "alpaca", "a field of that format", Fields{"instruction": "input", "output": "output"}},
		{"d.txt", long + "\n\nx\n", 1, []string{"text"}, []string{"d.txt:1|text " + long[:maxPreviewBytes]}, "text", "has text", nil},
		{"e.jsonl", `{"body":"x"}`, 9, []string{"body"}, []string{"e.jsonl:1|text x"}, "", "known", Fields{"text": "body"}},
		{"f.jsonl", `{"chat":[{"role":"user","content":"x"}]}`, 9, []string{"chat"}, []string{`f.jsonl:1|list [{"role":"user","content":"x"}]`}, "", "known", Fields{"messages": "chat"}},
		{"g.jsonl", `{"chat":[{"who":"user"}]}`, 9, []string{"chat"}, []string{`g.jsonl:1|list [{"who":"user"}]`}, "", "known", nil},
		{"h.csv", "a,b\n1\n2\n", 9, nil, []string{"h.csv:2 bad", "h.csv:3 bad"}, "", "none of the first rows", nil},
		{
			"i.parquet", string(parquetBytes(t, []struct {
				Question string `parquet:"question"`
				Picture  []byte `parquet:"picture"`
				Text     string `parquet:"response"`
			}{{"q", []byte{0xff}, "r"}})),
			9,
			[]string{"question", "picture", "response"},
			nil, "", "known",
			Fields{"instruction": "question", "output": "response"},
		},
	} {
		p, err := PreviewInput(t.Context(), writeRows(t, tt.name, tt.file), tt.n)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var rows []string
		for _, r := range p.Rows {
			s := r.Place
			for _, v := range r.Values {
				if s += "|"; v.Kind != "" {
					s += v.Kind + " " + v.Text
				}
			}
			if r.Bad != "" {
				s += " bad"
			}
			rows = append(rows, s)
		}
		if diff := cmp.Diff(tt.rows, rows); diff != "" && tt.rows != nil {
			t.Errorf("%s: rows (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.columns, p.Columns); diff != "" {
			t.Errorf("%s: columns (-want +got):\n%s", tt.name, diff)
		}
		if p.Detected.Input != tt.input || !strings.Contains(p.Detected.Why, tt.why) {
			t.Errorf("%s: detected %+v", tt.name, p.Detected)
		}
		if diff := cmp.Diff(tt.suggested, p.Suggested); diff != "" {
			t.Errorf("%s: suggested (-want +got):\n%s", tt.name, diff)
		}
	}
	if p, err := PreviewInput(t.Context(), writeRows(t, "a.txt", long+long+"\n"), 1); err != nil || p.Rows[0].Values[0].Bytes != 4*maxPreviewBytes {
		t.Errorf("%+v, %v", p, err)
	}
	for _, name := range []string{"empty.jsonl", "missing.jsonl"} {
		path := filepath.Join(t.TempDir(), name)
		if name == "empty.jsonl" {
			if err := os.WriteFile(path, []byte("\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := PreviewInput(t.Context(), path, 3); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add("output", "answer", "instruction", "question", []byte(`{"question":"a","answer":"b","output":1}`))
	f.Add("input", "output", "output", "input", []byte(`{"instruction":"a","output":"b","input":"c"}`))
	f.Fuzz(func(t *testing.T, to1, from1, to2, from2 string, raw []byte) {
		fields := Fields{to1: from1, to2: from2}
		if fields.validate() != nil {
			return
		}
		got, err := fields.rename(nil, raw)
		if err != nil {
			return
		}
		before, _ := parseObject(raw)
		after, err := parseObject(got)
		if err != nil {
			t.Fatalf("%s becomes %s: %v", raw, got, err)
		}
		for to, from := range fields {
			if string(before.values[from]) != string(after.values[to]) {
				t.Fatalf("%s becomes %s: %s is not what %s was", raw, got, to, from)
			}
		}
	})
}

// Of a Parquet file with very many columns the first ones are shown, and the
// names of all.
func TestPreviewOfManyColumns(t *testing.T) {
	group, row := parquet.Group{}, map[string]string{}
	for i := range 2 * maxExtraColumns {
		name := fmt.Sprintf("c%02d", i)
		group[name], row[name] = parquet.String(), "x"
	}
	var b bytes.Buffer
	w := parquet.NewGenericWriter[map[string]string](&b, parquet.NewSchema("rows", group))
	_, err := w.Write([]map[string]string{row})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	p, err := PreviewInput(t.Context(), writeRows(t, "many.parquet", b.String()), 1)
	if err != nil || len(p.Columns) != len(row) || len(p.Rows) != 1 {
		t.Fatalf("%d columns, %d rows, %v", len(p.Columns), len(p.Rows), err)
	}
	shown := 0
	for _, v := range p.Rows[0].Values {
		if v.Text == "x" {
			shown++
		}
	}
	if shown != maxExtraColumns {
		t.Errorf("%d columns are shown", shown)
	}
}
