package round

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

const (
	million    = 1_000_000
	evalDomain = "moot eval 1"
)

// trend takes the held-out losses that haves tell of the parent's state; nil in
// a run that records none.
func (ru *Rules) trend(head Link, counting []msg.Signed, f int) *msg.Trend {
	parent := head.Record
	if !ru.manifest.Measures() {
		return nil
	}
	var t msg.Trend
	if parent.Trend != nil {
		t = *parent.Trend
	}
	t.LossMicro, t.Back = 0, false
	if ru.measurable(parent) {
		drawn := ru.evaluators(head)
		if len(drawn) > 0 {
			counting = slices.DeleteFunc(slices.Clone(counting), func(s msg.Signed) bool { return !slices.Contains(drawn, s.From) })
			_, f = Quorum(len(drawn))
		}
		t.LossMicro = medianLoss(counting, f)
	}
	loss := t.LossMicro
	if loss == 0 {
		return &t
	}
	if t.BestMicro == 0 || loss < t.BestMicro {
		t.BestMicro, t.BestState, t.BestRound = loss, parent.State, parent.Round
	}
	if t.MarkMicro == 0 || loss < t.MarkMicro && loss*million <= t.MarkMicro*(million-uint64(ru.manifest.Stop.MinImprovementPPM)) {
		t.MarkMicro, t.Stale = loss, 0
	} else {
		t.Stale++
	}
	back := ru.manifest.Rollback
	if back.Rounds == 0 || loss*million <= t.BestMicro*(million+uint64(back.WorsePPM)) {
		t.Worse = 0
	} else if t.Worse++; t.Worse >= back.Rounds {
		t.Worse, t.Back = 0, true
	}
	return &t
}

// evaluators are the witnesses of the round after head that tell its loss, if not
// all do: those that are first in an order that nobody chooses. Where the loss
// decides, all do, as of few that are drawn most may be liars.
func (ru *Rules) evaluators(head Link) []peer.ID {
	n := int(ru.manifest.EvalPeers)
	if ru.manifest.Steers() || n == 0 {
		return nil
	}
	seats := slices.DeleteFunc(slices.Clone(head.Record.NextSeats), func(s msg.Seat) bool { return s.Trainee })
	order := drawnOrder(evalDomain, head.ID, seats)
	var list []peer.ID
	for _, i := range order[:min(n, len(order))] {
		list = append(list, seats[i].Peer)
	}
	return list
}

// Evaluates reports whether a witness tells the loss of head's state in its have.
func (ru *Rules) Evaluates(head Link, self peer.ID) bool {
	if !ru.measurable(head.Record) {
		return false
	}
	drawn := ru.evaluators(head)
	return len(drawn) == 0 || slices.Contains(drawn, self)
}

// measurable reports whether the loss of a record's state is worth to be known:
// the state is new, or none was measured yet.
func (ru *Rules) measurable(r *msg.Record) bool {
	switch {
	case !ru.manifest.Measures() || ru.Assembly(r):
		return false
	case r.Trend == nil || r.Trend.BestMicro == 0:
		return true
	}
	takenBack := func(j msg.Judgement) bool { return j.TakenBack }
	return len(r.Contributions) > 0 || r.Merge != nil || r.Trend.Back || slices.ContainsFunc(r.Judgements, takenBack)
}

// medianLoss is the median of the losses that haves tell; 0 if fewer than
// 2f + 1 tell one, as liars could be half of those. So a few that are left alone
// neither end the run nor take it back.
func medianLoss(haves []msg.Signed, f int) uint64 {
	var losses []uint64
	for _, s := range haves {
		if l := s.Message.(*msg.Have).LossMicro; l > 0 {
			losses = append(losses, l)
		}
	}
	if len(losses) < 2*f+1 {
		return 0
	}
	return medianOf(losses)
}

// Ending is why a run is final.
type Ending string

// The endings. The zero Ending is that of a run that goes on.
const (
	EndRounds  Ending = "rounds"
	EndTokens  Ending = "tokens"
	EndTarget  Ending = "target-loss"
	EndPlateau Ending = "plateau"
	EndOrder   Ending = "order"
)

// Ends says why no round follows a record; "" if one does.
func Ends(manifest *run.Manifest, r *msg.Record) Ending {
	m, course := Under(manifest, r.Course), courseOf(r)
	stop := m.Stop
	switch t := r.Trend; {
	case course.Stopped:
		return EndOrder
	case r.TrainedRounds >= m.MaxRounds:
		return EndRounds
	case m.MaxTokens != 0 && r.Tokens >= m.MaxTokens:
		return EndTokens
	case t == nil || t.LossMicro == 0:
		return ""
	case t.LossMicro <= stop.TargetMicro:
		return EndTarget
	case stop.Patience > 0 && t.Stale >= stop.Patience:
		return EndPlateau
	}
	return ""
}

// goesBack reports whether the record returns to the best state.
func goesBack(r *msg.Record) bool { return r.Trend != nil && r.Trend.Back }
