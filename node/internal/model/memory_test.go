package model

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

// counting is a backend that adds up what is allocated, and takes 2 bytes for a
// value of activations.
type counting struct {
	tensor.Backend
	values int // that were ever allocated
	bytes  int
	held   map[*tensor.Buffer]int // bytes of what was not freed
}

func (c *counting) keep(b *tensor.Buffer, size int) *tensor.Buffer {
	if c.held == nil {
		c.held = map[*tensor.Buffer]int{}
	}
	c.values += b.Len
	c.bytes += size * b.Len
	c.held[b] = size * b.Len
	return b
}

func (c *counting) Alloc(n int) *tensor.Buffer { return c.keep(c.Backend.Alloc(n), 4) }

func (c *counting) AllocActivations(n int) *tensor.Buffer { return c.keep(c.Backend.Alloc(n), 2) }

func (c *counting) Free(b *tensor.Buffer) {
	if b == nil {
		return
	}
	if _, ok := c.held[b]; !ok {
		panic("bug: freed twice, or never allocated")
	}
	c.bytes -= c.held[b]
	delete(c.held, b)
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
			before := b.bytes
			if training {
				_, err = m.Accumulate(batch, 1)
			} else {
				_, err = m.Evaluate(batch)
			}
			if err != nil {
				t.Fatal(err)
			}
			want := int64(b.bytes - before)
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
			got := c.WorkspaceBytes(Workload{Tokens: batch.Tokens(), Counted: batch.Counted(), Training: training, Rank: rank, Recompute: recompute, Sizes: tensor.Sizes{ActivationBytes: 2}})
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

// offloading is a backend that counts what is left in the host's memory.
type offloading struct {
	tensor.Backend
	taken int
}

func (b *offloading) AllocOffload(n int) *tensor.Buffer {
	b.taken++
	return b.Alloc(n)
}

// TestRecompute: what is computed again is the same to the bit.
func TestRecompute(t *testing.T) {
	for name, c := range testConfigs() {
		c.Layers = 4
		if c.Windows != nil {
			c.Windows = []int{c.Windows[0], c.Windows[1], c.Windows[0], c.Windows[1]}
		}
		var want []float32
		for i := range 12 {
			again, b := i/2, &offloading{Backend: cpu.New(cpu.Options{})}
			m, err := lively(c, Options{Backend: b, Recompute: again})
			if err != nil {
				t.Fatal(err)
			}
			m.SetOffload(i%2 == 1)
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
			if i == 0 {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: other derivatives with %d layers computed again, offloaded %v", name, again, m.offload)
			}
			if left := max(0, min(again, c.Layers)-1); m.offload && b.taken != left {
				t.Errorf("%s: %d inputs of layers were left with the host, want %d", name, b.taken, left)
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

// TestFree: what is replaced by something larger, or used for a while only, is
// given back.
func TestFree(t *testing.T) {
	for name, c := range testConfigs() {
		b := &counting{Backend: cpu.New(cpu.Options{})}
		m, err := lively(c, Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		attach(t, m, inSlots(qSlot, downSlot))
		long, short := batchOf(t, sequences(c.Vocab, 19, 9)), batchOf(t, sequences(c.Vocab, 5))
		pass := func(b *Batch) {
			t.Helper()
			if _, err := m.Accumulate(b, 1); err != nil {
				t.Fatal(err)
			}
		}
		pass(short)
		pass(long)
		want := b.bytes
		if _, err := m.Generate(t.Context(), []int32{1, 2}, GenerateOptions{MaxTokens: 3}); err != nil {
			t.Fatal(err)
		}
		m.SetRecompute(1)
		pass(short)
		m.SetRecompute(0)
		if err := m.Reserve(Workload{Tokens: long.Tokens(), Counted: long.Counted(), Training: true}); err != nil {
			t.Fatal(err)
		}
		again := b.values
		pass(long)
		if b.bytes != want || b.values != again {
			t.Errorf("%s: %d bytes are allocated, %d before; a pass after Reserve allocated %d values", name, b.bytes, want, b.values-again)
		}
	}
}
