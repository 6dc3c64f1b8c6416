// Package kappa measures what a run loses by averaging the factors A and B of its
// adapters each on its own, and not their products: the mean of the products less
// the product of the means is the covariance of how far A and B moved in a round.
// kappa is the norm of that beside the norm of the exact update. It grows with the
// steps of a round and with the learning rate; proto/README.md section 6 has what
// it is for.
//
// Nothing that peers have to agree on to the bit depends on it: each witness says
// what it found, and the median counts.
package kappa

import (
	"errors"
	"math"
	"math/rand/v2"

	"github.com/moot-net/moot/proto/fold"
)

// Move is a delta that entered the fold of a round.
type Move struct {
	Delta   *fold.Delta
	Weight  uint64
	ClipQ16 uint32
}

// The norms of matrices that are never formed are estimated: the mean squared
// length of M z, with z of drawn signs, is the squared norm of M. Eight such z
// give kappa within a few percent for the modules of a usual model; small models
// have fewer modules, over which errors cancel out, and get more.
const (
	leastProbes = 8
	mostProbes  = 64
	enough      = 1 << 26 // products with values of deltas, up to which there are more probes
)

// Of returns kappa of a round that began at theta. What seed draws decides only
// how the estimate is off.
func Of(l *fold.Layout, theta []int32, moves []Move, seed uint64) (float64, error) {
	probes := min(max(enough/max(len(moves)*l.Params(), 1), leastProbes), mostProbes)
	return estimate(l, theta, moves, seed, probes)
}

// module is an A of (rank, in) and a B of (out, rank), and what a round did to
// them, applied to probes.
type module struct {
	rank, in, out int
	a, b          int // where they begin in a vector of all parameters
	z             [][]float32
	// sum is the weighted sum of dB dA z, (out) for each probe; da that of dA z,
	// (rank) for each.
	sum, da [][]float64
}

func estimate(l *fold.Layout, theta []int32, moves []Move, seed uint64, probes int) (float64, error) {
	modules, err := modulesOf(l, seed, probes)
	if err != nil {
		return 0, err
	}
	var all float64
	for _, m := range moves {
		all += float64(m.Weight)
	}
	if all == 0 {
		return 0, errors.New("no delta of the round has weight")
	}
	values, mean := make([]int32, l.Params()), make([]float32, l.Params()) // of mean only what is in B
	for _, m := range moves {
		m.Delta.Values(values)
		clip := float64(m.ClipQ16) / fold.One
		for i := range modules {
			modules[i].add(values, mean, float64(m.Weight)/all, clip)
		}
	}
	var lost, update float64
	for i := range modules {
		a, b := modules[i].norms(theta, mean)
		lost, update = lost+a, update+b
	}
	if k := math.Sqrt(lost / update); !math.IsNaN(k) {
		return k, nil
	}
	return 0, errors.New("the round moved nothing")
}

// modulesOf pairs the tensors, and draws the probes.
func modulesOf(l *fold.Layout, seed uint64, probes int) ([]module, error) {
	if l.Len()%2 != 0 {
		return nil, errors.New("the layout is not of pairs of A and B")
	}
	list := make([]module, l.Len()/2)
	for i := range list {
		a, b := l.Tensor(2*i), l.Tensor(2*i+1)
		if a.Rows != b.Cols {
			return nil, errors.New("the layout is not of pairs of A and B")
		}
		m := module{rank: a.Rows, in: a.Cols, out: b.Rows, a: l.Offset(2 * i), b: l.Offset(2*i + 1)}
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		for range probes {
			z := make([]float32, m.in)
			for j := range z {
				z[j] = float32(2*int(rnd.Uint32()&1) - 1)
			}
			m.z = append(m.z, z)
			m.sum, m.da = append(m.sum, make([]float64, m.out)), append(m.da, make([]float64, m.rank))
		}
		list[i] = m
	}
	return list, nil
}

// add takes a delta with its part of the mean.
func (m *module) add(values []int32, mean []float32, part, clip float64) {
	da := m.timesA(values)
	b := values[m.b : m.b+m.out*m.rank]
	for i, v := range b {
		mean[m.b+i] += float32(part * clip * float64(v))
	}
	for p, u := range da {
		for k := range u {
			u[k] *= clip
			m.da[p][k] += part * u[k]
		}
		product(m.sum[p], b, u, part*clip)
	}
}

// timesA is A z for each probe, with A from values.
func (m *module) timesA(values []int32) [][]float64 {
	out := make([][]float64, len(m.z))
	for p := range out {
		out[p] = make([]float64, m.rank)
	}
	row := make([]float32, m.in)
	for k := range m.rank {
		for j, v := range values[m.a+k*m.in : m.a+(k+1)*m.in] {
			row[j] = float32(v)
		}
		for p, z := range m.z {
			out[p][k] = dot(row, z)
		}
	}
	return out
}

func dot(a, b []float32) float64 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	for len(a) >= 4 {
		s0, s1, s2, s3 = s0+a[0]*b[0], s1+a[1]*b[1], s2+a[2]*b[2], s3+a[3]*b[3]
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return float64(s0) + float64(s1) + float64(s2) + float64(s3)
}

// product adds factor × B u to dst, with B of (len(dst), len(u)).
func product[T int32 | float32](dst []float64, b []T, u []float64, factor float64) {
	rank := len(u)
	for i := range dst {
		var s float64
		for k, v := range b[i*rank : (i+1)*rank] {
			s += float64(v) * u[k]
		}
		dst[i] += factor * s
	}
}

// norms returns the squared norms of the covariance and of the update, which is
// mean(B A) at the end less B A at the beginning:
//
//	mean(dB dA) - B mean(dA) - mean(dB) A
func (m *module) norms(theta []int32, mean []float32) (covariance, update float64) {
	b, moved := theta[m.b:m.b+m.out*m.rank], mean[m.b:m.b+m.out*m.rank]
	az := m.timesA(theta)
	for p, sum := range m.sum {
		cov, up := append([]float64(nil), sum...), append([]float64(nil), sum...)
		product(cov, moved, m.da[p], -1)
		product(up, b, m.da[p], -1)
		product(up, moved, az[p], -1)
		covariance, update = covariance+squares(cov), update+squares(up)
	}
	return covariance, update
}

func squares(list []float64) (s float64) {
	for _, v := range list {
		s += v * v
	}
	return s
}
