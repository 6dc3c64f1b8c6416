package dataset

import (
	"context"
	"errors"
	"fmt"

	"github.com/moot-net/moot/shard"
)

// CheckSet encodes all rows of a data set: those to train on and those that are
// held out. Rows that are both are leaks. progress is told how many rows were
// read, of how many.
func CheckSet(ctx context.Context, d *shard.Dataset, e *Encoder, o CheckOptions, progress func(done, total int64)) (training, heldOut *Report, err error) {
	x := d.Index()
	if err := e.Accepts(x.Format); err != nil {
		return nil, nil, fmt.Errorf("check data set %s: %w", d.Root(), err)
	}
	seen := new(Seen)
	o.Seen = seen
	done, total := int64(0), x.Train.Rows+x.Eval.Rows
	read := func(part shard.DatasetPart, rows func(context.Context, int) ([]shard.Row, error)) (*Report, error) {
		c := newChecker(e, o)
		for i, s := range part.Shards {
			list, err := rows(ctx, i)
			if err != nil {
				return nil, fmt.Errorf("check data set %s: %w", d.Root(), err)
			}
			for j, row := range list {
				c.row(shard.InputRow{Place: fmt.Sprintf("%s:%d", s.Name, j+1), Row: row})
				if j%256 == 0 && ctx.Err() != nil {
					return nil, ctx.Err()
				}
			}
			done += int64(len(list))
			progress(done, total)
		}
		c.report.Detected = shard.Detected{Input: x.Format, Format: x.Format, Why: "the data set says so"}
		c.report.Tokens = statsOf(c.lengths)
		return c.report, nil
	}
	training, err1 := read(x.Train, d.ReadShard)
	seen.HeldOut = true
	heldOut, err2 := read(x.Eval, d.ReadEval)
	return training, heldOut, errors.Join(err1, err2)
}
