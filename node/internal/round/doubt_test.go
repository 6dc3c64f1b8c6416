package round

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// newlyAudited is audited, with the newest judgement.
func newlyAudited(n int, probation uint32) *run.Manifest {
	m := audited(n, probation)
	m.Trust.Judgement = run.NewestJudgement
	return m
}

// oftenAudited is judged by the rules before the newest.
func oftenAudited(n int, probation uint32) *run.Manifest {
	m := audited(n, probation)
	m.Trust.Judgement = 1
	return m
}

// contributed is a record of n seats with a contribution of each.
func contributed(n int) Link {
	r := &msg.Record{Seats: testSeats(n), NextSeats: testSeats(n)}
	for i := range n {
		r.Contributions = append(r.Contributions, msg.Contribution{Seat: uint32(i), Tokens: 1000, Weight: 1000})
	}
	return Link{ID: testCID("head"), Record: r}
}

// TestPanel: all witnesses audit what those in doubt sent, at most eight of
// them (by the newest rules twelve) and the worst ones; the few retrace it.
func TestPanel(t *testing.T) {
	const n = 14
	parent := contributed(n)
	parent.Record.NextSeats[5].Trainee = true
	seat := func(i int) peer.ID { return parent.Record.Seats[i].Peer }
	s := standings{}
	s.at(seat(1)).StrikesQ8 = doubtQ8 - 1
	s.at(seat(2)).LackQ16 = doubtLackQ16 - 1
	s.at(seat(3)).LackQ16 = doubtLackQ16
	for i := 4; i < 12; i++ {
		s.at(seat(i)).StrikesQ8 = uint32(doubtQ8 + i)
	}
	parent.Record.Standings = s
	auditors := func(ru *Rules, maker int) (all, retrace int) {
		for _, x := range parent.Record.NextSeats {
			for _, item := range ru.Audits(parent, x.Peer) {
				if int(item.Seat) == maker {
					all++
					if !item.Extra {
						retrace++
					}
				}
			}
		}
		return all, retrace
	}
	ru := &Rules{manifest: oftenAudited(n, 5)}
	first := &Rules{manifest: audited(n, 5)}
	for i := range n {
		want := 3
		switch {
		case i == 5: // a trainee: nobody is left out
			want = n - 1
		case i >= 4 && i < 12:
			want = n - 2
		}
		if got, retrace := auditors(ru, i); got != want || retrace != 3 {
			t.Errorf("seat %d has %d auditors of which %d retrace, want %d and 3", i, got, retrace, want)
		}
		if got, _ := auditors(first, i); got != 3 {
			t.Errorf("seat %d has %d auditors by the first rules", i, got)
		}
	}
	newest := &Rules{manifest: newlyAudited(n, 5)}
	if got, _ := auditors(newest, 3); got != n-2 {
		t.Errorf("seat 3, the ninth in doubt, has %d auditors by the newest rules", got)
	}
	for i := range n {
		s.at(seat(i)).StrikesQ8 = openQ8
	}
	parent.Record.Standings = s
	list := func() (of []int) {
		for i := range n {
			if got, _ := auditors(newest, i); got > 3 {
				of = append(of, i)
			}
		}
		return of
	}
	before := list()
	parent.ID = testCID("another head")
	if after := list(); len(before) != maxOpen || len(after) != maxOpen || slices.Equal(before, after) {
		t.Errorf("all audit %v, and after another head %v: want twelve, and not always the same", before, after)
	}
}

// TestDoubtRetraces: of who is in doubt all measure the loss, and the few alone
// retrace the training, of which the maker has to give many files.
func TestDoubtRetraces(t *testing.T) {
	m := newlyAudited(8, 5)
	m.Trust.RetracePPM = 1_000_000
	s := newTale(t, 8, m)
	s.follow(turn{gain: useful})
	maker := s.head().Record.Seats[2].Peer
	for _, extra := range []bool{false, true} {
		list := s.rules.Retraces(s.head(), []AuditItem{{Seat: 2, Maker: maker, Extra: extra}}, func(cid.Cid) (Link, bool) { return Link{}, false })
		if (len(list) == 0) != extra {
			t.Errorf("extra %v: %d retraces", extra, len(list))
		}
	}
	parent := contributed(8)
	maker = parent.Record.Seats[2].Peer
	parent.Record.Standings = []msg.Standing{{Peer: maker, StrikesQ8: doubtQ8}}
	var haves []msg.Signed
	for i, x := range parent.Record.NextSeats {
		if i != 2 {
			haves = append(haves, msg.Signed{From: x.Peer, Message: &msg.Have{
				Peer: x.Peer, Audits: []msg.Audit{{Seat: 2, GainNano: 1000}}, Retraces: []msg.Retrace{{Seat: 2, ErrorPPM: Forged}},
			}})
		}
	}
	list := s.rules.measure(Basis{Parent: parent, Haves: haves})
	if len(list) != 1 || list[0].judgement.Measured != 7 || list[0].judgement.Retraced != 3 || !list[0].untrue {
		t.Errorf("measured %+v, want 7 audits and 3 retraces", list)
	}
}

// TestFewWitnesses: with few witnesses and many that only train, what one audits
// still fits into a have, and most deltas have the two auditors that it takes.
func TestFewWitnesses(t *testing.T) {
	const n = 28
	parent := contributed(n)
	for i := 4; i < n; i++ {
		parent.Record.NextSeats[i].Trainee = true
	}
	ru := &Rules{manifest: audited(4, 5)}
	auditors := make([]int, n)
	full := 0
	for _, x := range parent.Record.NextSeats[:4] {
		items := ru.Audits(parent, x.Peer)
		if len(items) > msg.MaxAudits {
			t.Fatalf("a witness audits %d deltas, and %d fit into a have", len(items), msg.MaxAudits)
		}
		if len(items) == msg.MaxAudits {
			full++
		}
		for i, item := range items {
			auditors[item.Seat]++
			if i > 0 && items[i-1].Seat >= item.Seat {
				t.Fatal("audits are out of order")
			}
		}
	}
	judged := 0
	for _, k := range auditors {
		if k >= 2 {
			judged++
		}
	}
	if full == 0 || judged < n*3/4 {
		t.Errorf("%d of %d deltas have two auditors; %d witnesses have as much as they can", judged, n, full)
	}
}

// TestJury: of who is in doubt a majority of all witnesses decides, and a few
// that lie can neither strike nor spare it; of others the few have to agree, and
// if most of them accuse one that brings it into doubt.
func TestJury(t *testing.T) {
	ru := &Rules{manifest: newlyAudited(12, 5)}
	_, id := testKey(0)
	gains := func(accuse, praise int) []int64 {
		return append(slices.Repeat([]int64{-5000}, accuse), slices.Repeat([]int64{1000}, praise)...)
	}
	for _, tt := range []struct {
		name    string
		gains   []int64
		jury    int
		verdict msg.Verdict
		strikes uint32
	}{
		{"all of a few", gains(3, 0), 0, msg.Damaging, 256},
		{"most of a few", gains(2, 1), 0, msg.Useless, 128},
		{"one of a few", gains(1, 2), 0, msg.Useful, 0},
		{"all", gains(11, 0), 11, msg.Damaging, 256},
		{"two thirds", gains(7, 4), 11, msg.Damaging, 256},
		{"a third", gains(4, 7), 11, msg.Useful, 0},
		{"a third, and others are away", gains(4, 3), 11, msg.Useless, 0},
		{"half", gains(5, 5), 10, msg.Useful, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list := []measured{{maker: id, tokens: 1000, weight: 1, gains: tt.gains, jury: tt.jury, enough: true, judgement: msg.Judgement{GainNano: median(tt.gains)}}}
			for i := range 5 {
				e := measuredBy(1000, 1000+int64(i), 1000)
				e.tokens, e.weight = 1000, 1
				list = append(list, e)
			}
			ru.judge(list, nil)
			if got := list[0].judgement.Verdict; got != tt.verdict {
				t.Errorf("judged %v, want %v", got, tt.verdict)
			}
			e := ru.standingsAfter(&msg.Record{}, 9, list[:1]).of(id)
			if e.StrikesQ8 != tt.strikes {
				t.Errorf("%d strikes, want %d", e.StrikesQ8, tt.strikes)
			}
		})
	}
}

// TestNoWorth: a worth of less than a quarter is none; and audits that tell
// nothing neither clear nor blame anybody.
func TestNoWorth(t *testing.T) {
	ru := &Rules{manifest: oftenAudited(12, 5)}
	_, id := testKey(0)
	judged := func(was msg.Standing, gain int64, others ...int64) (msg.Judgement, msg.Standing) {
		was.Peer = id
		all := append([]int64{gain}, others...)
		var list []measured
		for _, g := range all {
			list = append(list, measured{maker: id, tokens: 1000, weight: 1, gains: []int64{g, g, g}, lack: was.LackQ16, enough: true, judgement: msg.Judgement{GainNano: g}})
		}
		ru.judge(list, nil)
		return list[0].judgement, ru.standingsAfter(&msg.Record{Standings: []msg.Standing{was}}, 9, list[:1]).of(id)
	}
	clear := []int64{1000, 1100, 900, 1000, 1000}
	murky := []int64{4000, -3000, 1000, -500, 5000}
	for _, tt := range []struct {
		name   string
		was    msg.Standing
		gain   int64
		others []int64
		worth  uint32
		want   msg.Standing
	}{
		{"a quarter", msg.Standing{}, 250, clear, 16384, msg.Standing{LackQ16: 12288, Work: 250, Pace: 31}},
		{"less", msg.Standing{}, 249, clear, 0, msg.Standing{LackQ16: 32768}},
		{"as the others", msg.Standing{Owed: 2, LackQ16: 40000}, 1000, clear, 65536, msg.Standing{Owed: 1, LackQ16: 30000, Work: 1000, Pace: 125}},
		{"nobody can tell", msg.Standing{Owed: 2, LackQ16: 6400}, 0, murky, 65536, msg.Standing{Owed: 1, LackQ16: 6375, Work: 1000, Pace: 125}},
		{"nor that a worthless one counts again", msg.Standing{LackQ16: worthlessQ16 + 100}, 4000, murky, 0, msg.Standing{LackQ16: worthlessQ16}},
		{"nor that a free rider works", msg.Standing{Owed: 2, LackQ16: 64000}, 4000, murky, 0, msg.Standing{Owed: 2, LackQ16: 63750}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Peer = id
			j, e := judged(tt.was, tt.gain, tt.others...)
			if diff := cmp.Diff(tt.want, e); j.WorthQ16 != tt.worth || diff != "" {
				t.Errorf("worth %d, want %d; standing (-want +got):\n%s", j.WorthQ16, tt.worth, diff)
			}
		})
	}
}

// TestFastSeat: who does ten times as much as the others, and not all of it helps
// as much, has little worth for each token and does not lose its weight.
func TestFastSeat(t *testing.T) {
	ru := &Rules{manifest: newlyAudited(12, 5)}
	_, id := testKey(0)
	e := msg.Standing{Peer: id}
	for range 30 {
		list := []measured{{maker: id, tokens: 10_000, weight: 1, gains: []int64{2000, 2000, 2000}, lack: e.LackQ16, enough: true, judgement: msg.Judgement{GainNano: 2000}}}
		for i := range 5 {
			m := measuredBy(1000, 1000+int64(i), 1000)
			m.tokens = 1000
			list = append(list, m)
		}
		ru.judge(list, nil)
		s := ru.standingsAfter(&msg.Record{Standings: []msg.Standing{e}}, 9, list[:1])
		e = s.of(id)
		if factor, _, reason := ru.counts(s, msg.Seat{Peer: id}, 100); reason != msg.Held || factor < fold.One/4 {
			t.Fatalf("factor %d, %v with %+v", factor, reason, e)
		}
	}
}

// TestWorthless: three rounds without any worth, and deltas count for nothing;
// one good one later they do again.
func TestWorthless(t *testing.T) {
	ru := &Rules{manifest: newlyAudited(4, 5)}
	_, id := testKey(0)
	e := msg.Standing{Peer: id}
	with := func(worth uint32) msg.Reason {
		v := msg.Useless
		if worth > 0 {
			v = msg.Useful
		}
		list := []measured{{maker: id, tokens: 1000, weight: 1, enough: true, judgement: msg.Judgement{Verdict: v, WorthQ16: worth}}}
		s := ru.standingsAfter(&msg.Record{Standings: []msg.Standing{e}}, 9, list)
		e = s.of(id)
		factor, _, reason := ru.counts(s, msg.Seat{Peer: id}, 100)
		if (factor == 0) != (reason != msg.Held) {
			t.Errorf("factor %d, %v", factor, reason)
		}
		r := &msg.Record{TrainedRounds: 1, NextSeats: append(testSeats(0), msg.Seat{Peer: id}, msg.Seat{})}
		ru.assignWitnesses(s, r)
		if r.NextSeats[0].Trainee != (reason != msg.Held) {
			t.Errorf("lack %d: trainee %v, %v", e.LackQ16, r.NextSeats[0].Trainee, reason)
		}
		return reason
	}
	var got []msg.Reason
	for _, worth := range []uint32{0, 0, 0, 0, 0, fold.One, 0, 0, fold.One, fold.One} {
		got = append(got, with(worth))
	}
	none, ok := msg.Worthless, msg.Held
	want := []msg.Reason{ok, ok, none, none, none, ok, ok, none, ok, ok}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// TestConspiracy: a third of the auditors lie together, and each time only where
// most of a delta's auditors do, so that nobody can tell them from the others.
// Few honest deltas are struck, and no honest seat goes; liars whose deltas make
// the loss worse do.
func TestConspiracy(t *testing.T) {
	const n, liars, rounds = 12, 4, 20
	struck := func(m *run.Manifest, harm bool) (honest, lying int, seated []bool) {
		type draw struct {
			record cid.Cid
			maker  peer.ID
		}
		told, same, all := make(map[cid.Cid]bool), make(map[draw]int), make(map[draw]int)
		s := newSim(t, 5, n, m, simOpts{})
		s.opts.gain = func(auditor *simNode, maker int) int64 {
			lies := false
			if auditor.i < liars {
				head := auditor.m.head
				if !told[head.ID] {
					told[head.ID] = true
					for _, o := range s.nodes {
						for _, a := range s.rules.Audits(head, o.id) {
							k := draw{head.ID, a.Maker}
							all[k]++
							if o.i < liars {
								same[k]++
							}
						}
					}
				}
				k := draw{head.ID, s.nodes[maker].id}
				lies = 2*same[k] > all[k]
			}
			bad := maker < liars && harm
			if bad != lies && (bad || maker >= liars) {
				return -1_000_000
			}
			return honestGain(s, auditor)
		}
		s.startAll()
		if !s.runUntil(20*time.Minute, func() bool { return s.minRound() >= rounds }) {
			t.Fatalf("stuck:\n%s", s.describe())
		}
		links := s.nodes[n-1].chain.links
		for k, l := range links[1:] {
			for _, j := range l.Record.Judgements {
				if j.Verdict != msg.Damaging {
					continue
				}
				if s.indexOf(links[k].Record.Seats[j.Seat]) < liars {
					lying++
				} else {
					honest++
				}
			}
		}
		for _, x := range s.nodes {
			seated = append(seated, seatOf(links[len(links)-1].Record.NextSeats, x.id) >= 0)
		}
		return honest, lying, seated
	}
	before, _, _ := struck(audited(n, 5), false)
	after, _, seated := struck(newlyAudited(n, 5), false)
	t.Logf("of %d honest deltas %d are struck, by the first rules %d", rounds*(n-liars), after, before)
	if after > rounds*(n-liars)/50 || after >= before || slices.Contains(seated, false) {
		t.Errorf("%d honest deltas are struck, by the first rules %d; seats %v", after, before, seated)
	}
	_, caught, seated := struck(newlyAudited(n, 5), true)
	for i, ok := range seated {
		if ok != (i >= liars) {
			t.Errorf("node %d has a seat: %v; %d deltas of liars were struck", i, ok, caught)
		}
	}
}

// TestRotateUnproven: peers that are not proven and were let in by the same record
// count, too.
func TestRotateUnproven(t *testing.T) {
	m := rotating(3)
	m.Trust.Judgement = run.NewestJudgement
	ru, err := NewRules(m)
	if err != nil {
		t.Fatal(err)
	}
	seats, s := testSeats(16), standings{}
	for i := range seats {
		seats[i].Since = 1
		if i >= 14 { // two of them, an eighth: there is room for no more
			seats[i].Since = 9
			continue
		}
		e := s.at(seats[i].Peer)
		e.Pace, e.Work = 1000, 5000
	}
	for k := range 50 {
		r := ru.newRotation(testCID(fmt.Sprint("head ", k)), s, seats)
		next, effective := ru.rotate(r, seats, asking(peersFrom(300, 400)), msg.Seat{Since: 9, Fresh: true})
		if len(effective) > 0 {
			t.Fatalf("%d strangers got a seat beside two that came in the same round", len(effective))
		}
		for _, x := range seats[14:] {
			if seatOf(next, x.Peer) < 0 {
				t.Fatal("who came a moment ago has lost its seat")
			}
		}
	}
}
