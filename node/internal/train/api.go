package train

import (
	"context"
	"errors"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
)

var errBuilding = errors.New("being built")

// NotCounted is the label of a token that the loss does not count.
const NotCounted = -100

// Sample is one training text. Labels has the length of IDs; Labels[i] is
// IDs[i] where the model is to learn to produce that token from those before
// it, and NotCounted elsewhere. Labels[0] is never counted: nothing comes
// before it.
type Sample struct {
	IDs    []int32
	Labels []int32
}

// Adam holds the settings of AdamW; the zero value of a field means its
// default, so that weight decay and clipping are off by default.
type Adam struct {
	Beta1       float64 // default 0.9
	Beta2       float64 // default 0.999
	Epsilon     float64 // default 1e-8
	WeightDecay float64 // decoupled; default 0
	ClipNorm    float64 // greatest L2 norm of the gradient; default 0, no clipping
}

// Options configure a Trainer.
type Options struct {
	ModelDir string    // Hugging Face folder of the base model
	Spec     lora.Spec // adapter to train; it starts at zero
	Adam     Adam
	// Threads is how many goroutines compute. Default 1.
	Threads int
	// MaxTokens is the length of the longest sample. Default: the model's
	// context.
	MaxTokens int
	// MicroBatchTokens bounds the tokens whose activations are held at once;
	// a step accumulates gradients over as many micro-batches as it needs.
	// Default 2048.
	MicroBatchTokens int
	// CheckpointDir is where Save writes. Empty: Save and Load are errors.
	CheckpointDir string
	// BaseName is written to adapter_config.json as the base model's name.
	BaseName string
}

// FullOptions configure a Trainer of all parameters.
type FullOptions struct {
	Model            *model.Model // from model.New or model.Load
	Adam             Adam
	MicroBatchTokens int
	CheckpointDir    string
}

// Trainer trains. Its methods are called from one goroutine at a time.
type Trainer struct{}

// Open loads the base model and puts a zero adapter on it.
func Open(o Options) (*Trainer, error) { return nil, errBuilding }

// NewFull returns a Trainer of all parameters of a model.
func NewFull(o FullOptions) (*Trainer, error) { return nil, errBuilding }

// Layout lists the tensors of the adapter that spec makes on the model in dir,
// reading only its configuration.
func Layout(dir string, spec lora.Spec) ([]lora.TensorInfo, error) { return nil, errBuilding }

// Layout lists the tensors being trained, in the order of Adapter and
// SetAdapter.
func (t *Trainer) Layout() []lora.TensorInfo { return nil }

// SetAdapter replaces the values of the adapter. The optimizer's moments stay.
func (t *Trainer) SetAdapter(values []float32) error { return errBuilding }

// Adapter copies the values of the adapter to dst, which must be long enough.
func (t *Trainer) Adapter(dst []float32) {}

// ResetOptimizer forgets the moments and the step counter of AdamW.
func (t *Trainer) ResetOptimizer() {}

// Step takes one optimizer step on the mean loss over all counted tokens of
// the batch, and returns their summed loss (before the step, in nats) and
// their number. A batch without a counted token changes nothing. With ctx
// done it returns ctx's error within one micro-batch and has changed nothing.
func (t *Trainer) Step(ctx context.Context, batch []Sample, learningRate float64) (lossSum float64, tokens int, err error) {
	return 0, 0, errBuilding
}

// GradNorm returns the L2 norm of the last step's gradient before clipping.
func (t *Trainer) GradNorm() float64 { return 0 }

// Score is what Evaluate measures.
type Score struct {
	LossSum float64 // nats
	Tokens  int     // counted
	Correct int     // counted tokens that were the most likely one
}

// Loss returns the mean loss per counted token.
func (s Score) Loss() float64 { return s.LossSum / float64(max(1, s.Tokens)) }

// Accuracy returns the share of counted tokens that were the most likely one.
func (s Score) Accuracy() float64 { return float64(s.Correct) / float64(max(1, s.Tokens)) }

// Eval returns the mean loss per counted token, and their number.
func (t *Trainer) Eval(ctx context.Context, samples []Sample) (loss float64, tokens int, err error) {
	return 0, 0, errBuilding
}

// Evaluate measures loss and token accuracy.
func (t *Trainer) Evaluate(ctx context.Context, samples []Sample) (Score, error) {
	return Score{}, errBuilding
}

// GenerateOptions configure Generate.
type GenerateOptions struct {
	MaxTokens   int     // at most so many new ones
	Stop        []int32 // ends before any of these
	Temperature float64 // 0: the most likely token always
	Seed        uint64  // of the draw when Temperature is not 0
}

// Generate continues ids and returns the new tokens only, without the one that
// stopped it.
func (t *Trainer) Generate(ctx context.Context, ids []int32, o GenerateOptions) ([]int32, error) {
	return nil, errBuilding
}

// Save makes the trained values, the optimizer's state and position durable.
// The previous save stays readable until this one is complete.
func (t *Trainer) Save(position []byte) error { return errBuilding }

// Load brings back the newest complete save, and reports false when there is
// none. Steps after it give the same bits as they would have given after Save.
func (t *Trainer) Load() (position []byte, ok bool, err error) { return nil, false, errBuilding }

// ExportAdapter writes the adapter as a PEFT folder.
func (t *Trainer) ExportAdapter(dir string) error { return errBuilding }

// Model returns the model being trained. In full mode Model().Save writes it
// as a Hugging Face folder.
func (t *Trainer) Model() *model.Model { return nil }

// Close frees what the Trainer holds.
func (t *Trainer) Close() error { return nil }
