package lora

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzReadAny: a folder from a stranger. What is read is written, and read
// again is the same.
func FuzzReadAny(f *testing.F) {
	modules := llama()
	for _, s := range []Spec{
		{Rank: 2, Alpha: 3, Targets: []string{"q_proj", "lm_head"}},
		{Rank: 1, Alpha: 3, Targets: []string{AllLinear}, DoRA: true, RSLoRA: true},
		{Rank: 2, Alpha: 3, Pattern: ".*v_proj", Blocks: []int{0}, Ranks: []Override{{"v_proj", 1}}},
	} {
		a, err := New(s, modules)
		if err != nil {
			f.Fatal(err)
		}
		a.Init(1)
		dir := f.TempDir()
		if err := a.Write(dir, "base"); err != nil {
			f.Fatal(err)
		}
		config, err := os.ReadFile(filepath.Join(dir, ConfigFile))
		if err != nil {
			f.Fatal(err)
		}
		weights, err := os.ReadFile(filepath.Join(dir, WeightsFile))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(config, weights)
	}
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{ConfigFile: config, WeightsFile: weights} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, err := ReadAny(dir, modules)
		if err != nil {
			return
		}
		again := filepath.Join(dir, "again")
		if err := a.Write(again, "base"); err != nil {
			t.Fatal(err)
		}
		b, err := ReadAny(again, modules)
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		if len(b.Parts()) != len(a.Parts()) || len(b.Values()) != len(a.Values()) || len(b.Saved()) != len(a.Saved()) {
			t.Errorf("%d parts, %d values, %d tensors; they were %d, %d, %d", len(b.Parts()), len(b.Values()), len(b.Saved()), len(a.Parts()), len(a.Values()), len(a.Saved()))
		}
		for i, p := range a.Parts() {
			if b.Parts()[i] != p {
				t.Errorf("part %+v, was %+v", b.Parts()[i], p)
			}
		}
	})
}
