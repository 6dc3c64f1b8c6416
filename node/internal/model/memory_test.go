package model

import (
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
		for _, training := range []bool{false, true} {
			b := &counting{Backend: cpu.New(cpu.Options{})}
			m, err := lively(c, Options{Backend: b})
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
			got := c.WorkspaceBytes(Workload{Tokens: batch.Tokens(), Counted: batch.Counted(), Training: training, Rank: rank})
			if got != want {
				t.Errorf("%s, training %v: WorkspaceBytes() = %d, allocated %d", name, training, got, want)
			}
			again := b.values
			if _, err := m.Evaluate(batch); err != nil || b.values != again {
				t.Errorf("%s: another pass allocated %d values (%v)", name, b.values-again, err)
			}
		}
	}
}
