package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/shard"
)

// CheckDataset implements api.Backend.
func (n *node) CheckDataset(ctx context.Context, req api.CheckDatasetRequest, progress api.ProgressFunc) (api.DatasetCheck, error) {
	check := api.DatasetCheck{Model: req.Model, Files: []api.FileCheck{}}
	c := &dataCheck{req: req, input: shard.InputOptions{Format: req.Format, Fields: req.Fields}, seen: new(dataset.Seen)}
	files := req.Files
	if req.Eval != "" {
		files = append(slices.Clone(files), req.Eval)
	}
	if req.Model != "" {
		src, err := n.locate(ctx, &api.Subject{Model: req.Model})
		if err != nil {
			return check, err
		}
		cfg, err := model.ReadConfig(src.dir)
		if err != nil {
			return check, modelError(err)
		}
		c.dir, c.maxTokens = src.dir, cfg.Context
		if req.MaxTokens > 0 {
			c.maxTokens = min(req.MaxTokens, cfg.Context)
		}
	}
	var total, done int64
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return check, importError(ctx, api.CodeData, fmt.Errorf("check data: %w", err))
		}
		total += info.Size()
	}
	tell := func(n int) {
		done = min(done+int64(n), total)
		progress(api.Progress{Phase: "check", Done: done, Total: total, Unit: api.UnitBytes})
	}
	c.input.Progress = tell
	tell(0)
	for i, path := range files {
		c.seen.HeldOut = i == len(req.Files)
		f, err := c.file(ctx, path)
		if err != nil {
			return check, importError(ctx, api.CodeData, err)
		}
		check.Files = append(check.Files, f)
		check.Rows += f.Rows
		check.Invalid += f.Invalid
		check.Dropped += f.Dropped
		check.Cut += f.Cut
		check.Repeated += f.Repeated
		check.Leaks += f.Leaks
	}
	tell(int(total - done))
	return check, nil
}

// dataCheck is a check under way.
type dataCheck struct {
	req       api.CheckDatasetRequest
	input     shard.InputOptions
	dir       string // of the model; "" without
	maxTokens int
	seen      *dataset.Seen
}

func (c *dataCheck) file(ctx context.Context, path string) (api.FileCheck, error) {
	if c.dir == "" {
		return c.form(ctx, path)
	}
	d, err := c.detect(ctx, path)
	if err != nil {
		return api.FileCheck{}, err
	}
	name := orElse(c.req.Template, templateOf(d.Format))
	t, err := dataset.ParseTemplate(name)
	if err != nil {
		return api.FileCheck{}, api.Errorf(api.CodeUsage, "%w", err)
	}
	e, err := dataset.LoadEncoder(c.dir, t, c.maxTokens)
	if err != nil {
		return api.FileCheck{}, encoderError(c.req.Model, err)
	}
	r, err := dataset.Check(ctx, path, e, dataset.CheckOptions{Input: c.input, Samples: c.req.Samples, Problems: c.req.Problems, Seen: c.seen})
	if err != nil {
		return api.FileCheck{}, err
	}
	return fileCheck(path, name, r), nil
}

func fileCheck(path, template string, r *dataset.Report) api.FileCheck {
	f := api.FileCheck{
		File: path, Input: r.Detected.Input, Format: r.Detected.Format, Why: r.Detected.Why, Template: template,
		Rows: r.Rows, Invalid: r.Invalid, Dropped: r.Dropped, Cut: r.Cut,
		Repeated: r.Repeated, Leaks: r.Leaks, Problems: []api.RowProblem{}, Samples: []api.SampleShown{},
		Tokens: &api.TokenStats{
			Sum: r.Tokens.Sum, Counted: r.Counted, Min: r.Tokens.Min, Median: r.Tokens.Median, P95: r.Tokens.P95, Max: r.Tokens.Max,
		},
	}
	for _, p := range r.Problems {
		f.Problems = append(f.Problems, api.RowProblem{Place: p.Place, Kind: p.Kind, Why: p.Why})
	}
	for _, s := range r.Samples {
		shown := api.SampleShown{Place: s.Place}
		for _, p := range s.Parts {
			shown.Parts = append(shown.Parts, api.SamplePart(p))
		}
		f.Samples = append(f.Samples, shown)
	}
	return f
}

// form checks the rows of a file without a model.
func (c *dataCheck) form(ctx context.Context, path string) (api.FileCheck, error) {
	f := api.FileCheck{File: path, Problems: []api.RowProblem{}, Samples: []api.SampleShown{}}
	most := c.req.Problems
	if most == 0 {
		most = 20
	}
	problem := func(row shard.InputRow, kind, why string) {
		if len(f.Problems) < most {
			f.Problems = append(f.Problems, api.RowProblem{Place: row.Place, Kind: kind, Why: why})
		}
	}
	d, err := shard.ReadInput(ctx, path, c.input, func(row shard.InputRow) error {
		f.Rows++
		if row.Err != nil {
			f.Invalid++
			problem(row, "invalid", row.Err.Error())
			return nil
		}
		switch kind, why := c.seen.Again(row.Row, row.Place); kind {
		case "leak":
			f.Leaks++
			problem(row, kind, why)
		case "repeated":
			f.Repeated++
			problem(row, kind, why)
		}
		return nil
	})
	if err != nil {
		return f, fmt.Errorf("check data: %w", err)
	}
	if f.Rows == 0 {
		return f, fmt.Errorf("check data: %s has no rows", path)
	}
	f.Input, f.Format, f.Why, f.Template = d.Input, d.Format, d.Why, templateOf(d.Format)
	return f, nil
}

// errDetected ends the reading of a file whose format is known.
var errDetected = errors.New("detected")

// detect tells the format of a file.
func (c *dataCheck) detect(ctx context.Context, path string) (shard.Detected, error) {
	o := c.input
	o.Progress = nil
	d, err := shard.ReadInput(ctx, path, o, func(row shard.InputRow) error {
		if row.Err == nil {
			return errDetected
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDetected) {
		return d, fmt.Errorf("check data: %w", err)
	}
	return d, nil
}

// templateOf is the prompt template with which an import marks a format.
func templateOf(format string) string {
	switch format {
	case shard.FormatAlpaca:
		return dataset.Alpaca.String()
	case shard.FormatMessages:
		return dataset.Chat.String()
	}
	return dataset.None.String()
}
