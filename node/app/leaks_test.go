package app

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/shard"
)

// rowsOf is a data set in memory; what is nil is not here yet.
type rowsOf struct{ train, eval [][]shard.Row }

func (d rowsOf) Index() (x shard.DatasetIndex) {
	for _, rows := range d.train {
		x.Train.Shards = append(x.Train.Shards, shard.DatasetShard{Rows: int64(len(rows))})
	}
	for _, rows := range d.eval {
		x.Eval.Shards = append(x.Eval.Shards, shard.DatasetShard{Rows: int64(len(rows))})
		x.Eval.Rows += int64(len(rows))
	}
	return x
}

func (d rowsOf) ReadShard(_ context.Context, i int) ([]shard.Row, error) { return rowsAt(d.train, i) }

func (d rowsOf) ReadEval(_ context.Context, i int) ([]shard.Row, error) { return rowsAt(d.eval, i) }

func rowsAt(shards [][]shard.Row, i int) ([]shard.Row, error) {
	if shards[i] == nil {
		return nil, fmt.Errorf("read shard %d: %w", i, shard.ErrIncomplete)
	}
	return shards[i], nil
}

// TestLeaks: held-out rows that are trained on are counted, each of them, however
// often reading is interrupted.
func TestLeaks(t *testing.T) {
	row := func(text string) shard.Row { return shard.Row{Output: text} }
	d := rowsOf{
		train: [][]shard.Row{{row("a"), row("b")}, {row("c"), row("b")}, {row("d")}},
		eval:  [][]shard.Row{{row("b"), row("x")}, {row("d"), row("b")}},
	}
	l := new(leaks)
	n := 0
	for ; !l.done; n++ {
		until := time.Now().Add(-time.Second)
		if n%2 == 1 { // one shard at a time
			until = time.Now().Add(time.Hour)
		}
		if err := l.read(t.Context(), d, until); err != nil || n > 10 {
			t.Fatal(n, err)
		}
	}
	if l.found != 3 || l.held != nil {
		t.Errorf("%d rows were found, want 3", l.found)
	}
	// What is pulled meanwhile is read when it is here.
	last := d.train[2]
	d.train[2] = nil
	l = new(leaks)
	if err := l.read(t.Context(), d, time.Now().Add(time.Hour)); err != nil || l.done {
		t.Error(l.done, err)
	}
	d.train[2] = last
	if err := l.read(t.Context(), d, time.Now().Add(time.Hour)); err != nil || !l.done || l.found != 3 {
		t.Error(l.done, l.found, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := new(leaks).read(ctx, d, time.Now().Add(time.Hour)); err == nil {
		t.Error("reading went on after it was not wanted any more")
	}
	none := new(leaks)
	if err := none.read(t.Context(), rowsOf{train: d.train}, time.Now().Add(time.Hour)); err != nil || !none.done || none.found != 0 {
		t.Error(fmt.Sprint(none, err))
	}
}
