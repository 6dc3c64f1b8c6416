package runner

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// auditPart is how much of a delta an audit applies: a single one is noisy,
	// and at its full size honest ones can look worse than they are.
	auditPart = 0.2
	// auditPool is from how many times the samples of an audit they are drawn.
	auditPool = 8
)

// auditJob is what a seat has to measure of the round before.
type auditJob struct {
	round  msg.Round // under way
	record cid.Cid   // that the deltas entered; draws the samples
	state  cid.Cid   // that they were made from
	items  []round.AuditItem
	// retraces are of which of them a part of the training is done again, which
	// began on head, in a run of which so much was done.
	retraces []round.RetraceItem
	head     cid.Cid
	done     Done
	course   *msg.Course // of head
	// earlierCourse is that of the record before head.
	earlierCourse *msg.Course
}

// audit measures how much less the loss is with a part of each delta. It
// returns what it measured before an error.
func (w *worker) audit(ctx context.Context, j auditJob, delta func(context.Context, round.AuditItem) (*fold.Delta, error)) ([]msg.Audit, error) {
	st, err := w.states.get(ctx, j.state)
	if err != nil {
		return nil, err
	}
	n := int(w.manifest.Trust.AuditSamples)
	pool, err := w.samples.HeldOut(ctx, auditPool*n)
	if err != nil || len(pool) == 0 {
		return nil, fmt.Errorf("read held-out samples (%d): %w", len(pool), err)
	}
	samples := drawSamples(pool, j.record, n)
	values := make([]float32, len(st.Theta))
	measure := func(d []int32, part float64) (float64, error) {
		fold.ToFloat32(values, st.Theta)
		for i, v := range d {
			values[i] -= float32(part * float64(v) / (1 << 26))
		}
		if err := w.trainer.SetAdapter(values); err != nil {
			return 0, fmt.Errorf("set adapter: %w", err)
		}
		w.disturbed()
		loss, _, err := w.trainer.Eval(ctx, samples)
		return loss, err
	}
	base, err := measure(nil, 0)
	if err != nil {
		return nil, err
	}
	var out []msg.Audit
	d := make([]int32, len(st.Theta))
	for _, item := range j.items {
		dl, err := delta(ctx, item)
		if err != nil {
			return out, err
		}
		dl.Values(d)
		loss, err := measure(d, auditPart*float64(item.ClipQ16)/fold.One)
		if err != nil {
			return out, err
		}
		out = append(out, msg.Audit{Seat: item.Seat, GainNano: gainNano(base, loss)})
	}
	return out, nil
}

// gainNano is how much less after is, in 1e-9. A loss that is no number is as
// bad as can be.
func gainNano(before, after float64) int64 {
	g := (before - after) * 1e9
	if math.IsNaN(g) {
		return -msg.MaxGainNano
	}
	return int64(min(max(math.Round(g), -msg.MaxGainNano), msg.MaxGainNano))
}

// drawSamples returns the n samples of pool that a record draws, the same for
// all auditors.
func drawSamples(pool []train.Sample, record cid.Cid, n int) []train.Sample {
	type ranked struct {
		i   int
		key [sha256.Size]byte
	}
	list := make([]ranked, len(pool))
	for i := range list {
		b := binary.LittleEndian.AppendUint32(append([]byte("moot audit samples 1"), record.Bytes()...), uint32(i))
		list[i] = ranked{i, sha256.Sum256(b)}
	}
	slices.SortFunc(list, func(a, b ranked) int { return bytes.Compare(a.key[:], b.key[:]) })
	out := make([]train.Sample, min(n, len(list)))
	for i := range out {
		out[i] = pool[list[i].i]
	}
	return out
}

// audit measures when there is nothing to train. A later job takes its place.
func (d *device) audit(j auditJob) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.audits = &j
	d.signal()
}

// dropAudit forgets what nobody waits for any more.
func (d *device) dropAudit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.audits != nil {
		d.audits = nil
		if d.job == nil { // else it is not what is being done
			d.interrupt()
		}
	}
}

func (d *device) doAudit(ctx, wctx context.Context, j *auditJob) {
	// A measurement is not worth waiting for at the end.
	wctx, cancel := context.WithCancel(wctx)
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	began := time.Now()
	gains, err := d.w.audit(wctx, *j, func(ctx context.Context, item round.AuditItem) (*fold.Delta, error) {
		return d.r.deltas.get(ctx, item.Delta, j.round-1, item.Maker)
	})
	var found []msg.Retrace
	if err == nil {
		found, err = d.retrace(wctx, *j)
	}
	if err != nil && wctx.Err() != nil {
		return // it is tried again when there is nothing to train
	}
	d.mu.Lock()
	if d.audits == j {
		d.audits = nil
	}
	d.mu.Unlock()
	if err != nil {
		d.r.log.WarnContext(ctx, "deltas were not audited", "round", j.round-1, "audited", len(gains), "of", len(j.items), "err", err)
	} else {
		d.r.log.DebugContext(ctx, "deltas were audited", "round", j.round-1, "audited", len(gains), "took", time.Since(began))
	}
	d.r.post(ctx, round.Audited{Record: j.record, Gains: gains, Retraces: found})
}
