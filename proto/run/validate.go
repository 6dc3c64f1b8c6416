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
	MaxAuditors  = msg.MaxAudits
	MaxProbation = 1000
	// MaxKeepRounds is for how many rounds seats are kept at most.
	MaxKeepRounds = 1000
	MaxAllowed    = 4096
	MaxWorkBits   = 32
	MaxAlpha      = 1 << 16
	MaxTargets    = fold.MaxTensors / 2
	// MaxFullParams bounds a model of which all parameters are trained: every
	// round moves all of them between all peers.
	MaxFullParams = 150_000_000
	maxTextBytes  = 64
	// MaxSourceBytes bounds what is said of where a model or data are from.
	MaxSourceBytes = 256
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
		m.checkNumbers, m.checkIDs, m.checkTexts, m.checkAdmission, m.checkChoices, m.checkOptimizer, m.checkTrained,
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

func within(field string, v, lo, hi uint64) *InvalidError {
	if v < lo {
		return invalid(field, "is %d, must be at least %d", v, lo)
	}
	if v > hi {
		return invalid(field, "is %d, must be at most %d", v, hi)
	}
	return nil
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
		{"inner.learning_rate_nano", in.LearningRateNano, 1, 1e9},
		{"inner.beta1_ppm", uint64(in.Beta1PPM), 0, 999_999},
		{"inner.beta2_ppm", uint64(in.Beta2PPM), 0, 999_999},
		{"inner.epsilon_pico", in.EpsilonPico, 1, 1e12},
		{"inner.momentum_ppm", uint64(in.MomentumPPM), 0, 999_999},
		{"inner.lora_plus_milli", uint64(in.LoRAPlusMilli), 0, 1e6},
		{"inner.weight_decay_ppm", uint64(in.WeightDecayPPM), 0, 1e6},
		{"inner.clip_milli", uint64(in.ClipMilli), 0, 1e9},
		{"inner.warmup_steps", uint64(in.WarmupSteps), 0, 1e6},
		{"inner.max_steps", uint64(in.MaxSteps), 1, 1e6},
		{"inner.min_steps", uint64(in.MinSteps), 1, uint64(in.MaxSteps)},
		{"inner.start_steps", uint64(in.StartSteps), 0, uint64(in.MaxSteps)},
		{"inner.overlap_steps", uint64(in.OverlapSteps), 0, uint64(in.MaxSteps)},
		{"inner.batch_samples", uint64(in.BatchSamples), 1, 1 << 16},
		{"inner.sequence_tokens", uint64(in.MaxTokens), 2, 1 << 20},
		{"outer.learning_rate_q16", uint64(out.LearningRateQ16), 1, fold.MaxLearningRateQ16},
		{"outer.momentum_q16", uint64(out.MomentumQ16), 0, fold.MaxMomentumQ16},
		{"period_millis", m.PeriodMillis, 100, 7 * 24 * 3600 * 1000},
		{"seats", uint64(m.Seats), 1, msg.MaxAllSeats},
		{"min_peers", uint64(m.MinPeers), 1, uint64(min(m.Seats, msg.MaxSeats))},
		{"rounds", m.MaxRounds, 1, 1e6},
		{"max_tokens", m.MaxTokens, 0, msg.MaxRunTokens},
		{"eval_samples", uint64(m.EvalSamples), 1, 1e6},
		{"eval_peers", uint64(m.EvalPeers), 0, msg.MaxSeats},
		{"rotate_rounds", uint64(m.RotateRounds), 0, 1e6},
		{"keep_rounds", uint64(m.KeepRounds), 0, MaxKeepRounds},
		{"trust.auditors", uint64(m.Trust.Auditors), 0, MaxAuditors},
		{"trust.audit_samples", uint64(m.Trust.AuditSamples), 0, 1e6},
		{"trust.probation", uint64(m.Trust.Probation), 0, MaxProbation},
		{"trust.outsiders", uint64(m.Trust.Outsiders), 0, MaxAuditors},
		{"trust.retrace_ppm", uint64(m.Trust.RetracePPM), 0, 1e6},
		{"trust.judgement", uint64(m.Trust.Judgement), 0, NewestJudgement},
		{"stop.patience", uint64(m.Stop.Patience), 0, 1e6},
		{"stop.min_improvement_ppm", uint64(m.Stop.MinImprovementPPM), 0, 1e6},
		{"stop.target_micro", m.Stop.TargetMicro, 0, msg.MaxLossMicro},
		{"rollback.rounds", uint64(m.Rollback.Rounds), 0, 1e6},
		{"rollback.worse_ppm", uint64(m.Rollback.WorsePPM), 0, 1e6},
		{"admission.work_bits", uint64(m.Admission.WorkBits), 0, MaxWorkBits},
	} {
		if err := within(n.field, n.v, n.lo, n.hi); err != nil {
			return err
		}
	}
	if err := m.checkTempo(); err != nil {
		return err
	}
	if t := &m.Trust; m.Seats > msg.MaxSeats && (t.Outsiders > 0 || t.RetracePPM > 0 || t.TakeBack) {
		return invalid("seats", "is %d, must be at most %d with trust.outsiders, trust.retrace or trust.take_back, which cells do without", m.Seats, msg.MaxSeats)
	}
	if t := &m.Trust; t.Auditors == 0 && t.TakeBack {
		return invalid("trust.take_back", "is true, must be false without audits")
	} else if t.Auditors == 0 && t.Outsiders > 0 {
		return invalid("trust.outsiders", "is %d, must be 0 without audits", t.Outsiders)
	} else if t.Auditors == 0 && t.RetracePPM > 0 {
		return invalid("trust.retrace_ppm", "is %d, must be 0 without audits", t.RetracePPM)
	} else if t.Auditors == 0 && t.Judgement > 0 {
		return invalid("trust.judgement", "is %d, must be 0 without audits", t.Judgement)
	} else if t.Auditors == 0 && m.KeepRounds > 0 {
		return invalid("keep_rounds", "is %d, must be 0 without audits, which say who has worked", m.KeepRounds)
	} else if t.Auditors == 0 && t.Probation > 0 {
		return invalid("trust.probation", "is %d, must be 0 without audits", t.Probation)
	} else if (t.Auditors == 0) != (t.AuditSamples == 0) {
		return invalid("trust.audit_samples", "is %d with %d auditors, must be 0 without audits and at least 1 with them", t.AuditSamples, t.Auditors)
	}
	switch {
	case m.Stop.Patience == 0 && m.Stop.MinImprovementPPM > 0:
		return invalid("stop.min_improvement_ppm", "is %d, must be 0 without patience", m.Stop.MinImprovementPPM)
	case (m.Rollback.Rounds == 0) != (m.Rollback.WorsePPM == 0):
		return invalid("rollback.worse_ppm", "is %d with %d rounds, must be 0 without rounds and at least 1 with them", m.Rollback.WorsePPM, m.Rollback.Rounds)
	}
	if m.Created < 0 || m.Created > 1<<40 {
		return invalid("created", "is %d, must be 0 to %d", m.Created, int64(1<<40))
	}
	return nil
}

// checkTempo checks what a run finds by itself of steps and deadlines.
func (m *Manifest) checkTempo() *InvalidError {
	in := &m.Inner
	switch steps := in.StartSteps; {
	case m.FollowArrivals && m.Seats > msg.MaxSeats:
		return invalid("follow_arrivals", "is true, must be false with more than %d seats", msg.MaxSeats)
	case steps == 0:
	case steps < in.MinSteps:
		return invalid("inner.start_steps", "is %d, must be 0 or at least inner.min_steps, %d", steps, in.MinSteps)
	case m.Mode != ModeLoRA:
		return invalid("inner.start_steps", "is %d, must be 0 with mode %v, which averages exactly", steps, m.Mode)
	case m.Seats > msg.MaxSeats:
		return invalid("inner.start_steps", "is %d, must be 0 with more than %d seats", steps, msg.MaxSeats)
	case m.MaxTokens == 0:
		return invalid("inner.start_steps", "is %d, must be 0 without max_tokens, by which such a run ends and its learning rate falls", steps)
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

func (m *Manifest) checkAdmission() *InvalidError {
	a := &m.Admission
	switch {
	case !known(admissionNames, uint32(a.Mode)):
		return invalid("admission.mode", "is %d, must be %s", uint32(a.Mode), choices(admissionNames))
	case len(a.Allowed) > MaxAllowed:
		return invalid("admission.allowed", "has %d peers, must have at most %d", len(a.Allowed), MaxAllowed)
	case a.Mode != AdmissionList && len(a.Allowed) > 0:
		return invalid("admission.allowed", "has %d peers, must have none in mode %v", len(a.Allowed), a.Mode)
	}
	for i, id := range a.Allowed {
		if !msg.IsPeer(id) || i > 0 && a.Allowed[i-1] >= id {
			return invalid("admission.allowed", "has %q, must have peer IDs of Ed25519 keys, sorted, each once", string(id))
		}
	}
	return nil
}

func (m *Manifest) checkTexts() *InvalidError {
	for _, t := range []struct {
		field, v           string
		minBytes, maxBytes int
	}{
		{"name", m.Name, 1, maxTextBytes},
		{"template", m.Template, 1, maxTextBytes},
		{"licence.model", m.Licences.Model, 0, maxTextBytes},
		{"licence.data", m.Licences.Data, 0, maxTextBytes},
		{"licence.model_source", m.Licences.ModelSource, 0, MaxSourceBytes},
		{"licence.data_source", m.Licences.DataSource, 0, MaxSourceBytes},
	} {
		if len(t.v) < t.minBytes || len(t.v) > t.maxBytes {
			return invalid(t.field, "has %d bytes, must have %d to %d", len(t.v), t.minBytes, t.maxBytes)
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
	switch m.MinCodecBits {
	case 0, 1, 2, 4, 8:
		if m.MinCodecBits > 0 && m.Seats > msg.MaxSeats {
			return invalid("min_codec_bits", "is %d, must be 0 with more than %d seats", m.MinCodecBits, msg.MaxSeats)
		}
		if m.MinCodecBits > m.CodecBits {
			return invalid("min_codec_bits", "is %d, must be at most codec_bits, %d", m.MinCodecBits, m.CodecBits)
		}
	default:
		return invalid("min_codec_bits", "is %d, must be 0, 1, 2, 4 or 8", m.MinCodecBits)
	}
	if m.MinCodecBits > 0 && m.Trust.RetracePPM > 0 {
		return invalid("min_codec_bits", "is %d, must be 0 in a run that retraces deltas", m.MinCodecBits)
	}
	for _, c := range []struct {
		field string
		names []string
		v     uint32
		text  fmt.Stringer
	}{
		{"mode", modeNames, uint32(m.Mode), m.Mode},
		{"inner.schedule", scheduleNames, uint32(m.Schedule), m.Schedule},
		{"inner.optimizer", optimizerNames, uint32(m.Inner.Optimizer), m.Inner.Optimizer},
		{"licence.use", useNames, uint32(m.Licences.Use), m.Licences.Use},
		{"inner.over_long", overLongNames, uint32(m.Inner.OverLong), m.Inner.OverLong},
	} {
		if !known(c.names, c.v) {
			return invalid(c.field, "is %v, must be %s", c.text, choices(c.names))
		}
	}
	return nil
}

// checkOptimizer holds when no setting is there that has no effect.
func (m *Manifest) checkOptimizer() *InvalidError {
	in := &m.Inner
	if m.Schedule == ScheduleWSD {
		if err := within("inner.decay_rounds", in.DecayRounds, 1, m.MaxRounds); err != nil {
			return err
		}
	} else if in.DecayRounds != 0 {
		return invalid("inner.decay_rounds", "is %d, must be 0 with the schedule %v", in.DecayRounds, m.Schedule)
	}
	if in.MomentumPPM != 0 && in.Optimizer != OptimizerSGD {
		return invalid("inner.momentum_ppm", "is %d, must be 0 with the optimizer %v", in.MomentumPPM, in.Optimizer)
	}
	return nil
}

// checkTrained checks what is trained.
func (m *Manifest) checkTrained() *InvalidError {
	if m.Mode == ModeFull {
		return m.checkFull()
	}
	if err := within("lora.rank", uint64(m.LoRA.Rank), 1, MaxRank); err != nil {
		return err
	}
	if err := within("lora.alpha", uint64(m.LoRA.Alpha), 1, MaxAlpha); err != nil {
		return err
	}
	if err := m.checkTargets(); err != nil {
		return err
	}
	if err := m.checkTensors(); err != nil {
		return err
	}
	return m.checkAlphas()
}

// checkFull holds when the tensors are those of a model, and there is no
// adapter.
func (m *Manifest) checkFull() *InvalidError {
	l := &m.LoRA
	if l.Rank != 0 || l.Alpha != 0 || len(l.Targets) != 0 || l.RSLoRA || len(l.Alphas) != 0 {
		return invalid("lora", "is set, must not be with mode full")
	}
	if m.Inner.LoRAPlusMilli != 0 {
		return invalid("inner.lora_plus_milli", "is %d, must be 0 with mode full", m.Inner.LoRAPlusMilli)
	}
	for _, t := range m.Tensors {
		if !isModule(t.Name) {
			return invalid("tensors", "have %q, must be names of a model's parameters", t.Name)
		}
	}
	layout, err := m.Layout()
	if err != nil {
		return invalid("tensors", "are not a layout: %v", err)
	}
	if n := layout.Params(); n > MaxFullParams {
		return invalid("mode", "is full, must be lora for a model of %d parameters: full is for at most %d", n, MaxFullParams)
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
// and the modules are those that the targets name.
func (m *Manifest) checkTensors() *InvalidError {
	if len(m.Tensors) == 0 || len(m.Tensors)%2 != 0 || len(m.Tensors) > fold.MaxTensors {
		return invalid("tensors", "are %d, must be an even number of 2 to %d", len(m.Tensors), fold.MaxTensors)
	}
	at := make(map[string]int, len(m.LoRA.Targets)) // index of a target
	for i, t := range m.LoRA.Targets {
		at[t] = i
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
		if a.Rows != b.Cols || a.Rows > MaxRank {
			return invalid("tensors", "have %s of %d x %d and %d x %d, must have one rank of 1 to %d",
				module, a.Rows, a.Cols, b.Rows, b.Cols, MaxRank)
		}
		if !markTargets(module, at, used) {
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

// markTargets marks the targets that name the module: by its whole name or by
// the end of it, as in PEFT.
func markTargets(module string, at map[string]int, used []bool) bool {
	found := false
	for name := module; ; {
		if i, ok := at[name]; ok {
			used[i], found = true, true
		}
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return found
		}
		name = name[dot+1:]
	}
}

func (m *Manifest) checkAlphas() *InvalidError {
	modules := make(map[string]bool, len(m.Tensors)/2)
	for _, t := range m.Tensors {
		if module, ok := moduleOf(t.Name, suffixA); ok {
			modules[module] = true
		}
	}
	for i, a := range m.LoRA.Alphas {
		if !modules[a.Module] {
			return invalid("lora.alphas", "have %q, must be of a module that tensors adapt", a.Module)
		}
		if i > 0 && m.LoRA.Alphas[i-1].Module >= a.Module {
			return invalid("lora.alphas", "have %q out of order or twice, must be sorted", a.Module)
		}
		if err := within("lora.alphas", uint64(a.Alpha), 1, MaxAlpha); err != nil {
			return err
		}
		if a.Alpha == m.LoRA.Alpha {
			return invalid("lora.alphas", "have %s with alpha %d, must not have what lora.alpha says", a.Module, a.Alpha)
		}
	}
	return nil
}
