package api

// ExportRequest asks for an adapter as a PEFT folder.
type ExportRequest struct {
	// Run is taken from the route.
	Run string `json:"-"`
	// Round is the round after which the adapter is taken; or Head names the
	// record. Neither: the head.
	Round *uint64 `json:"round,omitempty"`
	Head  string  `json:"head,omitempty"`
	// Dir is made; when it is there it must be empty, unless Overwrite.
	Dir       string `json:"dir"`
	Overwrite bool   `json:"overwrite,omitempty"`
}

// Export is an adapter on disk.
type Export struct {
	Run   string       `json:"run"`
	Model string       `json:"model"`
	Round uint64       `json:"round"`
	Head  string       `json:"head"`
	State string       `json:"state"` // CID of the state it was made from
	Dir   string       `json:"dir"`
	Files []ExportFile `json:"files"`
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
