package demo

import (
	"testing"

	"github.com/moot-net/moot/node/internal/demo/swarm"
	"github.com/moot-net/moot/proto/fold"
)

// TestLearn is the demo without a network: the base model has read about the
// towns and answers nothing; peers that trade deltas of two bits learn to
// answer, about towns that their data never mentions. They take about as many
// steps as on a slow machine.
func TestLearn(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for half a minute")
	}
	a := mustWrite(t)
	s, err := swarm.New(t.Context(), swarm.Options{
		Dir: t.TempDir(), ModelDir: a.ModelDir, Data: options(a.Data), RunFile: a.RunFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	measure := func(state *fold.State) *swarm.Evaluation {
		e, err := s.Evaluate(t.Context(), state)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	base := measure(nil)
	state, err := s.Run(t.Context(), swarm.Even(3, 8), func(r swarm.Round, _ *fold.State) error {
		t.Logf("round %d: %d steps, training loss %.4f", r.Number, r.Steps, r.TrainLoss)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	adapter := measure(state)
	t.Logf("held-out loss %.4f, then %.4f; accuracy %.3f, then %.3f", base.Loss, adapter.Loss, base.Accuracy(), adapter.Accuracy())
	if base.Accuracy() >= 0.2 {
		t.Errorf("the base model answers %.3f, must be below 0.2", base.Accuracy())
	}
	if adapter.Accuracy() <= 0.8 {
		t.Errorf("with the adapter it answers %.3f, must be above 0.8", adapter.Accuracy())
	}
	if adapter.Loss > base.Loss/2 {
		t.Errorf("held-out loss went from %.4f to %.4f, must at least halve", base.Loss, adapter.Loss)
	}
}
