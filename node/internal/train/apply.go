package train

import (
	"fmt"
	"slices"

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
	if c := m.Config(); a.Whole() && c.TiedHead {
		embed, ok := tiedEmbedding(m, a)
		if !ok {
			return fmt.Errorf("apply all parameters: %w: the embedding is not among them", lora.ErrUnsupported)
		}
		embed.Name = c.Head().Path + ".weight"
		whole = append(whole, embed)
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

// Whole returns a model whose parameters are by so much different, as an
// adapter. The differences are in the order of FullLayout; m stays as it is.
func Whole(m *model.Model, difference []float32) (*lora.Adapter, error) {
	params := m.Params()
	var saved []lora.Saved
	for _, p := range params {
		n := p.Value.Rows * p.Value.Cols
		if n > len(difference) {
			return nil, fmt.Errorf("all parameters: %d differences are not those of the model", len(difference))
		}
		values := make([]float32, n)
		m.Backend().Download(values, p.Value)
		for i, d := range difference[:n] {
			values[i] += d
		}
		difference = difference[n:]
		saved = append(saved, lora.Saved{Name: p.Name, Shape: p.Shape, Values: p.Stored(values)})
	}
	if len(difference) > 0 {
		return nil, fmt.Errorf("all parameters: %d differences more than the model has", len(difference))
	}
	return lora.NewWhole(saved), nil
}

// tiedEmbedding finds the embedding that is the output layer too.
func tiedEmbedding(m *model.Model, a *lora.Adapter) (model.Replacement, bool) {
	head := m.Config().Head()
	for _, s := range a.Saved() {
		if s.Name == m.Config().EmbeddingPath()+".weight" && slices.Equal(s.Shape, []int64{int64(head.Out), int64(head.In)}) {
			return model.Replacement(s), true
		}
	}
	return model.Replacement{}, false
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
