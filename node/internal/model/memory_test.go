package model

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

// counting is a backend that adds up what is allocated.
type counting struct {
	tensor.Backend
	values int
}

func (c *counting) Alloc(n int) *tensor.Buffer {
	c.values += n
	return c.Backend.Alloc(n)
}

func TestWorkspaceBytes(t *testing.T) {
	for name, c := range testConfigs() {
		for _, recompute := range []int{-1, 0, 1, 2, 9} { // -1: no training
			training := recompute >= 0
			b := &counting{Backend: cpu.New(cpu.Options{})}
			m, err := lively(c, Options{Backend: b, Recompute: recompute})
			if err != nil {
				t.Fatal(err)
			}
			attach(t, m, inSlots(qSlot, downSlot))
			batch := batchOf(t, sequences(c.Vocab, 19, 9))
			if c.Position == Rotary {
				m.ropes.ensure(b, &m.cfg, 64)
			}
			before := b.values
			if training {
				_, err = m.Accumulate(batch, 1)
			} else {
				_, err = m.Evaluate(batch)
			}
			if err != nil {
				t.Fatal(err)
			}
			want := 4 * int64(b.values-before)
			rank := func(path string) int {
				for _, l := range m.layers {
					for _, lin := range l.linears {
						if lin.Path == path {
							return lin.rank()
						}
					}
				}
				return 0
			}
			got := c.WorkspaceBytes(Workload{Tokens: batch.Tokens(), Counted: batch.Counted(), Training: training, Rank: rank, Recompute: recompute})
			if got != want {
				t.Errorf("%s, recompute %d: WorkspaceBytes() = %d, allocated %d", name, recompute, got, want)
			}
			again := b.values
			if _, err := m.Evaluate(batch); err != nil || b.values != again {
				t.Errorf("%s: another pass allocated %d values (%v)", name, b.values-again, err)
			}
		}
	}
}

// TestRecompute: what is computed again is the same to the bit.
func TestRecompute(t *testing.T) {
	for name, c := range testConfigs() {
		c.Layers = 4
		if c.Windows != nil {
			c.Windows = []int{c.Windows[0], c.Windows[1], c.Windows[0], c.Windows[1]}
		}
		var want []float32
		for again := range 6 {
			m, err := lively(c, Options{Recompute: again})
			if err != nil {
				t.Fatal(err)
			}
			m.EnableFullGradients()
			attach(t, m, inSlots(qSlot, upSlot, gateSlot, downSlot))
			var got []float32
			for range 2 {
				if _, err := m.Accumulate(batchOf(t, sequences(c.Vocab, 7, 11)), 1); err != nil {
					t.Fatal(err)
				}
			}
			got = append(got, m.grads.Host...)
			for _, l := range m.layers {
				for _, lin := range l.linears {
					if lin.lora != nil {
						got = append(append(got, lin.lora.DA.Host()...), lin.lora.DB.Host()...)
					}
				}
			}
			if again == 0 {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: other derivatives with %d layers computed again", name, again)
			}
		}
	}
}

func TestPlan(t *testing.T) {
	c := Llama(64, 128, 6, 4, 100, 64)
	l := Workload{Tokens: 200, Counted: 100, Training: true}
	all := c.WorkspaceBytes(l)
	last := all + 1
	for again := range 7 {
		l.Recompute = again
		n := c.WorkspaceBytes(l)
		if again >= 2 && n >= last { // of one layer there is nothing to share
			t.Errorf("computing %d layers again takes %d bytes, one less takes %d", again, n, last)
		}
		if got, ok := c.Plan(l, n); !ok || c.WorkspaceBytes(Workload{Tokens: 200, Counted: 100, Training: true, Recompute: got}) != n {
			t.Errorf("Plan(%d) = %d, %v", n, got, ok)
		}
		last = n
	}
	if got, ok := c.Plan(l, all); got != 0 || !ok {
		t.Errorf("a plan with enough memory computes %d layers again (%v)", got, ok)
	}
	if _, ok := c.Plan(l, last-1); ok {
		t.Error("a plan without enough memory fits")
	}
}
