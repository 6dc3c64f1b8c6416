package train

import (
	"math"
	"slices"

	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/nf4"
	"github.com/moot-net/moot/node/internal/tensor"
)

const (
	// adam8Block is how many moments share a scale.
	adam8Block = 256
	// adam8Least is the size from which on a tensor's moments are in eight
	// bits: small ones cost little, and matter most.
	adam8Least = 4096
)

// adam8 is AdamW whose moments are in eight bits, as bitsandbytes has them: in
// blocks of a tensor, each moment a value of a map of 256 times the largest
// magnitude of its block. A step computes with the new moments before they are
// rounded. Blocks are independent, and nothing is fused, so that results are the
// same on every processor. A backend elsewhere that is a tensor.EightBit does
// the same there; with another one the host computes.
type adam8 struct {
	b       tensor.Backend
	adam    Adam
	groups  []group   // each one a tensor
	small   *adamW    // has the moments of small tensors, one after the other
	m, v    moments   // what far has is newer
	far     *far8     // nil: the host computes
	p, g    []float32 // of a backend elsewhere
	largest int
}

// moments are the first or second moments of the large tensors.
type moments struct {
	code  []byte
	scale []float32 // of each block
}

func newMoments(n, blocks int, zero byte) moments {
	m := moments{make([]byte, n), make([]float32, blocks)}
	m.reset(zero)
	return m
}

func (m *moments) reset(zero byte) {
	for i := range m.code {
		m.code[i] = zero
	}
	clear(m.scale)
}

func blocksOf(n int) int { return (n + adam8Block - 1) / adam8Block }

// large reports whether a group's moments are in eight bits.
func (g group) large() bool { return g.to-g.from >= adam8Least }

func newAdam8(b tensor.Backend, adam Adam, groups []group) *adam8 {
	o := &adam8{b: b, adam: adam, groups: groups}
	n, blocks, small := 0, 0, 0
	for _, g := range groups {
		size := g.to - g.from
		if !g.large() {
			small += size
			continue
		}
		n, blocks, o.largest = n+size, blocks+blocksOf(size), max(o.largest, size)
	}
	o.m, o.v = newMoments(n, blocks, signedZero), newMoments(n, blocks, unsignedZero)
	if small > 0 {
		o.small = &adamW{b: b, adam: adam, m: b.Alloc(small).Vec(), v: b.Alloc(small).Vec()}
	}
	if e, ok := b.(tensor.EightBit); ok && n > 0 {
		o.far = newFar8(b, e, n, blocks)
		o.far.push(o)
	}
	return o
}

func adam8Bytes(layout []lora.TensorInfo) int64 {
	n := 0
	for _, g := range groupsOf(layout, 1, func(int) bool { return false }) {
		size := g.to - g.from
		if g.large() {
			n += 2*size + 8*blocksOf(size)
		} else {
			n += 8 * size
		}
	}
	return int64(n)
}

func (o *adam8) step(p, g tensor.Mat, s update) {
	code, scale, small := 0, 0, 0
	for _, r := range o.groups {
		size := r.to - r.from
		if !r.large() {
			at := group{small, small + size, 1}
			small += size
			o.b.AdamW(r.of(p), r.of(g), at.of(o.small.m), at.of(o.small.v), tensor.AdamW{
				LearningRate: s.rate * r.factor, Beta1: o.adam.Beta1, Beta2: o.adam.Beta2,
				Epsilon: o.adam.Epsilon, WeightDecay: o.adam.WeightDecay,
				Step: s.number, GradScale: s.gradScale,
			})
			continue
		}
		if o.far != nil {
			o.far.step(o, r.of(p), r.of(g), code, scale, s, r.factor)
			code, scale = code+size, scale+blocksOf(size)
			continue
		}
		values, grads := o.host(r.of(p), r.of(g))
		o.tensor(values, grads, code, scale, s, r.factor)
		if p.Buf.Host == nil {
			o.b.Upload(r.of(p), values)
		}
		code, scale = code+size, scale+blocksOf(size)
	}
}

// host returns the values of p and g in the host's memory.
func (o *adam8) host(p, g tensor.Mat) (values, grads []float32) {
	if p.Buf.Host != nil {
		return p.Host(), g.Host()
	}
	if o.p == nil {
		o.p, o.g = make([]float32, o.largest), make([]float32, o.largest)
	}
	values, grads = o.p[:p.Cols], o.g[:p.Cols]
	o.b.Download(values, p)
	o.b.Download(grads, g)
	return values, grads
}

// tensor updates a tensor, whose moments begin at code and scale.
func (o *adam8) tensor(p, g []float32, code, scale int, s update, factor float64) {
	rate, t := s.rate*factor, float64(s.number)
	root := math.Sqrt(1 - math.Pow(o.adam.Beta2, t))
	c := adam8Consts{
		gradScale: float32(s.gradScale), decay: float32(1 - rate*o.adam.WeightDecay),
		beta1: float32(o.adam.Beta1), rest1: float32(1 - o.adam.Beta1), beta2: float32(o.adam.Beta2), rest2: float32(1 - o.adam.Beta2),
		step: float32(rate * root / (1 - math.Pow(o.adam.Beta1, t))), epsilon: float32(o.adam.Epsilon * root),
	}
	for from := 0; from < len(p); from += adam8Block {
		to := min(from+adam8Block, len(p))
		b := scale + from/adam8Block
		c.block(p[from:to], g[from:to], o.m.code[code+from:code+to], o.v.code[code+from:code+to], &o.m.scale[b], &o.v.scale[b])
	}
}

// adam8Consts are the scalars of a step.
type adam8Consts struct {
	gradScale, decay, beta1, rest1, beta2, rest2, step, epsilon float32
}

// block updates a block and the moments in it.
func (c *adam8Consts) block(p, g []float32, mCode, vCode []byte, mScale, vScale *float32) {
	var m, v [adam8Block]float32
	mMost, vMost := float32(0), float32(0)
	for i, d := range g {
		d *= c.gradScale
		m[i] = float32(c.beta1*float32(nf4.DynamicMap[mCode[i]]**mScale)) + float32(c.rest1*d)
		v[i] = float32(c.beta2*float32(unsignedMap[vCode[i]]**vScale)) + float32(c.rest2*float32(d*d))
		mMost, vMost = max(mMost, m[i], -m[i]), max(vMost, v[i])
		p[i] = float32(p[i]*c.decay) - float32(c.step*m[i])/(float32(math.Sqrt(float64(v[i])))+c.epsilon)
	}
	*mScale, *vScale = mMost, vMost
	for i := range g {
		mCode[i], vCode[i] = signedCode(m[i], mMost), nearest(&unsignedMap, v[i], vMost, unsignedZero)
	}
}

func (o *adam8) reset() {
	o.m.reset(signedZero)
	o.v.reset(unsignedZero)
	if o.far != nil {
		o.far.push(o)
	}
	if o.small != nil {
		o.small.reset()
	}
}

func (o *adam8) bytes() int {
	n := 2*len(o.m.code) + 8*len(o.m.scale)
	if o.small != nil {
		n += o.small.bytes()
	}
	return n
}

func (o *adam8) save(state []byte) []byte {
	o.far.pull(o)
	for _, m := range []moments{o.m, o.v} {
		state = appendFloats(append(state, m.code...), m.scale)
	}
	if o.small != nil {
		state = o.small.save(state)
	}
	return state
}

func (o *adam8) load(state []byte) {
	for _, m := range []moments{o.m, o.v} {
		state = state[copy(m.code, state):]
		loadFloats(m.scale, state)
		state = state[4*len(m.scale):]
	}
	if o.far != nil {
		o.far.push(o)
	}
	if o.small != nil {
		o.small.load(state)
	}
}

// The indices of 0 in the maps.
const (
	signedZero   = 127
	unsignedZero = 0
)

// unsignedMap is nf4.DynamicMap for values that are not negative: zero, one,
// and ten to the power of i-6 times the middles of 2^(i+1) equal parts of 0.1
// to 1, for i from 0 to 6.
var unsignedMap = dynamicMap(false)

// dynamicMap computes a map as bitsandbytes does, in float32 with products that
// are added before they are rounded.
func dynamicMap(signed bool) [256]float32 {
	list := []float32{0, 1}
	for i := range 7 {
		n := 1 << i
		if !signed {
			n *= 2
		}
		width, power := float32(0.9)/float32(n), float32(math.Pow10(i-6))
		edge := func(j int) float32 { // from the nearer end, as torch.linspace has it
			if j <= n/2 {
				return float32(float64(float32(0.1)) + float64(width)*float64(j))
			}
			return float32(1 - float64(width)*float64(n-j))
		}
		for j := range n {
			v := float32(power * float32((edge(j)+edge(j+1))/2))
			list = append(list, v)
			if signed {
				list = append(list, -v)
			}
		}
	}
	slices.Sort(list)
	return [256]float32(list)
}

// nearest returns the index of the value of a map that is nearest to x/scale,
// the lower one of two.
func nearest(code *[256]float32, x, scale float32, zero byte) byte {
	if scale == 0 {
		return zero
	}
	x /= scale
	lo, hi := 0, 255 // the lowest value above x is in (lo, hi], if it is not 1
	for lo+1 < hi {
		if mid := (lo + hi) / 2; code[mid] <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	if code[hi]-x < x-code[lo] {
		return byte(hi)
	}
	return byte(lo)
}

// signedCode is nearest in nf4.DynamicMap, of the sign of x: a small negative
// moment does not become zero.
func signedCode(x, scale float32) byte {
	c := nearest(&nf4.DynamicMap, x, scale, signedZero)
	if scale != 0 && x < 0 && nf4.DynamicMap[c] >= 0 {
		c--
	}
	return c
}
