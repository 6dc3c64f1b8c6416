package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// outsideScene has n seats, whose contributions are audited by three of them and two
// others, which have worked.
func outsideScene(t *testing.T, n, others int) (s *scene, outside []peer.ID) {
	s = newScene(t, n, func(m *run.Manifest, r *msg.Record) {
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, Outsiders: 2}
		r.Seats = r.NextSeats
		for i := range n {
			r.Contributions = append(r.Contributions, msg.Contribution{
				Seat: uint32(i), Commit: testCID(fmt.Sprint("commit", i)), Delta: testCID(fmt.Sprint("delta", i)), Tokens: 100, Weight: 100,
			})
			r.Commits = append(r.Commits, []byte{byte(i)})
		}
		var list standings
		for i := range others {
			_, id := testKey(100 + i)
			outside = append(outside, id)
			list.at(id).Work = 1000
		}
		r.Standings = list
	})
	return s, outside
}

// TestOutsiders: who is drawn has worked, owes nothing and has no seat; and is
// drawn by its work, however many identities it was divided among.
func TestOutsiders(t *testing.T) {
	s, ids := outsideScene(t, 8, 40)
	known := standings(s.parent.Record.Standings)
	for i, id := range ids {
		e := known.at(id)
		switch {
		case i < 5:
			e.Owed = 1
		case i < 10:
			e.Until, e.Reason = 99, msg.Harmful
		case i < 15:
			e.Work = 0
		case i < 20:
			e.StrikesQ8 = suspectQ8
		case i < 30: // ten with as much as one
			e.Work = 1000
		case i == 30:
			e.Work = 10_000
		default:
			e.Work = 1
		}
	}
	s.parent.Record.Standings = known
	many, one, all := 0, 0, 0
	for k := range 400 {
		l := Link{ID: testCID(fmt.Sprint("head", k)), Record: s.parent.Record}
		list := s.rules.outsiders(l)
		if !slices.IsSortedFunc(list, func(a, b outsider) int { return slices.Compare([]byte(a.peer), []byte(b.peer)) }) {
			t.Fatal("not sorted")
		}
		for _, o := range list {
			i := slices.Index(ids, o.peer)
			switch {
			case i < 20:
				t.Fatalf("outsider %d was drawn", i)
			case i < 30:
				many += len(o.seats)
			case i == 30:
				one += len(o.seats)
			}
			all += len(o.seats)
			if !slices.IsSorted(o.seats) || len(slices.Compact(slices.Clone(o.seats))) != len(o.seats) || len(o.seats) > msg.MaxReportAudits {
				t.Fatalf("outsider %d audits %v", i, o.seats)
			}
		}
	}
	// The one is drawn twice for one contribution now and then, which counts once.
	if many+one < all*95/100 || float64(many)/float64(one) > 1.6 || float64(one)/float64(many) > 1.1 {
		t.Errorf("ten with as much work as one were drawn %d times, the one %d, of %d", many, one, all)
	}
	s.rules.manifest.Trust.Outsiders = 0
	if list := s.rules.outsiders(s.parent); list != nil {
		t.Errorf("%v are drawn in a run without", list)
	}
}

// TestReported: which reports count.
func TestReported(t *testing.T) {
	s, _ := outsideScene(t, 7, 6)
	list := s.rules.outsiders(s.parent)
	if len(list) < 3 {
		t.Fatalf("outsiders %v", list)
	}
	report := func(i int, change func(*msg.Report)) msg.Signed {
		m := &msg.Report{Run: s.rules.run, Round: s.parent.Record.Round + 1, Head: s.parent.ID, Peer: list[i].peer}
		if change != nil {
			change(m)
		}
		return msg.Signed{From: list[i].peer, Message: m}
	}
	haves := func(bits ...byte) (out []msg.Signed) { // by have: which reports it has
		for _, b := range bits {
			h := &msg.Have{}
			if b != 0 {
				h.Reports = []byte{b}
			}
			out = append(out, msg.Signed{Message: h})
		}
		return out
	}
	for _, tt := range []struct {
		name    string
		haves   []msg.Signed
		here    []msg.Signed
		count   []int
		missing []int
	}{
		{"nobody has one", haves(0, 0, 0), []msg.Signed{report(0, nil)}, nil, nil},
		{"too few have it", haves(1, 1, 0), []msg.Signed{report(0, nil)}, nil, nil},
		{"as many as it takes", haves(1, 3, 1), []msg.Signed{report(0, nil), report(1, nil)}, []int{0}, nil},
		{"two", haves(5, 5, 7), []msg.Signed{report(2, nil), report(0, nil)}, []int{0, 2}, nil},
		{"not here", haves(2, 2, 2), []msg.Signed{report(0, nil)}, nil, []int{1}},
		{"for another head", haves(1, 1, 1), []msg.Signed{report(0, func(m *msg.Report) { m.Head = testCID("x") })}, nil, []int{0}},
		{"for another round", haves(1, 1, 1), []msg.Signed{report(0, func(m *msg.Report) { m.Round++ })}, nil, []int{0}},
		{"of another run", haves(1, 1, 1), []msg.Signed{report(0, func(m *msg.Report) { m.Run = testCID("x") })}, nil, []int{0}},
		{"of nobody that was drawn", haves(128, 128, 128), nil, nil, nil},
	} {
		got, missing := s.rules.reported(Basis{Parent: s.parent, Report: reportIn(tt.here)}, tt.haves, 3)
		var count []int
		for _, m := range got {
			count = append(count, outsiderOf(list, m.From))
		}
		if !slices.Equal(count, tt.count) || !slices.Equal(missing, tt.missing) {
			t.Errorf("%s: %v count, %v are missing; want %v, %v", tt.name, count, missing, tt.count, tt.missing)
		}
	}
}

// TestDissent: five auditors strike though one of them says otherwise, three do
// not; and reports alone decide nothing.
func TestDissent(t *testing.T) {
	s, _ := outsideScene(t, 7, 8)
	list := s.rules.outsiders(s.parent)
	var seat uint32 // whose contribution two of them audit
	var two []peer.ID
	for i := range s.parent.Record.Contributions {
		two = nil
		for _, o := range list {
			if slices.Contains(o.seats, uint32(i)) {
				two = append(two, o.peer)
			}
		}
		if seat = uint32(i); len(two) == 2 {
			break
		}
	}
	if len(two) != 2 {
		t.Fatalf("outsiders %v", list)
	}
	drawn := newAuditRing(s.parent.ID, s.parent.Record.NextSeats).of(s.parent.ID, s.seat(int(seat)), 3)
	for _, tt := range []struct {
		name            string
		seated, outside []int64
		measured        uint32
		want            msg.Verdict
	}{
		{"all five", []int64{-9, -9, -9}, []int64{-9, -9}, 5, msg.Damaging},
		{"a seat disagrees", []int64{-9, 1000, -9}, []int64{-9, -9}, 5, msg.Damaging},
		{"one without disagrees", []int64{-9, -9, -9}, []int64{1000, -9}, 5, msg.Damaging},
		{"two disagree", []int64{-9, 1000, -9}, []int64{-9, 1000}, 5, msg.Useless},
		{"three disagree", []int64{-9, 1000, -9}, []int64{1000, 1000}, 5, msg.Useful},
		{"of four the last does not count", []int64{-9, -9, -9}, []int64{1000}, 3, msg.Damaging},
		{"of three none may", []int64{-9, -9}, []int64{1000}, 3, msg.Useless},
		{"too few seats", []int64{-9}, []int64{-9, -9}, 3, msg.Unaudited},
		{"no seats", nil, []int64{-9, -9}, 1, msg.Unaudited},
	} {
		b := Basis{Parent: s.parent}
		for i, g := range tt.seated {
			b.Haves = append(b.Haves, msg.Signed{From: drawn[i], Message: &msg.Have{Audits: []msg.Audit{{Seat: seat, GainNano: g}}}})
		}
		for i, g := range tt.outside {
			b.reports = append(b.reports, msg.Signed{From: two[i], Message: &msg.Report{Audits: []msg.Audit{{Seat: seat, GainNano: g}}}})
		}
		measured := s.rules.measure(b)
		// Others, to compare with.
		for range 4 {
			measured = append(measured, measuredBy(1000, 1001, 1002))
		}
		s.rules.judge(measured, nil)
		j := measured[0].judgement
		if j.Seat != seat || j.Measured != tt.measured || j.Verdict != tt.want {
			t.Errorf("%s: %+v, want %v by %d", tt.name, j, tt.want, tt.measured)
		}
	}
}

func measuredBy(gains ...int64) measured {
	return measured{
		tokens: 100, weight: 100, gains: gains, enough: true,
		judgement: msg.Judgement{Measured: uint32(len(gains)), GainNano: median(gains)},
	}
}

// TestOutsideAudits: who lost its seat to others audits for them, and its
// reports get into records that are certified; with losses, and with auditors without a
// seat that lie.
func TestOutsideAudits(t *testing.T) {
	const n, seats = 14, 8
	man := audited(seats, 2)
	man.Seats, man.Trust.Outsiders = seats, 2
	s := newSim(t, 11, n, man, simOpts{loss: 20})
	s.opts.gain = func(auditor *simNode, maker int) int64 {
		switch {
		case auditor.i == 7:
			return -5_000_000 // a liar
		case maker == 0:
			return -1_000_000
		}
		return honestGain(s, auditor)
	}
	for _, x := range s.nodes[:seats] {
		x.start()
	}
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 8 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	// Some make room, and others come; who left goes on as a follower.
	for _, x := range s.nodes[5:seats] {
		x.step(Want{Seat: false})
	}
	s.progress(2*time.Minute, 2, false)
	for _, x := range s.nodes[seats:] {
		x.start()
	}
	if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= 30 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	reports, more := 0, 0
	chain := s.nodes[1].chain
	for _, l := range chain.links[1:] {
		reports += len(l.Record.Reports)
		for _, j := range l.Record.Judgements {
			if j.Measured > 3 {
				more++
			}
		}
		if l.Certificate == nil && l.Record.Round < chain.Head().Record.Round {
			t.Errorf("round %d is not certified", l.Record.Round)
		}
	}
	if reports < 15 || more < 15 {
		t.Errorf("%d reports, %d contributions with more than three auditors", reports, more)
	}
	for i := 1; i < n; i++ {
		if e := standings(chain.Head().Record.Standings).of(s.nodes[i].id); e.StrikesQ8 > 0 {
			t.Errorf("honest node %d has %+v", i, e)
		}
	}
	if e := standings(chain.Head().Record.Standings).of(s.nodes[0].id); e.Until == 0 {
		t.Errorf("the liar has %+v", e)
	}
	t.Logf("%d reports, %d contributions with more than three auditors", reports, more)
}
