package demo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/runfile"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/shard"
)

func mustWrite(t testing.TB) api.DemoAssets {
	t.Helper()
	a, err := Write(filepath.Join(t.TempDir(), "assets"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func options(r api.ImportDatasetRequest) shard.DatasetOptions {
	return shard.DatasetOptions{
		Files: r.Files, EvalFile: r.EvalFile, EvalFraction: r.EvalFraction, Seed: r.Seed, Shuffle: r.Shuffle,
		ShardBytes: r.ShardBytes, DropInvalid: r.DropInvalid, Licence: r.Licence, Source: r.Source, Template: r.Template,
	}
}

func openStore(t testing.TB) *shard.Store {
	t.Helper()
	s, err := shard.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWriteModel(t *testing.T) {
	a := mustWrite(t)
	m, err := openStore(t).ImportModel(t.Context(), a.ModelDir, shard.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Warnings) > 0 {
		t.Errorf("warnings: %q", m.Warnings)
	}
	if m.Type != "llama" || m.Licence != Licence || len(m.Tokenizer) == 0 {
		t.Errorf("model is %q under %q with tokenizer %q", m.Type, m.Licence, m.Tokenizer)
	}
	if m.WeightBytes > 3_500_000 || m.Bytes > 4<<20 {
		t.Errorf("%d bytes of weights, %d in all", m.WeightBytes, m.Bytes)
	}
	tok, err := tokenizer.Load(a.ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	if tok.BOS() < 0 || tok.EOS() < 0 {
		t.Errorf("BOS %d, EOS %d", tok.BOS(), tok.EOS())
	}
	text := "Line one.\n\n### \tWhat's é, 日本? 12345 "
	if got := tok.Decode(tok.Encode(text, tokenizer.EncodeOptions{AddSpecial: true}), true); got != text {
		t.Errorf("%q comes back as %q", text, got)
	}
}

func TestWriteTwice(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		a, err := Write(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range append(slices.Clone(a.Data.Files), a.Data.EvalFile, a.ModelDir, a.RunFile) {
			if _, err := os.Stat(path); err != nil || !filepath.IsAbs(path) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if _, err := Write(filepath.Join(dir, "run.toml")); err == nil || !strings.Contains(err.Error(), "run.toml") {
		t.Errorf("a file in place of the folder gave %v", err)
	}
}

// Every row fits the run's samples, and nothing that is asked of the held-out
// subjects is in the training rows, nor their names.
func TestWriteData(t *testing.T) {
	a := mustWrite(t)
	s := openStore(t)
	imp, err := s.ImportDataset(t.Context(), options(a.Data))
	if err != nil {
		t.Fatal(err)
	}
	if imp.Dropped > 0 || len(imp.Warnings) > 0 {
		t.Errorf("%d rows dropped, warnings %q", imp.Dropped, imp.Warnings)
	}
	x := imp.Index
	if x.Train.Rows < 1500 || x.Train.Rows > 3000 || x.Eval.Rows < 100 || x.Eval.Rows > 150 || len(x.Train.Shards) < 8 {
		t.Errorf("%d rows in %d shards, %d held out", x.Train.Rows, len(x.Train.Shards), x.Eval.Rows)
	}
	d, err := shard.OpenDataset(t.Context(), s, imp.Root)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(a.ModelDir)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := dataset.NewEncoder(tok, dataset.Alpaca, int(readRunFile(t, a.RunFile).Inner.SequenceTokens))
	if err != nil {
		t.Fatal(err)
	}
	var training []shard.Row
	for i := range d.TrainShards() {
		rows, err := d.ReadShard(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		training = append(training, rows...)
	}
	heldOut, err := dataset.NewSource(d, encoder).HeldOutRows(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range slices.Concat(training, heldOut) {
		encoder.Encode(row)
	}
	if n := encoder.Dropped(); n > 0 {
		t.Errorf("%d rows do not fit in the run's samples", n)
	}
	var text strings.Builder
	for _, row := range training {
		text.WriteString(row.Instruction + "\n" + row.Input + "\n" + row.Output + "\n")
	}
	subjects := map[string]bool{}
	for _, row := range heldOut {
		subjects[subject(row)] = true
	}
	if len(subjects) < 40 {
		t.Errorf("%d held-out subjects", len(subjects))
	}
	for name := range subjects {
		if strings.Contains(text.String(), name) {
			t.Errorf("%s is held out and trained on", name)
		}
	}
	for _, p := range a.Prompts {
		same := func(r shard.Row) bool {
			return r.Instruction == p.Instruction && r.Input == p.Input && r.Output == p.Expected
		}
		if !slices.ContainsFunc(heldOut, same) {
			t.Errorf("the prompt %v is no held-out row", p)
		}
	}
	if len(a.Prompts) < 3 {
		t.Errorf("%d prompts", len(a.Prompts))
	}
}

// subject is the town that a row asks about: the input, or the capitalised
// word that is not the first.
func subject(row shard.Row) string {
	if row.Input != "" {
		return row.Input
	}
	words := strings.Fields(row.Instruction)
	for _, w := range words[1:] {
		if w[0] >= 'A' && w[0] <= 'Z' {
			return strings.Trim(w, "?.")
		}
	}
	return ""
}

func readRunFile(t testing.TB, path string) *runfile.File {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `model = ""`, `model = "m"`, 1)
	text = strings.Replace(text, `data = ""`, `data = "d"`, 1)
	f, err := runfile.Parse("run.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRunFile(t *testing.T) {
	f := readRunFile(t, mustWrite(t).RunFile)
	if f.Name != "demo" || f.Model != "m" || f.Data != "d" || f.MinPeers != 4 || f.Seats < 5 {
		t.Errorf("run.toml says %+v", f)
	}
	if f.Licence.Model != Licence || f.Licence.Data != Licence {
		t.Errorf("licences are %+v", f.Licence)
	}
}
