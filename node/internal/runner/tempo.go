package runner

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/kappa"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// compareRound tells how far the deltas of a round went apart. They are here, for
// the fold needed them.
func (r *Runner) compareRound(e round.Compare) {
	ctx := r.scopes.of(e.Round)
	r.running.Go(func() {
		began := time.Now()
		k, err := r.kappa(ctx, e)
		if ctx.Err() != nil {
			return
		}
		told := round.Compared{Record: e.Record}
		if err != nil {
			r.log.WarnContext(ctx, "deltas were not compared", "round", e.Round-1, "err", err)
		} else {
			told.KappaPPM = KappaPPM(k)
			r.log.DebugContext(ctx, "deltas were compared", "round", e.Round-1, "kappa", k, "took", time.Since(began))
		}
		r.post(ctx, told)
	})
}

func (r *Runner) kappa(ctx context.Context, e round.Compare) (float64, error) {
	st, err := r.states.get(ctx, e.State)
	if err != nil {
		return 0, err
	}
	moves := make([]kappa.Move, len(e.Items))
	for i, item := range e.Items {
		d, err := r.deltas.get(ctx, item.Delta, e.Round-1, item.Maker)
		if err != nil {
			return 0, err
		}
		moves[i] = kappa.Move{Delta: d, Weight: item.Weight, ClipQ16: item.ClipQ16}
	}
	b := e.Record.Bytes()
	k, err := kappa.Of(r.layout, st.Theta, moves, binary.LittleEndian.Uint64(b[len(b)-8:]))
	if err != nil {
		return 0, fmt.Errorf("kappa: %w", err)
	}
	return k, nil
}

// KappaPPM is a kappa as it is told to others.
func KappaPPM(k float64) uint32 { return uint32(min(max(math.Round(k*1e6), 1), msg.MaxKappaPPM)) }

// tempo tells how many steps a round had and how long it could last.
func (r *Runner) tempo(rec *msg.Record) *api.Tempo {
	parent, ok := r.ledger.Link(rec.Parent)
	if !ok || rec.Tempo == nil {
		return nil
	}
	t := &api.Tempo{
		Steps: r.rules.StepsAfter(parent.Record), Deadline: r.rules.DeadlineAfter(parent.Record).Seconds(),
		NextSteps: r.rules.StepsAfter(rec), NextDeadline: r.rules.DeadlineAfter(rec).Seconds(),
	}
	if a := rec.Tempo.ArrivalMillis; a > 0 {
		t.Arrival = new(float64(a) / 1e3)
	}
	if next, _, ok := r.ledger.At(rec.Round + 1); ok && next.Record.Tempo != nil && next.Record.Tempo.KappaPPM > 0 {
		t.Kappa = new(float64(next.Record.Tempo.KappaPPM) / 1e6)
	}
	return t
}
