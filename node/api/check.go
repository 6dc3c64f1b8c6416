package api

import (
	"context"
	"net/http"
	"path/filepath"
)

// CheckDatasetRequest names files of rows to look through before an import.
type CheckDatasetRequest struct {
	Files []string `json:"files"`
	// Eval is a file of held-out rows: none of them may be in Files too.
	Eval string `json:"eval,omitempty"`
	// Format is that of the rows: alpaca, messages, sharegpt, completion or
	// text. Default: what the first row of each file shows.
	Format string `json:"format,omitempty"`
	// Fields are as in ImportDatasetRequest.
	Fields map[string]string `json:"fields,omitempty"`
	// Model is a CID or an absolute path of a checkpoint folder, by whose
	// tokenizer and chat template the rows are encoded. Empty: only their form
	// is checked.
	Model string `json:"model,omitempty"`
	// Template is alpaca, chat or none. Default: that of the format.
	Template string `json:"template,omitempty"`
	// MaxTokens is the longest sample. Default: the model's context.
	MaxTokens int `json:"max_tokens,omitempty"`
	// Samples and Problems are how many are shown of each file. Default 3 and
	// 20.
	Samples  int `json:"samples,omitempty"`
	Problems int `json:"problems,omitempty"`
}

// DatasetCheck is what was found in files of rows.
type DatasetCheck struct {
	Model string      `json:"model,omitempty"`
	Files []FileCheck `json:"files"`
	// Sums over the files.
	Rows    int `json:"rows"`
	Invalid int `json:"invalid"`
	Dropped int `json:"dropped"`
	Cut     int `json:"cut"`
	// Repeated rows are there before, word for word; Leaks are rows of Eval
	// that are trained on.
	Repeated int `json:"repeated"`
	Leaks    int `json:"leaks"`
}

// FileCheck is what was found in one file of rows.
type FileCheck struct {
	File string `json:"file"`
	// Input is the form of the rows that was asked for or, for the reason in
	// Why, detected; Format is that of the data set that comes out.
	Input    string `json:"input"`
	Format   string `json:"format"`
	Why      string `json:"why"`
	Template string `json:"template"`
	Rows     int    `json:"rows"`
	// Invalid rows are refused by an import; Dropped ones give no sample,
	// because of their length or the chat template; Cut ones are shortened.
	Invalid  int          `json:"invalid"`
	Dropped  int          `json:"dropped"`
	Cut      int          `json:"cut"`
	Repeated int          `json:"repeated"` // see DatasetCheck
	Leaks    int          `json:"leaks"`
	Problems []RowProblem `json:"problems"` // the first few
	// Tokens is null without a model.
	Tokens  *TokenStats   `json:"tokens"`
	Samples []SampleShown `json:"samples"`
}

// RowProblem is a row that is not trained on as it is.
type RowProblem struct {
	Place string `json:"place"` // such as "rows.jsonl:7"
	Kind  string `json:"kind"`  // "invalid", "dropped" or "cut"
	Why   string `json:"why"`   // names the field
}

// TokenStats are of the tokens in a sample.
type TokenStats struct {
	Sum     int64 `json:"sum"`
	Counted int64 `json:"counted"` // by the loss
	Min     int   `json:"min"`
	Median  int   `json:"median"`
	P95     int   `json:"p95"`
	Max     int   `json:"max"`
}

// SampleShown is a sample as text.
type SampleShown struct {
	Place string       `json:"place"`
	Parts []SamplePart `json:"parts"`
}

// SamplePart is a part of a sample of which the loss counts all tokens or none.
type SamplePart struct {
	Text    string `json:"text"` // with special tokens
	Tokens  int    `json:"tokens"`
	Counted bool   `json:"counted"`
}

// maxShown bounds samples and problems.
const maxShown = 1000

func (s *Server) checkDataset(w http.ResponseWriter, r *http.Request) {
	var req CheckDatasetRequest
	err := decode(w, r, &req)
	if err == nil {
		err = req.check()
	}
	if err == nil && req.Model != "" && !filepath.IsAbs(req.Model) {
		req.Model, err = s.model(r.Context(), req.Model)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.stream(w, r, func(ctx context.Context, progress ProgressFunc) (any, error) {
		return s.backend.CheckDataset(ctx, req, progress)
	})
}

func (q *CheckDatasetRequest) check() error {
	if q.Eval != "" {
		if err := checkPath("eval", q.Eval); err != nil {
			return err
		}
	}
	if err := checkFiles(q.Files); err != nil {
		return err
	}
	if filepath.IsAbs(q.Model) {
		if err := checkPath("model", q.Model); err != nil {
			return err
		}
	}
	if q.Model == "" && (q.Template != "" || q.MaxTokens != 0) {
		return Errorf(CodeUsage, "model is missing; template and max_tokens say how it is to see the rows")
	}
	for _, n := range []struct {
		name string
		v    int
	}{{"samples", q.Samples}, {"problems", q.Problems}} {
		if n.v < 0 || n.v > maxShown {
			return Errorf(CodeUsage, "%s is %d, must be from 1 to %d", n.name, n.v, maxShown)
		}
	}
	if q.MaxTokens < 0 {
		return Errorf(CodeUsage, "max_tokens is %d, must be positive", q.MaxTokens)
	}
	if err := checkFields(q.Fields); err != nil {
		return err
	}
	return checkTemplate(q.Template)
}

// maxFields is how many fields the forms of rows have in all.
const maxFields = 9

// checkFields bounds what renames fields; which there are is known where rows
// are read.
func checkFields(fields map[string]string) error {
	if len(fields) > maxFields {
		return Errorf(CodeUsage, "fields has %d names, at most %d are known", len(fields), maxFields)
	}
	return nil
}

// checkFiles checks the names of files of rows.
func checkFiles(files []string) error {
	if len(files) == 0 {
		return Errorf(CodeUsage, "files is empty; a data set needs at least one file")
	}
	if len(files) > maxFiles {
		return Errorf(CodeUsage, "files has %d names, at most %d are read", len(files), maxFiles)
	}
	for _, p := range files {
		if err := checkPath("files", p); err != nil {
			return err
		}
	}
	return nil
}

// checkTemplate checks the name of a prompt template, "" being the default.
func checkTemplate(name string) error {
	switch name {
	case "", "alpaca", "chat", "none":
		return nil
	}
	return Errorf(CodeUsage, "template is %s, must be alpaca, chat or none", clip(name))
}
