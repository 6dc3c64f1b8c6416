package train

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/nf4"
)

// everyOptimizer are settings that differ in the state that they keep.
var everyOptimizer = map[string]Options{
	"adamw":        {Adam: Adam{WeightDecay: 0.1, ClipNorm: 0.5}},
	"adamw, ratio": {LoRAPlusRatio: 16},
	"adamw8bit":    {Optimizer: AdamW8bit, Adam: Adam{WeightDecay: 0.1}, LoRAPlusRatio: 4},
	"sgd":          {Optimizer: SGD},
	"sgd, all":     {Optimizer: SGD, Momentum: 0.9, Adam: Adam{WeightDecay: 0.1, ClipNorm: 0.5}, LoRAPlusRatio: 4},
}

// roomy returns a trainer some of whose tensors are large enough for moments
// in eight bits: not a multiple of a block, and below and above the limit.
func roomy(t *testing.T, o Options) *Trainer {
	t.Helper()
	c := model.Llama(56, 72, 2, 4, 50, 64)
	c.InitRange = 0.2
	m, err := model.New(c, 1, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Spec = lora.Spec{Rank: 59, Alpha: 30, Targets: allLinear}
	tr, err := New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	large := 0
	for _, info := range tr.Layout() {
		if info.Rows*info.Cols >= adam8Least {
			large++
		}
	}
	if large == 0 || large == len(tr.Layout()) {
		t.Fatalf("%d of %d tensors are large", large, len(tr.Layout()))
	}
	values, r := make([]float32, tr.Params()), rand.New(rand.NewPCG(1, 2))
	for i := range values {
		values[i] = float32(0.05 * r.NormFloat64())
	}
	if err := tr.SetAdapter(values); err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestResumeEveryOptimizer: a killed process goes on bit by bit.
func TestResumeEveryOptimizer(t *testing.T) {
	batches := [][]Sample{ragged(9, 5), ragged(14), ragged(3, 3, 8)}
	for name, o := range everyOptimizer {
		t.Run(name, func(t *testing.T) {
			straight := roomy(t, o)
			start := values(straight)
			for i := range 6 {
				step(t, straight, batches[i%3])
			}
			if slices.Equal(start, values(straight)) {
				t.Fatal("nothing was trained")
			}
			o.CheckpointDir = t.TempDir()
			first := roomy(t, o)
			for i := range 3 {
				step(t, first, batches[i%3])
			}
			if err := first.Save([]byte("three")); err != nil {
				t.Fatal(err)
			}
			second := roomy(t, o)
			step(t, second, batches[2]) // leaves something to overwrite
			if position, ok, err := second.Load(); err != nil || !ok || string(position) != "three" || second.Steps() != 3 {
				t.Fatalf("Load() = %q, %v, %v", position, ok, err)
			}
			for i := range 3 {
				step(t, second, batches[i])
			}
			if !slices.Equal(values(second), values(straight)) {
				t.Error("resumed, the adapter is another one")
			}
			// A reset leaves nothing behind either.
			second.ResetOptimizer()
			if err := second.SetAdapter(start); err != nil {
				t.Fatal(err)
			}
			for i := range 6 {
				step(t, second, batches[i%3])
			}
			if !slices.Equal(values(second), values(straight)) {
				t.Error("ResetOptimizer left something behind")
			}
			for other, p := range everyOptimizer {
				p.CheckpointDir = o.CheckpointDir
				_, _, err := roomy(t, p).Load()
				if fits := p.Optimizer == o.Optimizer && p.Momentum == o.Momentum; fits != (err == nil) || !fits && !errors.Is(err, ErrCheckpoint) {
					t.Errorf("loaded by %s: %v", other, err)
				}
			}
		})
	}
}

// TestCheckpointVersion1 loads a file of the first version, written here by its
// description.
func TestCheckpointVersion1(t *testing.T) {
	dir := t.TempDir()
	tr := tiny(t, Options{CheckpointDir: dir})
	step(t, tr, ragged(9))
	b := []byte("mootckp1")
	b = binary.LittleEndian.AppendUint64(b, 7)
	mark := sha256.Sum256([]byte(func() (s string) {
		for _, info := range tr.Layout() {
			s += fmt.Sprintf("%s %d %d\n", info.Name, info.Rows, info.Cols)
		}
		return s
	}()))
	b = append(b, mark[:]...)
	b = binary.LittleEndian.AppendUint64(b, 1)
	b = binary.LittleEndian.AppendUint64(b, 3)
	b = append(b, "abc"...)
	adam := tr.optimizer.(*adamW)
	for _, list := range [][]float32{values(tr), adam.m.Host(), adam.v.Host()} {
		for _, v := range list {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
		}
	}
	sum := sha256.Sum256(b)
	if err := os.WriteFile(filepath.Join(dir, slotNames[1]), append(b, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	old := tiny(t, Options{CheckpointDir: dir})
	if position, ok, err := old.Load(); err != nil || !ok || string(position) != "abc" || old.Steps() != 1 {
		t.Fatalf("Load() = %q, %v, %v", position, ok, err)
	}
	for range 2 {
		step(t, tr, ragged(14))
		step(t, old, ragged(14))
	}
	if !slices.Equal(values(tr), values(old)) {
		t.Error("resumed, the adapter is another one")
	}
	// The next save takes the other slot, and wins.
	if err := old.Save([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if position, _, err := tr.Load(); err != nil || string(position) != "new" {
		t.Errorf("Load() = %q, %v", position, err)
	}
	if _, _, err := tiny(t, Options{CheckpointDir: dir, Optimizer: SGD, Momentum: 0.5}).Load(); !errors.Is(err, ErrCheckpoint) || !strings.Contains(err.Error(), "adamw, not sgd") {
		t.Errorf("loaded by SGD: %v", err)
	}
}

// TestSGD compares with PyTorch's rule in float64.
func TestSGD(t *testing.T) {
	o := Options{Optimizer: SGD, Momentum: 0.9, Adam: Adam{WeightDecay: 0.2, ClipNorm: 0.3}, LoRAPlusRatio: 3}
	tr := tiny(t, o)
	want, mean := make([]float64, tr.Params()), make([]float64, tr.Params())
	for i, v := range values(tr) {
		want[i] = float64(v)
	}
	grads := make([]float32, tr.Params())
	for n := range 4 {
		step(t, tr, ragged(9+n))
		tr.Gradient(grads)
		scale := min(1, 0.3/(tr.GradNorm()+1e-6))
		at := 0
		for _, info := range tr.Layout() {
			rate := 1e-2
			if strings.HasSuffix(info.Name, ".lora_B.weight") {
				rate *= 3
			}
			for range info.Rows * info.Cols {
				mean[at] = 0.9*mean[at] + scale*float64(grads[at]) + 0.2*want[at]
				want[at] -= rate * mean[at]
				at++
			}
		}
	}
	for i, v := range values(tr) {
		if math.Abs(float64(v)-want[i]) > 1e-6 {
			t.Fatalf("value %d is %v, want %v", i, v, want[i])
		}
	}
}

// TestLoRAPlus: A goes as without a ratio, B as with a rate that is larger.
func TestLoRAPlus(t *testing.T) {
	for _, kind := range []Optimizer{AdamW, AdamW8bit} {
		rate := 1e-3
		after := func(ratio, rate float64) map[string][]float32 {
			tr := roomy(t, Options{Optimizer: kind, LoRAPlusRatio: ratio, Adam: Adam{WeightDecay: 0.1}})
			if _, _, err := tr.Step(t.Context(), ragged(9), rate); err != nil {
				t.Fatal(err)
			}
			return byName(tr.Layout(), values(tr))
		}
		plus, same, faster := after(8, rate), after(0, rate), after(1, 8*rate)
		for name, got := range plus {
			want := same[name]
			if strings.HasSuffix(name, ".lora_B.weight") {
				want = faster[name]
			}
			for i := range want { // vectors end elsewhere
				if math.Abs(float64(got[i]-want[i])) > 1e-7 {
					t.Fatalf("%v: %s[%d] is %v, want %v", kind, name, i, got[i], want[i])
				}
			}
		}
	}
}

func TestDynamicMap(t *testing.T) {
	if got := dynamicMap(true); got != nf4.DynamicMap {
		for i, v := range got {
			if v != nf4.DynamicMap[i] {
				t.Errorf("value %d is %v, want %v", i, v, nf4.DynamicMap[i])
			}
		}
	}
	if unsignedMap[unsignedZero] != 0 || nf4.DynamicMap[signedZero] != 0 || unsignedMap[255] != 1 || !slices.IsSorted(unsignedMap[:]) {
		t.Errorf("the map is %v", unsignedMap)
	}
	r := rand.New(rand.NewPCG(3, 3))
	for range 20000 {
		x, scale := float32(r.NormFloat64()*math.Pow(10, -6*r.Float64())), float32(5)
		x = max(-5, min(5, x))
		best := func(code []float32, x float32) int {
			at := 0
			for i, v := range code {
				if math.Abs(float64(v-x/scale)) < math.Abs(float64(code[at]-x/scale)) {
					at = i
				}
			}
			return at
		}
		if got, want := nearest(&unsignedMap, max(x, -x), scale, 0), best(unsignedMap[:], max(x, -x)); int(got) != want {
			t.Fatalf("nearest to %v/%v is %d, want %d", max(x, -x), scale, got, want)
		}
		want := best(nf4.DynamicMap[:], x)
		if want == signedZero && x < 0 {
			want--
		}
		if got := signedCode(x, scale); int(got) != want {
			t.Fatalf("code of %v/%v is %d, want %d", x, scale, got, want)
		}
	}
}

// TestAdam8 compares with the definition in float64, moments rounded to codes
// between steps, on a tensor of two blocks and a part of one.
func TestAdam8(t *testing.T) {
	const n, steps = 4096 + 300, 5
	b, r := cpu.New(cpu.Options{}), rand.New(rand.NewPCG(4, 4))
	p, g := b.Alloc(n).Vec(), b.Alloc(n).Vec()
	adam := Adam{WeightDecay: 0.1}.withDefaults()
	o := newAdam8(b, adam, []group{{0, n, 1}})
	if o.small != nil || len(o.m.scale) != 18 {
		t.Fatalf("%d blocks", len(o.m.scale))
	}
	want, m, v := make([]float64, n), make([]float64, n), make([]float64, n)
	for i := range want {
		p.Host()[i] = float32(r.NormFloat64())
		want[i] = float64(p.Host()[i])
	}
	for s := 1; s <= steps; s++ {
		for i := range g.Host() {
			g.Host()[i] = float32(r.NormFloat64() * math.Pow(10, -3*r.Float64()))
			if i/adam8Block == 3 && s < 3 {
				g.Host()[i] = 0 // a block of zeros
			}
		}
		o.step(p, g, update{rate: 1e-2, number: s, gradScale: 0.5})
		for i := range n {
			d := 0.5 * float64(g.Host()[i])
			m[i] = 0.9*m[i] + 0.1*d
			v[i] = 0.999*v[i] + 0.001*d*d
			want[i] = want[i]*(1-1e-3) - 1e-2*(m[i]/(1-math.Pow(0.9, float64(s))))/(math.Sqrt(v[i]/(1-math.Pow(0.999, float64(s))))+1e-8)
			if math.Abs(float64(p.Host()[i])-want[i]) > 1e-5 {
				t.Fatalf("step %d: value %d is %v, want %v", s, i, p.Host()[i], want[i])
			}
		}
		for from := 0; from < n; from += adam8Block {
			mMost, vMost := 0.0, 0.0
			to := min(from+adam8Block, n)
			for i := from; i < to; i++ {
				mMost, vMost = max(mMost, math.Abs(m[i])), max(vMost, v[i])
			}
			for i := from; i < to; i++ {
				// The new moments are within half a gap between codes; go on with them.
				gotM := float64(nf4.DynamicMap[o.m.code[i]]) * float64(o.m.scale[i/adam8Block])
				gotV := float64(unsignedMap[o.v.code[i]]) * float64(o.v.scale[i/adam8Block])
				if math.Abs(gotM-m[i]) > 0.05*math.Abs(m[i])+0.0071*mMost || math.Abs(gotV-v[i]) > 0.05*v[i]+0.0036*vMost || gotM*m[i] < 0 {
					t.Fatalf("step %d: moments %d are %v and %v, want %v and %v", s, i, gotM, gotV, m[i], v[i])
				}
				m[i], v[i] = gotM, gotV
			}
		}
	}
}

// TestOptimizersLearn: each of them reaches a low loss, and eight bits are
// nearly as good as 32.
func TestOptimizersLearn(t *testing.T) {
	batch := ragged(20, 16)
	reach := func(o Options, rate float64) float64 {
		tr := roomy(t, o)
		for range 40 {
			if _, _, err := tr.Step(t.Context(), batch, rate); err != nil {
				t.Fatal(err)
			}
		}
		loss, _, err := tr.Eval(t.Context(), batch)
		if err != nil {
			t.Fatal(err)
		}
		return loss
	}
	full, eight := reach(Options{}, 3e-3), reach(Options{Optimizer: AdamW8bit}, 3e-3)
	sgd := reach(Options{Optimizer: SGD, Momentum: 0.9}, 0.1)
	start := reach(Options{}, 0)
	t.Logf("loss from %v: AdamW %v, in eight bits %v, SGD %v", start, full, eight, sgd)
	if full > start/10 || eight > start/10 || sgd > start/2 {
		t.Error("too high")
	}
}

func TestOptimizerSettings(t *testing.T) {
	for _, o := range []Options{{Optimizer: 3}, {Optimizer: -1}, {Momentum: 1}, {Momentum: math.NaN()}, {LoRAPlusRatio: -1}, {LoRAPlusRatio: math.Inf(1)}} {
		m, err := model.New(tinyConfig(), 1, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		o.Spec = tinySpec
		if _, err := New(m, o); err == nil {
			t.Errorf("%v with momentum %v and ratio %v was taken", o.Optimizer, o.Momentum, o.LoRAPlusRatio)
		}
	}
	for _, k := range []Optimizer{AdamW, AdamW8bit, SGD} {
		if got, err := ParseOptimizer(k.String()); err != nil || got != k {
			t.Errorf("ParseOptimizer(%q) = %v, %v", k.String(), got, err)
		}
	}
	if _, err := ParseOptimizer("lion"); err == nil {
		t.Error("lion was taken")
	}
	// What is estimated is what is kept, but for scratch.
	for name, o := range everyOptimizer {
		tr := roomy(t, o)
		scratch := 0
		if s, ok := tr.optimizer.(*sgd); ok {
			scratch = 4 * (s.scratch.Cols + s.decayed.Cols)
		}
		if got, want := o.optimizer().trainingBytes(tr.Layout()), int64(tr.optimizer.bytes()+scratch); got != want {
			t.Errorf("%s: %d bytes are estimated, %d taken", name, got, want)
		}
	}
	large := []lora.TensorInfo{{Rows: 16, Cols: 4096}}
	if got := everyOptimizer["adamw8bit"].optimizer().trainingBytes(large); got != 2*16*4096+2*4*256 {
		t.Errorf("a large tensor takes %d bytes", got)
	}
}

func TestTrainable(t *testing.T) {
	dir := t.TempDir()
	for _, s := range []lora.Spec{{DoRA: true}, {Bias: "all"}, {SaveModules: []string{"lm_head"}}} {
		s.Rank, s.Alpha, s.Targets = 2, 2, allLinear
		m, err := model.New(tinyConfig(), 1, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, errNew := New(m, Options{Spec: s})
		_, errLayout := Layout(dir, s)
		_, errMemory := EstimateMemory(Options{ModelDir: dir, Spec: s})
		if errMemory == nil || !errors.Is(errNew, lora.ErrUnsupported) || !errors.Is(errLayout, lora.ErrUnsupported) {
			t.Errorf("%+v: %v, %v, %v", s, errNew, errLayout, errMemory)
		}
	}
}

func TestSchedule(t *testing.T) {
	for _, tt := range []struct {
		s    Schedule
		want string // at steps 0, 1, ...
	}{
		{Schedule{Kind: Constant, Peak: 4}, "4 4 4"},
		{Schedule{Kind: Constant, Peak: 4, Warmup: 2}, "0 2 4 4 4"},
		{Schedule{Kind: Linear, Peak: 4, Steps: 4}, "4 3 2 1 0 0"},
		{Schedule{Kind: Linear, Peak: 4, Floor: 2, Warmup: 2, Steps: 4}, "0 2 4 3 2 2"},
		{Schedule{Kind: Cosine, Peak: 4, Steps: 4}, "4 3.414 2 0.586 0 0"},
		{Schedule{Kind: Cosine, Peak: 4, Floor: 2, Warmup: 1, Steps: 3}, "0 4 3 2 2"},
		{Schedule{Kind: WSD, Peak: 4, Warmup: 2, Steps: 8, Decay: 4}, "0 2 4 4 4 3.414 2 0.586 0 0"},
		{Schedule{Kind: WSD, Peak: 4, Floor: 1, Steps: 3, Decay: 0}, "4 4 4 1 1"},
		{Schedule{Kind: Cosine, Peak: 4, Warmup: 2, Steps: 2}, "0 2 4 0"},
	} {
		if err := tt.s.Validate(); err != nil {
			t.Error(err)
		}
		var got []string
		for i := range strings.Fields(tt.want) {
			got = append(got, fmt.Sprint(math.Round(1000*tt.s.At(i))/1000))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%+v is %s, want %s", tt.s, got, tt.want)
		}
	}
	for _, s := range []Schedule{
		{Kind: 4, Peak: 1},
		{Kind: -1},
		{Peak: -1},
		{Peak: 1, Floor: 2},
		{Peak: math.NaN()},
		{Peak: math.Inf(1)},
		{Kind: Linear, Warmup: 3, Steps: 2},
		{Kind: WSD, Warmup: 1, Decay: 2, Steps: 2},
		{Warmup: -1},
		{Decay: -1},
	} {
		if err := s.Validate(); err == nil {
			t.Errorf("%+v was taken", s)
		}
	}
	for k := Constant; k <= WSD; k++ {
		if got, err := ParseSchedule(k.String()); err != nil || got != k {
			t.Errorf("ParseSchedule(%q) = %v, %v", k.String(), got, err)
		}
	}
	if _, err := ParseSchedule("step"); err == nil {
		t.Error("a schedule called step was taken")
	}
}

// TestOptimizerAllocations: no optimizer allocates in a step.
func TestOptimizerAllocations(t *testing.T) {
	for name, o := range everyOptimizer {
		tr := roomy(t, o)
		batch := ragged(9)
		run := func() {
			if _, _, err := tr.Step(t.Context(), batch, 1e-3); err != nil {
				t.Fatal(err)
			}
		}
		run()
		if n := testing.AllocsPerRun(5, run); n != 0 {
			t.Errorf("%s: a step makes %v allocations", name, n)
		}
	}
}

// TestCheckpointBytes: what is saved is what is loaded.
func TestCheckpointBytes(t *testing.T) {
	for name, o := range everyOptimizer {
		a, b := roomy(t, o), roomy(t, o)
		step(t, a, ragged(9))
		state := a.optimizer.save(nil)
		if len(state) != a.optimizer.bytes() {
			t.Errorf("%s: %d bytes, want %d", name, len(state), a.optimizer.bytes())
		}
		b.optimizer.load(state)
		if !bytes.Equal(b.optimizer.save(nil), state) {
			t.Errorf("%s: another state", name)
		}
	}
}

// TestAdam8Tensors: tensors do not share moments, whatever lies between them.
func TestAdam8Tensors(t *testing.T) {
	sizes := []int{4096 + 10, 50, 5000, 60, 4096}
	b := cpu.New(cpu.Options{})
	var groups []group
	n := 0
	for _, size := range sizes {
		groups = append(groups, group{n, n + size, 1})
		n += size
	}
	p, g, alone := b.Alloc(n).Vec(), b.Alloc(n).Vec(), b.Alloc(n).Vec()
	adam := Adam{}.withDefaults()
	together := newAdam8(b, adam, groups)
	var each []*adam8
	for _, size := range sizes {
		each = append(each, newAdam8(b, adam, []group{{0, size, 1}}))
	}
	r := rand.New(rand.NewPCG(9, 9))
	for s := 1; s <= 3; s++ {
		for i := range g.Host() {
			g.Host()[i] = float32(r.NormFloat64() * math.Pow10(i%3))
		}
		u := update{rate: 1e-2, number: s, gradScale: 1}
		together.step(p, g, u)
		for i, o := range each {
			o.step(groups[i].of(alone), groups[i].of(g), u)
		}
	}
	if !slices.Equal(p.Host(), alone.Host()) {
		t.Error("tensors updated together come out otherwise than alone")
	}
}
