package app

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runfile"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
)

// RunFileOf implements api.Backend.
func (n *node) RunFileOf(_ context.Context, id string) (api.ClonedRunFile, error) {
	p, err := n.runs.opened(id)
	if err != nil {
		return api.ClonedRunFile{}, err
	}
	text := cloneFile(id, p.Manifest())
	if len(text) > runfile.MaxBytes {
		text = fmt.Sprintf("# It is longer than the %d bytes that can be launched: shorten its lists.\n", runfile.MaxBytes) + text
	}
	return api.ClonedRunFile{Run: id, TOML: text}, nil
}

// cloneFile writes the run file from which launching makes the settings of m again,
// whatever the defaults are by then, but for licences and sources that it does not
// state. Launcher and time are those of the launch.
func cloneFile(id string, m *run.Manifest) string {
	var b strings.Builder
	f := tomlWriter{&b}
	fmt.Fprintf(&b, "# All settings of run %s.\n", id)
	f.text("name", m.Name)
	f.text("model", m.Model.String())
	f.text("data", m.Dataset.String())
	f.text("template", m.Template)
	f.text("mode", m.Mode.String())
	f.text("period", (time.Duration(m.PeriodMillis) * time.Millisecond).String())
	f.whole("rounds", m.MaxRounds)
	f.whole("max_tokens", m.MaxTokens)
	f.whole("seats", uint64(m.Seats))
	f.whole("rotate_rounds", uint64(m.RotateRounds))
	f.whole("keep_rounds", uint64(m.KeepRounds))
	f.whole("min_peers", uint64(m.MinPeers))
	f.whole("codec_bits", uint64(m.CodecBits))
	f.whole("min_codec_bits", uint64(m.MinCodecBits))
	f.bool("follow_arrivals", m.FollowArrivals)
	f.whole("eval_samples", uint64(m.EvalSamples))
	f.whole("eval_peers", uint64(m.EvalPeers))
	f.whole("seed", m.GenesisSeed)
	if m.Mode != run.ModeFull {
		f.lora(m)
	}
	f.inner(m)
	f.table("outer")
	f.number("learning_rate", uint64(m.Outer.LearningRateQ16), fold.One)
	f.number("momentum", uint64(m.Outer.MomentumQ16), fold.One)
	f.table("trust")
	f.whole("auditors", uint64(m.Trust.Auditors))
	f.whole("audit_samples", uint64(m.Trust.AuditSamples))
	f.whole("probation", uint64(m.Trust.Probation))
	f.number("retrace", uint64(m.Trust.RetracePPM), 1e6)
	f.whole("outsiders", uint64(m.Trust.Outsiders))
	f.bool("take_back", m.Trust.TakeBack)
	f.table("stop")
	f.whole("patience", uint64(m.Stop.Patience))
	f.number("min_improvement", uint64(m.Stop.MinImprovementPPM), 1e6)
	f.number("target_loss", m.Stop.TargetMicro, 1e6)
	f.table("rollback")
	f.whole("rounds", uint64(m.Rollback.Rounds))
	f.number("worse", uint64(m.Rollback.WorsePPM), 1e6)
	f.table("admission")
	f.text("mode", m.Admission.Mode.String())
	var allowed []string
	for _, id := range m.Admission.Allowed {
		allowed = append(allowed, id.String())
	}
	f.texts("allowed", allowed)
	f.whole("work_bits", uint64(m.Admission.WorkBits))
	f.table("licence")
	f.text("model", m.Licences.Model)
	f.text("data", m.Licences.Data)
	f.text("use", m.Licences.Use.String())
	f.text("model_source", m.Licences.ModelSource)
	f.text("data_source", m.Licences.DataSource)
	return b.String()
}

// tomlWriter writes keys of a run file.
type tomlWriter struct{ b *strings.Builder }

func (f tomlWriter) lora(m *run.Manifest) {
	f.table("lora")
	f.whole("rank", uint64(m.LoRA.Rank))
	f.whole("alpha", uint64(m.LoRA.Alpha))
	f.texts("targets", m.LoRA.Targets)
	f.bool("rslora", m.LoRA.RSLoRA)
	var ranks, alphas []string
	for _, t := range m.Tensors {
		if path, ok := strings.CutSuffix(t.Name, ".lora_A.weight"); ok && t.Rows != m.LoRA.Rank {
			ranks = append(ranks, fmt.Sprintf("%s = %d", quote(strings.TrimPrefix(path, "base_model.model.")), t.Rows))
		}
	}
	for _, a := range m.LoRA.Alphas {
		alphas = append(alphas, fmt.Sprintf("%s = %d", quote(a.Module), a.Alpha))
	}
	for _, p := range []struct {
		name string
		list []string
	}{{"rank_pattern", ranks}, {"alpha_pattern", alphas}} {
		if len(p.list) > 0 {
			fmt.Fprintf(f.b, "%s = { %s }\n", p.name, strings.Join(p.list, ", "))
		}
	}
}

func (f tomlWriter) inner(m *run.Manifest) {
	in := &m.Inner
	f.table("inner")
	f.text("optimizer", in.Optimizer.String())
	f.number("learning_rate", in.LearningRateNano, 1e9)
	f.text("schedule", m.Schedule.String())
	if in.DecayRounds > 0 {
		f.whole("decay_rounds", in.DecayRounds)
	}
	if in.LoRAPlusMilli > 0 {
		f.number("lora_plus_ratio", uint64(in.LoRAPlusMilli), 1e3)
	}
	f.number("beta1", uint64(in.Beta1PPM), 1e6)
	f.number("beta2", uint64(in.Beta2PPM), 1e6)
	f.number("epsilon", in.EpsilonPico, 1e12)
	if in.Optimizer == run.OptimizerSGD {
		f.number("momentum", uint64(in.MomentumPPM), 1e6)
	}
	f.number("weight_decay", uint64(in.WeightDecayPPM), 1e6)
	f.number("clip", uint64(in.ClipMilli), 1e3)
	f.whole("warmup_steps", uint64(in.WarmupSteps))
	f.whole("min_steps", uint64(in.MinSteps))
	f.whole("max_steps", uint64(in.MaxSteps))
	f.whole("start_steps", uint64(in.StartSteps))
	f.whole("overlap_steps", uint64(in.OverlapSteps))
	f.whole("batch_samples", uint64(in.BatchSamples))
	f.bool("packing", !in.Unpacked)
	f.whole("sequence_tokens", uint64(in.MaxTokens))
	f.text("over_long", in.OverLong.String())
}

func (f tomlWriter) table(name string) { fmt.Fprintf(f.b, "\n[%s]\n", name) }

func (f tomlWriter) text(key, v string) { fmt.Fprintf(f.b, "%s = %s\n", key, quote(v)) }

func (f tomlWriter) texts(key string, list []string) {
	quoted := slices.Clone(list)
	for i, v := range quoted {
		quoted[i] = quote(v)
	}
	fmt.Fprintf(f.b, "%s = [%s]\n", key, strings.Join(quoted, ", "))
}

func (f tomlWriter) whole(key string, v uint64) { fmt.Fprintf(f.b, "%s = %d\n", key, v) }

func (f tomlWriter) bool(key string, v bool) { fmt.Fprintf(f.b, "%s = %v\n", key, v) }

// number writes so many units, of which unit make 1, so that it is read as the
// same again.
func (f tomlWriter) number(key string, v uint64, unit float64) {
	s := strconv.FormatFloat(float64(v)/unit, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	fmt.Fprintf(f.b, "%s = %s\n", key, s)
}

// quote writes a basic string of TOML.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
