package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorded are stages that take time to end, and the order in which they did.
func recorded(names ...string) (stages []stage, order func() string) {
	var mu sync.Mutex
	var ended []string
	for _, name := range names {
		stages = append(stages, stage{name, func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return nil
		}})
	}
	return stages, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(ended, " ")
	}
}

func TestStagesEndInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stages, order := recorded("a", "b", "c")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := runStages(ctx, slog.New(slog.DiscardHandler), stages); err != nil {
			t.Error(err)
		}
		if got := order(); got != "c b a" {
			t.Errorf("ended in the order %s, want c b a", got)
		}
	})
}

// What one component cannot do without the others must not go on.
func TestStagesEndWithOne(t *testing.T) {
	errBroken := errors.New("broken")
	for _, tt := range []struct {
		name      string
		err, want error
	}{{"error", errBroken, errBroken}, {"silent", nil, errEnded}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stages, order := recorded("a", "c")
				stages = []stage{stages[0], {"b", func(context.Context) error {
					time.Sleep(time.Minute)
					return tt.err
				}}, stages[1]}
				err := runStages(t.Context(), slog.New(slog.DiscardHandler), stages)
				if !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "b: ") {
					t.Errorf("runStages = %v, want %v of b", err, tt.want)
				}
				if got := order(); got != "c a" {
					t.Errorf("ended in the order %s, want c a", got)
				}
			})
		})
	}
}
