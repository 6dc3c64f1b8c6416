package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/runfile"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// keyError is what is wrong with the value of a key of a run file.
type keyError struct {
	key, msg string
	err      error // what to tell instead, when it is not the run file's fault
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
		return nil, api.Errorf(api.CodeConfig, "%w", runfile.KeyError(req.Name, text, key.key, key.msg))
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
		MaxRounds: uint64(f.Rounds), MaxTokens: f.MaxTokens, EvalSamples: f.EvalSamples,
		LoRA: run.LoRA{Rank: f.LoRA.Rank, Alpha: f.LoRA.Alpha},
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
	if err := n.checkEncoding(ctx, m); err != nil {
		return nil, err
	}
	if err := describeAdapter(f, cfg, m); err != nil {
		return nil, err
	}
	return m, n.checkMemory(m)
}

func takeNumbers(m *run.Manifest, f *runfile.File) error {
	schedule, err := run.ParseSchedule(f.Inner.Schedule)
	if err != nil {
		return &keyError{key: "inner.schedule", msg: err.Error()}
	}
	m.Schedule = schedule
	in, out := &m.Inner, &m.Outer
	in.WarmupSteps, in.MinSteps, in.MaxSteps = f.Inner.WarmupSteps, f.Inner.MinSteps, f.Inner.MaxSteps
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
	if f.Inner.SequenceTokens > uint32(cfg.Context) {
		msg := fmt.Sprintf("is %d, must be at most %d, which is what the model was made for", f.Inner.SequenceTokens, cfg.Context)
		return nil, &keyError{key: "inner.sequence_tokens", msg: msg}
	}
	m.Model, m.ModelBytes = root, uint64(entry.Bytes)
	m.Licences.Model = clip(orElse(f.Licence.Model, entry.Licence))
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
	m.Licences.Data = clip(orElse(f.Licence.Data, entry.Licence))
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

// describeAdapter names the layers that get an adapter, and its tensors.
func describeAdapter(f *runfile.File, cfg *model.Config, m *run.Manifest) error {
	var modules []lora.Module
	names := make(map[string]bool)
	for _, l := range cfg.Modules() {
		modules = append(modules, lora.Module(l))
		names[l.Path[strings.LastIndexByte(l.Path, '.')+1:]] = true
	}
	all := slices.Sorted(maps.Keys(names))
	targets := slices.Clone(f.LoRA.Targets)
	if len(targets) == 0 || slices.Contains(targets, lora.AllLinear) {
		targets = all
	}
	slices.Sort(targets)
	m.LoRA.Targets = slices.Compact(targets)
	layout, err := spec(m).Layout(modules)
	if err != nil {
		return &keyError{key: "lora.targets", msg: fmt.Sprintf("cannot be used: %v; the model has %s", err, strings.Join(all, ", "))}
	}
	for _, t := range layout {
		m.Tensors = append(m.Tensors, run.Tensor{Name: t.Name, Rows: uint32(t.Rows), Cols: uint32(t.Cols)})
	}
	return nil
}

// spec is the adapter that a run trains.
func spec(m *run.Manifest) lora.Spec {
	return lora.Spec{Rank: int(m.LoRA.Rank), Alpha: int(m.LoRA.Alpha), Targets: m.LoRA.Targets}
}

func orElse(v, otherwise string) string {
	if v != "" {
		return v
	}
	return otherwise
}

// clip shortens the name of a licence to what a manifest has room for.
func clip(s string) string {
	for len(s) > 64 {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
