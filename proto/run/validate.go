package run

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// The bounds of a manifest that other packages need.
const (
	MaxRank      = 1024
	MaxTargets   = 64
	maxTextBytes = 64
)

// InvalidError is a value in a manifest that is not allowed. Fields have the
// names that run.toml gives them.
type InvalidError struct {
	Field string // "lora.rank"
	Rule  string // "is 0, must be at least 1"
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Rule }

// Validate reports the first rule that m breaks; the error names the field,
// its value and the bound, and is an *InvalidError.
func (m *Manifest) Validate() error {
	for _, rule := range []func() *InvalidError{
		m.checkNumbers, m.checkIDs, m.checkTexts, m.checkChoices, m.checkTargets, m.checkTensors,
	} {
		if err := rule(); err != nil {
			return err
		}
	}
	return nil
}

func invalid(field, format string, args ...any) *InvalidError {
	return &InvalidError{Field: field, Rule: fmt.Sprintf(format, args...)}
}

func (m *Manifest) checkNumbers() *InvalidError {
	in, out := &m.Inner, &m.Outer
	for _, n := range []struct {
		field     string
		v, lo, hi uint64
	}{
		{"version", uint64(m.Version), ManifestVersion, ManifestVersion},
		{"model_bytes", m.ModelBytes, 1, 1 << 44},
		{"data_bytes", m.DatasetBytes, 1, 1 << 44},
		{"lora.rank", uint64(m.LoRA.Rank), 1, MaxRank},
		{"lora.alpha", uint64(m.LoRA.Alpha), 1, 1 << 16},
		{"inner.learning_rate_nano", in.LearningRateNano, 1, 1e9},
		{"inner.beta1_ppm", uint64(in.Beta1PPM), 0, 999_999},
		{"inner.beta2_ppm", uint64(in.Beta2PPM), 0, 999_999},
		{"inner.epsilon_pico", in.EpsilonPico, 1, 1e12},
		{"inner.weight_decay_ppm", uint64(in.WeightDecayPPM), 0, 1e6},
		{"inner.clip_milli", uint64(in.ClipMilli), 0, 1e9},
		{"inner.warmup_steps", uint64(in.WarmupSteps), 0, 1e6},
		{"inner.max_steps", uint64(in.MaxSteps), 1, 1e6},
		{"inner.min_steps", uint64(in.MinSteps), 1, uint64(in.MaxSteps)},
		{"inner.batch_samples", uint64(in.BatchSamples), 1, 1 << 16},
		{"inner.sequence_tokens", uint64(in.MaxTokens), 2, 1 << 20},
		{"outer.learning_rate_q16", uint64(out.LearningRateQ16), 1, fold.MaxLearningRateQ16},
		{"outer.momentum_q16", uint64(out.MomentumQ16), 0, fold.MaxMomentumQ16},
		{"period_millis", m.PeriodMillis, 100, 7 * 24 * 3600 * 1000},
		{"seats", uint64(m.Seats), 1, msg.MaxSeats},
		{"min_peers", uint64(m.MinPeers), 1, uint64(m.Seats)},
		{"rounds", m.MaxRounds, 1, 1e6},
		{"max_tokens", m.MaxTokens, 0, msg.MaxRunTokens},
		{"eval_samples", uint64(m.EvalSamples), 1, 1e6},
	} {
		if n.v < n.lo {
			return invalid(n.field, "is %d, must be at least %d", n.v, n.lo)
		}
		if n.v > n.hi {
			return invalid(n.field, "is %d, must be at most %d", n.v, n.hi)
		}
	}
	if m.Created < 0 || m.Created > 1<<40 {
		return invalid("created", "is %d, must be 0 to %d", m.Created, int64(1<<40))
	}
	return nil
}

func (m *Manifest) checkIDs() *InvalidError {
	if !msg.IsFileCID(m.Model) {
		return invalid("model", "is %v, must be a CIDv1, raw or dag-pb, sha2-256", m.Model)
	}
	if !msg.IsFileCID(m.Dataset) {
		return invalid("data", "is %v, must be a CIDv1, raw or dag-pb, sha2-256", m.Dataset)
	}
	if !msg.IsPeer(m.Launcher) {
		return invalid("launcher", "is %q, must be the peer ID of an Ed25519 key", string(m.Launcher))
	}
	return nil
}

func (m *Manifest) checkTexts() *InvalidError {
	for _, t := range []struct {
		field, v string
		minBytes int
	}{
		{"name", m.Name, 1},
		{"template", m.Template, 1},
		{"licence.model", m.Licences.Model, 0},
		{"licence.data", m.Licences.Data, 0},
	} {
		if len(t.v) < t.minBytes || len(t.v) > maxTextBytes {
			return invalid(t.field, "has %d bytes, must have %d to %d", len(t.v), t.minBytes, maxTextBytes)
		}
		unprintable := func(r rune) bool { return !unicode.IsPrint(r) }
		if !utf8.ValidString(t.v) || strings.ContainsFunc(t.v, unprintable) {
			return invalid(t.field, "is %q, must be printable UTF-8", t.v)
		}
	}
	return nil
}

func (m *Manifest) checkChoices() *InvalidError {
	switch m.CodecBits {
	case 1, 2, 4, 8:
	default:
		return invalid("codec_bits", "is %d, must be 1, 2, 4 or 8", m.CodecBits)
	}
	switch m.Schedule {
	case ScheduleCosine, ScheduleConstant:
	default:
		return invalid("inner.schedule", "is %v, must be cosine or constant", m.Schedule)
	}
	return nil
}

func (m *Manifest) checkTargets() *InvalidError {
	targets := m.LoRA.Targets
	if len(targets) < 1 || len(targets) > MaxTargets {
		return invalid("lora.targets", "has %d names, must have 1 to %d", len(targets), MaxTargets)
	}
	for i, t := range targets {
		if !isModule(t) || len(t) > maxTextBytes {
			return invalid("lora.targets", "has %q, must be a module name of at most %d bytes", t, maxTextBytes)
		}
		if i > 0 && targets[i-1] >= t {
			return invalid("lora.targets", "has %q out of order or twice, must be sorted", t)
		}
	}
	return nil
}

// isModule holds for names such as model.layers.0.self_attn.q_proj.
func isModule(name string) bool {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" {
			return false
		}
		for _, r := range part {
			if r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
				return false
			}
		}
	}
	return true
}

// Names of tensors are those in PEFT's adapter_model.safetensors.
const (
	namePrefix = "base_model.model."
	suffixA    = ".lora_A.weight"
	suffixB    = ".lora_B.weight"
)

// moduleOf returns the name of the module in the base model that the tensor
// belongs to.
func moduleOf(tensor, suffix string) (string, bool) {
	rest, ok := strings.CutPrefix(tensor, namePrefix)
	if !ok {
		return "", false
	}
	module, ok := strings.CutSuffix(rest, suffix)
	return module, ok && isModule(module)
}

// checkTensors holds when the tensors are pairs of A and B of one module each,
// of the rank, and the modules are those that the targets name.
func (m *Manifest) checkTensors() *InvalidError {
	if len(m.Tensors) == 0 || len(m.Tensors)%2 != 0 || len(m.Tensors) > fold.MaxTensors {
		return invalid("tensors", "are %d, must be an even number of 2 to %d", len(m.Tensors), fold.MaxTensors)
	}
	used := make([]bool, len(m.LoRA.Targets))
	for i := 0; i < len(m.Tensors); i += 2 {
		a, b := m.Tensors[i], m.Tensors[i+1]
		module, ok := moduleOf(a.Name, suffixA)
		if !ok {
			return invalid("tensors", "have %q, must be %sMODULE%s", a.Name, namePrefix, suffixA)
		}
		if want := namePrefix + module + suffixB; b.Name != want {
			return invalid("tensors", "have %q, must be %q", b.Name, want)
		}
		if a.Rows != m.LoRA.Rank || b.Cols != m.LoRA.Rank {
			return invalid("tensors", "have %s of %d x %d and %d x %d, must have the rank, %d",
				module, a.Rows, a.Cols, b.Rows, b.Cols, m.LoRA.Rank)
		}
		if !m.markTarget(module, used) {
			return invalid("tensors", "have %s, must be of a module in lora.targets", module)
		}
	}
	for i, t := range m.LoRA.Targets {
		if !used[i] {
			return invalid("lora.targets", "has %q, must be a module that tensors adapt", t)
		}
	}
	if _, err := m.Layout(); err != nil {
		return invalid("tensors", "are not a layout: %v", err)
	}
	return nil
}

// markTarget marks the targets that name the module: by its whole name or by
// the end of it, as in PEFT.
func (m *Manifest) markTarget(module string, used []bool) bool {
	found := false
	for i, t := range m.LoRA.Targets {
		if module == t || strings.HasSuffix(module, "."+t) {
			used[i], found = true, true
		}
	}
	return found
}
