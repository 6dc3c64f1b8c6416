package train

import (
	"fmt"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
)

// Modules lists the layers of a model that an adapter to be applied may be on:
// those that can be trained, and the output layer. It is what lora.ReadAny is
// to be given.
func Modules(c model.Config) []lora.Module {
	return append(modules(c), lora.Module(c.Head()))
}

// Apply makes a model compute what it is with an adapter of any kind, read
// with Modules: low rank, magnitudes, whole tensors, an adapted output layer.
// It takes off what was applied before. The adapter's values are copied. The
// model can then be evaluated and generate, and not be trained.
func Apply(m *model.Model, a *lora.Adapter) error {
	var whole []model.Replacement
	for _, s := range a.Saved() {
		whole = append(whole, model.Replacement(s))
	}
	if err := m.Replace(whole); err != nil {
		return fmt.Errorf("apply adapter: %w", err)
	}
	b := m.Backend()
	values := b.Alloc(len(a.Values()))
	b.Upload(values.Vec(), a.Values())
	adapters := map[string]model.LowRank{}
	for _, p := range a.Parts() {
		adapters[p.Path] = model.LowRank{
			A: values.Mat(a.Start(p.A), p.Rank, p.In), B: values.Mat(a.Start(p.B), p.Out, p.Rank), Scale: p.Scale,
			Magnitude: a.Magnitude(p),
		}
	}
	if err := m.Attach(adapters); err != nil {
		return fmt.Errorf("apply adapter: %w", err)
	}
	return nil
}

// trainable refuses the kinds of adapter that can only be applied.
func trainable(s lora.Spec) error {
	what := ""
	switch {
	case s.DoRA:
		what = "DoRA (use_dora)"
	case s.Bias != "":
		what = "biases (bias is " + s.Bias + ")"
	case len(s.SaveModules) > 0:
		what = fmt.Sprintf("whole modules (modules_to_save is %q)", s.SaveModules)
	default:
		return nil
	}
	return fmt.Errorf("%w: training of %s: train plain LoRA, or apply an adapter that was trained elsewhere", lora.ErrUnsupported, what)
}
