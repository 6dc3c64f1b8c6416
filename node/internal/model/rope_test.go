package model

import (
	"math"
	"testing"
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
