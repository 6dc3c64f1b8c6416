package api

// The actions of an order.
const (
	OrderPause  = "pause"  // no round trains until there is another order
	OrderResume = "resume" // rounds train again
	OrderStop   = "stop"   // the run is over with the next round
	OrderSet    = "set"    // when it is over, and its learning rate, change
)

// OrderRequest asks to change the course of a run, for everybody who takes part
// in it. What the launcher of the run orders takes effect with the next round;
// what others order does as soon as peers with two thirds of the audited work
// order the same.
type OrderRequest struct {
	Run    string `json:"-"` // taken from the route
	Action string `json:"action"`
	// With set, at least one of these: the number of rounds and of tokens after
	// which the run is over, and what the learning rate of its run file is
	// multiplied by (in thousandths).
	Rounds uint64  `json:"rounds,omitempty"`
	Tokens uint64  `json:"tokens,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
	Note   string  `json:"note,omitempty"` // why, for people
}

// Course is what orders have made of a run.
type Course struct {
	Orders  uint64 `json:"orders"` // number of the last one that took effect
	Paused  bool   `json:"paused"`
	Stopped bool   `json:"stopped"`
	// Rounds, Tokens and Rate are 0 where the run file holds.
	Rounds uint64  `json:"rounds,omitempty"`
	Tokens uint64  `json:"tokens,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
}

// Order is one that took effect.
type Order struct {
	Peer   string  `json:"peer"`
	Action string  `json:"action"`
	Rounds uint64  `json:"rounds,omitempty"`
	Tokens uint64  `json:"tokens,omitempty"`
	Rate   float64 `json:"rate,omitempty"`
	Note   string  `json:"note,omitempty"`
}

// PendingOrder is one that has not taken effect. It holds until another order
// takes effect, or who gave it gives another one.
type PendingOrder struct {
	Order
	// Peers give the same; Peer of Order is the first of them, and Note the first
	// that somebody gave.
	Peers []string `json:"peers"`
	// Work is their part of all audited work, of which Needed is needed; 0 when the
	// launcher is among them.
	Work   float64 `json:"work"`
	Needed float64 `json:"needed"`
	Own    bool    `json:"own"` // this node is among them
}

// maxRate bounds OrderRequest.Rate.
const maxRate = 100

func (q *OrderRequest) check() error {
	sets := q.Rounds != 0 || q.Tokens != 0 || q.Rate != 0
	switch q.Action {
	case OrderPause, OrderResume, OrderStop:
		if sets {
			return Errorf(CodeUsage, "rounds, tokens or rate is given to %s; set alone takes them", q.Action)
		}
	case OrderSet:
		if !sets {
			return Errorf(CodeUsage, "rounds, tokens and rate are all missing; set takes at least one")
		}
	default:
		return Errorf(CodeUsage, "action is %s, must be pause, resume, stop or set", clip(q.Action))
	}
	if q.Rate != 0 && !(q.Rate >= 0.001 && q.Rate <= maxRate) {
		return Errorf(CodeUsage, "rate is %v, must be 0.001 to %d", q.Rate, maxRate)
	}
	return nil
}
