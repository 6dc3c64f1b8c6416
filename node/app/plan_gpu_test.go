//go:build cuda && cgo

package app

import (
	"testing"

	"github.com/moot-net/moot/node/internal/tensor"
)

// A binary without CUDA plans for a GPU nearly what one with it does: never
// less by more than 5 %, or more by more than 25 %.
func TestPlanWithoutCUDA(t *testing.T) {
	without := tensor.Sizes{ActivationBytes: 2, LogitsValues: 64 << 20, HostTables: true, Scratch: scratchBytes}
	for _, quantised := range []string{"", `, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}`} {
		m, facts := eightFacts(t, quantised)
		exact, _, err := memoryItem(m, facts, machine{planSizes(), 1 << 50, true})
		if err != nil {
			t.Fatal(err)
		}
		near, _, err := memoryItem(m, facts, machine{without, 1 << 50, true})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s with CUDA, %s without", partsText(exact.Parts), partsText(near.Parts))
		if off := float64(near.NeedBytes-exact.NeedBytes) / float64(exact.NeedBytes); off < -0.05 || off > 0.25 {
			t.Errorf("without CUDA %s are planned, with it %s", megabytes(near.NeedBytes), megabytes(exact.NeedBytes))
		}
	}
}
