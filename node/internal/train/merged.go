package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	files "github.com/moot-net/moot/node/internal/checkpoint"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard/safetensors"
)

// ErrMerge is wrapped by the error for a merged model that is not what base
// model and adapter are together.
var ErrMerge = errors.New("the merged model is another one")

// MergeCheck says what CheckMerged compares.
type MergeCheck struct {
	BaseDir   string        // Hugging Face folder
	Adapter   *lora.Adapter // read with Modules
	MergedDir string        // what lora.Adapter.MergeFolder wrote, without NF4
	// Texts are what logits are compared on. Default: two of 32 random tokens.
	Texts [][]int32
	// Tolerance bounds MergeReport.Difference. Default: what rounding of the
	// merged weights to their type explains, 1e-4 for F32, 0.01 for F16, 0.05
	// for BF16.
	Tolerance float64
	Threads   int // as in Options
}

// MergeReport says how far logits are from those of base model and adapter:
// the root of the mean square of the difference, as a share of that of the
// logits around their mean.
type MergeReport struct {
	Difference float64 // of the merged model
	Effect     float64 // of the base model alone: what the adapter does
	Tolerance  float64
}

// CheckMerged tests a merged model: it must give the logits of base model and
// adapter within a tolerance, and be nearer to them than half the way to those
// of the base model, which also fails when rounding takes from an adapter what
// it does. The models are held in memory one after the other.
func CheckMerged(ctx context.Context, o MergeCheck) (MergeReport, error) {
	r, err := checkMerged(ctx, o)
	if err != nil {
		return r, fmt.Errorf("check merged model %s: %w", o.MergedDir, err)
	}
	return r, nil
}

func checkMerged(ctx context.Context, o MergeCheck) (MergeReport, error) {
	r := MergeReport{Tolerance: o.Tolerance}
	if r.Tolerance == 0 {
		var err error
		if r.Tolerance, err = mergeTolerance(o.MergedDir, o.Adapter); err != nil {
			return r, err
		}
	}
	base, want, err := baseLogits(ctx, &o)
	if err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	m, err := model.Load(o.MergedDir, model.Options{Threads: o.Threads})
	if err != nil {
		return r, err
	}
	got, err := logitsOf(m, o.Texts)
	if err != nil {
		return r, err
	}
	if len(got) != len(want) {
		return r, fmt.Errorf("%w: its vocabulary has another size", ErrMerge)
	}
	r.Difference, r.Effect = distance(got, want), distance(base, want)
	switch {
	case !(r.Difference <= r.Tolerance):
		return r, fmt.Errorf("%w: its logits differ by %.2g, at most %.2g", ErrMerge, r.Difference, r.Tolerance)
	case r.Effect > 0 && r.Difference > r.Effect/2 && r.Difference > exact:
		return r, fmt.Errorf("%w: its logits differ by %.2g, those of the base model without the adapter by %.2g: merge into weights of float32",
			ErrMerge, r.Difference, r.Effect)
	}
	return r, nil
}

// exact is a difference that says nothing: sums in another order.
const exact = 1e-5

// baseLogits returns the logits of the base model, alone and with the adapter.
func baseLogits(ctx context.Context, o *MergeCheck) (alone, adapted []float32, err error) {
	m, err := model.Load(o.BaseDir, model.Options{Threads: o.Threads})
	if err != nil {
		return nil, nil, err
	}
	if o.Texts == nil {
		o.Texts = randomTexts(m.Config(), 2, 32)
	}
	if alone, err = logitsOf(m, o.Texts); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := Apply(m, o.Adapter); err != nil {
		return nil, nil, err
	}
	adapted, err = logitsOf(m, o.Texts)
	return alone, adapted, err
}

func logitsOf(m *model.Model, texts [][]int32) ([]float32, error) {
	var b model.Batch
	for _, ids := range texts {
		if err := b.Add(ids, nil); err != nil {
			return nil, err
		}
	}
	return m.Logits(&b)
}

func randomTexts(c model.Config, n, length int) [][]int32 {
	r := rand.New(rand.NewPCG(1, 1))
	texts := make([][]int32, n)
	for i := range texts {
		for range min(length, c.Context) {
			texts[i] = append(texts[i], int32(r.IntN(c.Vocab)))
		}
	}
	return texts
}

// distance is infinite for logits of which one is not a number.
func distance(got, want []float32) float64 {
	mean, square, off := 0.0, 0.0, 0.0
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for i, v := range want {
		square += (float64(v) - mean) * (float64(v) - mean)
		off += (float64(got[i]) - float64(v)) * (float64(got[i]) - float64(v))
	}
	if d := math.Sqrt(off / square); !math.IsNaN(d) {
		return d
	}
	return math.Inf(1)
}

// mergeTolerance is for the least exact type among the adapted weights.
func mergeTolerance(dir string, a *lora.Adapter) (float64, error) {
	f, err := files.Open(dir)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	var names []string
	for _, p := range a.Parts() {
		names = append(names, p.Path+".weight")
	}
	for _, s := range a.Saved() {
		names = append(names, s.Name)
	}
	most := 1e-4
	for _, name := range names {
		t, ok := f.Find(name)
		switch {
		case !ok:
			return 0, fmt.Errorf("%w: it has no %s", ErrMerge, name)
		case t.DType == safetensors.BF16:
			most = max(most, 0.05)
		case t.DType == safetensors.F16:
			most = max(most, 0.01)
		}
	}
	return most, nil
}
