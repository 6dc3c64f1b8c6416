package app

import (
	"context"
	"fmt"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/dataset"
)

// Generate implements api.Backend.
func (n *node) Generate(ctx context.Context, req api.GenerateRequest, progress api.ProgressFunc) (api.Generation, error) {
	var g api.Generation
	err := n.withSubject(ctx, &req.Subject, progress, func(s *subject) error {
		e, err := s.encoder(orElse(orElse(req.Template, s.template), dataset.Alpaca.String()))
		if err != nil {
			return err
		}
		g.Model, g.Adapter, g.Device = s.name, s.adapter, s.text
		total := int64(len(req.Prompts))
		for i, p := range req.Prompts {
			progress(api.Progress{Phase: "generate", Done: int64(i), Total: total, Unit: "prompts"})
			out, err := s.answer(ctx, e, p, req.MaxTokens)
			if err != nil {
				return fmt.Errorf("answer prompt %d: %w", i+1, err)
			}
			g.Outputs = append(g.Outputs, out)
		}
		progress(api.Progress{Phase: "generate", Done: total, Total: total, Unit: "prompts"})
		return nil
	})
	return g, err
}
