package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/tensor"
)

type sequence struct{ ids, labels []int32 }

func sequences(vocab int, lengths ...int) []sequence {
	r := rand.New(rand.NewPCG(2, 3))
	var list []sequence
	for _, n := range lengths {
		var s sequence
		for range n {
			id := int32(r.IntN(vocab))
			label := id
			if r.IntN(3) == 0 {
				label = NotCounted
			}
			s.ids, s.labels = append(s.ids, id), append(s.labels, label)
		}
		list = append(list, s)
	}
	return list
}

func batchOf(t *testing.T, list []sequence) *Batch {
	t.Helper()
	b := &Batch{}
	for _, s := range list {
		if err := b.Add(s.ids, s.labels); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// attach puts adapters on the layers in some slots.
func attach(t *testing.T, m *Model, on func(layer, slot int) bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(4, 4))
	adapters := map[string]LowRank{}
	for i := range m.cfg.Layers {
		for slot, mod := range m.cfg.modules(i) {
			if mod.Path == "" || !on(i, slot) {
				continue
			}
			const rank = 3
			random := func(rows, cols int) tensor.Mat {
				x := m.b.Alloc(rows*cols).Mat(0, rows, cols)
				for i := range x.Host() {
					x.Host()[i] = float32(0.4 * r.NormFloat64())
				}
				return x
			}
			adapters[mod.Path] = LowRank{
				A: random(rank, mod.In), B: random(mod.Out, rank), Scale: 1.5,
				DA: m.b.Alloc(rank*mod.In).Mat(0, rank, mod.In), DB: m.b.Alloc(rank*mod.Out).Mat(0, mod.Out, rank),
			}
		}
	}
	if err := m.Attach(adapters); err != nil {
		t.Fatal(err)
	}
}

func everywhere(_, _ int) bool { return true }

func inSlots(list ...int) func(layer, slot int) bool {
	return func(_, slot int) bool { return slices.Contains(list, slot) }
}

func eachConfig(t *testing.T, fn func(t *testing.T, m *Model)) {
	families := familyConfigs()
	for name, c := range testConfigs() {
		for _, portable := range []bool{true, false} {
			_, other := families[name]
			variant := slices.Contains([]string{"wide", "qwen3-bias", "falcon11", "falcon-sequential", "neox-sequential"}, name)
			if testing.Short() && (portable || variant) || other && portable {
				continue
			}
			t.Run(fmt.Sprintf("%s/portable=%v", name, portable), func(t *testing.T) {
				m, err := lively(c, Options{Backend: cpu.New(cpu.Options{Threads: 2, Portable: portable})})
				if err != nil {
					t.Fatal(err)
				}
				fn(t, m)
			})
		}
	}
}

func TestForward(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		for _, adapted := range []bool{false, true} {
			if adapted {
				attach(t, m, everywhere)
			}
			list := sequences(m.cfg.Vocab, 9, 1, 5)
			n := newNaive(m)
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
			want := 0.0
			for _, s := range list {
				want += n.loss(s.ids, s.labels)
			}
			b := batchOf(t, list)
			loss, err := m.Evaluate(b)
			if err != nil || math.Abs(loss.Sum-want) > 1e-4*want || loss.Tokens != b.Counted() {
				t.Errorf("Evaluate() = %+v, %v, want a sum of %v", loss, err, want)
			}
		}
	})
}

// differences compares a derivative with central differences of the naive
// model, element by element; of large tensors it takes some.
func differences(t *testing.T, what string, n *naive, list []sequence, scale float64, x []float64, got []float32) {
	t.Helper()
	const h = 1e-5
	loss := func() float64 {
		sum := 0.0
		for _, s := range list {
			sum += n.loss(s.ids, s.labels)
		}
		return scale * sum
	}
	most := 0.0
	want, step := make([]float64, len(x)), 1+len(x)/100
	for i := 0; i < len(x); i += step {
		old := x[i]
		x[i] = old + h
		up := loss()
		x[i] = old - h
		down := loss()
		x[i] = old
		want[i] = (up - down) / (2 * h)
		most = max(most, math.Abs(want[i]))
	}
	if most == 0 {
		t.Errorf("%s: the loss does not depend on it", what)
	}
	for i := 0; i < len(x); i += step {
		if w := want[i]; math.Abs(float64(got[i])-w) > 1e-4*(most+1e-3) {
			t.Fatalf("%s: derivative %d is %v, want %v (the largest is %v)", what, i, got[i], w, most)
		}
	}
}

func TestFullGradients(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		m.EnableFullGradients()
		list := sequences(m.cfg.Vocab, 6, 4)
		const scale = 0.5
		// In two parts: gradients add up.
		for i := range list {
			if _, err := m.Accumulate(batchOf(t, list[i:i+1]), scale); err != nil {
				t.Fatal(err)
			}
		}
		n := newNaive(m)
		for _, p := range m.Params() {
			differences(t, p.Name, n, list, scale, n.param[p.Name], p.Grad.Host())
		}
	})
}

func TestAdapterGradients(t *testing.T) {
	for name, targets := range map[string]func(layer, slot int) bool{
		"everywhere": everywhere,
		"attention":  inSlots(qSlot, vSlot, oSlot),
		"mixed":      func(layer, slot int) bool { return layer == 1 && slot >= gateSlot || layer == 0 && slot <= kSlot },
		"first":      inSlots(qSlot),
		"last":       inSlots(downSlot),
		"upper":      func(layer, slot int) bool { return layer > 0 || slot == upSlot || slot == gateSlot },
	} {
		eachConfig(t, func(t *testing.T, m *Model) {
			if m.cfg.Architecture != "LlamaForCausalLM" && slices.Contains([]string{"attention", "first", "last"}, name) {
				t.Skip("as in a Llama")
			}
			attach(t, m, targets)
			list := sequences(m.cfg.Vocab, 7)
			if _, err := m.Accumulate(batchOf(t, list), 1); err != nil {
				t.Fatal(err)
			}
			n := newNaive(m)
			for i := range m.layers {
				for _, lin := range m.layers[i].linears {
					if lin.lora == nil {
						continue
					}
					differences(t, name+": "+lin.Path+" A", n, list, 1, n.lora[lin.Path].a, lin.lora.DA.Host())
					differences(t, name+": "+lin.Path+" B", n, list, 1, n.lora[lin.Path].b, lin.lora.DB.Host())
				}
			}
		})
	}
}

// TestPackedSamples: what else is in a batch changes no bit of a sample.
func TestPackedSamples(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		attach(t, m, everywhere)
		logits := func(list ...sequence) []float32 {
			got, err := m.Logits(batchOf(t, list))
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		s := sequences(m.cfg.Vocab, 12, 9, 9)
		v := m.cfg.Vocab
		first := logits(s[0], s[1])[12*v:]
		if !slices.Equal(first, logits(s[1], s[0])[:9*v]) {
			t.Error("the order of samples changes logits")
		}
		if !slices.Equal(logits(s[0], s[1])[:12*v], logits(s[0], s[2])[:12*v]) {
			t.Error("another sample in the batch changes logits")
		}
		if !slices.Equal(first, logits(s[1])) {
			t.Error("a sample alone has other logits than in a batch")
		}
	})
}

// TestCausal: a token changes nothing before it.
func TestCausal(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		s := sequences(m.cfg.Vocab, 10)[0]
		before, err := m.Logits(batchOf(t, []sequence{s}))
		if err != nil {
			t.Fatal(err)
		}
		s.ids[6] = (s.ids[6] + 1) % int32(m.cfg.Vocab)
		after, err := m.Logits(batchOf(t, []sequence{s}))
		if err != nil {
			t.Fatal(err)
		}
		if at := 6 * m.cfg.Vocab; !slices.Equal(before[:at], after[:at]) || slices.Equal(before[at:], after[at:]) {
			t.Error("a token changes what comes before it, or nothing")
		}
	})
}

// TestPositions: with rotary embedding only differences of positions matter.
func TestPositions(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		if kind := m.cfg.Rope.Scaling.Kind; m.cfg.Position != Rotary || kind == "dynamic" || kind == "longrope" {
			t.Skip("positions are counted in another way")
		}
		s := sequences(m.cfg.Vocab, 8)[0]
		run := func(from, step int32) []float32 {
			pos := make([]int32, len(s.ids))
			for i := range pos {
				pos[i] = from + int32(i)*step
			}
			b := &Batch{}
			if err := b.AddAt(s.ids, nil, pos); err != nil {
				t.Fatal(err)
			}
			logits, err := m.Logits(b)
			if err != nil {
				t.Fatal(err)
			}
			return logits
		}
		far := func(a, b []float32) float64 {
			worst := 0.0
			for i := range a {
				worst = max(worst, math.Abs(float64(a[i]-b[i])))
			}
			return worst
		}
		base := run(0, 1)
		if d := far(base, run(1000, 1)); d > 1e-3 {
			t.Errorf("shifted positions change logits by %v", d)
		}
		if d := far(base, run(0, 3)); d < 1e-3 {
			t.Errorf("stretched positions change logits by %v only", d)
		}
	})
}

// TestGenerate: a cache gives the tokens that running everything again gives.
func TestGenerate(t *testing.T) {
	eachConfig(t, func(t *testing.T, m *Model) {
		attach(t, m, everywhere)
		prompt := sequences(m.cfg.Vocab, 5)[0].ids
		got, err := m.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 12})
		if err != nil {
			t.Fatal(err)
		}
		n := newNaive(m)
		ids := slices.Clone(prompt)
		for range 12 {
			logits := n.logits(ids)
			last := logits[len(logits)-1]
			best := 0
			for i, v := range last {
				if v > last[best] {
					best = i
				}
			}
			ids = append(ids, int32(best))
		}
		if !slices.Equal(got, ids[len(prompt):]) {
			t.Errorf("Generate() = %v, want %v", got, ids[len(prompt):])
		}
		stop := got[len(got)-1]
		short, err := m.Generate(t.Context(), prompt, GenerateOptions{MaxTokens: 12, Stop: []int32{stop}})
		if err != nil || !slices.Equal(short, got[:slices.Index(got, stop)]) {
			t.Errorf("Generate() with a stop = %v, %v", short, err)
		}
	})
}

func TestGenerateTemperature(t *testing.T) {
	m, err := lively(testConfigs()["mha"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	run := func(o GenerateOptions) []int32 {
		o.MaxTokens = 30
		got, err := m.Generate(t.Context(), []int32{1, 2}, o)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	a := run(GenerateOptions{Temperature: 1, Seed: 1})
	if !slices.Equal(a, run(GenerateOptions{Temperature: 1, Seed: 1})) {
		t.Error("the same seed draws other tokens")
	}
	if slices.Equal(a, run(GenerateOptions{Temperature: 1, Seed: 2})) {
		t.Error("another seed draws the same tokens")
	}
	if !slices.Equal(run(GenerateOptions{}), run(GenerateOptions{Temperature: 1e-6, Seed: 3})) {
		t.Error("a temperature near 0 does not take the most likely token")
	}
	if _, err := m.Generate(t.Context(), nil, GenerateOptions{MaxTokens: 1}); err == nil {
		t.Error("an empty prompt was continued")
	}
	if _, err := m.Generate(t.Context(), []int32{99}, GenerateOptions{MaxTokens: 1}); err == nil {
		t.Error("a token outside the vocabulary was accepted")
	}
}

func TestBatchRefuses(t *testing.T) {
	m, err := lively(testConfigs()["mha"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Batch{}).Add([]int32{1, 2}, []int32{1}); err == nil {
		t.Error("fewer labels than tokens were accepted")
	}
	for name, s := range map[string]struct{ ids, labels, pos []int32 }{
		"token":          {[]int32{1, 13}, []int32{1, 1}, nil},
		"negative token": {[]int32{1, -1}, []int32{1, 1}, nil},
		"label":          {[]int32{1, 2}, []int32{1, 13}, nil},
		"negative label": {[]int32{1, 2}, []int32{1, -1}, nil},
		"position":       {[]int32{1, 2}, []int32{1, 2}, []int32{0, -1}},
		"far position":   {[]int32{1, 2}, []int32{1, 2}, []int32{0, maxPosition}},
	} {
		b := &Batch{}
		if err := b.AddAt(s.ids, s.labels, s.pos); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Evaluate(b); err == nil {
			t.Errorf("%s: Evaluate gave no error", name)
		}
		if _, err := m.Accumulate(b, 1); err == nil {
			t.Errorf("%s: Accumulate gave no error", name)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	m, err := lively(testConfigs()["mha"], Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := m.Backend()
	if err := m.Attach(map[string]LowRank{"model.layers.0.mlp.up_proj": {A: b.Alloc(7).Mat(0, 1, 7), B: b.Alloc(12).Mat(0, 12, 1)}}); err == nil {
		t.Error("an adapter of the wrong shape was attached")
	}
	if err := m.Attach(map[string]LowRank{"model.layers.9.mlp.up_proj": {A: b.Alloc(8).Mat(0, 1, 8), B: b.Alloc(12).Mat(0, 12, 1)}}); err == nil {
		t.Error("an adapter of no layer was attached")
	}
}
