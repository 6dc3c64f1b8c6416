package app

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// trained is a node with a run whose adapter changes much.
func trained(t *testing.T, quantize string) (*node, *fakeRun, string) {
	t.Helper()
	made := new(fakeRuns)
	n, _ := testNode(t, t.TempDir(), made.open)
	m, d := imported(t, n)
	if quantize != "" {
		m = importModel(t, n, assets(t).ModelDir, quantize)
	}
	text := runText(m, d, "[inner]\nsequence_tokens = 64\n")
	r, err := n.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: text}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	f := made.began(t, 0)
	f.snapshot = drawnState(t, f)
	return n, f, r.ID
}

func exportTo(t *testing.T, n *node, req api.ExportRequest) api.Export {
	t.Helper()
	req.Dir = filepath.Join(t.TempDir(), "out")
	e, err := n.Export(t.Context(), req, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if e.Test == nil || e.Test.Difference > e.Test.Tolerance || e.Test.Effect < 0.01 {
		t.Errorf("%s: test %+v", req.Format, e.Test)
	}
	return e
}

// A merged model answers as base model and adapter do.
func TestExportMerged(t *testing.T) {
	n, _, id := trained(t, "")
	e := exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportMerged})
	if e.MergedInto != "weights" || e.Files[len(e.Files)-1].Name != "config.json" {
		t.Errorf("export %+v", e)
	}
	byRun := ask(t, n, api.Subject{Run: id}, 6, "Who are you?")[0]
	if merged := ask(t, n, api.Subject{Model: e.Dir}, 6, "Who are you?")[0]; merged.Text != byRun.Text {
		t.Errorf("merged it answers %q, with the adapter %q", merged.Text, byRun.Text)
	}
	nf4 := exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportMerged, NF4: true})
	card, err := os.ReadFile(filepath.Join(nf4.Dir, cardFile))
	if err != nil || nf4.MergedInto != "nf4" || !strings.Contains(string(card), "four bits (NF4)") {
		t.Errorf("%s: %s, %v", nf4.MergedInto, card, err)
	}
}

// An adapter of a base model in four bits is merged only when that is meant.
func TestExportMergedNF4(t *testing.T) {
	n, _, id := trained(t, api.QuantizeNF4)
	_, err := n.Export(t.Context(), api.ExportRequest{Run: id, Format: api.ExportMerged, Dir: filepath.Join(t.TempDir(), "x")}, quiet)
	wantCode(t, err, api.CodeUsage, "four bits")
	exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportMerged, NF4: true})
	exportTo(t, n, api.ExportRequest{Run: id})
}

func TestExportGGUF(t *testing.T) {
	n, r, id := trained(t, "")
	full := exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportGGUF})
	half := exportTo(t, n, api.ExportRequest{Run: id, Format: api.ExportGGUF, DType: "f16"})
	if full.Files[2].Name != ggufFile || half.Files[2].Bytes >= full.Files[2].Bytes || half.Test.Difference <= full.Test.Difference {
		t.Errorf("f32 %+v, f16 %+v", full, half)
	}
	a, err := adapterOf(r.manifest, r.snapshot.State, modulesOf(r.manifest))
	if err != nil {
		t.Fatal(err)
	}
	modelDir, err := n.modelDir(t.Context(), r.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	base, err := lora.ReadGGUFBase(modelDir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(full.Dir, ggufFile)
	if _, err := readGGUF(path, base, modulesOf(r.manifest), a, 0); err != nil {
		t.Error(err)
	}
	fewer := modulesOf(r.manifest)[1:]
	if _, err := readGGUF(path, base, fewer, a, 0); err == nil {
		t.Error("a file for more layers than there are passed")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(b)
	damaged[len(b)-1] ^= 1
	for name, bad := range map[string][]byte{"one bit": damaged, "short": b[:len(b)-64], "empty": nil, "a header": b[:100]} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readGGUF(path, base, modulesOf(r.manifest), a, 1e-6); err == nil {
			t.Errorf("%s: it passed", name)
		}
	}
}

// What llama.cpp cannot load is refused with the reason and the way out.
func TestExportGGUFRefused(t *testing.T) {
	err := exportError("r", fmt.Errorf("%w: llama.cpp does not know it", lora.ErrUnsupported))
	wantCode(t, err, api.CodeModel, "llama.cpp does not know it")
	if e := api.AsError(err); !strings.Contains(e.Hint, "--format merged") {
		t.Errorf("hint %q", e.Hint)
	}
	wantCode(t, exportError("r", train.ErrMerge), api.CodeVerify, "")
	n, _ := testNode(t, t.TempDir(), new(fakeRuns).open)
	base := copyDir(t, assets(t).ModelDir)
	rewrite(t, filepath.Join(base, "config.json"), `"llama"`, `"olmo"`)
	out := filepath.Join(t.TempDir(), "x")
	_, err = n.Export(t.Context(), api.ExportRequest{Adapter: theirAdapter(t, "plain"), Model: base, Format: api.ExportGGUF, Dir: out}, quiet)
	wantCode(t, err, api.CodeModel, "olmo")
	if _, err := os.Stat(out); err == nil {
		t.Error("a refused export left a folder")
	}
}

// What is not the adapter, or is no number, does not pass.
func TestExportFailsItsTest(t *testing.T) {
	n, r, id := trained(t, "")
	live, err := adapterOf(r.manifest, r.snapshot.State, modulesOf(r.manifest))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := n.modelDir(t.Context(), r.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	_, err = checkAdapter(t.Context(), dir, live, 1, exactTolerance, func(model.Config) (*lora.Adapter, error) {
		other, err := adapterOf(r.manifest, r.snapshot.State, modulesOf(r.manifest))
		other.Tensor(1)[3] += 0.5
		return other, err
	})
	wantCode(t, err, api.CodeVerify, "differ by")
	for _, bad := range []float32{float32(nan()), 1e38} {
		live.Tensor(0)[0] = bad
		_, err = checkAdapter(t.Context(), dir, live, 1, exactTolerance, func(model.Config) (*lora.Adapter, error) { return live, nil })
		wantCode(t, err, api.CodeVerify, "not finite")
	}
	if _, err := compareLogits([]float32{1, 2, 3}, []float32{1, 2, 3.001}, []float32{1, 2, 3.003}, 0.01); err == nil {
		t.Error("what is farther from the adapter than the base model passed")
	}
	// Before the first step there is nothing to see, and that is said.
	clear(r.snapshot.State.Theta)
	e, err := n.Export(t.Context(), api.ExportRequest{Run: id, Dir: filepath.Join(t.TempDir(), "x")}, quiet)
	if err != nil || len(e.Warnings) != 1 || !strings.Contains(e.Warnings[0], "changes nothing yet") {
		t.Errorf("export %+v, %v", e, err)
	}
}

// A folder in which a value is no number is not exported again, and what a killed
// export left is taken away when it is old.
func TestExportDamaged(t *testing.T) {
	n, r, id := trained(t, "")
	parent := t.TempDir()
	dir := filepath.Join(parent, "x")
	for _, name := range []string{"x.tmp123", "x.tmp456", "x.tmp12a", "xx.tmp123"} {
		if err := os.MkdirAll(filepath.Join(parent, name), 0o755); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(-2 * killedAge)
		if name == "x.tmp456" {
			old = time.Now() // somebody's who is at it
		}
		if err := os.Chtimes(filepath.Join(parent, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Export(t.Context(), api.ExportRequest{Run: id, Dir: dir}, quiet); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(parent, "*.tmp*"))
	if err != nil || len(left) != 3 || slices.Contains(left, filepath.Join(parent, "x.tmp123")) {
		t.Errorf("left are %q, %v", left, err)
	}

	file := filepath.Join(dir, lora.WeightsFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[len(b)-4:], []byte{0, 0, 0xc0, 0x7f}) // NaN
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	again := api.ExportRequest{Adapter: dir, Model: r.manifest.Model.String(), Dir: filepath.Join(parent, "y")}
	if _, err := n.Export(t.Context(), again, quiet); err == nil || !strings.Contains(err.Error(), "is NaN, not finite") {
		t.Errorf("the damaged folder was exported: %v", err)
	}
	_, err = n.Generate(t.Context(), api.GenerateRequest{Subject: api.Subject{Model: r.manifest.Model.String(), Adapter: dir}, Prompts: []api.Prompt{{Instruction: "?"}}, MaxTokens: 2}, quiet)
	wantCode(t, err, api.CodeModel, "not finite")
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestModelCard(t *testing.T) {
	n, r, id := trained(t, "")
	loss := 0.25
	rounds := []api.Round{
		{Round: 1, EvalLoss: new(2.5)},
		{Round: 1, Contributions: []api.Contribution{{Peer: "b", Tokens: 10}, {Peer: "a", Tokens: 5}}},
		{Round: 2, TrainedRounds: 2, Tokens: 22, EvalLoss: &loss, Contributions: []api.Contribution{{Peer: "a", Tokens: 7}}},
	}
	m := *r.manifest
	m.Name, m.Licences.Data, m.Licences.Use = "x|<script>\n# y", "CC0-1.0", run.UseResearch
	m.Licences.ModelSource, m.Licences.DataSource = "moot/tiny at 1a2b", "<b>rows|"
	data, err := shard.OpenDataset(t.Context(), n.store, m.Dataset)
	if err != nil {
		t.Fatal(err)
	}
	// A name at the hub is only used by who has the model from there.
	if hub := n.hubOf(&m); hub != "" {
		t.Errorf("the base model is %q, because the launcher says so", hub)
	}
	entry, _ := n.models.get(m.Model.String())
	entry.Source = "https://huggingface.co/moot/tiny"
	if err := n.models.put(entry); err != nil {
		t.Fatal(err)
	}
	if hub := n.hubOf(&m); hub != "moot/tiny" {
		t.Errorf("the base model is %q", hub)
	}
	facts := cardFacts{id: id, manifest: &m, hub: "moot/tiny", rounds: rounds, data: data}
	card := modelCard(facts, &api.Export{Format: api.ExportPEFT, Round: 2, Model: m.Model.String(), Head: "H", State: "S"})
	for _, want := range []string{
		"library_name: peft", "base_model: \"moot/tiny\"\n", "| source of the base model, as the launcher says | moot/tiny at 1a2b |", "| source of the data, as the launcher says |  b rows  |", "moot replay " + id, "| `a` | 12 |\n| `b` | 10 |", m.Model.String(), m.Dataset.String(),
		"| licence of the data | CC0-1.0 |", "2 rounds that trained, 22 tokens", "| loss on held-out rows | 2.5000 before training, 0.2500 (perplexity 1.284) after it |", "# x  script  # y\n", "| made for | research use |",
		"from 2,400 rows in", "120 other rows held out", "- `" + data.TrainShards()[0].String() + "`\n- `" + data.TrainShards()[1].String() + "`\n",
		"moot adapter export " + id + " --round 2 --format peft",
	} {
		if !strings.Contains(card, want) {
			t.Errorf("the card has no %q:\n%s", want, card)
		}
	}
	many := api.Round{Round: 1}
	for i := range maxCardPeers + 5 {
		many.Contributions = append(many.Contributions, api.Contribution{Peer: fmt.Sprintf("peer %04d", i), Tokens: 1})
	}
	facts.rounds = []api.Round{many}
	card = modelCard(facts, &api.Export{Format: api.ExportPEFT})
	if strings.Count(card, "| `peer ") != maxCardPeers || !strings.Contains(card, "| `peer 0255` | 1 |\n\nAnd 5 more.\n") {
		t.Errorf("a card of too many peers:\n%s", card)
	}
}

// What a card says to check it with writes the same bytes, whatever was asked for.
func TestCardCommand(t *testing.T) {
	n, _, id := trained(t, "")
	for _, req := range []api.ExportRequest{
		{Run: id},
		{Run: id, Format: api.ExportMerged},
		{Run: id, Format: api.ExportMerged, NF4: true},
		{Run: id, Format: api.ExportGGUF},
		{Run: id, Format: api.ExportGGUF, DType: "f16"},
	} {
		first := exportTo(t, n, req)
		card, err := os.ReadFile(filepath.Join(first.Dir, cardFile))
		if err != nil {
			t.Fatal(err)
		}
		_, line, ok := strings.Cut(string(card), "    moot adapter export ")
		line, _, _ = strings.Cut(line, "\n")
		words := strings.Fields(line)
		if !ok || words[0] != id {
			t.Fatalf("the card has no command for run %s:\n%s", id, card)
		}
		var again api.ExportRequest
		again.Run = id
		for i := 1; i < len(words); i++ {
			switch words[i] {
			case "--nf4":
				again.NF4 = true
				continue
			case "--format":
				again.Format = words[i+1]
			case "--dtype":
				again.DType = words[i+1]
			case "--round", "--out":
			default:
				t.Fatalf("the card says %q", line)
			}
			i++
		}
		if second := exportTo(t, n, again); !slices.Equal(second.Files, first.Files) {
			t.Errorf("%q gives %+v, the first was %+v", line, second.Files, first.Files)
		}
	}
}

// measuredRun has rounds.
type measuredRun struct {
	*fakeRun
	rounds []api.Round
}

func (m *measuredRun) Rounds(from uint64, limit int) ([]api.Round, error) {
	var l []api.Round
	for _, r := range m.rounds {
		if r.Round >= from && len(l) < limit {
			l = append(l, r)
		}
	}
	return l, nil
}

// The best round is the first of those with the lowest loss that was measured.
func TestBestRound(t *testing.T) {
	n, r, id := trained(t, "")
	loss := func(n uint64, l float64) api.Round { return api.Round{Round: n, EvalLoss: &l} }
	got, err := bestRound(&measuredRun{r, []api.Round{loss(1, 2), {Round: 2}, loss(3, 1.5), loss(4, nan()), loss(5, 1.5), loss(6, 1.7)}})
	if err != nil || *got != 3 {
		t.Errorf("bestRound() = %v, %v, want 3", got, err)
	}
	dir := filepath.Join(t.TempDir(), "x")
	_, err = n.Export(t.Context(), api.ExportRequest{Run: id, Best: true, Dir: dir}, quiet)
	wantCode(t, err, api.CodeNotFound, "none was measured")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("stat of the folder: %v", err)
	}
}

// A run of all parameters answers, is measured, and is exported as a model.
func TestExportFull(t *testing.T) {
	for _, quantize := range []string{"", api.QuantizeNF4} {
		t.Run("base "+quantize, func(t *testing.T) {
			made := new(fakeRuns)
			n, _ := testNode(t, t.TempDir(), made.open)
			m, d := imported(t, n)
			if quantize != "" {
				m = importModel(t, n, assets(t).ModelDir, quantize)
			}
			text := runText(m, d, "mode = \"full\"\n[inner]\nsequence_tokens = 64\n")
			r, err := n.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: text}, quiet)
			if err != nil {
				t.Fatal(err)
			}
			f := made.began(t, 0)
			f.snapshot = drawnState(t, f)
			for i := range f.snapshot.State.Theta {
				f.snapshot.State.Theta[i] /= 3
			}
			loss := func(q api.Subject) float64 {
				t.Helper()
				ev, err := n.Evaluate(t.Context(), api.EvaluateRequest{Subject: q, Dataset: d.ID, MaxRows: 4, LossOnly: true}, quiet)
				if err != nil {
					t.Fatal(err)
				}
				return ev.Loss
			}
			want, base := loss(api.Subject{Run: r.ID}), loss(api.Subject{Model: m.ID})
			if math.Abs(want-base) < 0.1 {
				t.Errorf("loss %v, of the base model %v", want, base)
			}
			e := exportTo(t, n, api.ExportRequest{Run: r.ID, NF4: quantize != ""})
			if got := loss(api.Subject{Model: e.Dir}); e.Format != api.ExportMerged || math.Abs(got-want) > 0.01*want {
				t.Errorf("exported as %s it has loss %v, want %v", e.Format, got, want)
			}
			card, err := os.ReadFile(filepath.Join(e.Dir, cardFile))
			if err != nil || !strings.Contains(string(card), "All parameters were trained") || strings.Contains(string(card), "LoRA") {
				t.Errorf("card %s, %v", card, err)
			}
			for _, format := range []string{api.ExportPEFT, api.ExportGGUF} {
				_, err := n.Export(t.Context(), api.ExportRequest{Run: r.ID, Format: format, Dir: filepath.Join(t.TempDir(), "x")}, quiet)
				wantCode(t, err, api.CodeUsage, "there is no adapter")
			}
			clear(f.snapshot.State.Theta)
			if !untrained(f.manifest, f.snapshot.State) {
				t.Error("zero is taken for trained")
			}
		})
	}
}
