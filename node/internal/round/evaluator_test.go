package round

import (
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/run"
)

// drawing is a run of n peers of which some are drawn to measure the loss.
func drawing(n, draws int) *run.Manifest {
	return testManifest(func(m *run.Manifest) { m.MinPeers, m.EvalPeers = uint32(n), uint32(draws) })
}

// TestEvaluatorsAreDrawn: as many as the run asks for, the same for all who ask,
// others with each head, nobody more often than by chance; all where there are
// no more, or where the loss decides.
func TestEvaluatorsAreDrawn(t *testing.T) {
	const n, draws, heads = 12, 5, 400
	s := newTale(t, n, drawing(n, draws))
	head, seats := s.head(), s.head().Record.NextSeats
	often := make(map[peer.ID]int)
	for i := range heads {
		head.ID = testCID(string(rune('A' + i)))
		count := 0
		for _, seat := range seats {
			if s.rules.Evaluates(head, seat.Peer) {
				often[seat.Peer]++
				count++
			}
		}
		if count != draws {
			t.Fatalf("%d are drawn, want %d", count, draws)
		}
	}
	for _, seat := range seats { // 166.7 of 400, with a deviation of 9.9
		if c := often[seat.Peer]; c < 120 || c > 215 {
			t.Errorf("%v is drawn %d times of %d", seat.Peer, c, heads)
		}
	}
	trainee := head
	r := *head.Record
	r.NextSeats = slices.Clone(seats)
	for i := range r.NextSeats[:n-draws+1] {
		r.NextSeats[i].Trainee = true
	}
	trainee.Record = &r
	for i, seat := range r.NextSeats {
		if got, want := slices.Contains(s.rules.evaluators(trainee), seat.Peer), i > n-draws; got != want {
			t.Errorf("seat %d, trainee %v, is drawn: %v", i, seat.Trainee, got)
		}
	}
	m := drawing(n, draws)
	m.Stop.Patience = 3
	s = newTale(t, n, m)
	for _, seat := range seats {
		if !s.rules.Evaluates(s.head(), seat.Peer) {
			t.Errorf("%v does not measure in a run that ends by its loss", seat.Peer)
		}
	}
}

// TestDrawnLoss: the recorded loss is the median of what those who were drawn
// say, whatever others say; too few of them make none.
func TestDrawnLoss(t *testing.T) {
	const n, draws = 12, 5
	s := newTale(t, n, drawing(n, draws))
	drawn := s.rules.evaluators(s.head())
	say := func(losses ...uint64) turn {
		return turn{gain: useful, loss: func(id peer.ID) uint64 {
			if i := slices.Index(drawn, id); i >= 0 {
				return losses[i]
			}
			return 1 // nobody asked
		}}
	}
	for _, tt := range []struct {
		losses []uint64
		want   uint64
	}{
		{[]uint64{500, 501, 502, 503, 504}, 502},
		{[]uint64{1, 501, 502, 503, 504}, 502},
		{[]uint64{1 << 40, 501, 502, 503, 504}, 503},
		{[]uint64{0, 501, 502, 503, 0}, 502},
		{[]uint64{0, 501, 502, 0, 0}, 0},
	} {
		drawn = s.rules.evaluators(s.head())
		if r := s.follow(say(tt.losses...)).Record; r.Trend.LossMicro != tt.want || r.Final || r.Trend.Back {
			t.Errorf("of %v: %+v, want %d", tt.losses, r.Trend, tt.want)
		}
	}
	if b := s.head().Record.Trend; b.BestMicro != 502 || b.BestRound != 3 {
		t.Errorf("best is %+v", b)
	}
}

// TestDrawnLossSim: machines ask those who were drawn, and nobody else, and every
// record has the loss of the state before it.
func TestDrawnLossSim(t *testing.T) {
	const n, draws, rounds = 7, 3, 12
	m := drawing(n, draws)
	m.MaxRounds = rounds
	s := newSim(t, 37, n, m, simOpts{})
	asked := make(map[cid.Cid]int)
	s.opts.heldOut = func(node *simNode, _ cid.Cid) uint64 {
		head := node.chain.Head()
		asked[head.ID]++
		return 1000 - 10*uint64(head.Record.Round) + uint64(node.i%3)
	}
	s.startAll()
	done := func() bool {
		return !slices.ContainsFunc(s.nodes, func(n *simNode) bool { return !n.chain.Head().Record.Final })
	}
	if !s.runUntil(10*time.Minute, done) {
		t.Fatalf("the run goes on:\n%s", s.describe())
	}
	last := s.nodes[0].chain.Head().Record
	if err := s.agree(last.Round); err != nil {
		t.Error(err)
	}
	told := 0
	links := s.nodes[0].chain.links
	for i, l := range links[1:] {
		parent := links[i]
		if got := asked[parent.ID]; got > draws {
			t.Errorf("round %d: %d measured, want at most %d", l.Record.Round, got, draws)
		}
		if loss := l.Record.Trend.LossMicro; loss > 0 {
			told++
			if want := 1000 - 10*uint64(parent.Record.Round); loss < want || loss > want+2 {
				t.Errorf("round %d: loss %d, want about %d", l.Record.Round, loss, want)
			}
		} else if len(parent.Record.Contributions) > 0 {
			t.Errorf("round %d has no loss: %+v", l.Record.Round, l.Record.Trend)
		}
	}
	if told < rounds {
		t.Errorf("%d losses are recorded of %d rounds", told, rounds)
	}
	if b := last.Trend; b.BestRound != last.Round-1 || b.BestState != links[len(links)-2].Record.State {
		t.Errorf("best is %+v", b)
	}
}
