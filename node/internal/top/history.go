package top

import (
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
	losses   []float64 // held-out ones where there are, else those of training
	evals    bool      // losses are held-out ones
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
		h.addLoss(r)
	}
}

func (h *history) refuse(round uint64, reason string) {
	h.refused++
	h.last, h.lastAt = reason, round
}

func (h *history) addLoss(r *api.Round) {
	v := r.TrainLoss
	switch {
	case r.EvalLoss != nil && !h.evals:
		h.losses, h.evals, v = nil, true, r.EvalLoss // one kind in one curve
	case h.evals:
		v = r.EvalLoss
	}
	if v == nil {
		return
	}
	if h.losses = append(h.losses, *v); len(h.losses) > keptLosses {
		h.losses = h.losses[1:]
	}
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
