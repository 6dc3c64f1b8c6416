package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// TestLateSeatStays: a seat whose deltas come too late, and whose haves come a little
// after a quorum of others, as with a machine that somebody keeps busy, is waited for
// when it would lose its seat, and keeps it. Rounds go on as fast as before otherwise,
// and one that says nothing goes after two rounds as ever.
func TestLateSeatStays(t *testing.T) {
	s := running(t, 61, 4, simOpts{}, 0)
	late := s.nodes[3]
	late.lag = func(m msg.Signed) time.Duration {
		switch m.Message.(type) {
		case *msg.Commit:
			return 9 * time.Second
		case *msg.Have:
			return 6600 * time.Millisecond
		}
		return 0
	}
	from := s.minRound()
	s.progress(8*time.Minute, 14, true)
	without, missed := 0, 0
	for _, l := range s.nodes[0].chain.links[from+1:] {
		switch i := seatOf(l.Record.NextSeats, late.id); {
		case i < 0:
			without++
		case l.Record.NextSeats[i].Missed > 0:
			missed++
		}
	}
	if without > 0 || missed == 0 {
		t.Errorf("without its seat after %d records, missed in %d:\n%s", without, missed, s.describe())
	}
	late.stop()
	gone := func() bool { return seatOf(s.nodes[0].chain.Head().Record.NextSeats, late.id) < 0 }
	at := s.nodes[0].chain.Head().Record.Round
	if !s.runUntil(2*time.Minute, gone) || s.nodes[0].chain.Head().Record.Round > at+4 {
		t.Errorf("who is gone keeps its seat:\n%s", s.describe())
	}
}
