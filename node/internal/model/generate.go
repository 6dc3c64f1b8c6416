package model

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/moot-net/moot/node/internal/tensor"
)

// GenerateOptions configure Generate.
type GenerateOptions struct {
	MaxTokens   int     // at most so many new ones
	Stop        []int32 // ends before any of these
	Temperature float64 // 0: the most likely token always
	Seed        uint64  // of the draw when Temperature is not 0
}

// maxGenerated bounds the memory for keys and values.
const maxGenerated = 1 << 20

// Generate continues ids and returns the new tokens only, without the one that
// stopped it. With ctx done it returns what it has and ctx's error.
func (m *Model) Generate(ctx context.Context, ids []int32, o GenerateOptions) ([]int32, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("generate: no tokens to continue")
	}
	if o.MaxTokens < 0 || len(ids)+o.MaxTokens > maxGenerated {
		return nil, fmt.Errorf("generate: %d tokens after %d, at most %d together", o.MaxTokens, len(ids), maxGenerated)
	}
	kv := m.newCache(len(ids) + o.MaxTokens)
	defer m.free(kv)
	random := rand.New(rand.NewPCG(o.Seed, 0))
	logits := make([]float32, m.cfg.Vocab)
	var out []int32
	all := slices.Clone(ids)
	for len(out) < o.MaxTokens {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if m.cfg.longRope(len(all)) != m.cfg.longRope(kv.n) { // all keys are to be turned by other frequencies
			kv.n, ids = 0, all
		}
		if err := m.next(logits, kv, ids); err != nil {
			return out, fmt.Errorf("generate: %w", err)
		}
		id := pick(logits, o.Temperature, random)
		if slices.Contains(o.Stop, id) {
			break
		}
		out, all = append(out, id), append(all, id)
		ids = all[len(all)-1:]
	}
	return out, nil
}

func (m *Model) newCache(tokens int) *cache {
	kv := &cache{}
	for range m.layers {
		cols := m.cfg.KVHeads * m.cfg.HeadDim
		kv.k = append(kv.k, m.b.AllocActivations(tokens*cols).Mat(0, tokens, cols))
		kv.v = append(kv.v, m.b.AllocActivations(tokens*cols).Mat(0, tokens, cols))
	}
	return kv
}

func (m *Model) free(kv *cache) {
	for i := range kv.k {
		m.b.Free(kv.k[i].Buf)
		m.b.Free(kv.v[i].Buf)
	}
}

// next adds ids to the cache and sets logits to those of the token after them.
func (m *Model) next(logits []float32, kv *cache, ids []int32) error {
	n := len(ids)
	b := Batch{ids: ids, pos: make([]int32, n)}
	for i := range b.pos {
		b.pos[i] = int32(kv.n + i)
	}
	b.spans = []tensor.Span{{QLen: n, KLen: kv.n + n}}
	if err := b.check(&m.cfg); err != nil {
		return err
	}
	m.prepare(n, 1, false, false)
	x := m.forward(&b, kv).RowRange(n-1, n)
	kv.n += n
	h, row := m.ws.hs.RowRange(0, 1), m.ws.logits.RowRange(0, 1)
	m.normalise(h, m.ws.stats.RowRange(0, 1), x, &m.norm)
	m.output(row, h)
	m.b.Download(logits, row)
	return m.b.Err()
}

// pick returns the most likely token, the first of equals, or draws one.
func pick(logits []float32, temperature float64, random *rand.Rand) int32 {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	if temperature <= 0 {
		return int32(best)
	}
	sum, weights := 0.0, make([]float64, len(logits))
	for i, v := range logits {
		weights[i] = math.Exp(float64(v-logits[best]) / temperature)
		sum += weights[i]
	}
	at := random.Float64() * sum
	for i, w := range weights {
		if at -= w; at < 0 {
			return int32(i)
		}
	}
	return int32(best)
}
