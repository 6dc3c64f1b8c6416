package round

import (
	"fmt"
	"testing"
	"time"
)

// TestSleep: who slept, for a round or for sixty, is where the others are within a
// round, and has made no records of its own meanwhile; whether messages waited for it
// or its lines had gone, and its clock stood still as that of a laptop does. (A period is ten seconds here, so a minute is what an hour is
// with periods of ten minutes.)
func TestSleep(t *testing.T) {
	for _, d := range []time.Duration{12 * time.Second, time.Minute, 10 * time.Minute} {
		for seed, backlog := range []int{0, 100, 1 << 20} {
			if d > time.Minute && backlog > 0 {
				continue // it is long, and shows no more
			}
			t.Run(fmt.Sprintf("%v, %d messages", d, backlog), func(t *testing.T) {
				s := running(t, uint64(seed), 5, simOpts{backlog: backlog}, 0)
				sleeper, other := s.nodes[2], s.nodes[0]
				s.runFor(time.Duration(s.rnd.Int64N(int64(10 * time.Second))))
				sleeper.asleep = true
				reorgs := sleeper.reorgs
				s.runFor(d)
				if backlog == 0 {
					sleeper.behind = d
				}
				woken := s.now
				period := time.Duration(s.manifest.PeriodMillis) * time.Millisecond
				sleeper.wake()
				if !s.runUntil(10*period, func() bool { return sleeper.chain.Head().ID.Equals(other.chain.Head().ID) }) {
					t.Fatalf("not back within ten periods\n%s", s.describe())
				}
				took := s.now.Sub(woken)
				t.Logf("slept %v, back after %.2f periods", d, took.Seconds()/period.Seconds())
				if took > period {
					t.Errorf("back after %v, a period is %v", took, period)
				}
				if n := sleeper.reorgs - reorgs; n > 0 {
					t.Errorf("left a branch of its own %d times", n)
				}
				s.progress(5*time.Minute, 4, true)
			})
		}
	}
}
