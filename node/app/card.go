package app

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/plain"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// cardFile is the model card of an export.
const cardFile = "README.md"

// cardFacts are what a card says of a run.
type cardFacts struct {
	id       string
	manifest *run.Manifest
	hub      string // what the hub calls the base model, "" if that is not known
	rounds   []api.Round
	data     *shard.Dataset // nil: it is not here
	dtype    string         // of the values of GGUF, "" for the usual one
}

// modelCard describes an export: what it is, where it comes from, and how
// anybody can compute it again. Names come from strangers: they are put where
// they cannot become markup.
func modelCard(f cardFacts, e *api.Export) string {
	id, m, hub, rounds, data := f.id, f.manifest, f.hub, f.rounds, f.data
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("---")
	if e.Format == api.ExportPEFT {
		line("library_name: peft")
	}
	line("license: other")
	line("license_name: %q", plainText(orElse(m.Licences.Model, "unknown")))
	if hub != "" {
		line("base_model: %q", hub)
	}
	full := m.Mode == run.ModeFull
	if full {
		line("tags: [moot]")
	} else {
		line("tags: [lora, moot]")
	}
	line("---\n")
	line("# %s\n", plainText(m.Name))
	what := "LoRA adapter"
	if full {
		what = "model"
	}
	line("A %s that volunteers trained together with moot, after round %d of the run.\n", what, e.Round)
	switch {
	case full:
		line("All parameters were trained, from those of the base model on.\n")
	case e.Format == api.ExportMerged && e.MergedInto == api.QuantizeNF4:
		line("The adapter is merged into weights that were quantised to four bits (NF4) and dequantised again: they have the\nerror of the quantisation.\n")
	case e.Format == api.ExportMerged:
		line("The adapter is merged into the base model's weights.\n")
	case e.Format == api.ExportGGUF:
		line("For llama.cpp: `llama-cli -m BASE.gguf --lora %s`.\n", ggufFile)
	}
	line("| | |\n|---|---|")
	row := func(name, format string, args ...any) {
		if v := fmt.Sprintf(format, args...); v != "" {
			line("| %s | %s |", name, v)
		}
	}
	row("run", "`%s`", id)
	row("record", "`%s`", e.Head)
	row("state", "`%s`", e.State)
	row("base model", "`%s`", e.Model)
	row("source of the base model, as the launcher says", "%s", plainText(m.Licences.ModelSource))
	row("licence of the base model", "%s", plainText(orElse(m.Licences.Model, "not stated")))
	row("data set", "`%s`", m.Dataset)
	row("source of the data, as the launcher says", "%s", plainText(m.Licences.DataSource))
	row("licence of the data", "%s", plainText(orElse(m.Licences.Data, "not stated")))
	if m.Licences.Use != run.UseUnstated {
		row("made for", "%s use", m.Licences.Use)
	}
	row("prompt template", "%s", plainText(m.Template))
	row("LoRA", "%s", loraText(m))
	row("inner optimizer", "%s, %s", m.Inner.Optimizer, m.Schedule)
	tokens := tokensByPeer(rounds)
	if len(rounds) > 0 {
		last := rounds[len(rounds)-1]
		row("training", "%d rounds that trained, %d tokens", last.TrainedRounds, last.Tokens)
		if l := last.EvalLoss; l != nil {
			before, after := "", ""
			if first := rounds[0]; first.TrainedRounds == 0 && first.EvalLoss != nil {
				before, after = fmt.Sprintf("%.4f before training, ", *first.EvalLoss), " after it"
			}
			row("loss on held-out rows", "%s%.4f (perplexity %.3f)%s", before, *l, math.Exp(*l), after)
		}
	}
	if data != nil {
		dataCard(line, data)
	}
	line("\n## Check\n\nWho has the records of the run computes each state of it again, while mootd does not run:\n")
	line("    moot replay %s\n", id)
	line("and then, while it does, writes the same bytes as are here:\n")
	how := exportFlags(f.dtype, e)
	line("    moot adapter export %s --round %d%s --out ./again\n", id, e.Round, how)
	if e.Snapshot != "" {
		line("So does who has none of them, with the state from any node that has the snapshot:\n")
		line("    moot adapter export --snapshot %s%s --out ./again\n", e.Snapshot, how)
		line("It was made from the snapshot `%s`, which has one record of the run: the held-out loss and what each", e.Snapshot)
		line("round came to are in the others. Who contributed is %s\n", map[bool]string{true: "as who made the snapshot says.", false: "not in it."}[len(tokens) > 0])
	}
	if len(tokens) > 0 {
		line("## Contributors\n\n| peer | tokens |\n|---|---|")
		for i, p := range slices.Sorted(maps.Keys(tokens)) {
			if i == maxCardPeers {
				line("\nAnd %d more.", len(tokens)-i)
				break
			}
			row("`"+p+"`", "%d", tokens[p])
		}
	}
	return b.String()
}

// exportFlags are those with which an export comes out as this one.
func exportFlags(dtype string, e *api.Export) string {
	flags := " --format " + e.Format
	if e.MergedInto == api.QuantizeNF4 {
		flags += " --nf4"
	}
	if e.Format == api.ExportGGUF && dtype != "" {
		flags += " --dtype " + dtype
	}
	return flags
}

// tokensByPeer sums whose tokens were included.
func tokensByPeer(rounds []api.Round) map[string]uint64 {
	tokens := make(map[string]uint64)
	for _, r := range rounds {
		for _, c := range r.Contributions {
			tokens[c.Peer] += c.Tokens
		}
	}
	return tokens
}

// What a card lists at most.
const (
	maxCardShards = 256
	maxCardPeers  = 256
)

// dataCard names the bytes that were trained on.
func dataCard(line func(string, ...any), data *shard.Dataset) {
	x, shards := data.Index(), data.TrainShards()
	line("\n## Data\n")
	if x.Source != "" {
		line("From %s.", plainText(x.Source))
	}
	line("Rows were drawn, at random, from %s in %s of the data set; %s held out.",
		plain.Plural(x.Train.Rows, "row"), plain.Plural(len(shards), "file"), plain.Plural(x.Eval.Rows, "other row"))
	line("Their CIDs, which anybody can compute from the bytes:\n")
	for i, c := range shards {
		if i == maxCardShards {
			line("- and %d more, which the data set lists", len(shards)-i)
			break
		}
		line("- `%s`", c)
	}
}

// folderCard is the model card of an adapter that came from a folder.
func folderCard(e *api.Export) string {
	var b strings.Builder
	if e.Format == api.ExportPEFT {
		b.WriteString("---\nlibrary_name: peft\n---\n\n")
	}
	name := plainText(filepath.Base(e.Adapter))
	fmt.Fprintf(&b, "# %s\n\nA LoRA adapter, written by moot as %s.\n", name, e.Format)
	if e.Format == api.ExportMerged {
		fmt.Fprintf(&b, "It is merged into the base model's weights%s.\n", map[string]string{
			api.QuantizeNF4: " as they are after quantisation to four bits (NF4)",
		}[e.MergedInto])
	}
	fmt.Fprintf(&b, "\n| | |\n|---|---|\n| adapter | %s |\n| base model | %s |\n", name, plainText(filepath.Base(e.Model)))
	return b.String()
}

// loraText says what adapter a run trains; "" for none.
func loraText(m *run.Manifest) string {
	l := &m.LoRA
	if m.Mode == run.ModeFull {
		return ""
	}
	text := fmt.Sprintf("rank %d, alpha %d", l.Rank, l.Alpha)
	if l.RSLoRA {
		text += " (rsLoRA)"
	}
	for _, t := range m.Tensors {
		if _, ok := lora.ModuleOf(t.Name); ok && t.Rows != l.Rank || len(l.Alphas) > 0 {
			text += ", others for some layers"
			break
		}
	}
	targets := l.Targets
	if most := 16; len(targets) > most {
		targets = append(slices.Clone(targets[:most]), fmt.Sprintf("and %d more", len(targets)-most))
	}
	return text + ", on " + plainText(strings.Join(targets, ", "))
}

// plainText takes out what could be markup or another line.
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || strings.ContainsRune("|<>[]`\"\\", r) {
			return ' '
		}
		return r
	}, s)
}
