package trace

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/internal/vectors"
)

func sample() *Trace {
	name := func(s string) Boundary {
		return Boundary{Movement: fold.FileCID([]byte("movement " + s)), Moments: fold.FileCID([]byte("moments " + s))}
	}
	t := &Trace{Boundaries: []Boundary{name("0"), name("1"), name("2")}, Residual: fold.FileCID([]byte("residual"))}
	t.Boundaries[1].Steps, t.Boundaries[1].Tokens = 3, 700
	t.Boundaries[2].Steps, t.Boundaries[2].Tokens = 5, 1200
	return t
}

// sampleEarly has steps that were taken before the round's head was known.
func sampleEarly() *Trace {
	t := sample()
	t.Early = 4
	return t
}

func sampleMoments() *Moments {
	return &Moments{Steps: 77, Vectors: [][]float32{{1, -2.5, 3.14159, 0, 1e-20}, {0, 1e-9, 0.5, 65504, 3e38}}}
}

func TestVectors(t *testing.T) {
	var file struct {
		Layout  []fold.Tensor
		Still   string // a movement of nothing
		Trace   struct{ Bytes, CID string }
		Moments []struct {
			Values     *Moments
			Bytes, CID string
		}
		Parts []struct{ Steps, MaxSteps, PartSteps, Parts uint64 }
		Early struct{ Bytes, CID string } // the trace, with early steps
	}
	file.Layout = []fold.Tensor{{Name: "a", Rows: 1, Cols: 5}}
	layout, err := fold.NewLayout(file.Layout)
	if err != nil {
		t.Fatal(err)
	}
	file.Still = hex.EncodeToString(Still(layout))
	b := sample().Marshal()
	file.Trace.Bytes, file.Trace.CID = hex.EncodeToString(b), fold.FileCID(b).String()
	for _, m := range []*Moments{Cold(2, 5), Cold(0, 0), sampleMoments()} {
		b := m.Marshal()
		file.Moments = append(file.Moments, struct {
			Values     *Moments
			Bytes, CID string
		}{m, hex.EncodeToString(b), fold.FileCID(b).String()})
	}
	for _, p := range [][2]uint64{{1, 1}, {30, 30}, {17, 30}, {8, 30}, {100, 100}, {1, 100}} {
		file.Parts = append(file.Parts, struct{ Steps, MaxSteps, PartSteps, Parts uint64 }{p[0], p[1], PartSteps(p[1]), Parts(p[0], p[1])})
	}
	b = sampleEarly().Marshal()
	file.Early.Bytes, file.Early.CID = hex.EncodeToString(b), fold.FileCID(b).String()
	vectors.Check(t, "trace.json", file)
}

func TestTraceRoundTrip(t *testing.T) {
	b := sample().Marshal()
	got, err := Unmarshal(b)
	if err != nil || !slices.Equal(got.Boundaries, sample().Boundaries) || got.Residual != sample().Residual {
		t.Fatalf("Unmarshal() = %+v, %v", got, err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"shorter":         func(b []byte) []byte { return b[:len(b)-1] },
		"longer":          func(b []byte) []byte { return append(b, 0) },
		"another magic":   func(b []byte) []byte { b[0]++; return b },
		"another version": func(b []byte) []byte { b[8]++; return b },
		"one boundary": func(b []byte) []byte {
			b[12] = 1
			return append(b[:headerBytes+boundaryBytes], b[len(b)-36:]...)
		},
		"ten boundaries": func(b []byte) []byte {
			b[12] = 10
			return append(b, make([]byte, 7*boundaryBytes)...)
		},
		"a later beginning":    func(b []byte) []byte { b[headerBytes]++; return b },
		"no step in a part":    func(b []byte) []byte { b[headerBytes+2*boundaryBytes] = 3; return b },
		"fewer tokens":         func(b []byte) []byte { b[headerBytes+2*boundaryBytes+9] = 0; return b },
		"too many steps":       func(b []byte) []byte { b[headerBytes+2*boundaryBytes+7] = 1; return b },
		"a CID of version 0":   func(b []byte) []byte { b[headerBytes+16]++; return b },
		"moments by no CID":    func(b []byte) []byte { b[headerBytes+52+3]++; return b },
		"a residual by no CID": func(b []byte) []byte { b[len(b)-36]++; return b },
	} {
		if _, err := Unmarshal(change(slices.Clone(b))); !errors.Is(err, ErrForm) {
			t.Errorf("%s: Unmarshal() = %v", name, err)
		}
	}
}

func TestEarlyRoundTrip(t *testing.T) {
	b := sampleEarly().Marshal()
	got, err := Unmarshal(b)
	if err != nil || got.Early != 4 || !slices.Equal(got.Boundaries, sample().Boundaries) || !bytes.Equal(got.Marshal(), b) {
		t.Fatalf("Unmarshal() = %+v, %v", got, err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"no early steps":             func(b []byte) []byte { b[12] = 0; return b },
		"more early steps than all":  func(b []byte) []byte { b[12] = 6; return b },
		"far more":                   func(b []byte) []byte { b[19] = 0xff; return b },
		"the version without":        func(b []byte) []byte { b[8] = 1; return b },
		"a version to come":          func(b []byte) []byte { b[8] = 3; return b },
		"the version with, too late": func(b []byte) []byte { return append(b[:12], b[20:]...) },
		"its head alone":             func(b []byte) []byte { return b[:20] },
	} {
		if _, err := Unmarshal(change(slices.Clone(b))); !errors.Is(err, ErrForm) {
			t.Errorf("%s: Unmarshal() = %v", name, err)
		}
	}
}

func TestCovers(t *testing.T) {
	tr := sample() // parts of 3 steps
	if err := tr.Covers(5, 1200, 24); err != nil {
		t.Error(err)
	}
	for _, tt := range []struct{ steps, tokens, maxSteps uint64 }{
		{5, 1200, 25}, {5, 1200, 16}, {6, 1200, 24}, {5, 1201, 24}, {7, 1200, 24}, {5, 1200, 4},
	} {
		if err := tr.Covers(tt.steps, tt.tokens, tt.maxSteps); !errors.Is(err, ErrForm) {
			t.Errorf("Covers(%+v) = %v", tt, err)
		}
	}
	for maxSteps := uint64(1); maxSteps < 200; maxSteps++ {
		if n := Parts(maxSteps, maxSteps); n < 1 || n > MaxParts || PartSteps(maxSteps)*n < maxSteps {
			t.Errorf("%d steps: %d parts of %d", maxSteps, n, PartSteps(maxSteps))
		}
	}
}

func TestMomentsRoundTrip(t *testing.T) {
	m := sampleMoments()
	b := m.Marshal()
	got, err := UnmarshalMoments(b, 2, 5)
	if err != nil || got.Steps != 77 {
		t.Fatal(got, err)
	}
	for k, v := range m.Vectors {
		for i, x := range v {
			if y := got.Vectors[k][i]; math.Abs(float64(y-x)) > math.Abs(float64(x))/256 {
				t.Errorf("value %d of vector %d is %v, was %v", i, k, y, x)
			}
		}
	}
	if !bytes.Equal(got.Marshal(), b) {
		t.Error("what was decoded encodes to other bytes")
	}
	most := &Moments{Vectors: [][]float32{{math.MaxFloat32, -math.MaxFloat32}}}
	if got, err := UnmarshalMoments(most.Marshal(), 1, 2); err != nil || math.IsInf(float64(got.Vectors[0][0]), 0) {
		t.Errorf("the largest value became %v, %v", got, err)
	}
	for name, change := range map[string]func(b []byte) []byte{
		"shorter": func(b []byte) []byte { return b[:len(b)-1] }, "another magic": func(b []byte) []byte { b[7]++; return b },
		"another version": func(b []byte) []byte { b[8]++; return b }, "one vector": func(b []byte) []byte { b[12] = 1; return b },
		"too many steps":    func(b []byte) []byte { b[23] = 1; return b },
		"not a number":      func(b []byte) []byte { b[25], b[24] = 0x7f, 0xc0; return b },
		"a negative square": func(b []byte) []byte { b[momentsHeader+13] |= 0x80; return b },
	} {
		if _, err := UnmarshalMoments(change(slices.Clone(b)), 2, 5); !errors.Is(err, ErrForm) {
			t.Errorf("%s: UnmarshalMoments() = %v", name, err)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(sample().Marshal())
	f.Add(sampleEarly().Marshal())
	f.Add(sampleMoments().Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if tr, err := Unmarshal(b); err == nil && !bytes.Equal(tr.Marshal(), b) {
			t.Error("a trace encodes to other bytes")
		}
		if m, err := UnmarshalMoments(b, 2, 5); err == nil && !bytes.Equal(m.Marshal(), b) {
			t.Error("moments encode to other bytes")
		}
	})
}
