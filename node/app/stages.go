package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
)

// stage is a component that runs until its context is done.
type stage struct {
	name string
	run  func(context.Context) error
}

// errEnded is what a component that ends by itself without an error did.
var errEnded = errors.New("ended by itself")

// runStages runs all stages until ctx is done or one of them ends. Then it ends
// them one after the other, the last one first, because each may need those
// before it to the end.
func runStages(ctx context.Context, log *slog.Logger, stages []stage) error {
	var group errgroup.Group
	ended := make(chan struct{}, len(stages))
	ends := make([]func(), len(stages))
	for i, s := range stages {
		sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		ends[i] = func() {
			begin := time.Now()
			cancel()
			<-done
			log.DebugContext(ctx, "component ended", "component", s.name, "took", time.Since(begin))
		}
		group.Go(func() error {
			defer close(done)
			defer func() { ended <- struct{}{} }()
			err := s.run(sctx)
			if err == nil && sctx.Err() == nil {
				err = errEnded
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	for i := range ends {
		ends[len(ends)-1-i]()
	}
	return group.Wait()
}
