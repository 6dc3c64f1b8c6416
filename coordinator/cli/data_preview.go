package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newDataPreview(e *env) *cobra.Command {
	var req api.PreviewRequest
	cmd := &cobra.Command{
		Use:   "preview FILE...",
		Short: "Show the first rows of files, as they are",
		Long: `Reads the first rows of files, and tells the names of their fields and whether an
import knows them. Where it does not, it says which fields could be meant.`,
		Example: `  moot data preview faq.csv
  moot data preview train.parquet --rows 20`,
		Args: needs(true, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Files = args
			return runDataPreview(cmd.Context(), e, req)
		},
	}
	cmd.Flags().IntVar(&req.Rows, "rows", 0, "show this `number` of rows of each file (default 5)")
	return cmd
}

func runDataPreview(ctx context.Context, e *env, req api.PreviewRequest) (err error) {
	if req.Files, err = absoluteAll(req.Files); err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	v, err := c.PreviewDataset(ctx, req)
	if err != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		for i, f := range v.Files {
			if i > 0 {
				p.line("")
			}
			filePreview(p, f)
		}
	})
}

func filePreview(p *page, f api.FilePreview) {
	p.field("file", "%s, %s", f.File, size(f.Bytes))
	p.field("format", "%s", strings.TrimPrefix(fmt.Sprintf("%s (%s)", f.Input, f.Why), " "))
	if len(f.Suggested) > 0 {
		p.field("perhaps", "%s", fieldFlags(f.Suggested))
	}
	for _, r := range f.Rows {
		p.line("")
		p.line("%s", plain.Clean(r.Place))
		if r.Bad != "" {
			p.field("invalid", "%s", r.Bad)
		}
		for i, v := range r.Values {
			text := v.Text
			if v.Bytes > len(v.Text) {
				text += fmt.Sprintf("… (%s)", size(int64(v.Bytes)))
			}
			if v.Kind != "" {
				p.field(clip(plain.Clean(f.Columns[i]), 20), "%s", text)
			}
		}
	}
}

// fieldFlags are the flags that say which fields are meant.
func fieldFlags(fields map[string]string) string {
	var list []string
	for _, to := range slices.Sorted(maps.Keys(fields)) {
		set := to + "=" + fields[to]
		if strings.ContainsAny(set, " ,\"'\\$`") {
			set = "'" + set + "'"
		}
		list = append(list, "--field "+set)
	}
	return strings.Join(list, " ")
}
