package api

import "time"

// ImportModelRequest names a Hugging Face checkpoint folder. Weights in the
// older form of pytorch_model.bin are stored as safetensors.
type ImportModelRequest struct {
	Dir string `json:"dir"`
	// Quantize stores the weights in four bits, as bitsandbytes does: "nf4" is
	// all there is. Empty: as they are.
	Quantize string `json:"quantize,omitempty"`
	// Copy stores a copy of the files. Without it, the node uses those in Dir,
	// which have to stay as they are.
	Copy bool `json:"copy,omitempty"`
	// FollowLinks takes symbolic links to files for these files, wherever they
	// are. Without it, links are refused.
	FollowLinks bool `json:"follow_links,omitempty"`
	// Source says where the model is from, for those who join runs of it.
	// Default: repository and revision, if Dir is in the cache of Hugging Face.
	Source string `json:"source,omitempty"`
}

// QuantizeNF4 is the value of ImportModelRequest.Quantize.
const QuantizeNF4 = "nf4"

// Model is a base model that a node holds.
type Model struct {
	ID            string    `json:"id"`   // CID
	Name          string    `json:"name"` // of the folder, for people
	Type          string    `json:"type"` // model_type of config.json
	Architectures []string  `json:"architectures,omitempty"`
	Parameters    int64     `json:"parameters"`
	Bytes         int64     `json:"bytes"`
	Files         int       `json:"files"`
	Blocks        int       `json:"blocks"`
	Licence       string    `json:"licence,omitempty"`
	Source        string    `json:"source,omitempty"`
	Imported      time.Time `json:"imported"` // or pulled
	// Dir is the folder in which it lies. InPlace says that it is the user's.
	Dir     string `json:"dir,omitempty"`
	InPlace bool   `json:"in_place,omitempty"`
	// Trainable says that this version can train it; Why, if not, why not.
	Trainable bool     `json:"trainable"`
	Why       string   `json:"why,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// Models answers a list of models.
type Models struct {
	Models []Model `json:"models"`
	// Next is what to ask after for the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// ImportDatasetRequest names files of rows and says how to read them.
type ImportDatasetRequest struct {
	// Files hold the training rows: .json (an array), .jsonl, .csv, .tsv, .parquet or
	// .txt, in which empty lines separate rows.
	Files []string `json:"files"`
	// Format is that of the rows: alpaca, messages, sharegpt, completion or
	// text. Default: what the first row of each file shows.
	Format string `json:"format,omitempty"`
	// Fields name the fields of the files where they are not those of the form:
	// {"output": "answer"}.
	Fields map[string]string `json:"fields,omitempty"`
	// EvalFile holds the held-out rows; or EvalFraction of the rows, drawn by
	// Seed, is held out. One of the two should be given.
	EvalFile     string  `json:"eval_file,omitempty"`
	EvalFraction float64 `json:"eval_fraction,omitempty"`
	Seed         uint64  `json:"seed,omitempty"`
	// Shuffle orders the training rows by Seed before they are cut into
	// shards of at most ShardBytes (default 1 MiB). Default: the order of the
	// files; moot and the page ask for a drawn one.
	Shuffle    bool `json:"shuffle,omitempty"`
	ShardBytes int  `json:"shard_bytes,omitempty"`
	// DropInvalid leaves invalid rows out and counts them, instead of refusing
	// the file.
	DropInvalid bool   `json:"drop_invalid,omitempty"`
	Licence     string `json:"licence,omitempty"`
	Source      string `json:"source,omitempty"`
	// Template is how a row becomes a prompt: alpaca, chat (the model's own)
	// or none. Default: alpaca for instructions, chat for conversations.
	Template string `json:"template,omitempty"`
}

// Dataset is a data set that a node holds.
type Dataset struct {
	ID       string `json:"id"` // CID
	Name     string `json:"name"`
	Format   string `json:"format"` // of the rows, such as messages
	Template string `json:"template"`
	// Detected says what the first file was found to be, and why. It is only
	// told by an import.
	Detected    string `json:"detected,omitempty"`
	TrainRows   int64  `json:"train_rows"`
	EvalRows    int64  `json:"eval_rows"`
	DroppedRows int64  `json:"dropped_rows"`
	// Rejected are the first of the dropped rows, and why.
	Rejected    []RowProblem `json:"rejected,omitempty"`
	TrainShards int          `json:"train_shards"`
	EvalShards  int          `json:"eval_shards"`
	// Shuffled says that the training rows are in another order than in the files.
	Shuffled bool      `json:"shuffled,omitempty"`
	Bytes    int64     `json:"bytes"`
	Licence  string    `json:"licence,omitempty"`
	Source   string    `json:"source,omitempty"`
	Imported time.Time `json:"imported"`
	Warnings []string  `json:"warnings,omitempty"`
}

// Datasets answers a list of data sets.
type Datasets struct {
	Datasets []Dataset `json:"datasets"`
	// Next is what to ask after for the next page, empty on the last.
	Next string `json:"next,omitempty"`
}
