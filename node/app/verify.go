package app

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard/safetensors"
)

// How far logits may be off, as a share of their spread.
const (
	exactTolerance = 1e-5
	f16Tolerance   = 0.01
)

// checkAdapter tests a file of an adapter: with what is read back from it the
// base model in dir must give the logits that it gives with the live adapter,
// which must not be those that it gives alone.
func checkAdapter(ctx context.Context, dir string, live *lora.Adapter, threads int, tolerance float64, read func(model.Config) (*lora.Adapter, error)) (*api.ExportTest, error) {
	m, err := model.Load(dir, model.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	var b model.Batch
	if err := b.Add(probe(m.Config()), nil); err != nil {
		return nil, err
	}
	logits := func(a *lora.Adapter) ([]float32, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if a != nil {
			if err := train.Apply(m, a); err != nil {
				return nil, err
			}
		}
		l, err := m.Logits(&b)
		return slices.Clone(l), err
	}
	alone, err := logits(nil)
	if err != nil {
		return nil, err
	}
	want, err := logits(live)
	if err != nil {
		return nil, err
	}
	back, err := read(m.Config())
	if err != nil {
		return nil, api.Errorf(api.CodeVerify, "read the export back: %w", err)
	}
	got, err := logits(back)
	if err != nil {
		return nil, err
	}
	t, err := compareLogits(alone, want, got, tolerance)
	if err == nil && t.Effect == 0 && !doesNothing(live) {
		return t, api.Errorf(api.CodeVerify, "the adapter is not zero, but changes no logit of the base model")
	}
	return t, err
}

func compareLogits(alone, want, got []float32, tolerance float64) (*api.ExportTest, error) {
	t := &api.ExportTest{Difference: logitDistance(got, want), Effect: logitDistance(alone, want), Tolerance: tolerance}
	switch {
	case math.IsInf(t.Difference, 0) || math.IsInf(t.Effect, 0):
		return t, api.Errorf(api.CodeVerify, "with the adapter the model gives logits that are not finite").
			WithHint("export an earlier round with --round")
	case t.Difference > t.Tolerance:
		return t, api.Errorf(api.CodeVerify, "what was written gives logits that differ by %.2g from those of the adapter, at most %.2g is expected", t.Difference, t.Tolerance)
	case t.Difference > exactTolerance && t.Difference > t.Effect/2:
		return t, api.Errorf(api.CodeVerify, "what was written gives logits that differ by %.2g from those of the adapter, which differ by %.2g from the base model's", t.Difference, t.Effect).
			WithHint("rounding takes away what the adapter does: export it with --dtype f32")
	}
	return t, nil
}

// probe is the tokens of which logits are compared.
func probe(c model.Config) []int32 {
	ids := make([]int32, min(48, c.Context))
	for i := range ids {
		ids[i] = int32((i*7919 + 13) % c.Vocab)
	}
	return ids
}

// logitDistance is the root of the mean square of the difference, as a share of
// that of want around its mean. It is infinite when a value is not finite.
func logitDistance(got, want []float32) float64 {
	mean, square, off := 0.0, 0.0, 0.0
	for _, v := range want {
		mean += float64(v) / float64(len(want))
	}
	for i, v := range want {
		square += (float64(v) - mean) * (float64(v) - mean)
		off += (float64(got[i]) - float64(v)) * (float64(got[i]) - float64(v))
	}
	if d := math.Sqrt(off / square); len(got) == len(want) && !math.IsNaN(d) {
		return d
	}
	return math.Inf(1)
}

// doesNothing reports whether an adapter is as it was before the first step.
func doesNothing(a *lora.Adapter) bool {
	for _, p := range a.Parts() {
		for _, v := range a.Tensor(p.B) {
			if v != 0 {
				return false
			}
		}
	}
	return true
}

// readGGUF checks that a GGUF file holds the tensors of an adapter, and returns
// the adapter with the values that are in the file. llama.cpp has the rows of
// some tensors in another order: values are compared sorted.
func readGGUF(path string, live *lora.Adapter, dtype safetensors.DType) (*lora.Adapter, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	tensors, err := parseGGUF(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	back, err := lora.New(live.Spec(), modulesOfParts(live))
	if err != nil {
		return nil, err
	}
	copy(back.Values(), live.Values())
	if dtype == safetensors.F16 {
		for i, v := range back.Values() {
			back.Values()[i] = safetensors.F16ToFloat32(safetensors.Float32ToF16(v))
		}
	}
	want := make(map[string]int)
	for i := range back.Layout() {
		want[sortedBits(back.Tensor(i))]++
	}
	for _, t := range tensors {
		key := sortedBits(t)
		if want[key]--; want[key] < 0 {
			return nil, fmt.Errorf("%s: one of its tensors has values that are not the adapter's", path)
		}
	}
	if len(tensors) != len(back.Layout()) {
		return nil, fmt.Errorf("%s has %d tensors, the adapter %d", path, len(tensors), len(back.Layout()))
	}
	return back, nil
}

func modulesOfParts(a *lora.Adapter) []lora.Module {
	var modules []lora.Module
	for _, p := range a.Parts() {
		modules = append(modules, p.Module)
	}
	return modules
}

// sortedBits is the same for tensors with the same values in any order.
func sortedBits(values []float32) string {
	s := slices.Clone(values)
	for i := range s {
		s[i] += 0 // -0 is sorted as 0 is
	}
	slices.Sort(s)
	return string(safetensors.AppendFloats(nil, s, safetensors.F32))
}

// ggufReader reads the header of a GGUF file.
type ggufReader struct {
	b   []byte
	off int
	bad bool
}

func (r *ggufReader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)-r.off) {
		r.bad = true
		return make([]byte, 8)
	}
	p := r.b[r.off : r.off+int(n)]
	r.off += int(n)
	return p
}

func (r *ggufReader) u32() uint32    { return binary.LittleEndian.Uint32(r.bytes(4)) }
func (r *ggufReader) u64() uint64    { return binary.LittleEndian.Uint64(r.bytes(8)) }
func (r *ggufReader) string() string { return string(r.bytes(r.u64())) }

// skip passes over a value of a metadata entry.
func (r *ggufReader) skip(kind uint32) {
	const stringKind, arrayKind = 8, 9
	switch kind {
	case 0, 1, 7:
		r.bytes(1)
	case 2, 3:
		r.bytes(2)
	case 4, 5, 6:
		r.bytes(4)
	case 10, 11, 12:
		r.bytes(8)
	case stringKind:
		r.string()
	case arrayKind:
		of := r.u32()
		for n := r.u64(); n > 0 && !r.bad; n-- {
			r.skip(of)
		}
	default:
		r.bad = true
	}
}

// parseGGUF returns the values of all tensors.
func parseGGUF(b []byte) ([][]float32, error) {
	errBad := errors.New("not a GGUF file of version 3 with tensors of F32 or F16")
	r := &ggufReader{b: b}
	if string(r.bytes(4)) != "GGUF" || r.u32() != 3 {
		return nil, errBad
	}
	count, entries := r.u64(), r.u64()
	for ; entries > 0 && !r.bad; entries-- {
		r.string()
		r.skip(r.u32())
	}
	type info struct {
		elements uint64
		kind     uint32
		offset   uint64
	}
	var infos []info
	for ; count > 0 && !r.bad; count-- {
		r.string()
		t := info{elements: 1}
		for d := r.u32(); d > 0 && !r.bad; d-- {
			t.elements *= r.u64()
		}
		t.kind, t.offset = r.u32(), r.u64()
		infos = append(infos, t)
	}
	const alignment = 32
	data := uint64(r.off+alignment-1) / alignment * alignment
	var all [][]float32
	for _, t := range infos {
		dtype, width := safetensors.F32, uint64(4)
		if t.kind == 1 {
			dtype, width = safetensors.F16, 2
		}
		end := data + t.offset + t.elements*width
		if r.bad || t.kind > 1 || t.elements > uint64(len(b)) || end > uint64(len(b)) || end < data {
			return nil, errBad
		}
		values := make([]float32, t.elements)
		safetensors.DecodeFloats(values, b[data+t.offset:end], dtype)
		all = append(all, values)
	}
	if r.bad {
		return nil, errBad
	}
	return all, nil
}
