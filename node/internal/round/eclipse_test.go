package round

import (
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
)

// A peer that is behind hears of hundreds who claim to be far ahead, with all
// tokens that there can be. It asks who has a seat soon, and never only that one.
func TestLiarsAheadAreNotAskedAlone(t *testing.T) {
	b := newBench(t, 4, 0)
	honest := b.others()[0]
	b.receive(honest, &msg.Status{Run: b.runID, Peer: honest.id, Seq: 1 << 50, Head: testCID("real"), Round: b.head().Record.Round + 5})
	for i := range 300 {
		priv, id := testKey(1000 + i)
		s, err := msg.Seal(priv, &msg.Status{
			Run: b.runID, Peer: id, Seq: 1, Head: testCID(fmt.Sprint("lie", i)), Round: msg.MaxRound, Certified: msg.MaxRound, Tokens: msg.MaxRunTokens,
		})
		if err != nil {
			t.Fatal(err)
		}
		b.step(time.Millisecond, Received{s})
	}
	timing := b.node.m.timing
	asked, times := 0, 0
	for range 6 {
		b.step(timing.Status, Tick{})
		for _, s := range effects[Sync](b) {
			if asked++; s.From == honest.id {
				times++
			}
		}
	}
	if times == 0 {
		t.Errorf("of %d questions none went to who has a seat", asked)
	}
	if times == asked {
		t.Error("only who has a seat was asked: it may be gone")
	}
}
