package dataset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
)

func samplesOf(lengths ...int) []train.Sample {
	random := rand.New(rand.NewPCG(1, 2))
	out := make([]train.Sample, len(lengths))
	for i, n := range lengths {
		for range n {
			id := int32(random.IntN(50))
			out[i].IDs = append(out[i].IDs, id)
			out[i].Labels = append(out[i].Labels, id)
		}
	}
	return out
}

func tokensOf(pack []train.Sample) int {
	n := 0
	for _, s := range pack {
		n += len(s.IDs)
	}
	return n
}

func TestPackLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 300).Draw(t, "limit")
		samples := samplesOf(rapid.SliceOf(rapid.IntRange(1, 320)).Draw(t, "lengths")...)
		for i := range samples {
			samples[i].IDs[0] = int32(i) // to know it by
		}
		packs := Pack(samples, limit)
		var seen []int
		for _, p := range packs {
			if tokensOf(p) > limit && len(p) > 1 {
				t.Errorf("%d samples of %d tokens in a pack of %d", len(p), tokensOf(p), limit)
			}
			last := -1
			for _, s := range p {
				i := int(s.IDs[0])
				if i <= last {
					t.Error("the order within a pack is not that given")
				}
				seen, last = append(seen, i), i
			}
		}
		slices.Sort(seen)
		if len(seen) != len(samples) || len(slices.Compact(seen)) != len(samples) {
			t.Errorf("%d samples in, %d out", len(samples), len(seen))
		}
		if got, want := fmt.Sprint(lengthsOf(packs)), fmt.Sprint(lengthsOf(naivePack(samples, limit))); got != want {
			t.Errorf("packs %s, the plain way makes %s", got, want)
		}
	})
}

func lengthsOf(packs [][]train.Sample) [][]int {
	out := make([][]int, len(packs))
	for i, p := range packs {
		for _, s := range p {
			out[i] = append(out[i], len(s.IDs))
		}
	}
	return out
}

// naivePack looks at all packs for each sample: the one with the least room
// that is enough, of several the one that came to it last.
func naivePack(samples []train.Sample, limit int) [][]train.Sample {
	type pack struct {
		at   []int
		room int
		turn int
	}
	order := make([]int, len(samples))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(samples[b].IDs) - len(samples[a].IDs) })
	var packs []*pack
	for turn, i := range order {
		var best *pack
		for _, p := range packs {
			if p.room >= len(samples[i].IDs) && (best == nil || p.room < best.room || p.room == best.room && p.turn > best.turn) {
				best = p
			}
		}
		if best == nil {
			best = &pack{room: limit}
			packs = append(packs, best)
		}
		best.at = append(best.at, i)
		best.room, best.turn = best.room-len(samples[i].IDs), turn
	}
	out := make([][]train.Sample, len(packs))
	for i, p := range packs {
		slices.Sort(p.at)
		for _, at := range p.at {
			out[i] = append(out[i], samples[at])
		}
	}
	return out
}

func TestPackIsDense(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	lengths := make([]int, 500)
	total := 0
	for i := range lengths {
		lengths[i] = 20 + random.IntN(400)
		total += lengths[i]
	}
	packs := Pack(samplesOf(lengths...), 2048)
	if least := (total + 2047) / 2048; len(packs) > least+1 {
		t.Errorf("%d packs, %d would hold all tokens", len(packs), least)
	}
}

// TestPackedSamplesAreApart checks that the losses of a sample's tokens are bit
// for bit the same whatever is packed with it, before it or behind it.
func TestPackedSamplesAreApart(t *testing.T) {
	m, err := model.New(model.Llama(32, 64, 2, 4, 50, 64), 7, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	losses := func(list ...train.Sample) [][]float32 {
		var b model.Batch
		for _, s := range list {
			if err := b.Add(s.IDs, s.Labels); err != nil {
				t.Fatal(err)
			}
		}
		all, err := m.TokenLosses(&b)
		if err != nil {
			t.Fatal(err)
		}
		out := make([][]float32, len(list))
		for i, s := range list {
			n := len(s.IDs) - 1 // the first is not counted
			out[i], all = slices.Clone(all[:n]), all[n:]
		}
		return out
	}
	s := samplesOf(9, 17, 5, 30, 12)
	pack := Pack(s[:4], 64)
	if len(pack) != 1 {
		t.Fatalf("%d packs", len(pack))
	}
	packed := losses(pack[0]...)
	for i := range 4 {
		if alone := losses(s[i])[0]; !slices.Equal(alone, packed[i]) {
			t.Errorf("sample %d alone %v, packed %v", i, alone, packed[i])
		}
	}
	turned := losses(s[3], s[1], s[0], s[2])
	for i, at := range []int{3, 1, 0, 2} {
		if !slices.Equal(turned[i], packed[at]) {
			t.Errorf("sample %d differs in another order", at)
		}
	}
	changed := losses(s[0], s[4], s[2], s[3])
	for _, i := range []int{0, 2, 3} {
		if !slices.Equal(changed[i], packed[i]) {
			t.Errorf("sample %d differs beside another one", i)
		}
	}
	if slices.Equal(changed[1][:5], packed[1][:5]) {
		t.Error("the changed sample has the same losses")
	}
}
