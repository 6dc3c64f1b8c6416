package train

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
)

// allLinear are the layers of a Llama block.
var allLinear = []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// BenchmarkStep measures a LoRA step on random tokens, all counted but the
// first of each sample. The sizes are those of the PyTorch script beside the
// reference results, and that of a demo's model.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name             string
		cfg              model.Config
		batch, seq, rank int
		long             bool
	}{
		{"demo", model.Llama(128, 352, 4, 4, 1024, 256), 16, 48, 8, false},
		{"15m", tied(model.Llama(288, 768, 6, 6, 32000, 256)), 4, 256, 16, true},
		{"110m", tied(model.Llama(768, 2048, 12, 12, 32000, 256)), 4, 256, 16, true},
	} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("%s/threads=%d", c.name, threads), func(b *testing.B) {
				if c.long && testing.Short() {
					b.Skip("long")
				}
				m, err := model.New(c.cfg, 1, model.Options{Threads: threads})
				if err != nil {
					b.Fatal(err)
				}
				t, err := New(m, Options{Spec: lora.Spec{Rank: c.rank, Alpha: 2 * c.rank, Targets: allLinear}})
				if err != nil {
					b.Fatal(err)
				}
				batch := randomSamples(c.cfg.Vocab, c.batch, c.seq)
				step := func() {
					if _, _, err := t.Step(context.Background(), batch, 1e-3); err != nil {
						b.Fatal(err)
					}
				}
				step()
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
				b.ReportMetric(float64(c.batch*c.seq*b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

func tied(c model.Config) model.Config {
	c.TiedHead = true
	return c
}

func randomSamples(vocab, n, length int) []Sample {
	r := rand.New(rand.NewPCG(5, 6))
	var list []Sample
	for range n {
		ids := make([]int32, length)
		for i := range ids {
			ids[i] = int32(r.IntN(vocab))
		}
		list = append(list, Sample{ids, ids})
	}
	return list
}

// BenchmarkSave measures a checkpoint, which a node makes after each step.
func BenchmarkSave(b *testing.B) {
	tr := tiny(b, Options{CheckpointDir: b.TempDir()})
	for b.Loop() {
		if err := tr.Save(nil); err != nil {
			b.Fatal(err)
		}
	}
}
