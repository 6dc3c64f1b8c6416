package sim

import (
	"fmt"
	"math"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

// Fault is what is wrong with a node. Crashes, cuts of the network, clocks and
// slow lines can befall any node; scenarios bring them about themselves.
type Fault int

// The faults of a node that takes part.
const (
	honest       Fault = iota
	signFlip1          // the delta the wrong way round
	signFlip10         // and ten times as large
	signFlip1000       // and a thousand times
	noise              // of the size of an honest delta
	innerProduct       // the mean of the honest deltas, the wrong way round
	alie               // the mean less one and a half deviations, value by value ("a little is enough")
	zeros              // next to nothing, for all tokens
	copies             // that of another seat with a tenth of noise
	stale              // the own one of the round before
	garbage            // bytes of the right length
	lyingAuditor       // trains, but praises liars and blames the others
	cabal              // lies only when most auditors of a delta do, so that it is never alone with what it says; its own deltas the wrong way round
	lastFault          // of those that a byzantine scenario goes through
	sybil              // trains, with its part of the compute of many identities
)

var faultNames = [...]string{
	"honest", "sign-flip-1", "sign-flip-10", "sign-flip-1000", "noise", "inner-product", "alie", "zeros", "copies", "stale",
	"garbage", "lying-auditor", "cabal", "", "sybil",
}

func (f Fault) String() string { return faultNames[f] }

// watches reports whether the fault needs the deltas of others, and so comes
// last in a round.
func (f Fault) watches() bool { return f == innerProduct || f == alie || f == copies }

// trains reports whether the node trains at all.
func (f Fault) trains() bool {
	switch f {
	case innerProduct, alie, zeros, copies, garbage:
		return false
	}
	return true
}

// leastUnits is the size of values that are still not zero when they are encoded.
const leastUnits = 8

// contribution is the delta of a node for a round, honest or not.
func (n *node) contribution(e round.Train, steps int, early earlySteps) (round.Trained, error) {
	w := n.w
	l := learned{tokens: w.task.tokensOf(steps), loss: 1}
	if n.fault.trains() && (n.fault != stale || !n.lastDelta.Defined()) {
		var err error
		var guess *fold.State
		if early.steps > 0 {
			if guess, err = w.guess(early.from); err != nil {
				return round.Trained{}, err
			}
		}
		l, err = w.task.train(w.ctx, assignment{
			early: early, guess: guess,
			node: n.i, peer: n.id, head: e.Head, state: w.contents.stateOf(e.State), done: runner.Done{Rounds: e.Trained, Tokens: e.Tokens}, steps: steps,
		})
		if err != nil {
			return round.Trained{}, err
		}
	}
	bits := int(e.CodecBits)
	ev := round.Trained{
		Head: e.Head, DeltaBytes: uint64(fold.EncodedBytes(w.layout, bits)), Tokens: l.tokens, Steps: uint64(steps),
		Norm: 1, LossMicro: uint64(math.Round(min(max(l.loss, 0), 1e3) * 1e6)),
	}
	switch {
	case n.fault == garbage:
		b := make([]byte, ev.DeltaBytes)
		for i := range b {
			b[i] = byte(w.rnd.Uint32())
		}
		ev.Delta = w.contents.put(n, b)
		return ev, nil
	case n.fault == stale && n.lastDelta.Defined():
		ev.Delta = n.lastDelta
	default:
		values := n.lie(e.Head, l.values)
		if n.residual == nil {
			n.residual = make([]int32, w.layout.Params())
		}
		if n.fault != honest {
			n.residual = nil // its errors are its own
		}
		b, err := fold.Encode(w.layout, bits, values, n.residual)
		if err != nil {
			return round.Trained{}, fmt.Errorf("encode delta: %w", err)
		}
		ev.Delta = w.contents.put(n, b)
		n.lastDelta = ev.Delta
	}
	d, err := w.contents.decoded(ev.Delta)
	if err != nil {
		return round.Trained{}, err
	}
	ev.Norm = max(d.Norm(), 1)
	if n.fault == honest {
		w.remember(e.Head, d)
	}
	return ev, nil
}

// remember keeps the honest deltas of the newest rounds, for liars to look at.
func (w *world) remember(head cid.Cid, d *fold.Delta) {
	if len(w.honestDeltas) > 8 {
		clear(w.honestDeltas)
	}
	w.honestDeltas[head] = append(w.honestDeltas[head], d)
}

// lie is what a liar publishes in place of the values that it learned.
func (n *node) lie(head cid.Cid, v []int32) []int32 {
	w := n.w
	switch n.fault {
	case signFlip1, cabal:
		return scaled(v, -1)
	case signFlip10:
		return scaled(v, -10)
	case signFlip1000:
		return scaled(v, -1000)
	case noise:
		return w.noiseLike(v, 1)
	case zeros:
		return w.least()
	case innerProduct, alie, copies:
		return n.lieAfter(w.honestDeltas[head])
	}
	return v
}

// lieAfter is what a liar makes of honest deltas.
func (n *node) lieAfter(deltas []*fold.Delta) []int32 {
	w := n.w
	if len(deltas) == 0 {
		return w.least()
	}
	out := make([]int32, w.layout.Params())
	if n.fault == copies {
		deltas[w.rnd.IntN(len(deltas))].Values(out)
		for i, x := range w.noiseLike(out, 0.1) {
			out[i] = saturate(float64(out[i]) + float64(x))
		}
		return out
	}
	sum, squares := make([]float64, len(out)), make([]float64, len(out))
	for _, d := range deltas {
		d.Values(out)
		for i, x := range out {
			sum[i] += float64(x)
			squares[i] += float64(x) * float64(x)
		}
	}
	k := float64(len(deltas))
	for i := range out {
		mean := sum[i] / k
		if n.fault == innerProduct {
			out[i] = saturate(-mean)
		} else {
			out[i] = saturate(mean - 1.5*math.Sqrt(max(squares[i]/k-mean*mean, 0)))
		}
	}
	return out
}

// least is next to nothing, but no delta of zeros, which is refused at once.
func (w *world) least() []int32 {
	out := make([]int32, w.layout.Params())
	for i := range out {
		out[i] = leastUnits
		if i%2 == 1 {
			out[i] = -leastUnits
		}
	}
	return out
}

// noiseLike is normal noise of a part of the norm that values have, tensor by
// tensor.
func (w *world) noiseLike(v []int32, part float64) []int32 {
	out := make([]int32, len(v))
	for t := range w.layout.Len() {
		from := w.layout.Offset(t)
		to := from + w.layout.Tensor(t).Rows*w.layout.Tensor(t).Cols
		var squares float64
		for _, x := range v[from:to] {
			squares += float64(x) * float64(x)
		}
		deviation := part * math.Sqrt(squares/float64(to-from))
		for i := from; i < to; i++ {
			out[i] = saturate(deviation * w.rnd.NormFloat64())
		}
	}
	return out
}

func scaled(v []int32, by float64) []int32 {
	out := make([]int32, len(v))
	for i, x := range v {
		out[i] = saturate(by * float64(x))
	}
	return out
}

func saturate(x float64) int32 { return int32(min(max(math.Round(x), -math.MaxInt32), math.MaxInt32)) }

// audit measures, or says what suits a liar.
func (n *node) audit(e round.Audit) {
	items := len(e.Items)
	here := func() {
		if items--; items > 0 {
			return
		}
		ev := round.Audited{Record: e.Record}
		for _, item := range e.Items {
			g, err := n.w.gain(e.Record, e.State, item)
			if err != nil {
				n.w.fail(fmt.Errorf("node %d audits round %d: %w", n.i, e.Round-1, err))
				return
			}
			if n.lies(e.Record, item) {
				g = 1e9
				if n.w.nodes[n.w.index[item.Maker]].fault == honest {
					g = -1e9
				}
			}
			ev.Gains = append(ev.Gains, msg.Audit{Seat: item.Seat, GainNano: g})
		}
		n.later(auditTime, ev)
	}
	wanted := n.during(e.Round)
	n.fetch(e.State, wanted, func() {
		for _, item := range e.Items {
			n.fetch(item.Delta, wanted, here)
		}
	})
}

// lies reports whether a node does not say what it measured.
func (n *node) lies(record cid.Cid, item round.AuditItem) bool {
	switch n.fault {
	case lyingAuditor:
		return true
	case cabal:
		l, ok := n.chain.Link(record)
		if !ok {
			return false
		}
		same, all := 0, 0
		for _, o := range n.w.nodes {
			if slices.ContainsFunc(n.w.rules.Audits(l, o.id), func(a round.AuditItem) bool { return a.Seat == item.Seat }) {
				all++
				if o.fault == cabal {
					same++
				}
			}
		}
		return 2*same > all
	}
	return false
}

// evaluate measures the head's loss; who lies says that it is a thousandth.
func (n *node) evaluate(e round.Evaluate) {
	n.fetch(e.State, n.during(e.Round), func() {
		loss, err := n.w.lossOf(e.State)
		if err != nil {
			n.w.fail(fmt.Errorf("node %d measures round %d: %w", n.i, e.Round-1, err))
			return
		}
		if n.fault == lyingAuditor {
			loss /= 1000
		}
		n.later(auditTime, round.Evaluated{Record: e.Record, LossMicro: uint64(math.Round(min(max(loss*1e6, 1), msg.MaxLossMicro)))})
	})
}

// gate measures whether a merge is good enough.
func (n *node) gate(e round.Gate) {
	wanted := n.during(e.Round)
	n.fetch(e.State, wanted, func() {
		n.fetch(e.Merge.Base, wanted, func() {
			n.fetch(e.Merge.State, wanted, func() {
				ok, err := n.w.mergePasses(e)
				if err != nil {
					n.w.fail(fmt.Errorf("node %d measures a merge: %w", n.i, err))
					return
				}
				n.later(auditTime, round.Gated{Head: e.Merge.Head, Passes: ok})
			})
		})
	})
}
