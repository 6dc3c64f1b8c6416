package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func writeRows(t testing.TB, name, content string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// numbered makes n different rows as JSON lines.
func numbered(from, n int) string {
	var b []byte
	for i := range n {
		b = Row{Instruction: fmt.Sprint("What is row ", from+i, "?"), Output: fmt.Sprint("It is ", from+i, ".")}.appendLine(b)
	}
	return string(b)
}

func mustImportDataset(t testing.TB, s *Store, opts DatasetOptions) DatasetImport {
	t.Helper()
	imp, err := s.ImportDataset(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return imp
}

// all reads all rows of a data set.
func all(t testing.TB, s *Store, imp DatasetImport) (train, eval []Row) {
	t.Helper()
	d, err := OpenDataset(t.Context(), s, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(imp.Index, d.Index()); diff != "" {
		t.Errorf("index (-imported +opened):\n%s", diff)
	}
	if err := d.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for i := range d.TrainShards() {
		rows, err := d.ReadShard(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		train = append(train, rows...)
	}
	for i := range d.EvalShards() {
		rows, err := d.ReadEval(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		eval = append(eval, rows...)
	}
	return train, eval
}

func TestImportDataset(t *testing.T) {
	s := testStore(t)
	train := writeRows(t, "train.json", `[
		{"instruction": "Name a colour.", "input": "", "output": "Red \u00e9 \ud83c\udf89"},
		{"output": "4", "instruction": "Add.", "input": "2 + 2"},
		{"instruction": "No input.", "output": "line\nline\u2028</s>\u0000", "id": 7, "input": null}
	]`)
	eval := writeRows(t, "eval.jsonl", "\ufeff\n"+`{"instruction":"Name a city.","output":"Rome"}`+"\r\n\n")
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{train}, EvalFile: eval, Licence: "CC0-1.0", Source: "made up"})
	wantTrain := []Row{
		{Instruction: "Name a colour.", Output: "Red é 🎉"},
		{Instruction: "Add.", Input: "2 + 2", Output: "4"},
		{Instruction: "No input.", Output: "line\nline\u2028</s>\x00"},
	}
	gotTrain, gotEval := all(t, s, imp)
	if diff := cmp.Diff(wantTrain, gotTrain); diff != "" {
		t.Errorf("training rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Row{{Instruction: "Name a city.", Output: "Rome"}}, gotEval); diff != "" {
		t.Errorf("held-out rows (-want +got):\n%s", diff)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := s.Materialize(t.Context(), imp.Root, out, MaterializeOptions{MaxBytes: imp.Bytes}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"dataset.json": `{"eval":{"bytes":58,"rows":1,"shards":[{"bytes":58,"name":"eval/00000.jsonl","rows":1}]},"format":"alpaca","held_out":"file","licence":"CC0-1.0","schema":1,"seed":0,"shuffled":false,"source":"made up","template":"alpaca","train":{"bytes":193,"rows":3,"shards":[{"bytes":193,"name":"train/00000.jsonl","rows":3}]}}` + "\n",
		"eval/":        "", "train/": "",
		"eval/00000.jsonl": `{"input":"","instruction":"Name a city.","output":"Rome"}` + "\n",
		"train/00000.jsonl": `{"input":"","instruction":"Name a colour.","output":"Red é 🎉"}` + "\n" +
			`{"input":"2 + 2","instruction":"Add.","output":"4"}` + "\n" +
			`{"input":"","instruction":"No input.","output":"line\nline` + "\u2028" + `</s>\u0000"}` + "\n",
	}
	if diff := cmp.Diff(want, readTree(t, out)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	// The folder on disk is the data set: importing it gives the same CID.
	if again := mustImport(t, s, out); again.Root != imp.Root || again.Bytes != imp.Bytes || again.Files != imp.Files || again.Blocks != imp.Blocks {
		t.Errorf("imported as a folder: %+v, want %+v", again, imp.Import)
	}
	if diff := cmp.Diff([]string{`fields other than instruction, input and output were left out: "id"`}, imp.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// The example of FORMAT.md; other implementations must come to this CID.
func TestDatasetVector(t *testing.T) {
	s := testStore(t)
	rows := writeRows(t, "rows.jsonl", `{"instruction": "Say hello.", "output": "Hello!"}`+"\n"+`{"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"}`+"\n")
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{rows}, Licence: "CC0-1.0", Source: "example"})
	const want = "bafybeidk2lkxzrul2x5zqfoq45jisyb72ei2u7z6uir5lf35ofg7pjpidi"
	if imp.Root.String() != want {
		t.Errorf("root is %s, want %s", imp.Root, want)
	}
}

func TestDatasetIsDeterministic(t *testing.T) {
	lines := numbered(0, 500)
	var array []json.RawMessage
	for _, l := range strings.Split(strings.TrimSpace(lines), "\n") {
		array = append(array, json.RawMessage(l))
	}
	asArray, err := json.MarshalIndent(array, " ", "\t")
	if err != nil {
		t.Fatal(err)
	}
	opts := func(file string) DatasetOptions {
		return DatasetOptions{Files: []string{file}, EvalFraction: 0.1, Seed: 5, Shuffle: true, ShardBytes: 1000}
	}
	one := mustImportDataset(t, testStore(t), opts(writeRows(t, "a.jsonl", lines)))
	two := mustImportDataset(t, testStore(t), opts(writeRows(t, "b.json", string(asArray))))
	if one.Root != two.Root {
		t.Errorf("the same rows give %s and %s", one.Root, two.Root)
	}
	other := opts(writeRows(t, "a.jsonl", lines))
	other.Seed = 6
	if three := mustImportDataset(t, testStore(t), other); three.Root == one.Root {
		t.Error("another seed gives the same data set")
	}
}

func TestShards(t *testing.T) {
	s := testStore(t)
	long := Row{Instruction: "long", Output: strings.Repeat("x", 5000)}
	content := numbered(0, 200) + string(long.appendLine(nil)) + numbered(200, 200)
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "a.jsonl", content)}, ShardBytes: 1000})
	var total int64
	for i, sh := range imp.Index.Train.Shards {
		if sh.Bytes > 1000 && sh.Rows > 1 {
			t.Errorf("shard %d has %d rows in %d bytes", i, sh.Rows, sh.Bytes)
		}
		if i > 0 && imp.Index.Train.Shards[i-1].Bytes+70 < 1000 && sh.Rows > 1 {
			t.Errorf("shard %d has only %d bytes", i-1, imp.Index.Train.Shards[i-1].Bytes)
		}
		total += sh.Bytes
	}
	if total != int64(len(content)) || imp.Index.Train.Rows != 401 {
		t.Errorf("%d bytes, %d rows", total, imp.Index.Train.Rows)
	}
	got, _ := all(t, s, imp)
	var back []byte
	for _, r := range got {
		back = r.appendLine(back)
	}
	if string(back) != content {
		t.Error("the rows are not the rows of the file, in order")
	}
	// By default a shard is a block.
	big := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "b.jsonl", numbered(0, 60_000))}})
	d, err := OpenDataset(t.Context(), s, big.Root)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.TrainShards()) < 3 {
		t.Errorf("%d shards", len(d.TrainShards()))
	}
	for i, c := range d.TrainShards() {
		if c.Prefix().Codec != rawCodec {
			t.Errorf("shard %d is more than a block", i)
		}
	}
}

func TestHeldOutFraction(t *testing.T) {
	s := testStore(t)
	// Each prompt three times with other outputs, and one row twice.
	var content []byte
	for i := range 300 {
		content = Row{Instruction: fmt.Sprint("q", i/3), Output: fmt.Sprint("a", i)}.appendLine(content)
	}
	content = Row{Instruction: "q0", Output: "a0"}.appendLine(content)
	file := writeRows(t, "a.jsonl", string(content))
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{file}, EvalFraction: 0.2, Seed: 1})
	train, eval := all(t, s, imp)
	if len(train)+len(eval) != 301 || len(eval) < 60 || len(eval) > 63 {
		t.Errorf("%d training rows, %d held out", len(train), len(eval))
	}
	prompts := make(map[string]bool)
	for _, r := range train {
		prompts[r.Instruction] = true
	}
	for _, r := range eval {
		if prompts[r.Instruction] {
			t.Errorf("prompt %q is on both sides", r.Instruction)
		}
	}
	if diff := cmp.Diff([]string{"1 training rows repeat another one"}, imp.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if imp.Index.HeldOut != "fraction" {
		t.Errorf("held_out %q", imp.Index.HeldOut)
	}
	// As few as there can be, and not all.
	imp = mustImportDataset(t, s, DatasetOptions{Files: []string{file}, EvalFraction: 1e-9})
	if _, eval := all(t, s, imp); len(eval) < 1 || len(eval) > 4 {
		t.Errorf("%d held out, want one prompt", len(eval))
	}
	if _, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, "one.jsonl", numbered(0, 1))}, EvalFraction: 0.5}); err == nil {
		t.Error("one row was held out of one")
	}
}

func TestLeaksAreRefused(t *testing.T) {
	s := testStore(t)
	train := writeRows(t, "train.json", `[{"instruction":"a","output":"x"},{"instruction":"b","output":"y"}]`)
	eval := writeRows(t, "eval.jsonl", `{"instruction":"c","output":"z"}`+"\n"+`{"instruction":" b ","input":"","output":"y\n"}`+"\n")
	_, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{train}, EvalFile: eval})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "eval.jsonl:2 is the same as train.json: row 2") {
		t.Errorf("ImportDataset = %v", err)
	}
	eval = writeRows(t, "eval.jsonl", `{"instruction":"b","output":"another answer"}`)
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{train}, EvalFile: eval})
	if diff := cmp.Diff([]string{"1 held-out rows have the prompt of a training row, with another output"}, imp.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	var many []byte
	for i := range 15 {
		many = Row{Instruction: fmt.Sprint(i), Output: "x"}.appendLine(many)
	}
	file := writeRows(t, "many.jsonl", string(many))
	_, err = s.ImportDataset(t.Context(), DatasetOptions{Files: []string{file}, EvalFile: file})
	if err == nil || !strings.Contains(err.Error(), "15 held-out rows") || !strings.Contains(err.Error(), "and 5 more") {
		t.Errorf("ImportDataset = %v", err)
	}
}

func TestBadRows(t *testing.T) {
	s := testStore(t)
	good := `{"instruction":"a","output":"b"}`
	for _, tt := range []struct {
		name, content, want string
	}{
		{"empty file", "", "no rows"},
		{"white space", " \n\t\r\n", "no rows"},
		{"empty array", "[ ]", "no rows"},
		{"neither", "instruction,output\na,b\n", "f:1: invalid: neither a JSON array"},
		{"no instruction", `{"output":"b"}`, "f:1: no instruction"},
		{"no output", good + "\n" + `{"instruction":"a"}`, "f:2: no output"},
		{"blank instruction", "\n\n" + `{"instruction":" \n","output":"b"}`, "f:3: instruction is empty"},
		{"blank output", `[` + good + `,{"instruction":"a","output":""}]`, "f: row 2: output is empty"},
		{"number", `{"instruction":1,"output":"b"}`, "instruction is not a string"},
		{"null output", `{"instruction":"a","output":null}`, "output is not a string"},
		{"list input", `{"instruction":"a","input":[],"output":"b"}`, "input is not a string"},
		{"twice", `{"instruction":"a","output":"b","output":"c"}`, "output is there twice"},
		{"other case", `{"Instruction":"a","output":"b"}`, "no instruction"},
		{"not an object", `[1]`, "f: row 1: not a JSON object"},
		{"null row", `[null]`, "f: row 1: not a JSON object"},
		{"two objects a line", good + good, "f:1: text after the object"},
		{"cut line", good + "\n" + good[:10], "f:2: bad JSON"},
		{"cut array", `[` + good + `,` + good[:10], "f: row 2: invalid: the file ends in the middle"},
		{"unclosed array", `[` + good, "f: after row 1: invalid: the file ends in the middle"},
		{"missing comma", `[` + good + ` ` + good + `]`, "bad JSON"},
		{"text after the array", `[` + good + `] x`, "text after the array"},
		{"not UTF-8", `{"instruction":"a` + "\xff" + `","output":"b"}`, "f:1: text is not UTF-8"},
		{"half a pair", `{"instruction":"a\ud800","output":"b"}`, "half a surrogate pair"},
		{"long row", `{"instruction":"a","output":"` + strings.Repeat("b", MaxRowBytes) + `"}`, "f:1: too large: row of"},
		{"endless line", good + "\n" + `{"instruction":"` + strings.Repeat("b", maxRawRowBytes), "f:2: too large"},
		{"endless row", `[` + good + `,{"instruction":"` + strings.Repeat("b", maxRawRowBytes+1<<20), "f: row 2: too large"},
		{"control character", `{"instruction":"a` + "\x01" + `","output":"b"}`, "bad JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, "f", tt.content)}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ImportDataset = %.300v, want %q", err, tt.want)
			}
		})
	}
	if got := keys(t, s); len(got) > 0 {
		t.Errorf("stored: %v", got)
	}
	if left := filesBelow(t, filepath.Join(s.dir, "tmp")); len(left) > 0 {
		t.Errorf("left in tmp: %v", left)
	}
	t.Run("all are listed", func(t *testing.T) {
		bad := strings.Repeat("{}\n", 14)
		_, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, "f", good+"\n"+bad)}})
		if err == nil || !strings.Contains(err.Error(), "14 rows") || !strings.Contains(err.Error(), "f:11:") || !strings.Contains(err.Error(), "and 4 more") {
			t.Errorf("ImportDataset = %v", err)
		}
	})
	t.Run("dropped and counted", func(t *testing.T) {
		file := writeRows(t, "f", "{}\n"+good+"\nnonsense\n")
		imp := mustImportDataset(t, s, DatasetOptions{Files: []string{file}, DropInvalid: true})
		if imp.Dropped != 2 || imp.Index.Train.Rows != 1 || len(imp.Warnings) != 1 {
			t.Errorf("import %+v", imp)
		}
		if _, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{writeRows(t, "f", "{}")}, DropInvalid: true}); err == nil {
			t.Error("a data set without rows")
		}
	})
	t.Run("a line that is too long is one row", func(t *testing.T) {
		long := `{"instruction":"` + strings.Repeat("b", 2*maxRawRowBytes) + `"}`
		file := writeRows(t, "f", good+"\n"+long+"\n"+strings.ReplaceAll(good, "a", "c")+"\n{}\n"+long)
		imp := mustImportDataset(t, s, DatasetOptions{Files: []string{file}, DropInvalid: true})
		if imp.Dropped != 3 || imp.Index.Train.Rows != 2 || imp.Rejected[0].Place != "f:2" || imp.Rejected[1].Place != "f:4" || imp.Rejected[2].Place != "f:5" {
			t.Errorf("import %+v", imp)
		}
		_, err := s.ImportDataset(t.Context(), DatasetOptions{Files: []string{file}})
		var rows *RowsError
		if !errors.As(err, &rows) || rows.Rows != 3 || !errors.Is(err, ErrTooLarge) || !errors.Is(err, ErrInvalid) {
			t.Errorf("ImportDataset = %.300v", err)
		}
	})
	t.Run("replacement character is a character", func(t *testing.T) {
		file := writeRows(t, "f", `{"instruction":"a\uFFFD","output":"`+"\ufffd"+`"}`)
		mustImportDataset(t, s, DatasetOptions{Files: []string{file}})
	})
}

func TestDatasetOptions(t *testing.T) {
	s := testStore(t)
	file := writeRows(t, "a.jsonl", numbered(0, 10))
	for _, tt := range []struct {
		name string
		edit func(*DatasetOptions)
	}{
		{"no file", func(o *DatasetOptions) { o.Files = nil }},
		{"no such file", func(o *DatasetOptions) { o.Files = []string{file + "x"} }},
		{"a folder", func(o *DatasetOptions) { o.Files = []string{filepath.Dir(file)} }},
		{"file and fraction", func(o *DatasetOptions) { o.EvalFile, o.EvalFraction = file, 0.1 }},
		{"negative fraction", func(o *DatasetOptions) { o.EvalFraction = -0.1 }},
		{"whole fraction", func(o *DatasetOptions) { o.EvalFraction = 1 }},
		{"no fraction", func(o *DatasetOptions) { o.EvalFraction = math.NaN() }},
		{"large seed", func(o *DatasetOptions) { o.Seed = 1 << 53 }},
		{"small shards", func(o *DatasetOptions) { o.ShardBytes = 10 }},
		{"large shards", func(o *DatasetOptions) { o.ShardBytes = 1 << 30 }},
		{"template", func(o *DatasetOptions) { o.Template = "a b" }},
		{"licence", func(o *DatasetOptions) { o.Licence = strings.Repeat("x", 257) }},
		{"source", func(o *DatasetOptions) { o.Source = "\xff" }},
	} {
		opts := DatasetOptions{Files: []string{file}}
		tt.edit(&opts)
		if _, err := s.ImportDataset(t.Context(), opts); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
	var last int64
	mustImportDataset(t, s, DatasetOptions{Files: []string{file}, ShardBytes: 256, Progress: func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}})
	if last == 0 {
		t.Error("no progress")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ImportDataset(ctx, DatasetOptions{Files: []string{file}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled import = %v", err)
	}
}

// Data sets from peers: what dataset.json says must be what is there.
func TestOpenDatasetRefuses(t *testing.T) {
	s := testStore(t)
	row := string(Row{Instruction: "a", Output: "b"}.appendLine(nil))
	index := func(edit func(*DatasetIndex)) string {
		x := &DatasetIndex{Format: "alpaca", Template: "alpaca", HeldOut: "none"}
		x.Train = DatasetPart{1, int64(len(row)), []DatasetShard{{"train/00000.jsonl", 1, int64(len(row))}}}
		edit(x)
		return string(x.encode())
	}
	ok := index(func(*DatasetIndex) {})
	two := func(x *DatasetIndex) {
		x.Train.Rows, x.Train.Bytes = 2, 2*x.Train.Bytes
		x.Train.Shards = append(x.Train.Shards, DatasetShard{"train/00001.jsonl", 1, x.Train.Shards[0].Bytes})
	}
	held := func(x *DatasetIndex) {
		x.HeldOut = "file"
		x.Eval = x.Train
		x.Eval.Shards = []DatasetShard{{"eval/00000.jsonl", 1, int64(len(row))}}
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // "" is valid
	}{
		{"as it should be", map[string]string{"dataset.json": ok, "train/00000.jsonl": row}, ""},
		{"held out", map[string]string{"dataset.json": index(held), "train/00000.jsonl": row, "eval/00000.jsonl": row}, ""},
		{"a model", map[string]string{"config.json": "{}"}, "not a data set"},
		{"index is a folder", map[string]string{"dataset.json/x": ""}, "not a data set"},
		{"not JSON", map[string]string{"dataset.json": "x"}, "bad JSON"},
		{"newer", map[string]string{"dataset.json": `{"schema":2}`}, "schema 2"},
		{"other spelling", map[string]string{"dataset.json": " " + ok, "train/00000.jsonl": row}, "canonical"},
		{"more fields", map[string]string{"dataset.json": strings.Replace(ok, "{", `{"a":1,`, 1), "train/00000.jsonl": row}, "canonical"},
		{"no shard", map[string]string{"dataset.json": ok}, "no folder train"},
		{"train is a file", map[string]string{"dataset.json": ok, "train": row}, "no folder train"},
		{"fewer shards", map[string]string{"dataset.json": index(two), "train/00000.jsonl": row}, "1 files"},
		{"more shards", map[string]string{"dataset.json": ok, "train/00000.jsonl": row, "train/00001.jsonl": row}, "2 files"},
		{"other name", map[string]string{"dataset.json": ok, "train/0.jsonl": row}, "0.jsonl"},
		{"shard is a folder", map[string]string{"dataset.json": ok, "train/00000.jsonl/x": row}, "dataset.json says"},
		{"other size", map[string]string{"dataset.json": ok, "train/00000.jsonl": row + row}, "dataset.json says"},
		{"more files", map[string]string{"dataset.json": ok, "train/00000.jsonl": row, "run.py": ""}, "does not belong"},
		{"eval without rows", map[string]string{"dataset.json": ok, "train/00000.jsonl": row, "eval/": ""}, "0 files"},
		{"held out and none there", map[string]string{"dataset.json": index(held), "train/00000.jsonl": row}, "no folder eval"},
		{"no rows", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.Train = DatasetPart{} })}, "no training rows"},
		{"path", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.Train.Shards[0].Name = "../x" })}, "has the name"},
		{"sums", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.Train.Rows = 5 })}, "the shards have"},
		{"format", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.Format = "csv" })}, "format"},
		{"held_out", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.HeldOut = "maybe" })}, "held_out"},
		{"held_out without", map[string]string{"dataset.json": index(func(x *DatasetIndex) { x.HeldOut = "file" })}, "held_out"},
		{"large shard", map[string]string{"dataset.json": index(func(x *DatasetIndex) {
			x.Train.Bytes = MaxShardBytes + 1
			x.Train.Shards[0].Bytes = MaxShardBytes + 1
		})}, "must be 1 to"},
		{"negative shard", map[string]string{"dataset.json": index(func(x *DatasetIndex) {
			x.Train.Bytes = -1
			x.Train.Shards[0].Bytes = -1
		})}, "must be 1 to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			imp := mustImport(t, s, tree(t, tt.files))
			d, err := OpenDataset(t.Context(), s, imp.Root)
			if tt.want == "" {
				if err != nil || d.Verify(t.Context()) != nil {
					t.Errorf("OpenDataset = %v", err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("OpenDataset = %v, want ErrInvalid and %q", err, tt.want)
			}
		})
	}
}

func TestReadShardRefuses(t *testing.T) {
	row := string(Row{Instruction: "a", Output: "b"}.appendLine(nil))
	for _, tt := range []struct {
		name, content string
		rows          int64
		want          string
	}{
		{"fewer rows", row, 2, "1 lines"},
		{"more rows", row + row, 1, "2 lines"},
		{"no line feed", strings.TrimSpace(row), 1, "0 lines"},
		{"rest", row + "x", 1, "1 lines"},
		{"empty line", row + "\n", 2, "row 2"},
		{"other spelling", strings.Replace(row, ":", ": ", 1), 1, "canonical"},
		{"more fields", strings.Replace(row, "{", `{"a":1,`, 1), 1, "canonical"},
		{"escape", strings.Replace(row, `"b"`, `"\u0062"`, 1), 1, "canonical"},
		{"blank", strings.Replace(row, `"b"`, `" "`, 1), 1, "output is empty"},
		{"long", strings.Replace(row, `"b"`, `"`+strings.Repeat("b", MaxRowBytes)+`"`, 1), 1, "too large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseShard(FormatAlpaca, []byte(tt.content), tt.rows); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parseShard = %v, want %q", err, tt.want)
			}
		})
	}
	s := testStore(t)
	imp := mustImportDataset(t, s, DatasetOptions{Files: []string{writeRows(t, "a.jsonl", row)}})
	d, err := OpenDataset(t.Context(), s, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{-1, 1} {
		if _, err := d.ReadShard(t.Context(), i); err == nil {
			t.Errorf("ReadShard(%d) = nil", i)
		}
	}
	if err := s.DeleteBlock(t.Context(), d.TrainShards()[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := d.ReadShard(t.Context(), 0); !errors.Is(err, ErrIncomplete) {
		t.Errorf("ReadShard of a missing block = %v", err)
	}
	if d, err = OpenDataset(t.Context(), s, imp.Root); err != nil {
		t.Errorf("OpenDataset without a shard = %v", err)
	} else if err := d.Verify(t.Context()); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Verify = %v", err)
	}
}

// RFC 8785, 3.2.2.2.
func TestCanonicalStrings(t *testing.T) {
	const text = "\x00\x07\b\t\n\v\f\r\x1f \"'/\\<>&\x7f\u0080é\u2028\u2029\ufeff🎉"
	const want = `"\u0000\u0007\b\t\n\u000b\f\r\u001f \"'/\\<>&` + "\x7f\u0080é\u2028\u2029\ufeff🎉" + `"`
	if got := string(appendJSONString(nil, text)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRowLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Row{
			Instruction: rapid.String().Draw(t, "instruction") + "i", Input: rapid.String().Draw(t, "input"),
			Output: rapid.String().Draw(t, "output") + "o",
		}
		line := want.appendLine(nil)
		got, err := parseLine(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q reads as %+v, %v", line, got, err)
		}
		// It is JSON to others, too.
		var std map[string]string
		if err := json.Unmarshal(line, &std); err != nil || std["instruction"] != want.Instruction || std["output"] != want.Output || std["input"] != want.Input {
			t.Fatalf("encoding/json reads %v, %v", std, err)
		}
		if bytes.Count(line, []byte("\n")) != 1 {
			t.Fatalf("%q is not one line", line)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	f.Add(Row{Instruction: "a", Output: "b"}.appendLine(nil))
	f.Add(Row{Instruction: "é\n\x00\u2028\\\"", Input: "\x7f", Output: "🎉"}.appendLine(nil))
	f.Add([]byte(`{"input":"","instruction":"\ud800","output":"b"}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := parseLine(line)
		if err != nil {
			return
		}
		if r.Validate() != nil || !bytes.Equal(r.appendLine(nil), line) {
			t.Errorf("%q reads as %+v", line, r)
		}
	})
}

func FuzzDatasetIndex(f *testing.F) {
	x := &DatasetIndex{Format: "alpaca", Template: "alpaca", HeldOut: "none", Licence: "MIT", Seed: maxJSONInt}
	x.Train = DatasetPart{3, 90, []DatasetShard{{"train/00000.jsonl", 2, 60}, {"train/00001.jsonl", 1, 30}}}
	f.Add(x.encode())
	x.HeldOut, x.Eval, x.Shuffled = "file", DatasetPart{1, 30, []DatasetShard{{"eval/00000.jsonl", 1, 30}}}, true
	f.Add(x.encode())
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		x, err := decodeDatasetIndex(raw)
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		if x.Validate() != nil || !bytes.Equal(x.encode(), raw) {
			t.Errorf("%q reads as %+v", raw, x)
		}
	})
}

// Whatever the file, the rows that come out are valid and their lines read back.
func FuzzReadRows(f *testing.F) {
	f.Add([]byte(`[{"instruction":"a","input":null,"output":"b"},{"x":[1,{}]}]`))
	f.Add([]byte("\ufeff\n{\"instruction\":\"a\",\"output\":\"b\"}\r\n\n{}"))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		last := 0
		_ = scanRows(context.Background(), "f", bytes.NewReader(data), func(raw rawRow) error {
			if raw.at <= last || len(raw.raw) > maxRawRowBytes+1024 {
				t.Errorf("row %d after %d, %d bytes", raw.at, last, len(raw.raw))
			}
			last = raw.at
			r, _, err := parseRow(raw.raw)
			if err != nil {
				return nil
			}
			if got, err := parseLine(r.appendLine(nil)); err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%+v comes back as %+v, %v", r, got, err)
			}
			return nil
		})
	})
}
