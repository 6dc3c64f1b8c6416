package api

// The formats of an export.
const (
	ExportPEFT   = "peft"   // adapter_model.safetensors and adapter_config.json
	ExportMerged = "merged" // a checkpoint folder with the adapter in its weights
	ExportGGUF   = "gguf"   // adapter.gguf, for llama.cpp
)

// ExportRequest asks for what a run trained, or for an adapter that is in a
// folder already, in another form.
type ExportRequest struct {
	// Run is taken from the route. Without it Snapshot is the CID of what
	// SnapshotRequest made; or Adapter is the absolute path of a PEFT folder, and
	// Model the base model that it is for, as in Subject.
	Run      string `json:"-"`
	Snapshot string `json:"snapshot,omitempty"`
	Adapter  string `json:"adapter,omitempty"`
	Model    string `json:"model,omitempty"`
	// Round is the round after which the adapter is taken; or Head names the
	// record; or Best takes the round with the lowest loss on held-out rows, as
	// this node measured it. None of them: the head.
	Round *uint64 `json:"round,omitempty"`
	Head  string  `json:"head,omitempty"`
	Best  bool    `json:"best,omitempty"`
	// Dir is made; when it is there it must be empty, unless Overwrite.
	Dir       string `json:"dir"`
	Overwrite bool   `json:"overwrite,omitempty"`
	// Format is peft, merged or gguf. Default: peft; merged of a run that
	// trains all parameters.
	Format string `json:"format,omitempty"`
	// NF4 merges into the weights as they are after quantisation to four bits.
	// For a base model that is stored so it must be given.
	NF4 bool `json:"nf4,omitempty"`
	// DType is that of the values in GGUF: f32 (default) or f16.
	DType string `json:"dtype,omitempty"`
}

// Export is an adapter on disk. Run, Round, Head and State are empty for one
// that came from a folder, Adapter.
type Export struct {
	Adapter  string `json:"adapter,omitempty"`
	Snapshot string `json:"snapshot,omitempty"` // that it was made from

	Run   string       `json:"run"`
	Model string       `json:"model"`
	Round uint64       `json:"round"`
	Head  string       `json:"head"`
	State string       `json:"state"` // CID of the state it was made from
	Dir   string       `json:"dir"`
	Files []ExportFile `json:"files"`

	Format string `json:"format"`
	// MergedInto is "weights" or "nf4" of what was merged.
	MergedInto string `json:"merged_into,omitempty"`
	// Test is null when the base model is not here to test with.
	Test     *ExportTest `json:"test"`
	Warnings []string    `json:"warnings,omitempty"`
}

// ExportTest is how an export stood its test: it was read back, and the logits
// compared. Distances are the root of the mean square of the difference, as a
// share of that of the logits around their mean.
type ExportTest struct {
	Difference float64 `json:"difference"` // from base model and adapter
	Effect     float64 `json:"effect"`     // of the adapter on the base model
	Tolerance  float64 `json:"tolerance"`  // of Difference
}

// ExportFile is a file of an exported adapter.
type ExportFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

// Subject is what generates or is evaluated: a base model, alone or with an
// adapter.
type Subject struct {
	// Model is a CID or an absolute path of a checkpoint folder. With Run it
	// may be empty: the run's base model.
	Model string `json:"model,omitempty"`
	// Adapter is an absolute path of a PEFT folder; or Run (and Round) names
	// the adapter as a run has it. Neither: the base model alone.
	Adapter string  `json:"adapter,omitempty"`
	Run     string  `json:"run,omitempty"`
	Round   *uint64 `json:"round,omitempty"`
	// Device computes: cpu, cuda:N for a GPU, or auto. Default auto: the device
	// that trains, or the processor while the model does not fit beside what is
	// on the GPU; the answer says which it was.
	Device string `json:"device,omitempty"`
}

// Prompt is an instruction, perhaps with an input.
type Prompt struct {
	Instruction string `json:"instruction"`
	Input       string `json:"input,omitempty"`
}

// GenerateRequest asks for answers.
type GenerateRequest struct {
	Subject
	Prompts []Prompt `json:"prompts"`
	// MaxTokens bounds each answer. Default 128.
	MaxTokens int `json:"max_tokens,omitempty"`
	// Template is how a prompt becomes text: "alpaca", "chat" (the model's
	// own), or "none" to continue the instruction as it is. Default: that of
	// the run, or else alpaca.
	Template string `json:"template,omitempty"`
}

// Generation is what was generated.
type Generation struct {
	Model   string   `json:"model"`
	Adapter string   `json:"adapter,omitempty"` // folder, or state CID
	Device  string   `json:"device,omitempty"`  // what computed
	Outputs []Output `json:"outputs"`
}

// Output is one answer.
type Output struct {
	Prompt Prompt `json:"prompt"`
	Text   string `json:"text"`
	Tokens int    `json:"tokens"`
	// Stop is why it ended: "eos", "length" or "full" (the model's context).
	Stop string `json:"stop"`
}

// EvaluateRequest asks for figures on held-out rows.
type EvaluateRequest struct {
	Subject
	// Dataset is a CID. With Run it may be empty: the run's data set.
	Dataset string `json:"dataset,omitempty"`
	// MaxRows bounds how many rows are used, from the first. Default all.
	MaxRows int `json:"max_rows,omitempty"`
	// LossOnly leaves out the answers, which take longest.
	LossOnly bool `json:"loss_only,omitempty"`
	// MaxTokens bounds each answer. Default 64.
	MaxTokens int `json:"max_tokens,omitempty"`
}

// Evaluation is how a model does on held-out rows.
type Evaluation struct {
	Model   string `json:"model"`
	Adapter string `json:"adapter,omitempty"`
	Dataset string `json:"dataset"`
	Device  string `json:"device,omitempty"` // what computed
	// Loss is the mean cross-entropy of a response token, in nats.
	Loss       float64 `json:"loss"`
	Perplexity float64 `json:"perplexity"`
	Rows       int     `json:"rows"`
	Tokens     int64   `json:"tokens"` // with loss
	// Accuracy is Correct/Rows: greedy answers equal to the row's (last)
	// output but for white space at the ends. null with LossOnly, and when
	// the rows are texts, which ask nothing.
	Accuracy *float64 `json:"accuracy"`
	Correct  int      `json:"correct"`
	Seconds  float64  `json:"seconds"`
}

// DemoAssetsRequest names the folder to write to.
type DemoAssetsRequest struct {
	Dir string `json:"dir"`
}

// DemoAssets is the bundled model and data on disk.
type DemoAssets struct {
	ModelDir string `json:"model_dir"`
	// Data is the import of the bundled data, with absolute paths.
	Data ImportDatasetRequest `json:"data"`
	// RunFile is a run.toml whose model and data are still empty strings.
	RunFile string `json:"run_file"`
	// Prompts are a few of the held-out rows, with the expected answers.
	Prompts []DemoPrompt `json:"prompts"`
}

// DemoPrompt is a prompt with the answer that a trained adapter should give.
type DemoPrompt struct {
	Prompt
	Expected string `json:"expected"`
}

// check completes and checks what is to be written.
func (q *ExportRequest) check() error {
	switch {
	case q.Run != "" && (q.Adapter != "" || q.Model != ""):
		return Errorf(CodeUsage, "adapter or model is given for a run, which has its own")
	case q.Snapshot != "" && (q.Run != "" || q.Adapter != "" || q.Model != "" || q.Round != nil || q.Head != "" || q.Best):
		return Errorf(CodeUsage, "snapshot and something else that names an adapter are given; one of them says what is exported")
	case q.Snapshot != "":
		return q.checkForm()
	case q.Run == "" && (q.Adapter == "" || q.Model == ""):
		return Errorf(CodeUsage, "adapter and model must both be given: a folder, and the base model that it is for")
	case q.Run == "" && (q.Round != nil || q.Head != "" || q.Best):
		return Errorf(CodeUsage, "round, head or best is given without a run")
	case q.Best && (q.Round != nil || q.Head != ""):
		return Errorf(CodeUsage, "best and round or head are both given; one of them names the state")
	case q.Round != nil && q.Head != "":
		return Errorf(CodeUsage, "round and head are both given; one of them names the state")
	}
	return q.checkForm()
}

// checkForm checks in which form something is to be written.
func (q *ExportRequest) checkForm() error {
	switch {
	case q.Format != "" && q.Format != ExportPEFT && q.Format != ExportMerged && q.Format != ExportGGUF:
		return Errorf(CodeUsage, "format is %s, must be peft, merged or gguf", clip(q.Format))
	case q.NF4 && q.Format != ExportMerged:
		return Errorf(CodeUsage, "nf4 is given without the format merged; it says what an adapter is merged into")
	case q.DType != "" && q.Format != ExportGGUF:
		return Errorf(CodeUsage, "dtype is given without the format gguf; it is of the values in GGUF")
	case q.DType != "" && q.DType != "f32" && q.DType != "f16":
		return Errorf(CodeUsage, "dtype is %s, must be f32 or f16", clip(q.DType))
	}
	return nil
}
