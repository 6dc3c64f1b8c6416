package round

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// TestRetraceDraw: as many are drawn as the manifest says, others on another
// head, and who has strikes each time.
func TestRetraceDraw(t *testing.T) {
	ru := &Rules{manifest: testManifest(func(m *run.Manifest) {
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 8, RetracePPM: 20_000}
	})}
	_, id := testKey(1)
	draws := func(strikes uint32) (n int, parts [8]int) {
		for i := range 5000 {
			l := Link{ID: testCID(string(rune(i))), Record: &msg.Record{Standings: []msg.Standing{{Peer: id, StrikesQ8: strikes}}}}
			if part, ok := ru.retraceKey(l, id); ok {
				n++
				parts[part%8]++
			}
		}
		return n, parts
	}
	n, parts := draws(suspectQ8 - 1)
	if n < 60 || n > 140 {
		t.Errorf("%d of 5000 are drawn, want about 100", n)
	}
	for part, k := range parts {
		if k == 0 {
			t.Errorf("part %d is never drawn", part)
		}
	}
	if n, _ := draws(suspectQ8); n != 5000 {
		t.Errorf("%d of 5000 of a suspect are drawn", n)
	}
	ru.manifest.Trust.RetracePPM = 0
	if n, _ := draws(suspectQ8); n != 0 {
		t.Errorf("%d are drawn in a run that does not retrace", n)
	}
}

// TestUntrue: what becomes of a contribution by what its auditors found.
func TestUntrue(t *testing.T) {
	const bad, good = tolerancePPM + 1, tolerancePPM
	for _, tt := range []struct {
		name    string
		found   []uint32 // by its three auditors
		gains   int      // that measured the loss too
		untrue  bool
		verdict msg.Verdict
	}{
		{"nobody looked", nil, 3, false, msg.Useful},
		{"as it says", []uint32{0, good, 100}, 3, false, msg.Useful},
		{"all find something else", []uint32{bad, Forged, Withheld}, 3, true, msg.Damaging},
		{"forged", []uint32{Forged, Forged, Withheld}, 3, true, msg.Damaging},
		{"withheld", []uint32{Withheld, Withheld, Withheld}, 3, false, msg.Useless},
		{"withheld, without measurements", []uint32{Withheld, Withheld}, 0, false, msg.Useless},
		{"withheld from one", []uint32{Withheld, 10, 10}, 3, false, msg.Useful},
		{"two, and the third did not look", []uint32{bad, bad}, 3, true, msg.Damaging},
		{"one alone is too few", []uint32{bad}, 3, false, msg.Useful},
		{"one does not", []uint32{bad, bad, good}, 3, false, msg.Useful},
		{"without measurements of the loss", []uint32{bad, bad}, 0, true, msg.Damaging},
		{"as it says, without", []uint32{0, 0}, 0, false, msg.Unaudited},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, 4, nil)
			s.rules.manifest.Trust = run.Trust{Auditors: 3, AuditSamples: 8, RetracePPM: 1_000_000}
			maker := s.seat(2)
			s.parent.Record.Seats = s.parent.Record.NextSeats
			s.parent.Record.Contributions = []msg.Contribution{{Seat: 2, Tokens: 100, Weight: 100}}
			ring := newAuditRing(s.parent.ID, s.parent.Record.NextSeats).of(s.parent.ID, maker, 3)
			var haves []msg.Signed
			for i, id := range ring {
				v := &msg.Have{Peer: id}
				if i < len(tt.found) {
					v.Retraces = []msg.Retrace{{Seat: 2, ErrorPPM: tt.found[i]}}
				}
				if i < tt.gains {
					v.Audits = []msg.Audit{{Seat: 2, GainNano: 1000}}
				}
				haves = append(haves, msg.Signed{From: id, Message: v})
			}
			// The maker's own word does not count.
			haves = append(haves, msg.Signed{From: maker, Message: &msg.Have{Peer: maker, Retraces: []msg.Retrace{{Seat: 2}}}})
			list := s.rules.measure(Basis{Parent: s.parent, Haves: haves})
			s.rules.judge(list, nil)
			if len(list) != 1 || list[0].untrue != tt.untrue || list[0].judgement.Verdict != tt.verdict {
				t.Fatalf("judged %+v, want untrue %v, %v", list, tt.untrue, tt.verdict)
			}
			if j := list[0].judgement; int(j.Retraced) != len(tt.found) || tt.untrue && j.WorthQ16 != 0 {
				t.Errorf("judgement %+v of %d retraces", j, len(tt.found))
			}
			e := s.rules.standingsAfter(s.parent.Record, 9, list).of(maker)
			want := map[msg.Verdict]uint32{msg.Damaging: strikeQ8, msg.Useless: suspectQ8}[tt.verdict]
			if e.StrikesQ8 != want || (e.Owed > 0) != tt.untrue {
				t.Errorf("standing %+v, want %d strikes", e, want)
			}
		})
	}
}

// TestUntraced: a run that retraces takes no commit without a trace.
func TestUntraced(t *testing.T) {
	s := newScene(t, 4, nil)
	c := &msg.Commit{Run: s.rules.run, Round: 1, Head: testCID("head"), CodecBits: s.rules.manifest.CodecBits, DeltaBytes: s.rules.deltaBytes, Norm: 1}
	if got := s.rules.fault(c, 1, c.Head, c.CodecBits); got != msg.Held {
		t.Fatalf("fault() = %v", got)
	}
	s.rules.manifest.Trust.RetracePPM = 1
	if got := s.rules.fault(c, 1, c.Head, c.CodecBits); got != msg.Untraced {
		t.Errorf("fault() = %v", got)
	}
	c.Trace = testCID("trace")
	if got := s.rules.fault(c, 1, c.Head, c.CodecBits); got != msg.Held {
		t.Errorf("fault() = %v with a trace", got)
	}
}

// TestRetraces: who says that it trained and did not is drawn before long, then
// in each round, and loses its seat; though its deltas do no harm, and some auditors
// lie. Honest ones are not touched.
func TestRetraces(t *testing.T) {
	const n, idle = 12, 2
	man := audited(n, 5)
	man.Trust.RetracePPM = 200_000
	s := newSim(t, 5, n, man, simOpts{})
	s.opts.gain = func(auditor *simNode, _ int) int64 { return honestGain(s, auditor) }
	s.opts.retrace = func(auditor *simNode, maker int) uint32 {
		switch {
		case auditor.i < idle && maker >= idle:
			return Forged
		case auditor.i >= idle && maker < idle:
			return 900_000
		}
		return 30_000
	}
	s.startAll()
	if !s.runUntil(20*time.Minute, func() bool { return s.minRound() >= 40 }) {
		t.Fatalf("stuck:\n%s", s.describe())
	}
	chain := s.nodes[n-1].chain
	retraced := 0
	for _, l := range chain.links[1:] {
		for _, j := range l.Record.Judgements {
			if j.Retraced > 0 {
				retraced++
			}
		}
	}
	counted, _ := s.weights(chain, 0)
	for i := range n {
		seat := seatOf(chain.Head().Record.NextSeats, s.nodes[i].id)
		e := standings(chain.Head().Record.Standings).of(s.nodes[i].id)
		switch {
		case i >= idle && (counted[i] < 38 || seat < 0 || e.StrikesQ8 > 0):
			t.Errorf("honest node %d counted in %d rounds, has seat %d and standing %+v", i, counted[i], seat, e)
		case i < idle && (counted[i] > 20 || seat >= 0 || e.Reason != msg.Harmful):
			t.Errorf("idle node %d counted in %d rounds, has seat %d and standing %+v", i, counted[i], seat, e)
		}
	}
	t.Logf("%d of about %d contributions were retraced", retraced, 40*n)
}

// TestTraceBefore: a trace goes on from the last contribution, if it is not too
// far back.
func TestTraceBefore(t *testing.T) {
	priv, id := testKey(3)
	_, other := testKey(4)
	links := map[cid.Cid]Link{}
	head := testCID("genesis")
	links[head] = Link{ID: head, Record: &msg.Record{}}
	add := func(n msg.Round, trace cid.Cid) {
		r := &msg.Record{Round: n, Parent: head, Seats: []msg.Seat{{Peer: other}, {Peer: id}}}
		slices.SortFunc(r.Seats, func(a, b msg.Seat) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
		if trace.Defined() {
			s, err := msg.Seal(priv, &msg.Commit{
				Run: testCID("run"), Round: n, Head: head, Peer: id, Delta: testCID("delta"), DeltaBytes: 1, CodecBits: 2,
				Tokens: 1, Steps: 1, Trace: trace,
			})
			if err != nil {
				t.Fatal(err)
			}
			r.Commits, r.Contributions = [][]byte{s.Envelope}, []msg.Contribution{{Seat: uint32(seatOf(r.Seats, id))}}
		}
		head = testCID(string(rune('a' + n)))
		links[head] = Link{ID: head, Record: r}
	}
	before := func(maker peer.ID) cid.Cid {
		return TraceBefore(head, maker, func(id cid.Cid) (Link, bool) { l, ok := links[id]; return l, ok })
	}
	add(1, testCID("trace 1"))
	if got := before(id); !got.Equals(testCID("trace 1")) {
		t.Errorf("after the first: %v", got)
	}
	if got := before(other); got.Defined() {
		t.Errorf("of somebody else: %v", got)
	}
	for n := range msg.Round(lookBack - 1) {
		add(2+n, cid.Undef)
	}
	if got := before(id); !got.Equals(testCID("trace 1")) {
		t.Errorf("seven rounds later: %v", got)
	}
	add(9, cid.Undef)
	if got := before(id); got.Defined() {
		t.Errorf("eight rounds later: %v", got)
	}
}
