package app

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"time"

	"github.com/moot-net/moot/shard"
)

// leaks counts the held-out rows of a data set that are trained on too. Importing
// refuses such rows; a data set that somebody else made can have them.
type leaks struct {
	held        map[[16]byte]uint64 // rows that are held out, and were not found yet
	eval, train int                 // shards that were read
	found       uint64
	done        bool
	skipped     bool // too many rows are held out
}

// parts is a data set, as far as it is read here.
type parts interface {
	Index() shard.DatasetIndex
	ReadShard(ctx context.Context, i int) ([]shard.Row, error)
	ReadEval(ctx context.Context, i int) ([]shard.Row, error)
}

// maxHeldOut bounds the rows that are held in memory.
const maxHeldOut = 1 << 21

// read goes on reading until it is done, until until, or to what was not pulled
// yet. What was read when ctx ends stays.
func (l *leaks) read(ctx context.Context, d parts, until time.Time) error {
	l.skipped = d.Index().Eval.Rows > maxHeldOut
	if l.done || l.skipped {
		return nil
	}
	if err := l.goOn(ctx, d, until); !errors.Is(err, shard.ErrIncomplete) {
		return err
	}
	return nil
}

func (l *leaks) goOn(ctx context.Context, d parts, until time.Time) error {
	x := d.Index()
	if l.held == nil {
		l.held = make(map[[16]byte]uint64)
	}
	for ; l.eval < len(x.Eval.Shards); l.eval++ {
		if over(ctx, until) {
			return ctx.Err()
		}
		rows, err := d.ReadEval(ctx, l.eval)
		if err != nil {
			return err
		}
		for _, r := range rows {
			l.held[rowHash(r)]++
		}
	}
	for ; l.train < len(x.Train.Shards) && len(l.held) > 0; l.train++ {
		if over(ctx, until) {
			return ctx.Err()
		}
		rows, err := d.ReadShard(ctx, l.train)
		if err != nil {
			return err
		}
		for _, r := range rows {
			h := rowHash(r)
			if n := l.held[h]; n > 0 {
				l.found += n
				delete(l.held, h)
			}
		}
	}
	l.done, l.held = true, nil
	return nil
}

func over(ctx context.Context, until time.Time) bool {
	return ctx.Err() != nil || !time.Now().Before(until)
}

// rowHash tells rows apart.
func rowHash(r shard.Row) [16]byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("bug: " + err.Error()) // a row is made of strings
	}
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}
