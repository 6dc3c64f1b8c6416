package round

import (
	"cmp"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// A run may find by itself how many inner steps its rounds have, by how far the
// deltas of a round go apart, and how long its rounds last, by when the deltas of
// earlier ones were there; proto/README.md section 6.
const (
	highKappaPPM  = 200_000 // above, the next rounds have half as many steps
	lowKappaPPM   = 50_000  // below, again and again, a quarter more
	strayPart     = 8       // of so many deltas one need not be in time
	arrivalMADs   = 3
	leastArrivals = 3 // that a deadline follows
	haste         = 8 // rounds in which a delta that came too late lets its maker hurry
)

// finds reports whether the run changes its steps or its deadline.
func (ru *Rules) finds() bool { return ru.manifest.Inner.StartSteps > 0 || ru.manifest.FollowArrivals }

// StepsAfter is how many inner steps a seat takes at most in the round after r.
func (ru *Rules) StepsAfter(r *msg.Record) uint32 {
	if r.Tempo != nil && r.Tempo.Steps > 0 {
		return r.Tempo.Steps
	}
	return cmp.Or(ru.manifest.Inner.StartSteps, ru.manifest.Inner.MaxSteps)
}

// deadlineAfter is the deadline of the round after r, in milliseconds.
func (ru *Rules) deadlineAfter(r *msg.Record) uint64 {
	if r.Tempo != nil && r.Tempo.DeadlineMillis > 0 {
		return r.Tempo.DeadlineMillis
	}
	return ru.manifest.PeriodMillis
}

// DeadlineAfter is the deadline of the round after r, since it began.
func (ru *Rules) DeadlineAfter(r *msg.Record) time.Duration {
	return time.Duration(ru.deadlineAfter(r)) * time.Millisecond
}

// steerTempo says in r how many steps the next round has, and what its deadline
// is.
func (ru *Rules) steerTempo(parent, r *msg.Record, counting []msg.Signed, f int) {
	if !ru.finds() {
		return
	}
	r.Tempo = &msg.Tempo{}
	if ru.manifest.Inner.StartSteps > 0 {
		ru.steerSteps(parent, r, counting, f)
	}
	if ru.manifest.FollowArrivals {
		ru.steerDeadline(parent, r, counting, f)
	}
}

// steerSteps takes what haves tell of the deltas of the parent's round. A change
// shows first in the kappa of the round after the next, so the one before says
// nothing of it.
func (ru *Rules) steerSteps(parent, r *msg.Record, counting []msg.Signed, f int) {
	t, in := r.Tempo, &ru.manifest.Inner
	t.StepsBefore = ru.StepsAfter(parent)
	t.Steps = t.StepsBefore
	settled := false
	if p := parent.Tempo; p != nil {
		t.Low, settled = p.Low, p.Steps == p.StepsBefore
	}
	if ru.comparable(parent) {
		t.KappaPPM = medianKappa(counting, f)
	}
	switch {
	case goesBack(r):
		t.Steps /= 2
	case t.KappaPPM == 0 || !settled:
	case t.KappaPPM > highKappaPPM:
		t.Steps, t.Low = t.Steps/2, 0
	case t.KappaPPM >= lowKappaPPM:
		t.Low = 0
	case t.Low < msg.MaxLow:
		t.Low++
	default:
		t.Steps, t.Low = t.Steps+max(t.Steps/4, 1), 0
	}
	t.Steps = min(max(t.Steps, in.MinSteps), in.MaxSteps)
	if t.Steps < t.StepsBefore {
		t.Low = 0
	}
}

// comparable reports whether kappa is to be told of the round of a record: two
// deltas at least had weight.
func (ru *Rules) comparable(r *msg.Record) bool {
	return ru.manifest.Inner.StartSteps > 0 && len(weighty(r)) > 1 && Cells(len(r.Seats)) == 0
}

func weighty(r *msg.Record) []msg.Contribution {
	var list []msg.Contribution
	for _, c := range r.Contributions {
		if c.Weight > 0 {
			list = append(list, c)
		}
	}
	return list
}

// medianKappa is the median of the kappas that haves tell; 0 if fewer than
// 2f + 1 tell one, as liars could be half of those.
func medianKappa(haves []msg.Signed, f int) uint32 {
	var list []uint32
	for _, s := range haves {
		if k := s.Message.(*msg.Have).KappaPPM; k > 0 {
			list = append(list, k)
		}
	}
	if len(list) < 2*f+1 {
		return 0
	}
	return medianOf(list)
}

// steerDeadline takes what haves tell of when the deltas of this round were
// there.
func (ru *Rules) steerDeadline(parent, r *msg.Record, counting []msg.Signed, f int) {
	t, period := r.Tempo, ru.manifest.PeriodMillis
	t.DeadlineMillis = ru.deadlineAfter(parent)
	if parent.Tempo != nil {
		t.Arrivals = parent.Tempo.Arrivals
	}
	if ru.Assembly(parent) || goesBack(r) || len(counting) < 2*f+1 {
		return
	}
	t.ArrivalMillis = medianArrival(counting)
	switch {
	case t.ArrivalMillis > 0:
		t.Arrivals = append(slices.Clone(t.Arrivals), t.ArrivalMillis)
		t.Arrivals = t.Arrivals[max(len(t.Arrivals)-msg.MaxArrivals, 0):]
		if len(t.Arrivals) >= leastArrivals {
			t.DeadlineMillis = deadlineOf(t.Arrivals, period)
		}
	case t.DeadlineMillis < period || lateSeats(r)*strayPart <= len(r.Seats):
		// Training was cut short, or peers are gone: there is as much time as the run
		// promises.
		t.DeadlineMillis, t.Arrivals = max(t.DeadlineMillis, period), nil
	default:
		t.DeadlineMillis, t.Arrivals = longest(period), nil
	}
}

// medianArrival is the median of what haves tell, 0 being later than all else.
func medianArrival(haves []msg.Signed) uint64 {
	list := make([]uint64, len(haves))
	for i, s := range haves {
		list[i] = s.Message.(*msg.Have).ArrivalMillis - 1 // 0 becomes the largest
	}
	return medianOf(list) + 1
}

func shortest(period uint64) uint64 { return (period + 1) / 2 }
func longest(period uint64) uint64  { return period + period/5 }

// deadlineOf is the deadline that follows from arrivals. It leaves those that
// need no more than the median their training, which ends at 0.8 of it.
func deadlineOf(arrivals []uint64, period uint64) uint64 {
	middle := medianOf(slices.Clone(arrivals))
	away := make([]uint64, len(arrivals))
	for i, a := range arrivals {
		away[i] = max(a, middle) - min(a, middle)
	}
	d := middle + max(arrivalMADs*medianOf(away), middle/4)
	return min(max(d, shortest(period)), longest(period))
}

// lateSeats counts the seats whose deltas did not come in time.
func lateSeats(r *msg.Record) int {
	late := make(map[uint32]bool)
	for _, e := range r.Refused {
		if e.Reason == msg.NotHeld || e.Reason == msg.Timeout {
			late[e.Seat] = true
		}
	}
	for _, c := range r.Contributions {
		delete(late, c.Seat)
	}
	return len(late)
}

// expected are the seats of a round whose deltas are waited for: those that had
// one in the parent's round, if it trained.
func (h *height) expected() []int {
	r := h.parent.Record
	all := len(r.Contributions)+len(r.Refused) == 0
	had := make(map[peer.ID]bool)
	for _, c := range r.Contributions {
		had[r.Seats[c.Seat].Peer] = true
	}
	for _, c := range r.Refused {
		had[r.Seats[c.Seat].Peer] = true
	}
	var list []int
	for i, s := range h.seats {
		if all || had[s.Peer] {
			list = append(list, i)
		}
	}
	return list
}

// arrival is when all but a few of the expected deltas were held here, with all
// the steps of the round; 0: they are not.
func (m *Machine) arrival(h *height) uint64 {
	if !m.cfg.Manifest.FollowArrivals || h.assembly {
		return 0
	}
	steps := uint64(m.rules.StepsAfter(h.parent.Record))
	expected := h.expected()
	var at []time.Time
	for _, i := range expected {
		if h.held(i) && h.commits[i][0].commit.Steps >= steps {
			at = append(at, h.commits[i][0].at)
		}
	}
	need := len(expected) - len(expected)/strayPart
	if need == 0 || len(at) < need {
		return 0
	}
	slices.SortFunc(at, time.Time.Compare)
	return uint64(min(max(at[need-1].Sub(h.began).Milliseconds(), 1), msg.MaxArrivalMillis))
}

// deadline is when a have is given, since the round began.
func (m *Machine) deadline(h *height) time.Duration {
	if !m.cfg.Manifest.FollowArrivals || h.assembly {
		return m.timing.Deadline
	}
	return m.stretched(m.timing.Deadline, h)
}

// stretched is a time of a usual round in one with another deadline.
func (m *Machine) stretched(d time.Duration, h *height) time.Duration {
	return d / time.Duration(m.cfg.Manifest.PeriodMillis) * time.Duration(m.rules.deadlineAfter(h.parent.Record))
}

// trainUntil is when the last step should be over. Who was too late with its
// delta hurries for a while.
func (m *Machine) trainUntil(h *height) time.Time {
	d := m.timing.Train
	if m.cfg.Manifest.FollowArrivals {
		d = min(d, m.stretched(d, h))
		for range m.lateness(h) {
			d = d * 4 / 5
		}
	}
	return h.began.Add(d)
}

// lateness counts the own deltas that did not come in time in the last rounds.
func (m *Machine) lateness(h *height) int {
	n, l := 0, h.parent
	for range haste {
		r := l.Record
		if seat := seatOf(r.Seats, m.cfg.Self); seat >= 0 && r.Round > 0 {
			in := slices.ContainsFunc(r.Contributions, func(c msg.Contribution) bool { return int(c.Seat) == seat })
			late := slices.ContainsFunc(r.Refused, func(e msg.Refusal) bool {
				return int(e.Seat) == seat && (e.Reason == msg.NotHeld || e.Reason == msg.Timeout)
			})
			if late && !in {
				n++
			}
		}
		var ok bool
		if l, ok = m.chain.link(r.Parent); !ok {
			break
		}
	}
	return n
}

// compare asks how far the deltas of the parent's round went apart, if that is
// to be told.
func (m *Machine) compare(h *height) {
	mine := m.own.at(h.slot())
	if !h.compares || mine.have != nil || mine.forgotten {
		return
	}
	e := Compare{Round: h.round, Record: h.parent.ID, State: h.before.Record.State}
	r := h.parent.Record
	for _, c := range weighty(r) {
		e.Items = append(e.Items, CompareItem{Maker: r.Seats[c.Seat].Peer, Delta: c.Delta, Weight: c.Weight, ClipQ16: c.ClipQ16})
	}
	m.emit(e)
}

func (m *Machine) compared(ev Compared) {
	if h := m.cur; h != nil && h.compares && !h.compared && ev.Record.Equals(h.parent.ID) {
		h.compared, h.kappaPPM = true, min(ev.KappaPPM, msg.MaxKappaPPM)
	}
}

// Compare asks how far the deltas of a round went apart: for kappa, the norm of
// what averaging A and B each on its own loses beside the norm of the exact
// update; Compared answers. It is worth nothing any more when another head is
// adopted.
type Compare struct {
	Round  msg.Round // under way: the deltas are of the round before
	Record cid.Cid   // that the deltas entered
	State  cid.Cid   // that they were made from
	Items  []CompareItem
}

// CompareItem is a delta that had weight in its round.
type CompareItem struct {
	Maker   peer.ID
	Delta   cid.Cid
	Weight  uint64
	ClipQ16 uint32
}

// Compared answers Compare.
type Compared struct {
	Record   cid.Cid // of the Compare that it answers
	KappaPPM uint32  // at least 1; 0: there is nothing to tell
}

func (Compare) effect() {}
func (Compared) event() {}
