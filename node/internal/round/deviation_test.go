package round

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// judgedBefore are judgements with these gains, all of some worth.
func judgedBefore(gains ...int64) []msg.Judgement {
	var list []msg.Judgement
	for i, g := range gains {
		list = append(list, msg.Judgement{Seat: uint32(i), Measured: 3, GainNano: g, WorthQ16: 1, Verdict: msg.Useful})
	}
	return list
}

// TestSteadied: one rule of the deviation in each case.
func TestSteadied(t *testing.T) {
	calm := judgedBefore(800, 900, 1000, 1100, 1200)          // 1000, 100
	murky := judgedBefore(-900, 100, 200, 500, 900)           // 200, 300
	mixed := append(judgedBefore(1e9, -1e9, 5e9, 7), calm...) // the first four of no worth
	for i := range 4 {
		mixed[i].WorthQ16 = 0
	}
	extreme := judgedBefore(msg.MaxGainNano, msg.MaxGainNano/2, msg.MaxGainNano/3*2)
	for _, tt := range []struct {
		name           string
		middle, spread int64
		before         []msg.Judgement
		want           int64
	}{
		{"there is none before", 1000, 10, nil, 10},
		{"none of worth before", 1000, 10, mixed[:4], 10},
		{"as much as before", 1000, 100, calm, 100},
		{"less than before", 1000, 60, calm, 100},
		{"more than before", 1000, 150, calm, 150},
		{"less than half of what was before", 1000, 40, calm, 80},
		{"an eighth of it", 1000, 13, calm, 26},
		{"less than an eighth", 1000, 12, calm, 12},
		{"nothing", 1000, 0, calm, 0},
		{"what had no worth is left out", 1000, 60, mixed, 100},
		{"half the gain", 500, 30, calm, 50},
		{"half the gain, and more than half the deviation", 500, 70, calm, 70},
		{"a gain that grows", 2000, 60, calm, 100},
		{"a little of the gain that tells nothing", 100, 60, calm, 100},
		{"no gain", -100, 60, calm, 100},
		{"nothing was told before", 100, 160, murky, 300},
		{"nothing was told before, and now it is", 100, 40, murky, 80},
		{"the largest numbers", msg.MaxGainNano / 2, 1 << 47, extreme, msg.MaxGainNano / 6 / 4 * 3},
		{"the lowest numbers", 1, 1 << 48, judgedBefore(-msg.MaxGainNano, -msg.MaxGainNano, msg.MaxGainNano, msg.MaxGainNano), 1 << 49},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := steadied(tt.middle, tt.spread, tt.before); math.Abs(float64(got-tt.want)) > float64(tt.want)/1e6 {
				t.Errorf("deviation %d, want %d", got, tt.want)
			}
		})
	}
	for middle := int64(-2000); middle <= 2000; middle += 50 {
		for spread := int64(0); spread < 400; spread += 7 {
			for _, before := range [][]msg.Judgement{nil, calm, murky, mixed, extreme} {
				if got := steadied(middle, spread, before); got < spread || got > 2*spread {
					t.Fatalf("a deviation of %d is taken for %d", spread, got)
				}
			}
		}
	}
}

// closeTogether are gains of nine honest peers of which six happen to be alike,
// and those of the round before (byzantine-25-zeros, seed 1, rounds 15 and 14).
var (
	usualGains    = []int64{7715288, 3998093, 971273, 1991818, 2480420, 514910, -3512578, -72317, -4071854}
	closeTogether = []int64{2220817, 2343991, -856385, 2762093, 2738026, 3615372, -2070118, 2360108, -1510629}
)

// TestCloseTogether: whoever is far from the others because they are close together by
// chance is not struck; who is much farther still is.
func TestCloseTogether(t *testing.T) {
	for _, tt := range []struct {
		name      string
		judgement uint32
		harm      int64 // of the three that are far from the others, how many times as much
		struck    int
	}{
		{"by the rules before", 2, 1, 3},
		{"honest", 3, 1, 0},
		{"liars", 3, 4, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := audited(12, 5)
			m.Trust.Judgement = tt.judgement
			ru := &Rules{manifest: m}
			var list []measured
			for _, g := range closeTogether {
				if g < 0 {
					g *= tt.harm
				}
				list = append(list, measuredBy(g, g, g))
			}
			ru.judge(list, judgedBefore(usualGains...))
			struck := 0
			for _, e := range list {
				if e.judgement.Verdict == msg.Damaging {
					struck++
				}
			}
			if struck != tt.struck {
				t.Errorf("%d are struck, want %d", struck, tt.struck)
			}
		})
	}
}

// TestSteadyRecords: a record is judged with the judgements in the one before, and
// what a fold was made of is told again as it was.
func TestSteadyRecords(t *testing.T) {
	for _, tt := range []struct{ judgement, struck uint32 }{{2, 3}, {run.NewestJudgement, 0}} {
		n := len(closeTogether)
		m := healing(n)
		m.Trust.Judgement = tt.judgement
		s := newTale(t, n, m)
		seats := s.head().Record.NextSeats
		gains := func(list []int64) func(peer.ID) int64 {
			return func(id peer.ID) int64 { return list[seatOf(seats, id)] }
		}
		s.follow(turn{gain: useful})
		s.follow(turn{gain: gains(usualGains)})
		c := s.follow(turn{gain: gains(closeTogether)})
		struck := uint32(0)
		for _, j := range c.Record.Judgements {
			if j.Verdict == msg.Damaging {
				struck++
			}
		}
		if struck != tt.struck {
			t.Errorf("judgement %d: %d are struck, want %d", tt.judgement, struck, tt.struck)
		}
		got := s.rules.inputsOf(s.before(), s.head().Record)
		if diff := cmp.Diff(c.Inputs, got, cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })); diff != "" {
			t.Errorf("judgement %d: inputs (-as they were +told again):\n%s", tt.judgement, diff)
		}
	}
}

// TestSmallByChance: of honest gains whose deviation is the same in each round, fewer are
// far from the others by chance; -v says how many of how many.
func TestSmallByChance(t *testing.T) {
	const rounds = 2000
	for _, n := range []int{6, 8, 9, 12, 16} {
		rnd := rand.New(rand.NewPCG(7, uint64(n)))
		var struck [4]int
		before := make([][]msg.Judgement, len(struck))
		rules := make([]*Rules, len(struck))
		for i := range rules {
			m := audited(n, 5)
			m.Trust.Judgement = uint32(i)
			rules[i] = &Rules{manifest: m}
		}
		for range rounds {
			gains := make([]int64, n)
			for i := range gains {
				gains[i] = int64(1e6 * rnd.NormFloat64())
			}
			for _, judgement := range []uint32{2, 3} {
				var list []measured
				for _, g := range gains {
					list = append(list, measuredBy(g, g, g))
				}
				rules[judgement].judge(list, before[judgement])
				before[judgement] = nil
				for _, e := range list {
					before[judgement] = append(before[judgement], e.judgement)
					if e.judgement.Verdict == msg.Damaging {
						struck[judgement]++
					}
				}
			}
		}
		share := func(judgement int) float64 { return 100 * float64(struck[judgement]) / float64(n*rounds) }
		t.Logf("%2d deltas: %.2f %% are struck by judgement 2, %.2f %% by judgement 3", n, share(2), share(3))
		if 2*struck[3] > struck[2] {
			t.Errorf("of %d deltas %d are struck, and %d without the round before", n, struck[3], struck[2])
		}
	}
}
