package model

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// sampleAdapter makes an adapter of a layer, which cannot be trained.
func sampleAdapter(m *Model, mod Module, r *rand.Rand, magnitudes bool) LowRank {
	const rank = 2
	random := func(rows, cols int) tensor.Mat {
		x := m.b.Alloc(rows*cols).Mat(0, rows, cols)
		for i := range x.Host() {
			x.Host()[i] = float32(0.4 * r.NormFloat64())
		}
		return x
	}
	a := LowRank{A: random(rank, mod.In), B: random(mod.Out, rank), Scale: 1.5}
	for magnitudes && len(a.Magnitude) < mod.Out {
		a.Magnitude = append(a.Magnitude, float32(1+0.3*r.NormFloat64()))
	}
	return a
}

// compare compares logits and generated tokens with the naive model's.
func compare(t *testing.T, m *Model, n *naive) {
	t.Helper()
	list := sequences(m.cfg.Vocab, 9, 1, 5)
	got, err := m.Logits(batchOf(t, list))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		for _, want := range n.logits(s.ids) {
			for i, w := range want {
				if math.Abs(float64(got[i])-w) > 1e-4*(1+math.Abs(w)) {
					t.Fatalf("logit %d of %v is %v, want %v", i, s.ids, got[i], w)
				}
			}
			got = got[len(want):]
		}
	}
	ids := list[0].ids[:3]
	out, err := m.Generate(t.Context(), ids, GenerateOptions{MaxTokens: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range out {
		logits := n.logits(ids)
		last := logits[len(logits)-1]
		ids = append(slices.Clone(ids), int32(slices.Index(last, slices.Max(last))))
	}
	if !slices.Equal(out, ids[3:]) {
		t.Errorf("generated %v, want %v", out, ids[3:])
	}
}

// TestMagnitudes: adapters with and without magnitudes on every layer, the
// output layer included, also when it is the embedding.
func TestMagnitudes(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		r := rand.New(rand.NewPCG(5, 5))
		adapters, n := map[string]LowRank{}, newNaive(m)
		for i, mod := range append(m.cfg.Modules(), m.cfg.Head()) {
			a := sampleAdapter(m, mod, r, i%3 != 1)
			adapters[mod.Path] = a
			n.adapt(mod.Path, &a)
		}
		plain, err := m.Logits(batchOf(t, sequences(m.cfg.Vocab, 4)))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Attach(adapters); err != nil {
			t.Fatal(err)
		}
		compare(t, m, n)
		if err := m.Attach(nil); err != nil {
			t.Fatal(err)
		}
		again, err := m.Logits(batchOf(t, sequences(m.cfg.Vocab, 4)))
		if err != nil || !slices.Equal(plain, again) {
			t.Errorf("taken off again, the adapters left something behind (%v)", err)
		}
	})
}

// TestReplace: every parameter can be replaced, and a tied output layer can
// get weights of its own.
func TestReplace(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		r := rand.New(rand.NewPCG(6, 6))
		c := m.cfg
		c.TiedHead = false
		params := c.params()
		random := func(p paramSpec) Replacement {
			v := Replacement{Name: p.name, Shape: p.shape(), Values: make([]float32, p.size())}
			for i := range v.Values {
				v.Values[i] = float32(0.4 * r.NormFloat64())
			}
			return v
		}
		plain, err := m.Logits(batchOf(t, sequences(m.cfg.Vocab, 4)))
		if err != nil {
			t.Fatal(err)
		}
		for part := range 3 { // all, then two halves: the embedding without the output layer, and the other way round
			n := newNaive(m)
			var list []Replacement
			for i, p := range params {
				if part > 0 && (p.name == m.cfg.Head().Path+".weight") == (part == 1) || part > 0 && i%3 == part {
					continue
				}
				v := random(p)
				list = append(list, v)
				values := v.Values
				if p.transposed {
					values = transpose(values, p.cols, p.rows)
				}
				n.param[p.name] = widen(values)
			}
			if err := m.Replace(list); err != nil {
				t.Fatal(err)
			}
			compare(t, m, n)
		}
		if err := m.Replace(nil); err != nil {
			t.Fatal(err)
		}
		again, err := m.Logits(batchOf(t, sequences(m.cfg.Vocab, 4)))
		if err != nil || !slices.Equal(plain, again) {
			t.Errorf("Replace(nil) left something behind (%v)", err)
		}
	})
}

// TestTransposedPath: a path tells what the configuration tells.
func TestTransposedPath(t *testing.T) {
	transposed := 0
	for name, c := range testConfigs() {
		for _, m := range append(c.Modules(), c.Head()) {
			if got := TransposedPath(m.Path); got != m.Transposed {
				t.Errorf("%s: TransposedPath(%s) = %v", name, m.Path, got)
			}
			if m.Transposed {
				transposed++
			}
		}
	}
	if transposed != 8 { // of GPT-2's two layers
		t.Errorf("%d layers are transposed", transposed)
	}
	for _, path := range []string{"", "transformer.h.", "transformer.h.0.", "transformer.h.0.ln_1", "c_attn"} {
		if TransposedPath(path) {
			t.Errorf("TransposedPath(%q) is true", path)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	m, err := lively(testConfigs()["mha"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(7, 7))
	q, head := m.cfg.Modules()[0], m.cfg.Head()
	b := batchOf(t, sequences(m.cfg.Vocab, 6))
	for _, a := range []map[string]LowRank{
		{q.Path: sampleAdapter(m, q, r, true)},
		{head.Path: sampleAdapter(m, head, r, false)},
	} {
		if err := m.Attach(a); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Accumulate(b, 1); !errors.Is(err, ErrUnsupported) {
			t.Errorf("Accumulate() = %v", err)
		}
		if _, err := m.Evaluate(b); err != nil {
			t.Errorf("Evaluate() = %v", err)
		}
	}
	if err := m.Attach(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Accumulate(b, 1); err != nil {
		t.Errorf("Accumulate() without adapters = %v", err)
	}
	short, zero := sampleAdapter(m, q, r, true), sampleAdapter(m, q, r, true)
	short.Magnitude = short.Magnitude[1:]
	clear(zero.B.Host())
	clear(m.layers[0].linears[qSlot].w.HostRow(1))
	for name, a := range map[string]LowRank{"too few magnitudes": short, "a row of zeros": zero} {
		if err := m.Attach(map[string]LowRank{q.Path: a}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, v := range map[string]Replacement{
		"unknown":   {"model.layers.0.self_attn.q_proj.bias", []int64{8}, make([]float32, 8)},
		"shape":     {"model.norm.weight", []int64{1, 8}, make([]float32, 8)},
		"too short": {"model.norm.weight", []int64{8}, make([]float32, 7)},
	} {
		if err := m.Replace([]Replacement{v}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	m.EnableFullGradients()
	if err := m.Replace(nil); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Replace while all is trained = %v", err)
	}
}
