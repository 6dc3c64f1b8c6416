package runner

import (
	"bytes"
	"testing"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Who comes late knows the head, and pulls its state, before it has the records;
// and a proof that is none is told from one.
func TestProvenHead(t *testing.T) {
	t.Parallel()
	a := newNode(t, 40)
	man := launch(t, a, func(m *run.Manifest) { m.MaxRounds, m.SkipLinks = 9, true })
	r, _ := a.takePart(t, man)
	sameEnd(t, r)
	late := newNode(t, 41, a.addr())
	late.hub.proofWorth = 3
	rl, _ := late.takePart(t, man)
	sameEnd(t, r, rl)
	p, head := rl.proven.Load(), r.ledger.Head()
	if p == nil || p.ID != head.ID {
		t.Fatalf("proven is %v, the head is %v of round %d", p, head.ID, head.Record.Round)
	}
	genesis, _, _ := rl.ledger.At(0)
	items := r.ledger.Proof(t.Context(), genesis.ID, maxSyncResponse)
	if len(items) == 0 || len(items) > 3 {
		t.Errorf("%d records prove the head of %d rounds", len(items), head.Record.Round)
	}
	if items := r.ledger.Proof(t.Context(), head.ID, maxSyncResponse); len(items) > 0 {
		t.Errorf("%d records prove what is known", len(items))
	}
	if items := r.ledger.Proof(t.Context(), genesis.ID, 100); len(items) > 0 {
		t.Error("a proof is longer than it may be")
	}
	rules, err := round.NewRules(man)
	if err != nil {
		t.Fatal(err)
	}
	items[0].Certificate = bytes.Clone(items[0].Certificate)
	items[0].Certificate[len(items[0].Certificate)-1] ^= 1
	if _, err := rules.VerifyProof(genesis, items); err == nil {
		t.Error("a proof with a wrong signature is one")
	}
}

// A run ends when the loss that its peers measured is low enough, and says so.
func TestTargetLoss(t *testing.T) {
	t.Parallel()
	a := newNode(t, 42)
	man := launch(t, a, func(m *run.Manifest) { m.MaxRounds, m.Stop.TargetMicro = 50, msg.MaxLossMicro })
	r, _ := a.takePart(t, man)
	sameEnd(t, r)
	s := r.Summary()
	if s.Ended != "target-loss" || s.TrainedRounds > 5 || s.Why != "the run is over: the held-out loss reached its target" {
		t.Errorf("ended by %q after %d rounds: %s", s.Ended, s.TrainedRounds, s.Why)
	}
	rounds, err := r.Rounds(1, 100)
	if err != nil {
		t.Fatal(err)
	}
	last := rounds[len(rounds)-1]
	measured := 0
	for _, n := range rounds {
		if n.MedianLoss != nil && *n.MedianLoss > 0.1 && *n.MedianLoss < 20 {
			measured++
		}
	}
	if last.Ended != "target-loss" || rounds[0].Ended != "" && len(rounds) > 1 || measured == 0 && len(rounds) > 1 {
		t.Errorf("%d rounds, %d measured, ended by %q", len(rounds), measured, last.Ended)
	}
}
