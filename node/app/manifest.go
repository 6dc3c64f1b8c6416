package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runfile"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// keyError is what is wrong with the value of a key of a run file.
type keyError struct {
	key, msg string
	code     api.Code // default: E_CONFIG
	err      error    // what to tell instead, when it is not the run file's fault
	hint     string   // the way out; may be empty
}

func (e *keyError) Error() string { return e.key + " " + e.msg }

func (e *keyError) Unwrap() error { return e.err }

// manifest makes the manifest of a run file. Errors about the file name its
// line.
func (n *node) manifest(ctx context.Context, req *api.LaunchRequest, now time.Time) (*run.Manifest, error) {
	text := []byte(req.TOML)
	f, err := runfile.Parse(req.Name, text)
	if err != nil {
		return nil, api.Errorf(api.CodeConfig, "%w", err)
	}
	m, err := n.describe(ctx, f)
	if err == nil {
		m.Launcher, m.Created = n.host.ID(), now.Unix()
		err = m.Validate()
	}
	key, invalid := new(keyError), new(run.InvalidError)
	switch {
	case errors.As(err, &key) && key.err != nil:
		return nil, key.err
	case errors.As(err, &key):
		err := api.Errorf(cmp.Or(key.code, api.CodeConfig), "%w", runfile.KeyError(req.Name, text, key.key, key.msg))
		if key.hint != "" {
			err = err.WithHint("%s", key.hint)
		}
		return nil, err
	case errors.As(err, &invalid):
		return nil, api.Errorf(api.CodeConfig, "%w", runfile.KeyError(req.Name, text, invalid.Field, invalid.Rule))
	}
	return m, err
}

// describe fills in what follows from the run file, the model and the data.
func (n *node) describe(ctx context.Context, f *runfile.File) (*run.Manifest, error) {
	m := &run.Manifest{
		Version: run.ManifestVersion, Name: f.Name, GenesisSeed: f.Seed, CodecBits: f.CodecBits,
		PeriodMillis: uint64(time.Duration(f.Period).Milliseconds()), Seats: f.Seats, MinPeers: f.MinPeers,
		MaxRounds: uint64(f.Rounds), MaxTokens: f.MaxTokens, EvalSamples: f.EvalSamples, EvalPeers: f.EvalPeers, SkipLinks: true, Pledges: true, DatedRequests: true, RotateRounds: f.RotateRounds, KeepRounds: f.KeepRounds, MinCodecBits: f.MinCodecBits, FollowArrivals: f.FollowArrivals,
		Trust: run.Trust{
			Auditors: *f.Trust.Auditors, AuditSamples: f.Trust.AuditSamples, Probation: *f.Trust.Probation, TakeBack: *f.Trust.TakeBack,
			Outsiders: *f.Trust.Outsiders,
		},
		Stop: run.Stop{
			Patience: f.Stop.Patience, MinImprovementPPM: uint32(math.Round(*f.Stop.MinImprovement * 1e6)),
			TargetMicro: uint64(math.Round(f.Stop.TargetLoss * 1e6)),
		},
		Rollback: run.Rollback{Rounds: f.Rollback.Rounds, WorsePPM: uint32(math.Round(*f.Rollback.Worse * 1e6))},
		LoRA:     run.LoRA{Rank: f.LoRA.Rank, Alpha: f.LoRA.Alpha, RSLoRA: f.LoRA.RSLoRA},
	}
	if err := takeChoices(m, f); err != nil {
		return nil, err
	}
	if err := takeNumbers(m, f); err != nil {
		return nil, err
	}
	cfg, err := n.describeModel(ctx, f, m)
	if err != nil {
		return nil, err
	}
	if err := n.describeData(ctx, f, m); err != nil {
		return nil, err
	}
	if broken, _ := licenceRules(&m.Licences); len(broken) > 0 {
		return nil, &keyError{key: "licence.use", msg: strings.TrimPrefix(strings.Join(broken, "; "), "licence.use "), code: api.CodeRefused, hint: licenceWay(&m.Licences)}
	}
	if err := n.checkEncoding(ctx, m); err != nil {
		return nil, err
	}
	if m.Mode == run.ModeFull {
		err = describeFull(cfg, m)
	} else {
		err = describeAdapter(f, cfg, m)
	}
	if err != nil {
		return nil, err
	}
	params := 0
	for _, t := range m.Tensors {
		params += int(t.Rows) * int(t.Cols)
	}
	m.Trust.RetracePPM = f.Trust.RetracePPM(params)
	if m.Trust.Auditors > 0 {
		m.Trust.Judgement = run.NewestJudgement
	}
	return m, nil
}

func takeChoices(m *run.Manifest, f *runfile.File) (err error) {
	if m.Mode, err = run.ParseMode(f.Mode); err != nil {
		return &keyError{key: "mode", msg: err.Error()}
	}
	if m.Schedule, err = run.ParseSchedule(f.Inner.Schedule); err != nil {
		return &keyError{key: "inner.schedule", msg: err.Error()}
	}
	if m.Inner.Optimizer, err = run.ParseOptimizer(f.Inner.Optimizer); err != nil {
		return &keyError{key: "inner.optimizer", msg: err.Error()}
	}
	if m.Licences.Use, err = run.ParseUse(f.Licence.Use); err != nil {
		return &keyError{key: "licence.use", msg: err.Error()}
	}
	if m.Inner.OverLong, err = run.ParseOverLong(f.Inner.OverLong); err != nil {
		return &keyError{key: "inner.over_long", msg: err.Error()}
	}
	m.Inner.Unpacked = !*f.Inner.Packing
	m.Admission.WorkBits = f.Admission.WorkBits
	if m.Admission.Mode, err = run.ParseAdmission(f.Admission.Mode); err != nil {
		return &keyError{key: "admission.mode", msg: err.Error()}
	}
	for _, s := range f.Admission.Allowed {
		id, err := peer.Decode(s)
		if err != nil || !msg.IsPeer(id) {
			return &keyError{key: "admission.allowed", msg: fmt.Sprintf("has %q, must have peer IDs as \"moot status\" shows them", s)}
		}
		m.Admission.Allowed = append(m.Admission.Allowed, id)
	}
	slices.Sort(m.Admission.Allowed)
	m.Admission.Allowed = slices.Compact(m.Admission.Allowed)
	return nil
}

func takeNumbers(m *run.Manifest, f *runfile.File) error {
	in, out := &m.Inner, &m.Outer
	in.DecayRounds = uint64(f.Inner.DecayRounds)
	momentum, plus := 0.0, f.Inner.LoRAPlusRatio
	if f.Inner.Momentum != nil {
		momentum = *f.Inner.Momentum
	}
	if plus == 1 {
		plus = 0 // what a manifest has for it
	}
	in.WarmupSteps, in.MinSteps, in.MaxSteps = f.Inner.WarmupSteps, f.Inner.MinSteps, f.Inner.MaxSteps
	in.StartSteps = f.Inner.StartSteps
	in.OverlapSteps = f.Inner.OverlapSteps
	in.BatchSamples, in.MaxTokens = f.Inner.BatchSamples, f.Inner.SequenceTokens
	for _, c := range []struct {
		key  string
		v    float64
		unit float64
		to   func(uint64)
	}{
		{"inner.learning_rate", f.Inner.LearningRate, 1e9, func(v uint64) { in.LearningRateNano = v }},
		{"inner.beta1", *f.Inner.Beta1, 1e6, func(v uint64) { in.Beta1PPM = uint32(v) }},
		{"inner.beta2", *f.Inner.Beta2, 1e6, func(v uint64) { in.Beta2PPM = uint32(v) }},
		{"inner.epsilon", *f.Inner.Epsilon, 1e12, func(v uint64) { in.EpsilonPico = v }},
		{"inner.weight_decay", f.Inner.WeightDecay, 1e6, func(v uint64) { in.WeightDecayPPM = uint32(v) }},
		{"inner.momentum", momentum, 1e6, func(v uint64) { in.MomentumPPM = uint32(v) }},
		{"inner.lora_plus_ratio", plus, 1e3, func(v uint64) { in.LoRAPlusMilli = uint32(v) }},
		{"inner.clip", *f.Inner.Clip, 1e3, func(v uint64) { in.ClipMilli = uint32(v) }},
	} {
		v, ok := decimal(c.v, c.unit)
		if !ok {
			return &keyError{key: c.key, msg: fmt.Sprintf("is %v, must be a multiple of %g", c.v, 1/c.unit)}
		}
		c.to(v)
	}
	// The outer step is in Q16, in which few decimals are exact.
	out.LearningRateQ16 = uint32(math.RoundToEven(*f.Outer.LearningRate * fold.One))
	out.MomentumQ16 = uint32(math.RoundToEven(*f.Outer.Momentum * fold.One))
	return nil
}

// decimal returns v as a number of units, of which unit make 1. It reports
// false when v is not a number of whole units, or has no room in 32 bits.
func decimal(v, unit float64) (uint64, bool) {
	scaled := v * unit
	whole := math.Round(scaled)
	// A decimal has an error of half a unit in the last place, and so has the
	// product.
	ok := whole >= 0 && whole <= 1e12 && math.Abs(scaled-whole) <= 4e-16*max(scaled, 1)
	return uint64(whole), ok
}

func (n *node) describeModel(ctx context.Context, f *runfile.File, m *run.Manifest) (*model.Config, error) {
	root, err := cid.Decode(f.Model)
	if err != nil {
		return nil, &keyError{key: "model", msg: fmt.Sprintf(`is %q, must be a CID that "moot model import DIR" prints`, f.Model)}
	}
	entry, ok := n.models.get(root.String())
	if !ok {
		return nil, &keyError{key: "model", err: api.Errorf(api.CodeNotFound, "model %s is not here", root).
			WithHint(`import it with "moot model import DIR"`)}
	}
	b, err := fs.ReadFile(n.store.FS(ctx, root), "config.json")
	if err != nil {
		return nil, fmt.Errorf("read model %s: %w", root, err)
	}
	cfg, err := model.ParseConfig(b)
	if err != nil {
		return nil, &keyError{key: "model", err: api.Errorf(api.CodeModel, "model %s cannot be trained: %w", root, err)}
	}
	if !entry.Trainable {
		return nil, &keyError{key: "model", err: api.Errorf(api.CodeModel, "model %s cannot be trained: %s", root, entry.Why)}
	}
	if !f.Inner.SequenceSet {
		m.Inner.MaxTokens = min(m.Inner.MaxTokens, uint32(cfg.Context))
	}
	if m.Inner.MaxTokens > uint32(cfg.Context) {
		msg := fmt.Sprintf("is %d, must be at most %d, which is what the model was made for", f.Inner.SequenceTokens, cfg.Context)
		return nil, &keyError{key: "inner.sequence_tokens", msg: msg}
	}
	m.Model, m.ModelBytes = root, uint64(entry.Bytes)
	m.Licences.Model = clip(orElse(f.Licence.Model, entry.Licence))
	m.Licences.ModelSource = orElse(f.Licence.ModelSource, clipTo(printable(entry.Source), run.MaxSourceBytes))
	return &cfg, nil
}

func (n *node) describeData(ctx context.Context, f *runfile.File, m *run.Manifest) error {
	root, err := cid.Decode(f.Data)
	if err != nil {
		return &keyError{key: "data", msg: fmt.Sprintf(`is %q, must be a CID that "moot data import FILE" prints`, f.Data)}
	}
	entry, ok := n.datasets.get(root.String())
	if !ok {
		return &keyError{key: "data", err: api.Errorf(api.CodeNotFound, "data set %s is not here", root).
			WithHint(`import it with "moot data import FILE"`)}
	}
	d, err := shard.OpenDataset(ctx, n.store, root)
	if err != nil {
		return fmt.Errorf("read data set %s: %w", root, err)
	}
	m.Dataset, m.DatasetBytes = root, uint64(entry.Bytes)
	if entry.EvalRows == 0 {
		m.EvalPeers = 0 // there is nothing to measure it on
	}
	m.Licences.Data = clip(orElse(f.Licence.Data, entry.Licence))
	m.Licences.DataSource = orElse(f.Licence.DataSource, clipTo(printable(entry.Source), run.MaxSourceBytes))
	m.Template = orElse(f.Template, d.Index().Template)
	if _, err := dataset.ParseTemplate(m.Template); err != nil {
		return &keyError{key: "template", msg: fmt.Sprintf("is %q, must be alpaca, chat or none", m.Template)}
	}
	return nil
}

// checkEncoding reports why the model cannot read the rows of the data set by
// the template.
func (n *node) checkEncoding(ctx context.Context, m *run.Manifest) error {
	dir, err := n.modelDir(ctx, m.Model)
	if err != nil {
		return err
	}
	d, err := shard.OpenDataset(ctx, n.store, m.Dataset)
	if err != nil {
		return fmt.Errorf("read data set %s: %w", m.Dataset, err)
	}
	t, err := dataset.ParseTemplate(m.Template)
	if err != nil {
		return err // was checked before
	}
	e, err := dataset.LoadEncoder(dir, t, max(int(m.Inner.MaxTokens), 2))
	if err != nil {
		return &keyError{key: "template", err: encoderError(m.Model.String(), err)}
	}
	if err := e.Accepts(d.Index().Format); err != nil {
		return &keyError{key: "template", msg: fmt.Sprintf("is %q: %v", m.Template, err)}
	}
	return nil
}

// describeAdapter names the layers that get an adapter, and its tensors. What
// patterns there are is resolved here.
func describeAdapter(f *runfile.File, cfg *model.Config, m *run.Manifest) error {
	modules := adaptable(cfg)
	s := specOf(&f.LoRA)
	a, err := lora.New(s, modules)
	if err != nil {
		names := leafNames(modules)
		return &keyError{key: "lora.targets", msg: fmt.Sprintf("cannot be used: %v; the model has %s", err, strings.Join(names, ", "))}
	}
	if err := checkPatterns(&f.LoRA, a.Parts()); err != nil {
		return err
	}
	m.LoRA.Targets = targetsOf(a.Parts(), modules)
	for _, t := range a.Layout() {
		m.Tensors = append(m.Tensors, run.Tensor{Name: t.Name, Rows: uint32(t.Rows), Cols: uint32(t.Cols)})
	}
	for _, p := range a.Parts() {
		if alpha := uint32(p.Alpha); alpha != m.LoRA.Alpha {
			m.LoRA.Alphas = append(m.LoRA.Alphas, run.ModuleAlpha{Module: p.Path, Alpha: alpha})
		}
	}
	slices.SortFunc(m.LoRA.Alphas, func(a, b run.ModuleAlpha) int { return strings.Compare(a.Module, b.Module) })
	return nil
}

// adaptable lists the layers that can have an adapter that is trained.
func adaptable(cfg *model.Config) []lora.Module {
	var modules []lora.Module
	for _, l := range cfg.Modules() {
		modules = append(modules, lora.Module(l))
	}
	return modules
}

// specOf is the adapter that a run file asks for.
func specOf(l *runfile.LoRA) lora.Spec {
	s := lora.Spec{
		Rank: int(l.Rank), Alpha: int(l.Alpha), Targets: l.Targets.List, Pattern: l.Targets.Pattern, RSLoRA: l.RSLoRA,
		Exclude: l.ExcludeModules.List, ExcludePattern: l.ExcludeModules.Pattern, Blocks: l.LayersToTransform,
		Ranks: overridesOf(l.RankPattern), Alphas: overridesOf(l.AlphaPattern),
	}
	if s.Pattern == lora.AllLinear || s.Pattern == "" && len(s.Targets) == 0 {
		s.Pattern, s.Targets = "", []string{lora.AllLinear}
	}
	return s
}

// overridesOf lists a pattern's entries, the longest keys first.
func overridesOf(pattern map[string]uint32) []lora.Override {
	keys := slices.Sorted(maps.Keys(pattern))
	slices.SortStableFunc(keys, func(a, b string) int { return len(b) - len(a) })
	var list []lora.Override
	for _, k := range keys {
		list = append(list, lora.Override{Key: k, Value: int(pattern[k])})
	}
	return list
}

// checkPatterns refuses what would silently have no effect: a block that is
// not there, a pattern for no layer.
func checkPatterns(l *runfile.LoRA, parts []lora.Part) error {
	for _, block := range l.LayersToTransform {
		if !slices.ContainsFunc(parts, func(p lora.Part) bool { return slices.Contains(strings.Split(p.Path, "."), strconv.Itoa(block)) }) {
			return &keyError{key: "lora.layers_to_transform", msg: fmt.Sprintf("has %d, but no target is in such a block", block)}
		}
	}
	for _, p := range []struct {
		key  string
		list map[string]uint32
	}{{"lora.rank_pattern", l.RankPattern}, {"lora.alpha_pattern", l.AlphaPattern}} {
		for _, name := range slices.Sorted(maps.Keys(p.list)) {
			if !slices.ContainsFunc(parts, func(part lora.Part) bool { return lora.KeyMatches(name, part.Path) }) {
				return &keyError{key: p.key, msg: fmt.Sprintf("has %q, which is the end of no target's path", name)}
			}
		}
	}
	return nil
}

// targetsOf names adapted layers, sorted: by the last part of their path where
// all layers of that name are adapted, else by the whole of it.
func targetsOf(parts []lora.Part, modules []lora.Module) []string {
	all, adapted := make(map[string]int), make(map[string]int)
	for _, l := range modules {
		all[leafName(l.Path)]++
	}
	for _, p := range parts {
		adapted[leafName(p.Path)]++
	}
	targets := make(map[string]bool)
	for _, p := range parts {
		if name := leafName(p.Path); adapted[name] == all[name] {
			targets[name] = true
		} else {
			targets[p.Path] = true
		}
	}
	return slices.Sorted(maps.Keys(targets))
}

func leafName(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

func leafNames(modules []lora.Module) []string {
	names := make(map[string]bool)
	for _, l := range modules {
		names[leafName(l.Path)] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// describeFull names all parameters of the model.
func describeFull(cfg *model.Config, m *run.Manifest) error {
	if n := cfg.Params(); n > run.MaxFullParams {
		return &keyError{key: "mode", msg: fmt.Sprintf("is full, which is for models of at most %d million parameters; this one has %d million: train an adapter, with mode lora",
			run.MaxFullParams/1_000_000, n/1_000_000)}
	}
	for _, t := range train.FullLayout(*cfg) {
		m.Tensors = append(m.Tensors, run.Tensor{Name: t.Name, Rows: uint32(t.Rows), Cols: uint32(t.Cols)})
	}
	return nil
}

func orElse(v, otherwise string) string {
	if v != "" {
		return v
	}
	return otherwise
}

// clip shortens the name of a licence to what a manifest has room for.
func clip(s string) string { return clipTo(s, 64) }

// printable is a text on one line, as a manifest has it.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
}

func clipTo(s string, limit int) string {
	for len(s) > limit {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
