package round

import (
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// TestHostileAggregators: as many seats as may lie in a cell propose, for what it came
// to, a mean that is none, two of them, none, or one to some seats only, and tell the results of
// their cells in the same way. Rounds go on, certified, and nobody honest is accused. Who
// says two things can split the votes of its cell, which is left out then, but only that.
func TestHostileAggregators(t *testing.T) {
	for i, tt := range []struct {
		name string
		says func(to int) (good, bad bool)
		want int // cells in each round, at least
	}{
		{"a wrong mean", func(int) (bool, bool) { return false, true }, 2},
		{"both to all", func(int) (bool, bool) { return true, true }, 1},
		{"two means", func(to int) (bool, bool) { return to%2 == 0, to%2 == 1 }, 1},
		{"none", func(int) (bool, bool) { return false, false }, 2},
		{"one to some", func(to int) (bool, bool) { return to%8 == 0, false }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if (i > 0 || testing.Short()) && !*exhaustive {
				t.Skip("takes 8 s, with -race 30 s: -exhaustive")
			}
			t.Parallel()
			const seats, liars = 50, 7
			s := inCells(t, seats, simOpts{})
			proposals, results := 0, 0
			for _, n := range s.nodes[seats-liars:] {
				s.liars[n.i] = true
				n.lie = func(to int, m msg.Signed) []msg.Signed {
					var wrong msg.Message
					switch v := m.Message.(type) {
					case *msg.Proposal:
						r, err := v.Decoded()
						if err != nil || r.Cell == 0 {
							return []msg.Signed{m}
						}
						bad := *r
						bad.State = testCID("not the mean")
						b, err := bad.Encode()
						if err != nil {
							t.Error(err)
						}
						p := *v
						p.Record = b
						wrong, proposals = &p, proposals+1
					case *msg.CellResult:
						bad := *v
						bad.Summary.Aggregate = testCID("not the mean")
						wrong, results = &bad, results+1
					default:
						return []msg.Signed{m}
					}
					var out []msg.Signed
					good, bad := tt.says(to)
					if bad {
						out = append(out, n.seal(wrong))
					}
					if good {
						out = append(out, m)
					}
					return out
				}
			}
			from := s.minRound()
			s.progress(20*time.Minute, 6, true)
			if proposals == 0 || results == 0 {
				t.Errorf("%d lies were proposed, and %d told: the seats that lie were never asked", proposals, results)
			}
			for _, l := range s.nodes[0].chain.links[from+2 : from+7] {
				if n := len(l.Record.Contributions); n < tt.want {
					t.Errorf("round %d has the means of %d cells, want %d", l.Record.Round, n, tt.want)
				}
			}
			for _, n := range s.nodes[:seats-liars] {
				for p, err := range n.misbehaved {
					if i := s.indexOf(msg.Seat{Peer: p}); !s.liars[i] {
						t.Errorf("node %d accuses node %d, which is honest: %v", n.i, i, err)
					}
				}
			}
			t.Logf("%d lies of proposers, %d of those that tell", proposals, results)
		})
	}
}
