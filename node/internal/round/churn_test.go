package round

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

var (
	churnRounds    = flag.Int("churn-rounds", 200, "rounds of the run in TestChurnProof")
	churnCertified = flag.Int("churn-certified", 0, "which percentage of them is certified; 0: once all, and once a quarter")
	churnLeave     = flag.Bool("churn-leave", false, "who goes does not come back")
)

// churning are seats as in the scenario churn30: of 20 peers 6 go in each round, and 6 of
// those who are away, 26 at a time, come back.
func churning(leave bool) func(msg.Round) []int {
	var here, away []int
	for i := range 46 {
		if i < 20 {
			here = append(here, i)
		} else {
			away = append(away, i)
		}
	}
	next, rnd := 46, rand.New(rand.NewPCG(1, 30))
	return func(msg.Round) []int {
		seats := slices.Clone(here)
		for range 6 {
			if leave {
				here, next = append(here[1:], next), next+1
				continue
			}
			i, k := rnd.IntN(len(here)), rnd.IntN(len(away))
			here[i], away[k] = away[k], here[i]
		}
		return seats
	}
}

// TestChurnProof: where a third of the seats change in each round, a proof is short as
// long as those who go come back, also if most records are provisional.
func TestChurnProof(t *testing.T) {
	certified := []int{100, 25}
	if *churnCertified > 0 {
		certified = []int{*churnCertified}
	}
	for _, percent := range certified {
		t.Run(fmt.Sprint(percent), func(t *testing.T) { testChurnProof(t, percent) })
	}
}

func testChurnProof(t *testing.T, certified int) {
	last, reads := msg.Round(*churnRounds), 0
	rnd := rand.New(rand.NewPCG(2, 30))
	a := newAnnals(t, last, churning(*churnLeave), func(n msg.Round) bool { return n <= 3 || n == last || rnd.IntN(100) < certified })
	at := func(n msg.Round) (Link, bool) {
		reads++
		return a.at(n)
	}
	began := time.Now()
	known, steps, bare, answers, votes := a.links[0], 0, 0, 0, 0
	for known.Record.Round < last {
		list := Prove(known.Record.Round, last, atMost(MaxProofSteps), at)
		links, err := a.rules.VerifyProof(known, a.items(list))
		if err != nil {
			t.Fatalf("from %d: %v", known.Record.Round, err)
		}
		if len(links) == 0 {
			break // all records from here on
		}
		for _, s := range list {
			if s.Bare {
				bare++
			} else {
				votes += len(a.links[s.Round].Certificate.Votes)
			}
		}
		known, steps, answers = links[len(links)-1], steps+len(links), answers+1
	}
	t.Logf("%d rounds: to round %d by %d records, %d of them without certificate, %d votes, in %d answers and %d reads; found and verified in %v",
		last, known.Record.Round, steps, bare, votes, answers, reads, time.Since(began).Round(time.Millisecond))
	if !*churnLeave && (steps > 40 || known.Record.Round+64 < last) {
		t.Errorf("%d steps to round %d of %d", steps, known.Record.Round, last)
	}
}
