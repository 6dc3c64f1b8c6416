package app

import (
	"context"
	"os"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/shard"
)

// PreviewDataset implements api.Backend.
func (n *node) PreviewDataset(ctx context.Context, req api.PreviewRequest) (api.DatasetPreview, error) {
	preview := api.DatasetPreview{Files: []api.FilePreview{}}
	for _, path := range req.Files {
		p, err := shard.PreviewInput(ctx, path, req.Rows)
		if err != nil {
			return preview, importError(ctx, api.CodeData, err)
		}
		info, err := os.Stat(path)
		if err != nil {
			return preview, importError(ctx, api.CodeData, err)
		}
		f := api.FilePreview{
			File: path, Bytes: info.Size(), Input: p.Detected.Input, Format: p.Detected.Format, Why: p.Detected.Why,
			Columns: append([]string{}, p.Columns...), Rows: []api.RowPreview{}, Suggested: p.Suggested,
		}
		for _, r := range p.Rows {
			row := api.RowPreview{Place: r.Place, Values: []api.ValuePreview{}, Bad: r.Bad}
			for _, v := range r.Values {
				row.Values = append(row.Values, api.ValuePreview(v))
			}
			f.Rows = append(f.Rows, row)
		}
		preview.Files = append(preview.Files, f)
	}
	return preview, nil
}
