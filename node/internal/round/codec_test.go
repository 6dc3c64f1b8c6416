package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func laddered(m *run.Manifest) { m.CodecBits, m.MinCodecBits = 8, 2 }

// TestSteerCodec: a coarser codec when more than an eighth of the deltas are
// late, a finer one after sixteen rounds without.
func TestSteerCodec(t *testing.T) {
	ru, err := NewRules(testManifest(laddered))
	if err != nil {
		t.Fatal(err)
	}
	round := func(late, refused, included int) *msg.Record {
		r := &msg.Record{Seats: testSeats(16)}
		for i := range late {
			r.Refused = append(r.Refused, msg.Refusal{Seat: uint32(i), Reason: []msg.Reason{msg.Timeout, msg.NotHeld}[i%2]})
		}
		for i := range refused {
			r.Refused = append(r.Refused, msg.Refusal{Seat: uint32(late + i), Reason: msg.Copy})
		}
		for i := range included {
			r.Contributions = append(r.Contributions, msg.Contribution{Seat: uint32(15 - i)})
		}
		return r
	}
	at := func(bits, calm uint32) *msg.Record { return &msg.Record{CodecBits: bits, Calm: calm} }
	for _, tt := range []struct {
		name       string
		before, r  *msg.Record
		bits, calm uint32
	}{
		{"the first round", &msg.Record{}, round(0, 0, 16), 8, 1},
		{"nobody trained", at(4, 7), &msg.Record{Seats: testSeats(16)}, 4, 7},
		{"two of sixteen are late", at(8, 3), round(2, 0, 14), 8, 4},
		{"three are", at(8, 3), round(3, 0, 13), 4, 0},
		{"others are refused", at(8, 3), round(0, 5, 11), 8, 4},
		{"already the coarsest", at(2, 0), round(9, 0, 7), 2, 0},
		{"calm for long", at(2, 15), round(0, 0, 16), 4, 0},
		{"already the finest", at(8, 15), round(1, 0, 15), 8, 0},
		{"late and included after all", at(8, 0), round(3, 0, 16), 8, 1},
	} {
		ru.steerCodec(tt.before, tt.r)
		if tt.r.CodecBits != tt.bits || tt.r.Calm != tt.calm {
			t.Errorf("%s: %d bits, calm for %d, want %d, %d", tt.name, tt.r.CodecBits, tt.r.Calm, tt.bits, tt.calm)
		}
	}
	fixed, err := NewRules(testManifest(nil))
	if err != nil {
		t.Fatal(err)
	}
	r := round(9, 0, 7)
	fixed.steerCodec(&msg.Record{}, r)
	if r.CodecBits != 0 || r.Calm != 0 {
		t.Error("a run without a ladder changes its codec")
	}
	for _, bits := range []uint32{1, 2, 4, 8} {
		if fixed.deltaBytesOf(bits) == 0 {
			t.Errorf("a delta of %d bits has no length", bits)
		}
	}
	if fixed.deltaBytesOf(3) != 0 {
		t.Error("a delta of 3 bits has a length")
	}
}

// TestCodecOfARun: when many deltas come too late, the next ones are shorter,
// and all agree on it.
func TestCodecOfARun(t *testing.T) {
	s := newSim(t, 9, 7, testManifest(func(m *run.Manifest) { laddered(m); m.MinPeers = 7 }), simOpts{})
	slow := false
	s.blocked = func(_, _ *simNode) bool { return false }
	for _, n := range s.nodes {
		n.lateCheck = func(maker int) bool { return slow && maker >= 5 }
	}
	s.startAll()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 3 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	slow = true
	if !s.runUntil(10*time.Minute, func() bool { return s.nodes[0].chain.Head().Record.CodecBits == 2 && s.minRound() >= 8 }) {
		t.Fatalf("the codec did not change\n%s", s.describe())
	}
	seen := make(map[uint32]bool)
	links := s.nodes[0].chain.links
	for i, l := range links[2:] {
		for _, e := range l.Record.Commits {
			c, _, err := msg.OpenAs[*msg.Commit](e)
			if err != nil {
				t.Fatal(err)
			}
			if want := s.rules.codecAfter(links[i+1].Record); c.CodecBits != want || c.DeltaBytes != s.rules.deltaBytesOf(want) {
				t.Errorf("round %d: a delta of %d bits, want %d", l.Record.Round, c.CodecBits, want)
			}
			seen[c.CodecBits] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("codecs are %v, want 8, 4 and 2 bits", seen)
	}
	if err := s.agree(s.minRound()); err != nil {
		t.Error(err)
	}
}
