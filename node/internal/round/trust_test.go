package round

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// audited is a run with audits.
func audited(n int, probation uint32) *run.Manifest {
	return testManifest(func(m *run.Manifest) {
		m.MinPeers, m.Trust = uint32(n), run.Trust{Auditors: 3, AuditSamples: 8, Probation: probation}
	})
}

// honestGain is about 1e-3 nats for what node i does, the same for all auditors
// but for the last digits, as floats are.
func honestGain(s *sim, auditor *simNode) int64 {
	return 1_000_000 + int64(s.rnd.IntN(300_000)) + int64(auditor.i)
}

// TestAuditRing: nobody audits itself, everybody as many as all others, and
// another head draws others.
func TestAuditRing(t *testing.T) {
	var seats []msg.Seat
	for i := range 9 {
		_, id := testKey(i)
		seats = append(seats, msg.Seat{Peer: id, Trainee: i == 4})
	}
	for _, tt := range []struct{ n, want int }{{3, 3}, {7, 7}, {16, 7}} {
		ring := newAuditRing(testCID("head"), seats)
		load := make(map[peer.ID]int)
		for _, s := range seats {
			drawn := ring.of(testCID("head"), s.Peer, tt.n)
			want := tt.want
			if s.Trainee {
				want = min(tt.n, 8)
			}
			if len(drawn) != want || slices.Contains(drawn, s.Peer) || slices.Contains(drawn, seats[4].Peer) {
				t.Errorf("%d auditors of %v: %v", tt.n, s.Peer, drawn)
			}
			if !s.Trainee {
				for _, id := range drawn {
					load[id]++
				}
			}
		}
		for id, n := range load {
			if n != tt.want {
				t.Errorf("%v audits %d deltas, want %d", id, n, tt.want)
			}
		}
	}
	a, b := newAuditRing(testCID("head"), seats), newAuditRing(testCID("other"), seats)
	same := 0
	for _, s := range seats {
		if slices.Equal(a.of(testCID("head"), s.Peer, 2), b.of(testCID("other"), s.Peer, 2)) {
			same++
		}
	}
	if same > 4 {
		t.Errorf("%d of 9 have the same auditors on another head", same)
	}
}

// TestJudge: one rule of the judgement in each case.
func TestJudge(t *testing.T) {
	one := func(gains ...int64) measured {
		slices.Sort(gains)
		return measured{
			tokens: 1000, weight: 1000, gains: gains, enough: true,
			judgement: msg.Judgement{Measured: uint32(len(gains)), GainNano: median(gains)},
		}
	}
	honest := func(extra ...measured) []measured {
		list := []measured{one(1000, 1000, 1001), one(1100, 1100), one(900, 901, 901), one(1050, 1050, 1050), one(950, 950, 950)}
		return append(list, extra...)
	}
	few := one(-1000)
	few.enough = false
	uncounted := one(50_000, 50_000)
	uncounted.weight = 0
	slow := one(200, 200, 200)
	slow.tokens = 200
	boaster := one(1000, 1000, 1000)
	boaster.tokens = 10_000
	tests := []struct {
		name  string
		list  []measured
		at    int
		want  msg.Verdict
		worth uint32
	}{
		{"as the others", honest(), 0, msg.Useful, 65536},
		{"less than the others", honest(), 2, msg.Useful, 59040},
		{"makes it worse", honest(one(-1000, -999, -998)), 5, msg.Damaging, 0},
		{"one auditor disagrees", honest(one(-1000, -999, 998)), 5, msg.Useless, 0},
		{"one of two disagrees", honest(one(-1000, 998)), 5, msg.Useful, 65392},
		{"nothing", honest(one(0, 0, 0)), 5, msg.Useless, 0},
		{"a little less than nothing", honest(one(-1, -1, -1)), 5, msg.Damaging, 0},
		{"too few auditors", honest(few), 5, msg.Unaudited, 0},
		{"few tokens and as much for each", honest(slow), 5, msg.Useful, 65536},
		{"ten times the tokens for the same", honest(boaster), 5, msg.Useless, 6544},
		{"those that do not count are no measure", honest(uncounted, uncounted, uncounted, uncounted, uncounted, uncounted), 0, msg.Useful, 65536},
		{"a pair has no majority", []measured{one(1000), one(-1000)}, 1, msg.Useful, 65536},
		{"at most a third", []measured{one(1000), one(1000), one(1000), one(-10), one(-9)}, 4, msg.Useless, 0},
		{"the worst third", []measured{one(1000), one(1000), one(1000), one(-10), one(-9)}, 3, msg.Damaging, 0},
		{"too much noise to tell", []measured{one(1000), one(-2500), one(3000), one(400), one(-1500)}, 1, msg.Useful, 65536},
		{"nothing gets better", []measured{one(-10), one(-20), one(-15), one(-12)}, 1, msg.Useful, 65536},
	}
	first := &Rules{manifest: audited(4, 5)}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.list {
				tt.list[i].judgement.Seat = uint32(i)
			}
			first.judge(tt.list, nil)
			got := tt.list[tt.at].judgement
			if got.Verdict != tt.want || got.WorthQ16 != tt.worth {
				t.Errorf("judged %v with worth %d, want %v with %d", got.Verdict, got.WorthQ16, tt.want, tt.worth)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		a, b int64
		want uint32
	}{{0, 1, 0}, {1, 1, 65536}, {5, 1, 65536}, {1, 3, 21845}, {2, 3, 43690}, {1<<62 - 1, 1 << 62, 65535}, {1 << 61, 1 << 62, 32768}} {
		if got := share(tt.a, tt.b); got != tt.want {
			t.Errorf("share(%d, %d) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// TestSettle: what becomes of a standing by one verdict after the other.
func TestSettle(t *testing.T) {
	ru := &Rules{manifest: audited(4, 5)}
	_, id := testKey(0)
	verdict := func(v msg.Verdict, worth uint32) measured {
		return measured{maker: id, tokens: 8000, enough: true, judgement: msg.Judgement{Verdict: v, WorthQ16: worth}}
	}
	good, bad, idle := verdict(msg.Useful, 65536), verdict(msg.Damaging, 0), verdict(msg.Useless, 0)
	after := func(e msg.Standing, list ...measured) msg.Standing {
		round := msg.Round(10)
		for _, m := range list {
			r := &msg.Record{Standings: []msg.Standing{e}}
			var all []measured
			if m.maker != "" {
				all = append(all, m)
			}
			e = ru.standingsAfter(r, round, all).of(id)
			round++
		}
		return e
	}
	none := measured{}
	tests := []struct {
		name string
		was  msg.Standing
		list []measured
		want msg.Standing
	}{
		{"a useful delta", msg.Standing{Owed: 5}, []measured{good}, msg.Standing{Owed: 4, Pace: 1000, Work: 8000}},
		{"two", msg.Standing{Owed: 1}, []measured{good, good}, msg.Standing{Pace: 1875, Work: 16000}},
		{"an idle one", msg.Standing{Owed: 5, Pace: 800}, []measured{idle}, msg.Standing{Owed: 5, Pace: 700, LackQ16: 16384}},
		{"a damaging one", msg.Standing{}, []measured{bad}, msg.Standing{Owed: 1, StrikesQ8: 256, LackQ16: 16384}},
		{"makes good", msg.Standing{}, []measured{bad, good}, msg.Standing{StrikesQ8: 240, Pace: 1000, LackQ16: 12288, Work: 8000}},
		{"fades", msg.Standing{StrikesQ8: 256}, slices.Repeat([]measured{none}, 11), msg.Standing{StrikesQ8: 122}},
		{"fades to nothing", msg.Standing{StrikesQ8: 3}, slices.Repeat([]measured{none}, 3), msg.Standing{}},
		{"three in a row are none yet", msg.Standing{}, []measured{bad, bad, bad}, msg.Standing{Owed: 6, StrikesQ8: 721, LackQ16: 37888}},
		{"four in a row bring a ban", msg.Standing{}, []measured{bad, bad, bad, bad}, msg.Standing{
			Owed: 10, Until: 13 + 1 + 200, Reason: msg.Harmful, LackQ16: 44800,
		}},
		{"a ban ends with probation", msg.Standing{Until: 11, Reason: msg.Harmful}, []measured{none, none}, msg.Standing{Owed: 5}},
		{
			"an eternal one does not",
			msg.Standing{Until: msg.MaxRound, Reason: msg.Equivocation},
			[]measured{none, none},
			msg.Standing{Until: msg.MaxRound, Reason: msg.Equivocation},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.was.Peer, tt.want.Peer = id, id
			if diff := cmp.Diff(tt.want, after(tt.was, tt.list...)); diff != "" {
				t.Errorf("standing (-want +got):\n%s", diff)
			}
		})
	}
}

// TestCounts: with which factor and tokens a delta enters the fold.
func TestCounts(t *testing.T) {
	first := &Rules{manifest: audited(4, 5)}
	_, id := testKey(0)
	for _, tt := range []struct {
		name   string
		e      msg.Standing
		fresh  bool
		factor uint32
		tokens uint64
		reason msg.Reason
	}{
		{"nothing known", msg.Standing{}, false, 65536, 1000, msg.Held},
		{"fresh", msg.Standing{}, true, 0, 1000, msg.Fresh},
		{"new", msg.Standing{Owed: 2}, true, 0, 1000, msg.Probation},
		{"struck", msg.Standing{Owed: 1, StrikesQ8: 200}, false, 0, 1000, msg.Harmful},
		{"banned", msg.Standing{Owed: 1, StrikesQ8: 200, Until: 5}, false, 0, 1000, msg.Banned},
		{"half as much as it says", msg.Standing{LackQ16: 32768}, false, 65536, 1000, msg.Held},
		{"a quarter", msg.Standing{LackQ16: 49152}, false, 32768, 1000, msg.Held},
		{"nothing of what it says", msg.Standing{LackQ16: 65536}, false, 1024, 1000, msg.Held},
		{"more than ever", msg.Standing{Pace: 100}, false, 65536, 400, msg.Held},
	} {
		tt.e.Peer = id
		factor, tokens, reason := first.counts(standings{tt.e}, msg.Seat{Peer: id, Fresh: tt.fresh}, 1000)
		if factor != tt.factor || tokens != tt.tokens || reason != tt.reason {
			t.Errorf("%s: factor %d, tokens %d, reason %v; want %d, %d, %v", tt.name, factor, tokens, reason, tt.factor, tt.tokens, tt.reason)
		}
	}
}

// TestWitnesses: who only trains.
func TestWitnesses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		trained uint64
		list    []msg.Standing // by seat
		want    string         // w: witness, t: trainee
	}{
		{"nobody has worked", 1, make([]msg.Standing, 6), "wwwwww"},
		{"new ones", 1, []msg.Standing{{}, {Owed: 1}, {}, {Owed: 5}}, "wtwt"},
		{"all owe", 1, []msg.Standing{{Owed: 1}, {Owed: 1}}, "ww"},
		{"before training", 0, []msg.Standing{{Owed: 1}, {}}, "ww"},
		{"slow ones", 1, []msg.Standing{{Pace: 10}, {Pace: 9}, {Pace: 4}, {Pace: 10}, {Pace: 11}, {Pace: 5}}, "wwtwww"},
		{"four in any case", 1, []msg.Standing{{Pace: 10}, {Pace: 1}, {Pace: 2}, {Pace: 10}, {Pace: 10}, {Pace: 0}}, "wtwwwt"},
		{"banned", 1, []msg.Standing{{Pace: 10}, {Pace: 10, Until: 9}}, "wt"},
	} {
		r := &msg.Record{TrainedRounds: tt.trained}
		var s standings
		for i, e := range tt.list {
			_, id := testKey(i)
			r.NextSeats = append(r.NextSeats, msg.Seat{Peer: id})
			e.Peer = id
			*s.at(id) = e
		}
		(&Rules{manifest: audited(4, 5)}).assignWitnesses(s, r)
		got := ""
		for _, seat := range r.NextSeats {
			got += map[bool]string{true: "t", false: "w"}[seat.Trainee]
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestKept: a record has room for the standings of all seats, then of those who
// worked most; who did nothing is forgotten.
func TestKept(t *testing.T) {
	var s standings
	var seats []msg.Seat
	for i := range 300 {
		_, id := testKey(i)
		e := s.at(id)
		switch {
		case i < 40:
			seats = append(seats, msg.Seat{Peer: id})
			e.Owed = 1
		case i < 100:
			e.Owed = 3 // left before it did anything
		case i < 200:
			e.Until = msg.Round(i)
		default:
			e.Work = uint64(i)
		}
	}
	slices.SortFunc(seats, func(a, b msg.Seat) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	out := standings(s.kept(seats))
	if len(out) != msg.MaxStandings {
		t.Errorf("%d are kept, want %d", len(out), msg.MaxStandings)
	}
	for i := range 300 {
		_, id := testKey(i)
		if _, ok := out.find(id); ok != (i < 40 || i >= 212) {
			t.Errorf("peer %d is kept: %v", i, ok)
		}
	}
	if !slices.IsSortedFunc(out, func(a, b msg.Standing) int { return strings.Compare(string(a.Peer), string(b.Peer)) }) {
		t.Error("not sorted")
	}
}

// weights counts, for each node, the rounds with a contribution that counted
// and without, from a round on.
func (s *sim) weights(chain *memChain, from msg.Round) (counted, uncounted []int) {
	counted, uncounted = make([]int, len(s.nodes)), make([]int, len(s.nodes))
	for _, l := range chain.links[from:] {
		for _, c := range l.Record.Contributions {
			i := s.indexOf(l.Record.Seats[c.Seat])
			if c.Weight > 0 {
				counted[i]++
			} else {
				uncounted[i]++
			}
		}
	}
	return counted, uncounted
}

// TestDamaging: deltas that make the loss worse count once, and no more; their
// makers lose their seats. Honest ones are not touched, also by auditors that
// lie for each other.
func TestDamaging(t *testing.T) {
	for _, lying := range []bool{false, true} {
		t.Run(fmt.Sprint("lying auditors ", lying), func(t *testing.T) {
			const n, liars = 12, 3
			s := newSim(t, 5, n, audited(n, 5), simOpts{})
			s.opts.gain = func(auditor *simNode, maker int) int64 {
				switch {
				case lying && auditor.i < liars && maker < liars:
					return 1_000_000
				case lying && auditor.i < liars:
					return -1_000_000
				case maker < liars:
					return -1_000_000
				}
				return honestGain(s, auditor)
			}
			s.startAll()
			if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= 24 }) {
				t.Fatalf("stuck:\n%s", s.describe())
			}
			chain := s.nodes[n-1].chain
			counted, _ := s.weights(chain, 0)
			for i := range n {
				seat := seatOf(chain.Head().Record.NextSeats, s.nodes[i].id)
				e := standings(chain.Head().Record.Standings).of(s.nodes[i].id)
				switch {
				case i >= liars && counted[i] < 21:
					t.Errorf("honest node %d counted in %d rounds", i, counted[i])
				case i >= liars && (seat < 0 || e.Owed > 0):
					t.Errorf("honest node %d has seat %d and standing %+v", i, seat, e)
				case i < liars && !lying && (counted[i] > 1 || seat >= 0 || e.Reason != msg.Harmful):
					t.Errorf("liar %d counted in %d rounds, has seat %d and standing %+v", i, counted[i], seat, e)
				case i < liars && lying && counted[i] > 9:
					t.Errorf("liar %d counted in %d rounds", i, counted[i])
				}
			}
			for _, l := range chain.links[1:] {
				if l.Certificate == nil {
					t.Errorf("round %d is not certified", l.Record.Round)
				}
			}
		})
	}
}

// TestProbation: who joins a run that has trained trains for so many audited
// rounds without weight and without a vote; and again after it was away, not.
func TestProbation(t *testing.T) {
	s := newSim(t, 7, 5, audited(4, 5), simOpts{})
	s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
	for _, n := range s.nodes[:4] {
		n.start()
	}
	if !s.runUntil(time.Minute, func() bool { return s.minRound() >= 5 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	late := s.nodes[4]
	late.start()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 20 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	counted, uncounted := s.weights(late.chain, 1)
	if counted[4] < 5 || uncounted[4] != 5 {
		// The sixth delta is made while the fifth is audited, and counts.
		t.Errorf("%d rounds with weight, %d without, want 5 without", counted[4], uncounted[4])
	}
	for _, l := range late.chain.links {
		seat := seatOf(l.Record.Seats, late.id)
		if seat < 0 {
			continue
		}
		owed := false
		if p, ok := late.chain.Link(l.Record.Parent); ok {
			owed = standings(p.Record.Standings).of(late.id).Owed > 0
		}
		if got := l.Record.Seats[seat].Trainee; owed && !got {
			t.Errorf("round %d: trainee %v, owes %v", l.Record.Round, got, owed)
		}
		if l.Certificate == nil {
			t.Errorf("round %d is not certified", l.Record.Round)
		}
	}
	if seat := seatOf(late.chain.Head().Record.NextSeats, late.id); seat < 0 || late.chain.Head().Record.NextSeats[seat].Trainee {
		t.Errorf("seat %d after %d rounds, or still a trainee\n%s", seat, s.minRound(), s.describe())
	}
	late.stop()
	s.progress(2*time.Minute, 4, true)
	if seatOf(s.nodes[0].chain.Head().Record.NextSeats, late.id) >= 0 {
		t.Fatal("who is gone still has a seat")
	}
	late.start()
	s.progress(2*time.Minute, 4, true)
	head := s.nodes[0].chain.Head().Record
	if seat := seatOf(head.NextSeats, late.id); seat < 0 || head.NextSeats[seat].Trainee || standings(head.Standings).of(late.id).Owed > 0 {
		t.Errorf("who came back has to prove itself again:\n%s", s.describe())
	}
}

// TestFreeRiders: who sends what is worth nothing gets no credit, from its
// first round on, and soon no weight.
func TestFreeRiders(t *testing.T) {
	const n, riders = 8, 2
	s := newSim(t, 9, n, audited(n, 5), simOpts{})
	s.opts.gain = func(auditor *simNode, maker int) int64 {
		if maker < riders {
			return int64(s.rnd.IntN(2000)) // noise beside 1e6
		}
		return honestGain(s, auditor)
	}
	s.startAll()
	if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= 20 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	chain := s.nodes[n-1].chain
	head := chain.Head().Record
	for i := range n {
		e := standings(head.Standings).of(s.nodes[i].id)
		honest := standings(head.Standings).of(s.nodes[n-1].id)
		if i < riders && e.Work > honest.Work/100 || i >= riders && e.Work < honest.Work/2 {
			t.Errorf("node %d has credit for %d tokens, an honest one for %d", i, e.Work, honest.Work)
		}
	}
	last := chain.links[20].Record
	for _, c := range last.Contributions {
		if i := s.indexOf(last.Seats[c.Seat]); i < riders && c.Weight > 100 {
			t.Errorf("free rider %d has weight %d in round 20", i, c.Weight)
		}
	}
	for _, seat := range head.NextSeats {
		if i := s.indexOf(seat); i < riders && !seat.Trainee {
			t.Errorf("free rider %d is a witness", i)
		}
	}
}

// TestSybils: many new identities of one party that works little fill the seats
// and decide nothing.
func TestSybils(t *testing.T) {
	const n, sybils = 5, 14
	m := audited(n, 3)
	m.Seats = n + sybils
	s := newSim(t, 11, n+sybils, m, simOpts{})
	s.opts.gain = func(auditor *simNode, maker int) int64 {
		if maker >= n {
			return honestGain(s, auditor) / 40
		}
		return honestGain(s, auditor)
	}
	for _, x := range s.nodes[:n] {
		x.start()
	}
	s.runUntil(time.Minute, func() bool { return s.minRound() >= 3 })
	for _, x := range s.nodes[n:] {
		x.start()
	}
	if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= 20 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	head := s.nodes[0].chain.Head().Record
	if len(head.NextSeats) != n+sybils {
		t.Errorf("%d seats, want all %d", len(head.NextSeats), n+sybils)
	}
	for _, seat := range head.NextSeats {
		if i := s.indexOf(seat); (i >= n) != seat.Trainee {
			t.Errorf("node %d: trainee %v", i, seat.Trainee)
		}
	}
	counted, _ := s.weights(s.nodes[0].chain, 1)
	for i := n; i < n+sybils; i++ {
		if counted[i] > 0 {
			t.Errorf("Sybil %d counted in %d rounds", i, counted[i])
		}
	}
}

// TestWitnessesGone: when all witnesses vanish, the trainees go on.
func TestWitnessesGone(t *testing.T) {
	s := newSim(t, 13, 7, audited(4, 50), simOpts{})
	s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
	for _, n := range s.nodes[:4] {
		n.start()
	}
	s.runUntil(time.Minute, func() bool { return s.minRound() >= 3 })
	for _, n := range s.nodes[4:] {
		n.start()
	}
	s.runUntil(2*time.Minute, func() bool { return s.minRound() >= 8 })
	if n := len(s.nodes[0].chain.Head().Record.NextSeats); n != 7 {
		t.Fatalf("%d seats, want 7", n)
	}
	for _, n := range s.nodes[:4] {
		n.stop()
	}
	s.progress(5*time.Minute, 6, true)
	if n := Witnesses(s.nodes[5].chain.Head().Record.NextSeats); n != 3 {
		t.Errorf("%d witnesses, want the 3 that are left", n)
	}
}

// TestProofs: who signs twice is banned by everybody, with the proof in a
// record; nobody else is.
func TestProofs(t *testing.T) {
	s := running(t, 15, 7, simOpts{}, 0)
	s.turn(s.nodes[2], doubles)
	s.turn(s.nodes[4], doubles)
	s.progress(3*time.Minute, 5, true)
	head := s.nodes[0].chain.Head().Record
	proofs := 0
	for _, l := range s.nodes[0].chain.links {
		proofs += len(l.Record.Proofs)
	}
	if proofs != 2 {
		t.Errorf("%d proofs are recorded, want 2", proofs)
	}
	for i, n := range s.nodes {
		e := standings(head.Standings).of(n.id)
		if banned := e.Reason == msg.Equivocation && e.Until == msg.MaxRound; banned != s.liars[i] {
			t.Errorf("node %d: standing %+v", i, e)
		}
		if seated := seatOf(head.NextSeats, n.id) >= 0; seated == s.liars[i] {
			t.Errorf("node %d has a seat: %v", i, seated)
		}
	}
}

// TestProofRules: what is no proof is in no valid record.
func TestProofRules(t *testing.T) {
	s := newScene(t, 4, nil)
	vote := func(seat int, word string) msg.Signed {
		return s.seal(s.keys[seat], &msg.Vote{Run: s.rules.run, Round: 9, Head: s.parent.ID, Record: testCID(word), Peer: s.seat(seat)})
	}
	haves := []msg.Signed{s.have(0, nil), s.have(1, nil), s.have(2, nil)}
	find := func(id cid.Cid) (msg.Signed, bool) { return s.known[id], s.known[id].Message != nil }
	p, ok := newProof(vote(3, "a"), vote(3, "b"))
	if !ok {
		t.Fatal("two votes are no proof")
	}
	r := s.record(s.rules.Consequence(Basis{Parent: s.parent, Haves: haves, Find: find, Proofs: []proof{p}}))
	if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
		t.Fatal(err)
	}
	if seatOf(r.NextSeats, s.seat(3)) >= 0 {
		t.Error("who is banned keeps its seat")
	}
	_, stranger := testKey(9)
	key, _ := testKey(9)
	outside := func(word string) []byte {
		return s.seal(key, &msg.Vote{Run: s.rules.run, Round: 9, Head: s.parent.ID, Record: testCID(word), Peer: stranger}).Envelope
	}
	commit := s.known[s.commit(3, 0)]
	for _, tt := range []struct {
		name  string
		proof msg.Proof
		want  string
	}{
		{"the same twice", msg.Proof{First: p.first.Envelope, Second: p.first.Envelope}, "of two messages of one peer"},
		{"of two peers", msg.Proof{First: p.first.Envelope, Second: vote(2, "b").Envelope}, "proof is of two"},
		{"out of order", msg.Proof{First: p.second.Envelope, Second: p.first.Envelope}, "in order"},
		{"of two kinds", msg.Proof{First: p.first.Envelope, Second: commit.Envelope}, "proof is of two"},
		{"no message", msg.Proof{First: []byte{1}, Second: []byte{2}}, "open"},
		{"of a stranger", func() msg.Proof {
			a, b := outside("a"), outside("b")
			if compareCIDs(msg.RawCID(a), msg.RawCID(b)) > 0 {
				a, b = b, a
			}
			return msg.Proof{First: a, Second: b}
		}(), "who has no seat"},
	} {
		bad := *r
		bad.Proofs = []msg.Proof{tt.proof}
		if _, err := s.rules.Verify(Link{}, s.parent, &bad); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Verify() = %v, want %q", tt.name, err, tt.want)
		}
	}
	without := *r
	without.Proofs = nil
	if _, err := s.rules.Verify(Link{}, s.parent, &without); err == nil {
		t.Error("a ban without proof is accepted")
	}
}

// TestTraineeVotes: the votes and haves of those who only train are worth
// nothing.
func TestTraineeVotes(t *testing.T) {
	s := newScene(t, 5, func(_ *run.Manifest, r *msg.Record) { r.NextSeats[1].Trainee = true })
	r := s.record(s.consequence(s.have(0, nil), s.have(2, nil), s.have(3, nil)))
	if _, err := s.rules.Verify(Link{}, s.parent, r); err != nil {
		t.Fatal(err)
	}
	two := s.record(s.consequence(s.have(0, nil), s.have(1, nil), s.have(2, nil)))
	if _, err := s.rules.Verify(Link{}, s.parent, two); err == nil {
		t.Error("a record on the haves of two witnesses of four and a trainee is valid")
	}
	// A trainee's word on a commit does not count.
	id := s.commit(0, 0)
	c := s.consequence(s.have(0, nil), s.have(1, []msg.HaveEntry{held(0, id)}), s.have(2, []msg.HaveEntry{held(0, id)}), s.have(3, nil))
	if len(c.Record.Contributions) > 0 {
		t.Error("a commit is included on the word of a witness and a trainee")
	}
	rid, err := r.CID()
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(seats ...int) *msg.Certificate {
		c := &msg.Certificate{Record: rid}
		for _, i := range seats {
			v := s.seal(s.keys[i], &msg.Vote{Run: s.rules.run, Round: 9, Head: s.parent.ID, Record: rid, Peer: s.seat(i)})
			c.Votes = append(c.Votes, v.Envelope)
		}
		return c
	}
	if err := VerifyCertificate(certificate(0, 2, 3), rid, r); err != nil {
		t.Error(err)
	}
	if err := VerifyCertificate(certificate(0, 1, 2), rid, r); err == nil {
		t.Error("a certificate with the vote of a trainee is valid")
	}
}

// TestTraineeVotesHere: nor does a machine take them for a quorum.
func TestTraineeVotesHere(t *testing.T) {
	h := &height{seats: make([]msg.Seat, 4), votes: make([][]msg.Signed, 4), haves: make([][]msg.Signed, 4)}
	h.seats[2].Trainee = true
	for i := range h.seats {
		h.votes[i] = []msg.Signed{{Message: &msg.Vote{Record: testCID("r")}}}
		h.haves[i] = []msg.Signed{{Message: &msg.Have{}}}
	}
	if v, n := len(h.votesFor(testCID("r"))), h.haveCount(); v != 3 || n != 3 {
		t.Errorf("%d votes and %d haves count, want those of the 3 witnesses", v, n)
	}
}

// TestAuditNoise: with honest noise alone nobody is struck in many rounds.
func TestAuditNoise(t *testing.T) {
	first := &Rules{manifest: audited(12, 5)}
	rnd := rand.New(rand.NewPCG(1, 2))
	strikes, rounds := 0, 0
	for range 2000 {
		var list []measured
		for i := range 12 {
			g := int64(1e6 * (1 + 0.35*rnd.NormFloat64()))
			list = append(list, measured{
				tokens: uint64(500 + rnd.IntN(1500)), weight: 1, gains: []int64{g - 3, g, g + 5}, enough: true,
				judgement: msg.Judgement{Seat: uint32(i), Measured: 3, GainNano: g},
			})
		}
		first.judge(list, nil)
		for _, e := range list {
			rounds++
			if e.judgement.Verdict == msg.Damaging {
				strikes++
			}
		}
	}
	if strikes*300 > rounds {
		t.Errorf("%d of %d honest deltas are called damaging", strikes, rounds)
	}
}

// TestTaken: the delta of another seat, or of an earlier round, is refused with
// a reason, whoever is first.
func TestTaken(t *testing.T) {
	b := newBench(t, 5, 4)
	others := b.others()
	old := b.head().Record.Contributions[0].Delta
	b.receive(others[0], b.commitOf(others[0], 10))
	copied := b.commitOf(others[1], 11)
	copied.Delta = b.commitOf(others[0], 10).Delta
	b.receive(others[1], copied)
	for _, c := range effects[Check](b) {
		t.Errorf("the delta of %v is pulled", c.Commit.Peer)
	}
	replayed := b.commitOf(others[2], 12)
	replayed.Delta = old
	b.receive(others[2], replayed)
	near := b.receive(others[3], b.commitOf(others[3], 13))
	b.step(0, Checked{Commit: near.CID, Reason: msg.Held})
	b.step(0, Checked{Commit: near.CID, Reason: msg.Copy})
	b.step(0, Checked{Commit: near.CID, Reason: msg.BadNorm}) // decided
	b.step(b.node.m.timing.Deadline, Tick{})
	h, ok := sent[*msg.Have](b)
	if !ok {
		t.Fatal("no have")
	}
	for i, want := range []msg.Reason{msg.Timeout, msg.Copy, msg.Replayed, msg.Copy} {
		if e, ok := entryOf(b, h, others[i]); !ok || e.Reason != want {
			t.Errorf("commit %d has reason %v, want %v", i, e.Reason, want)
		}
	}
}

// TestCopiers: who sends what others or itself sent before gets nothing for it.
func TestCopiers(t *testing.T) {
	s := running(t, 17, 7, simOpts{}, 0)
	last := make(map[peer.ID]cid.Cid)
	sent := make(map[cid.Cid]msg.Signed)
	for _, i := range []int{2, 5} {
		s.liars[i] = true
		n := s.nodes[i]
		n.lie = func(_ int, m msg.Signed) []msg.Signed {
			c, ok := m.Message.(*msg.Commit)
			if !ok {
				return []msg.Signed{m}
			}
			if s, ok := sent[m.CID]; ok {
				return []msg.Signed{s}
			}
			stolen := *c
			if i == 2 {
				// Of whoever came first.
				for _, list := range n.m.cur.commits {
					if len(list) > 0 && list[0].commit.Peer != n.id {
						stolen.Delta = list[0].commit.Delta
						break
					}
				}
			} else if old, ok := last[n.id]; ok {
				stolen.Delta = old
			} else {
				last[n.id] = c.Delta
			}
			sent[m.CID] = n.seal(&stolen)
			return []msg.Signed{sent[m.CID]}
		}
	}
	s.opts.trainTime = func(i int) time.Duration { return 3*time.Second + time.Duration(i%3)*time.Second }
	from := s.minRound() + 2
	s.progress(3*time.Minute, 8, true)
	counted, _ := s.weights(s.nodes[0].chain, from)
	for _, i := range []int{2, 5} {
		if counted[i] > 1 { // 5 sent something of its own first
			t.Errorf("copier %d was counted in %d rounds", i, counted[i])
		}
	}
	if counted[0] < 7 {
		t.Errorf("an honest seat was counted in %d rounds", counted[0])
	}
}
