package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/run"
)

// TestNetwork: networks of many sizes train, in agreement and certified.
func TestNetwork(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 7, 16, 48} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newSim(t, 1, n, testManifest(func(m *run.Manifest) { m.MinPeers = uint32(n) }), simOpts{})
			s.startAll()
			if !s.runUntil(2*time.Minute, func() bool { return s.minRound() >= 5 }) {
				t.Fatalf("stuck:\n%s", s.describe())
			}
			if err := s.agree(5); err != nil {
				t.Fatal(err)
			}
			l := s.nodes[0].chain.links[5]
			if len(l.Record.Seats) != n || len(l.Record.Contributions) != n || l.Certificate == nil {
				t.Errorf("round 5 has %d seats, %d contributions, certified %v; want %d\n%s",
					len(l.Record.Seats), len(l.Record.Contributions), l.Certificate != nil, n, s.describe())
			}
			for _, n := range s.nodes {
				if len(n.misbehaved) > 0 {
					t.Errorf("node %d blames %v", n.i, n.misbehaved)
				}
			}
			if len(s.evidence) > 0 {
				t.Errorf("evidence against %v", s.evidence)
			}
		})
	}
}
