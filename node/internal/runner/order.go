package runner

import (
	"cmp"
	"context"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// Link finds a record of the run's chain.
func (r *Runner) Link(record cid.Cid) (round.Link, bool) { return r.ledger.Link(record) }

// course is what orders had made of the run after a record; nil: nothing.
func (r *Runner) course(head cid.Cid) *msg.Course {
	k, ok := r.ledger.Link(head)
	if !ok {
		return nil
	}
	return k.Record.Course
}

// courseBefore is that after the record before.
func (r *Runner) courseBefore(head cid.Cid) *msg.Course {
	k, ok := r.ledger.Link(head)
	if !ok {
		return nil
	}
	return r.course(k.Record.Parent)
}

// Order gives an order to the run, of which Run, Peer and Seq are filled in. It
// takes effect with a later round, alone if this peer launched the run, or else
// together with the same one of others.
func (r *Runner) Order(ctx context.Context, o msg.Order) error {
	head := r.ledger.Head()
	course := msg.Course{}
	if head.Record.Course != nil {
		course = *head.Record.Course
	}
	name := api.ShortID(r.id.String())
	switch {
	case head.Record.Final:
		return api.Errorf(api.CodeConflict, "%v run %s: it is over, at round %d", o.Action, name, head.Record.Round).
			WithHint("launch another run; \"moot run init\" writes its file")
	case r.view.Load() == nil:
		return api.Errorf(api.CodeConflict, "%v run %s: this node does not take part in it just now", o.Action, name).
			WithHint("wait until \"moot run show %s\" says that it trains or waits", name)
	case !r.rules.HasSay(r.hub.self, head.Record):
		return api.Errorf(api.CodeRefused, "%v run %s: %w", o.Action, name, round.ErrNoSay).
			WithHint("its launcher is %s; any node that trains can leave or pause itself", r.manifest.Launcher)
	case o.Action == msg.ActionPause && course.Paused:
		return api.Errorf(api.CodeConflict, "pause run %s: it is paused", name)
	case o.Action == msg.ActionResume && !course.Paused:
		return api.Errorf(api.CodeConflict, "resume run %s: it is not paused", name)
	case o.MaxRounds != 0 && o.MaxRounds <= head.Record.TrainedRounds:
		return api.Errorf(api.CodeUsage, "set rounds of run %s to %d: %d are trained already", name, o.MaxRounds, head.Record.TrainedRounds).
			WithHint("end it now with \"moot run stop %s\"", name)
	case o.MaxTokens != 0 && o.MaxTokens <= head.Record.Tokens:
		return api.Errorf(api.CodeUsage, "set tokens of run %s to %d: %d are trained already", name, o.MaxTokens, head.Record.Tokens).
			WithHint("end it now with \"moot run stop %s\"", name)
	}
	o.Run, o.Peer, o.Seq = r.id, r.hub.self, course.Seq+1
	if err := o.Validate(); err != nil {
		return api.Errorf(api.CodeUsage, "%w", err)
	}
	r.post(ctx, round.Give{Order: o})
	return ctx.Err()
}

// lookBack bounds how many records are read for the last order.
const lookBack = 64

// lastOrder says who gave the last order, and why: " by the launcher: …".
func (r *Runner) lastOrder(head round.Link) string {
	for range lookBack {
		if list := ordersOf(head.Record); len(list) > 0 {
			text := " by peers with two thirds of the work"
			if list[0].Peer == r.manifest.Launcher.String() {
				text = " by its launcher"
			}
			if list[0].Note != "" {
				text += ": " + list[0].Note
			}
			return text
		}
		before, ok := r.ledger.Link(head.Record.Parent)
		if !ok {
			break
		}
		head = before
	}
	return ""
}

// ordersOf are the orders that took effect with a record.
func ordersOf(rec *msg.Record) []api.Order {
	var list []api.Order
	for _, e := range rec.Orders {
		if o, _, err := msg.OpenAs[*msg.Order](e); err == nil {
			list = append(list, orderOf(o))
		}
	}
	return list
}

// pendingOrders are the orders that have not taken effect.
func (r *Runner) pendingOrders(v *round.View) []api.PendingOrder {
	var list []api.PendingOrder
	for _, p := range v.Orders {
		x := api.PendingOrder{Order: orderOf(p.Order), Needed: round.OrderWork / float64(round.OrderWorkOf)}
		if p.Launcher {
			x.Needed = 0
		}
		if p.Total > 0 {
			x.Work = float64(p.Work) / float64(p.Total)
		}
		for i, id := range p.Peers {
			x.Peers = append(x.Peers, id.String())
			x.Own = x.Own || id == r.hub.self
			x.Note = cmp.Or(x.Note, p.Notes[i])
		}
		list = append(list, x)
	}
	return list
}

func orderOf(o *msg.Order) api.Order {
	return api.Order{
		Peer: o.Peer.String(), Action: o.Action.String(), Rounds: o.MaxRounds, Tokens: o.MaxTokens,
		Rate: float64(o.RatePermille) / 1e3, Note: o.Note,
	}
}

func courseOf(rec *msg.Record) *api.Course {
	c := rec.Course
	if c == nil {
		return nil
	}
	return &api.Course{
		Orders: c.Seq, Paused: c.Paused, Stopped: c.Stopped, Rounds: c.MaxRounds, Tokens: c.MaxTokens, Rate: float64(c.RatePermille) / 1e3,
	}
}
