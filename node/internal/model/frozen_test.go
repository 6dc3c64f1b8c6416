package model

import (
	"math"
	"testing"

	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

func TestNewFrozen(t *testing.T) {
	c := Llama(128, 256, 2, 4, 1000, 64)
	for _, kind := range []tensor.Kind{tensor.Half, tensor.FourBits} {
		m, err := NewFrozen(c, kind, Options{})
		if err != nil {
			t.Fatal(err)
		}
		four := 0
		for _, p := range m.Params() {
			if _, ok := p.Value.Buf.Packed.(*nf4.Weight); ok {
				four++
			}
		}
		if want := 7 * c.Layers; kind == tensor.FourBits && four != want || kind == tensor.Half && four != 0 {
			t.Errorf("%d matrices of four bits", four)
		}
		loss, err := m.Evaluate(batchOf(t, sequences(c.Vocab, 40)))
		if mean := loss.Sum / float64(loss.Tokens); err != nil || math.Abs(mean-math.Log(1000)) > 1 {
			t.Errorf("loss is %v, want about %v (%v)", mean, math.Log(1000), err)
		}
	}
	if _, err := NewFrozen(c, tensor.Plain, Options{}); err == nil {
		t.Error("a model of float32 was made")
	}
}
