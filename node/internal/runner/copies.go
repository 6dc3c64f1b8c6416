package runner

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// sketchValues is how many values of a delta are compared with others: the
	// cosine of so many is right to about 0.004.
	sketchValues = 1 << 16
	// sameCosine is that of a copy, whatever the others are like.
	sameCosine = 0.98
	// copyPart of the usual distance (one minus the cosine) is less than two
	// deltas have that were trained on different samples. A copy with as much
	// noise as it has values of its own has 0.29 of the distance between
	// strangers.
	copyPart = 0.5
)

// copies tells deltas that were taken from other seats from those that were
// trained. Honest deltas of a round are all about equally far from each other;
// of two that are much closer than each of them is to the others, the one that
// was announced later is the copy: whoever copies has to wait for what it
// copies. That is this peer's opinion, which it gives in its have; the quorum
// decides.
type copies struct {
	mu    sync.Mutex
	round msg.Round    // guarded by mu
	list  []*announced // guarded by mu; in the order in which the commits came
	pairs []pair       // guarded by mu; of list, those that are known
}

// announced is a commit of the round under way.
type announced struct {
	commit cid.Cid
	sketch []float32 // of length 1; nil: not known yet
}

type pair struct {
	earlier, later int
	cosine         float64
}

// announce notes that a commit came. It is called in the order of arrival.
func (k *copies) announce(round msg.Round, commit cid.Cid) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.round != round {
		k.round, k.list, k.pairs = round, nil, nil
	}
	k.list = append(k.list, &announced{commit: commit})
}

// found compares the delta of a commit with those that are known, and returns
// the commits whose deltas are copies, as far as that shows now. seats is how
// many have a seat in the round.
func (k *copies) found(round msg.Round, commit cid.Cid, d *fold.Delta, params, seats int) []cid.Cid {
	s := sketchOf(d, params)
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.list, func(a *announced) bool { return a.commit == commit })
	if k.round != round || at < 0 || s == nil {
		return nil
	}
	k.list[at].sketch = s
	for i, a := range k.list {
		if i != at && a.sketch != nil {
			k.pairs = append(k.pairs, pair{min(i, at), max(i, at), dot(s, a.sketch)})
		}
	}
	distances := k.distances()
	var out []cid.Cid
	for _, p := range k.pairs {
		usual := min(usualDistance(distances[p.earlier], p.later, seats), usualDistance(distances[p.later], p.earlier, seats))
		if p.cosine > sameCosine || 1-p.cosine < copyPart*usual {
			out = append(out, k.list[p.later].commit)
		}
	}
	return out
}

// neighbour is another delta, and how far it is.
type neighbour struct {
	of       int // list
	distance float64
}

// distances returns how far each delta is from the others, nearest first.
func (k *copies) distances() [][]neighbour {
	all := make([][]neighbour, len(k.list))
	for _, p := range k.pairs {
		d := 1 - max(p.cosine, 0)
		all[p.earlier] = append(all[p.earlier], neighbour{p.later, d})
		all[p.later] = append(all[p.later], neighbour{p.earlier, d})
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b neighbour) int { return cmp.Compare(a.distance, b.distance) })
	}
	return all
}

// usualDistance is how far a delta is from the others but one: the lower median,
// or nearer while so few are known that a third of the seats, which may lie, could
// have all that is as far. So neither copies of it nor deltas that point elsewhere
// decide (with three of twelve seats absent, copies of a third may). It is 0 as long
// as the liars could be most of the others. So with four or two seats there are only
// copies without noise.
func usualDistance(others []neighbour, except, seats int) float64 {
	rest := len(others) - 1
	if rest < 1 || rest < 2*((seats-1)/3)+1 {
		return 0
	}
	middle, i := max(min((rest-1)/2, rest-seats/3-1), 0), 0
	for _, o := range others {
		if o.of == except {
			continue
		}
		if i == middle {
			return o.distance
		}
		i++
	}
	panic("bug: a pair is not among the distances")
}

// sketchOf takes evenly spread values of a delta and scales them to length 1;
// nil if they are all zero.
func sketchOf(d *fold.Delta, params int) []float32 {
	values := make([]int32, params)
	d.Values(values)
	step := max(params/sketchValues, 1)
	s := make([]float32, 0, params/step+1)
	var squares float64
	for i := 0; i < params; i += step {
		v := float64(values[i])
		squares += v * v
		s = append(s, float32(v))
	}
	if squares == 0 {
		return nil
	}
	scale := float32(1 / math.Sqrt(squares))
	for i := range s {
		s[i] *= scale
	}
	return s
}

func dot(a, b []float32) float64 {
	var sum float64
	for i, v := range a {
		sum += float64(v) * float64(b[i])
	}
	return sum
}
