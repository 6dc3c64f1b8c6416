package api

import "context"

// PreviewRequest names files of rows to look into.
type PreviewRequest struct {
	Files []string `json:"files"`
	// Rows is how many are shown of each file. Default 5, at most 100.
	Rows int `json:"rows,omitempty"`
}

// DatasetPreview is how files of rows begin.
type DatasetPreview struct {
	Files []FilePreview `json:"files"`
}

// FilePreview is how a file of rows begins.
type FilePreview struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
	// Input is the form that its first row shows, and Format what an import
	// makes of it; empty when it shows none, for the reason in Why.
	Input  string `json:"input"`
	Format string `json:"format"`
	Why    string `json:"why"`
	// Columns are the names of fields; Rows have their values in this order.
	Columns []string     `json:"columns"`
	Rows    []RowPreview `json:"rows"`
	// Suggested are the Fields with which it could be imported, when the names
	// of its fields do not show all that a form needs.
	Suggested map[string]string `json:"suggested,omitempty"`
}

// RowPreview is a row as it stands in a file.
type RowPreview struct {
	Place  string         `json:"place"` // such as "rows.jsonl:7"
	Values []ValuePreview `json:"values"`
	Bad    string         `json:"bad,omitempty"` // why it cannot be read
}

// ValuePreview is a value as text, or as JSON if it is none.
type ValuePreview struct {
	Text string `json:"text"` // the beginning
	Kind string `json:"kind"` // text, list, object or other; empty: the row has none
	// Bytes is how long all of it is.
	Bytes int `json:"bytes"`
}

// The bounds of a preview.
const (
	previewRows     = 5
	maxPreviewRows  = 100
	maxPreviewFiles = 20
)

func (s *Server) previewDataset(ctx context.Context, req PreviewRequest) (DatasetPreview, error) {
	if err := checkFiles(req.Files); err != nil {
		return DatasetPreview{}, err
	}
	if req.Rows == 0 {
		req.Rows = previewRows
	}
	switch {
	case req.Rows < 1 || req.Rows > maxPreviewRows:
		return DatasetPreview{}, Errorf(CodeUsage, "rows is %d, must be from 1 to %d", req.Rows, maxPreviewRows)
	case len(req.Files) > maxPreviewFiles:
		return DatasetPreview{}, Errorf(CodeUsage, "files has %d names, at most %d are shown", len(req.Files), maxPreviewFiles)
	}
	return s.backend.PreviewDataset(ctx, req)
}
