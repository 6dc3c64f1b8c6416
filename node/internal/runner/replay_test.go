package runner

import (
	"context"
	"errors"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// chain shows a ledger to a replay, with one record changed.
type chain struct {
	l      *ledger.Ledger
	at     msg.Round
	change func(*msg.Record)
}

func (c chain) Record(n msg.Round) (round.Link, bool) {
	k, _, ok := c.l.At(n)
	if ok && n == c.at && c.change != nil {
		rec := *k.Record
		c.change(&rec)
		k.Record, k.Certificate = &rec, nil
	}
	return k, ok
}

// without is a store in which some bytes are others.
type without struct {
	Store
	id    cid.Cid
	bytes []byte // nil: not there
}

func (w without) ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error) {
	switch {
	case root != w.id:
		return w.Store.ReadBytes(ctx, root, limit)
	case w.bytes == nil:
		return nil, errors.New("gone")
	}
	return w.bytes, nil
}

// A run can be computed again from what is on disk, and nothing in it can be
// changed unnoticed.
func TestReplay(t *testing.T) {
	t.Parallel()
	a := newNode(t, 30)
	b := newNode(t, 31, a.addr())
	man := launch(t, a, func(m *run.Manifest) { m.MinPeers = 2 })
	ra, _ := a.takePart(t, man)
	rb, _ := b.takePart(t, man)
	sameEnd(t, ra, rb)
	head := ra.ledger.Head()

	o := replay.Options{Manifest: man, Chain: chain{l: rb.ledger}, Store: b.store}
	all, err := replay.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if all.State != head.Record.State || all.Head != head.ID || all.Folded != all.Rounds || all.Contributions < 3 || !all.Final {
		t.Errorf("replayed %+v, the head is %s with state %s", all, head.ID, head.Record.State)
	}
	part := o
	part.From = head.Record.Round - 1
	if got, err := replay.Run(t.Context(), part); err != nil || got.Folded != 1 || got.State != all.State {
		t.Errorf("from the last round but one: %+v, %v", got, err)
	}

	first := msg.Round(1)
	for k, _, _ := rb.ledger.At(first); len(k.Record.Contributions) == 0; k, _, _ = rb.ledger.At(first) {
		first++
	}
	k, _, _ := rb.ledger.At(first)
	delta := k.Record.Contributions[0].Delta
	layout, err := man.Layout()
	if err != nil {
		t.Fatal(err)
	}
	other, err := fold.Encode(layout, 2, make([]int32, layout.Params()), nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(fn func(*msg.Record)) replay.Options {
		c := o
		c.Chain = chain{rb.ledger, first, fn}
		return c
	}
	store := func(b []byte) replay.Options {
		c := o
		c.Store = without{rbStore(rb), delta, b}
		return c
	}
	tests := []struct {
		name string
		o    replay.Options
		want error
	}{
		{"no delta", store(nil), replay.ErrMissing},
		{"another delta", store(other), replay.ErrMismatch},
		{"no delta at all", store([]byte("x")), replay.ErrMismatch},
		{"another state", changed(func(r *msg.Record) { r.State = fold.FileCID([]byte("x")) }), replay.ErrMismatch},
		{"more tokens", changed(func(r *msg.Record) { r.Tokens++ }), replay.ErrMismatch},
		{"another weight", changed(func(r *msg.Record) {
			r.Contributions = append([]msg.Contribution(nil), r.Contributions...)
			r.Contributions[0].Weight++
		}), replay.ErrMismatch},
		{"a seat more", changed(func(r *msg.Record) {
			_, id := nodeKey(t, 99)
			r.NextSeats = append(append([]msg.Seat(nil), r.NextSeats...), msg.Seat{Peer: id, Since: r.Round + 1})
		}), replay.ErrMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := replay.Run(t.Context(), tt.o); !errors.Is(err, tt.want) || got.Rounds != int(first)-1 {
				t.Errorf("%+v, %v; want %v after %d rounds", got, err, tt.want, first-1)
			}
		})
	}
}

func rbStore(r *Runner) Store { return r.hub.o.Store }

// deltasOnly is a store without states.
type deltasOnly struct {
	Store
	deltaBytes int64
}

func (d deltasOnly) ReadBytes(ctx context.Context, root cid.Cid, limit int64) ([]byte, error) {
	if limit != d.deltaBytes {
		return nil, errors.New("a state was asked for")
	}
	return d.Store.ReadBytes(ctx, root, limit)
}

// A run whose loss explodes goes back to its best state, says so, and all of it
// follows from the records and the deltas.
func TestReplayRollback(t *testing.T) {
	t.Parallel()
	a := newNode(t, 32)
	man := launch(t, a, func(m *run.Manifest) {
		m.MaxRounds, m.Schedule, m.Inner.LearningRateNano = 5, run.ScheduleConstant, 3e8
		m.Rollback = run.Rollback{Rounds: 1, WorsePPM: 1}
	})
	r, _ := a.takePart(t, man)
	sameEnd(t, r)
	rounds, err := r.Rounds(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	backs := 0
	for _, d := range rounds {
		if b := d.WentBack; b != nil {
			backs++
			if len(d.Contributions) > 0 || len(d.Refused) == 0 || d.Refused[0].Reason != "rolled-back" || b.Round >= d.Round || b.Loss <= 0 {
				t.Errorf("round %d: went back to %+v with %d contributions, refused %+v", d.Round, b, len(d.Contributions), d.Refused)
			}
		}
	}
	if backs == 0 {
		t.Fatal("the run never went back")
	}
	layout, err := man.Layout()
	if err != nil {
		t.Fatal(err)
	}
	o := replay.Options{Manifest: man, Chain: chain{l: r.ledger}, Store: deltasOnly{a.store, fold.EncodedBytes(layout, int(man.CodecBits))}}
	got, err := replay.Run(t.Context(), o)
	if head := r.ledger.Head(); err != nil || got.State != head.Record.State || got.Head != head.ID {
		t.Errorf("replayed %+v, %v; the head is %s with state %s", got, err, head.ID, head.Record.State)
	}
}
