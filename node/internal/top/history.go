package top

import (
	"cmp"
	"slices"

	"github.com/moot-net/moot/node/api"
)

// keptLosses is how many rounds the curve of losses can show.
const keptLosses = 64

// history is what the decided rounds of a run say of this node, and how the
// losses went.
type history struct {
	next   uint64 // round to ask for
	record string // CID of the last that was counted

	tokens  uint64 // of this node's contributions that count
	rounds  uint64 // in which one did
	refused uint64 // contributions that do not count
	// last is why one did not the last time, at round lastAt.
	last   string
	lastAt uint64
	// standing is what the run remembers of this node, nil: nothing bad.
	standing *api.Standing
	points   []point // the last rounds
}

// point is what a round came to. Held-out loss is measured after the round was
// decided.
type point struct {
	round       uint64
	train, eval *float64
}

// add counts decided rounds, in order.
func (h *history) add(self string, rounds []api.Round) {
	for i := range rounds {
		r := &rounds[i]
		if r.Round != max(h.next, 1) {
			continue // known already, or not the next one
		}
		h.next, h.record = r.Round+1, r.Record
		for _, c := range r.Contributions {
			switch {
			case c.Peer != self:
			case c.Reason == "":
				h.tokens += c.Tokens
				h.rounds++
			default:
				h.refuse(r.Round, c.Reason)
			}
		}
		for _, x := range r.Refused {
			if x.Peer == self {
				h.refuse(r.Round, x.Reason)
			}
		}
		h.standing = nil
		for i := range r.Standings {
			if r.Standings[i].Peer == self {
				h.standing = &r.Standings[i]
			}
		}
	}
}

func (h *history) refuse(round uint64, reason string) {
	h.refused++
	h.last, h.lastAt = reason, round
}

// measure notes the losses of rounds, again where they are known better now.
func (h *history) measure(rounds []api.Round) {
	for i := range rounds {
		r := &rounds[i]
		p := point{r.Round, r.TrainLoss, r.EvalLoss}
		at, found := slices.BinarySearchFunc(h.points, p, func(a, b point) int { return cmp.Compare(a.round, b.round) })
		if found {
			h.points[at] = p
		} else {
			h.points = slices.Insert(h.points, at, p)
		}
	}
	h.points = h.points[max(0, len(h.points)-keptLosses):]
}

// losses are the held-out ones if there are some, else those of training.
func (h *history) losses() []float64 {
	var train, eval []float64
	for _, p := range h.points {
		if p.train != nil {
			train = append(train, *p.train)
		}
		if p.eval != nil {
			eval = append(eval, *p.eval)
		}
	}
	if len(eval) > 1 {
		return eval
	}
	return train
}

// stale reports whether what was counted is not what the run has now: another
// branch won, or the run went back.
func (h *history) stale(d *api.RunDetail) bool {
	if h.next <= 1 {
		return false
	}
	if d.Round+1 < h.next {
		return true
	}
	for _, r := range d.Rounds {
		if r.Round == h.next-1 {
			return r.Record != h.record
		}
	}
	return false
}
