package model

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrequencies(t *testing.T) {
	// With theta 10^4 and heads of 8 the frequencies are powers of ten.
	plain := []float64{1, 0.1, 0.01, 0.001}
	for _, tt := range []struct {
		name  string
		scale RopeScaling
		want  []float64
	}{
		{"none", RopeScaling{}, plain},
		{"linear", RopeScaling{Kind: "linear", Factor: 4}, []float64{0.25, 0.025, 0.0025, 0.00025}},
		// Wavelengths are 6.28, 62.8, 628 and 6283; below 1024/4 they are
		// kept, above 1024/1 divided, and 628 is mixed: 1024/628.3 = 1.6297,
		// of the way from 1 to 4 that is 0.20991.
		{"llama3", RopeScaling{Kind: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalContext: 1024}, []float64{1, 0.1, 0.01 * (0.79009/8 + 0.20991), 0.000125}},
	} {
		for i, f := range (Rope{Theta: 1e4, Scaling: tt.scale}).Frequencies(8) {
			if math.Abs(f-tt.want[i]) > 1e-4*tt.want[i] {
				t.Errorf("%s: frequency %d is %v, want %v", tt.name, i, f, tt.want[i])
			}
		}
	}
}

// TestYarn compares with what transformers 5.17 gives for heads of which 64
// values are turned, theta 10^7, and an original context of 262144.
func TestYarn(t *testing.T) {
	want := []float64{
		1.000000000e+00, 6.042963862e-01, 3.651741445e-01, 2.206733972e-01, 1.333521456e-01, 8.058421314e-02, 4.869675264e-02,
		2.942727320e-02, 1.778279431e-02, 1.074607857e-02, 6.493816618e-03, 3.924189601e-03, 2.371373819e-03, 1.433012658e-03,
		8.659643354e-04, 4.997506621e-04, 2.877672960e-04, 1.652974315e-04, 9.469212091e-05, 5.408186553e-05, 3.078384179e-05,
		1.745583177e-05, 9.855529242e-06, 5.955661436e-06, 3.598984449e-06,
	}
	c, err := ParseConfig(llamaJSON(t, map[string]any{
		"hidden_size": 512, "num_attention_heads": 8, "head_dim": 64, "rope_theta": 1e7, "max_position_embeddings": 409600,
		"rope_scaling": map[string]any{"rope_type": "yarn", "factor": 1.5625, "original_max_position_embeddings": 262144},
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Rope.Frequencies(c.RotaryDims())
	for i, w := range want {
		if math.Abs(got[i]-w) > 1e-6*w {
			t.Errorf("frequency %d is %v, want %v", i, got[i], w)
		}
	}
	if f := c.Rope.Scaling.AttentionFactor; math.Abs(f-1.044628710262842) > 1e-12 {
		t.Errorf("attention factor %v", f)
	}
}

func TestYarnSettings(t *testing.T) {
	scaling := func(change map[string]any) RopeScaling {
		fields := map[string]any{"rope_type": "yarn", "factor": 4}
		for k, v := range change {
			fields[k] = v
		}
		c, err := ParseConfig(llamaJSON(t, map[string]any{"rope_scaling": fields}))
		if err != nil {
			t.Fatal(err)
		}
		return c.Rope.Scaling
	}
	plain := RopeScaling{Kind: "yarn", Factor: 4, OriginalContext: 256, BetaFast: 32, BetaSlow: 1, AttentionFactor: 0.1*math.Log(4) + 1}
	with := func(fn func(s *RopeScaling)) RopeScaling {
		s := plain
		fn(&s)
		return s
	}
	for _, tt := range []struct {
		change map[string]any
		want   RopeScaling
	}{
		{nil, plain}, // the context is the original one where none is given
		{map[string]any{"original_max_position_embeddings": 64}, with(func(s *RopeScaling) { s.OriginalContext = 64 })},
		{map[string]any{"attention_factor": 1.25}, with(func(s *RopeScaling) { s.AttentionFactor = 1.25 })},
		{map[string]any{"beta_fast": 16, "beta_slow": 2, "truncate": false}, with(func(s *RopeScaling) { s.BetaFast, s.BetaSlow, s.NoTruncate = 16, 2, true })},
		{map[string]any{"mscale": 1.0, "mscale_all_dim": 1.0}, with(func(s *RopeScaling) { s.AttentionFactor = 1 })},
		{map[string]any{"mscale": 2.0}, plain},
	} {
		if got := scaling(tt.change); !cmp.Equal(got, tt.want, nearly) {
			t.Errorf("with %v: %s", tt.change, cmp.Diff(tt.want, got))
		}
	}
}
