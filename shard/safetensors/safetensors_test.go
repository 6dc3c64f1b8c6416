package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// file puts a length in front of a header and n bytes of data behind it.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func read(b []byte) (*Header, error) { return ReadHeader(bytes.NewReader(b), int64(len(b))) }

func TestReadHeaderAccepts(t *testing.T) {
	tests := []struct {
		name, header string
		data         int
		want         []Info
	}{
		{"nothing", `{}`, 0, nil},
		{"padded", "{} \n\t ", 0, nil},
		{"only metadata", `{"__metadata__":{"format":"pt"}}`, 0, nil},
		{"scalar", `{"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}`, 8, []Info{{"s", I64, []int64{}, 0, 8}}},
		{
			"out of order",
			`{"b":{"data_offsets":[4,10],"dtype":"BF16","shape":[1,3]}, "a" : { "dtype":"F32","shape":[1],"data_offsets":[0, 4]}}`,
			10,
			[]Info{{"a", F32, []int64{1}, 0, 4}, {"b", BF16, []int64{1, 3}, 4, 10}},
		},
		{
			"empty tensors between others",
			`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"f":{"dtype":"F32","shape":[0],"data_offsets":[3,3]}}`,
			3,
			[]Info{{"e", F32, []int64{0, 7}, 0, 0}, {"a", U8, []int64{3}, 0, 3}, {"f", F32, []int64{0}, 3, 3}},
		},
		{"escapes", `{"\u00e9\n\ud83d\ude00\/":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`, 1, []Info{{"é\n😀/", U8, []int64{}, 0, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := read(file(tt.header, tt.data))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, h.Tensors); diff != "" {
				t.Error(diff)
			}
			for _, want := range tt.want {
				if got, ok := h.Lookup(want.Name); !ok || got.Begin != want.Begin {
					t.Errorf("Lookup(%q) = %v, %v", want.Name, got, ok)
				}
			}
		})
	}
}

func TestReadHeaderRefuses(t *testing.T) {
	one := func(fields string) string { return `{"a":{` + fields + `}}` }
	tests := []struct {
		name, header string
		data         int
		want         string // in the error
	}{
		{"not an object", `[]`, 0, "starts with {"},
		{"leading space", ` {}`, 0, "starts with {"},
		{"cut off", `{"a":{"dtype":"F32"`, 0, "want ','"},
		{"trailing", `{}x`, 0, "something after"},
		{"trailing comma", `{"__metadata__":{},}`, 0, `want '"'`},
		{"tensor twice", `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0, "twice"},
		{"metadata twice", `{"__metadata__":{},"__metadata__":{}}`, 0, "twice"},
		{"metadata key twice", `{"__metadata__":{"a":"b","a":"c"}}`, 0, "twice"},
		{"metadata number", `{"__metadata__":{"a":1}}`, 0, `want '"'`},
		{"field twice", one(`"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]`), 0, "twice"},
		{"field unknown", one(`"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1`), 0, "unknown"},
		{"no dtype", one(`"shape":[0],"data_offsets":[0,0]`), 0, "missing"},
		{"no shape", one(`"dtype":"U8","data_offsets":[0,0]`), 0, "missing"},
		{"no offsets", one(`"dtype":"U8","shape":[0]`), 0, "missing"},
		{"unknown dtype", one(`"dtype":"F12","shape":[0],"data_offsets":[0,0]`), 0, "unknown dtype"},
		{"one offset", one(`"dtype":"U8","shape":[0],"data_offsets":[0]`), 0, "two numbers"},
		{"three offsets", one(`"dtype":"U8","shape":[0],"data_offsets":[0,0,0]`), 0, "more than 2"},
		{"negative", one(`"dtype":"U8","shape":[-1],"data_offsets":[0,0]`), 0, "non-negative"},
		{"fraction", one(`"dtype":"U8","shape":[1.0],"data_offsets":[0,1]`), 1, "want ','"},
		{"leading zero", one(`"dtype":"U8","shape":[01],"data_offsets":[0,1]`), 1, "non-negative"},
		{"huge", one(`"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0]`), 0, "too large"},
		{"overflow", one(`"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]`), 0, "has 0 bytes"},
		{"wrong size", one(`"dtype":"F32","shape":[2],"data_offsets":[0,4]`), 4, "has 4 bytes"},
		{"backwards", one(`"dtype":"U8","shape":[0],"data_offsets":[1,0]`), 1, "start at 0"},
		{"gap at the start", one(`"dtype":"U8","shape":[1],"data_offsets":[1,2]`), 2, "start at 0"},
		{"gap", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3, "start at 1"},
		{"overlap", `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3, "start at 2"},
		{"same bytes", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, "start at 1"},
		{"past the end", one(`"dtype":"U8","shape":[2],"data_offsets":[0,2]`), 1, "the file has 1"},
		{"bytes left over", one(`"dtype":"U8","shape":[1],"data_offsets":[0,1]`), 2, "the file has 2"},
		{"many dimensions", one(`"dtype":"U8","shape":[` + strings.Repeat("1,", 64) + `1],"data_offsets":[0,1]`), 1, "more than 64"},
		{"broken UTF-8", "{\"\xff\":{}}", 0, "UTF-8"},
		{"lone surrogate", `{"\ud800":{}}`, 0, "surrogate"},
		{"two high surrogates", `{"\ud800\ud800":{}}`, 0, "surrogate"},
		{"bad escape", `{"\x":{}}`, 0, "escape"},
		{"control character", "{\"\x01\":{}}", 0, "control"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := read(file(tt.header, tt.data))
			if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want ErrFormat with %q", err, tt.want)
			}
		})
	}
}

func TestReadHeaderLength(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":          {},
		"seven bytes":    make([]byte, 7),
		"no header":      make([]byte, 8),
		"longer than it": file(`{}`, 0)[:9],
		"2^63":           {0, 0, 0, 0, 0, 0, 0, 0x80, '{', '}'},
		"cap + 1":        binary.LittleEndian.AppendUint64(nil, MaxHeaderBytes+1),
	} {
		if _, err := read(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: err = %v, want ErrFormat", name, err)
		}
	}
	// The size may be wrong too.
	if _, err := ReadHeader(bytes.NewReader(file(`{}`, 0)[:9]), 10); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short reader: err = %v, want unexpected EOF", err)
	}
}

// These bytes are those of the reference implementation for the same tensors.
func TestWriteBytes(t *testing.T) {
	var buf bytes.Buffer
	err := Write(&buf, []Tensor{
		{"b", F32, []int64{1}, []float32{2}},
		{"h", BF16, []int64{2}, []float32{1, -2}},
		{"a", F32, []int64{1, 1}, []float32{1}},
	}, map[string]string{"format": "pt"})
	if err != nil {
		t.Fatal(err)
	}
	header := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"h":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}`
	header += strings.Repeat(" ", -len(header)&7)
	want := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	want = append(want, 0, 0, 0x80, 0x3f, 0, 0, 0, 0x40, 0x80, 0x3f, 0, 0xc0)
	if diff := cmp.Diff(string(want), buf.String()); diff != "" {
		t.Error(diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	ok := Tensor{"a", F32, []int64{1}, []float32{1}}
	for name, tensors := range map[string][]Tensor{
		"name twice":       {ok, {"a", BF16, []int64{1}, []float32{1}}, {"b", F32, []int64{1}, []float32{1}}},
		"metadata's name":  {{"__metadata__", F32, []int64{1}, []float32{1}}},
		"integers":         {{"a", I64, []int64{1}, []float32{1}}},
		"too few values":   {{"a", F32, []int64{2}, []float32{1}}},
		"negative shape":   {{"a", F32, []int64{-1, -1}, []float32{1}}},
		"name not UTF-8":   {{"\xff", F32, []int64{1}, []float32{1}}},
		"shape overflowed": {{"a", F32, []int64{1 << 62, 4}, nil}},
	} {
		if err := Write(io.Discard, tensors, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWriteSources: integers too, the same bytes as Write for floats, and
// tensors that write too much or too little.
func TestWriteSources(t *testing.T) {
	bytesOf := func(b ...byte) func(io.Writer) error {
		return func(w io.Writer) error {
			for _, c := range b {
				if _, err := w.Write([]byte{c}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	var a, b bytes.Buffer
	tensor := Tensor{"h", BF16, []int64{2}, []float32{1, -2}}
	if err := Write(&a, []Tensor{tensor}, nil); err != nil {
		t.Fatal(err)
	}
	if err := WriteSources(&b, []Source{{"h", BF16, []int64{2}, bytesOf(0x80, 0x3f, 0, 0x40)}}, nil); err != nil {
		t.Fatal(err)
	}
	if a.Len() != b.Len() || bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("other values gave the same bytes, or another length")
	}
	b.Reset()
	err := WriteSources(&b, []Source{{"q", U8, []int64{3}, bytesOf(1, 2, 3)}, {"n", I64, nil, bytesOf(9, 0, 0, 0, 0, 0, 0, 0)}, {"h", BF16, []int64{2}, tensor.write}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for _, info := range f.Header().Tensors {
		names = append(names, info.Name)
	}
	section, info, err := f.Section("q")
	if err != nil || info.DType != U8 {
		t.Fatal(info, err)
	}
	if got, err := io.ReadAll(section); err != nil || !bytes.Equal(got, []byte{1, 2, 3}) || strings.Join(names, "") != "nhq" {
		t.Errorf("read %v from %v, %v", got, names, err)
	}
	for name, write := range map[string]func(io.Writer) error{"few": bytesOf(1, 2), "many": bytesOf(1, 2, 3, 4)} {
		if err := WriteSources(io.Discard, []Source{{"q", U8, []int64{3}, write}}, nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("too %s bytes gave %v", name, err)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	long := make([]float32, 300_000) // more than a chunk of reading
	for i := range long {
		long[i] = float32(i%251) - 125
	}
	var buf bytes.Buffer
	err := Write(&buf, []Tensor{
		{"f", F32, []int64{2}, []float32{math.MaxFloat32, -0.1}},
		{"long", BF16, []int64{3, 100_000}, long},
		{"half", F16, []int64{3}, []float32{0.5, 65504, 0x1p-24}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, want := range map[string][]float32{
		"f": {math.MaxFloat32, -0.1}, "long": long, "half": {0.5, 65504, 0x1p-24},
	} {
		got, info, err := f.ReadTensor(name)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ReadTensor(%s) = %d values, %v, %v", name, len(got), info, err)
		}
	}
	if b, _, err := f.ReadRaw("half"); err != nil || !bytes.Equal(b, []byte{0, 0x38, 0xff, 0x7b, 1, 0}) {
		t.Errorf("ReadRaw = %x, %v", b, err)
	}
	if _, _, err := f.ReadTensor("x"); err == nil {
		t.Error("a tensor that is not there was read")
	}
	if err := f.ReadFloat32("f", make([]float32, 3)); err == nil {
		t.Error("a tensor was read into the wrong length")
	}
	if err := os.Truncate(path, int64(buf.Len()-1)); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadFloat32("long", make([]float32, len(long))); err != nil {
		t.Errorf("a tensor before the cut: %v", err)
	}
	if _, _, err := f.ReadTensor("half"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a tensor in the cut: %v", err)
	}
	if _, err := Open(path); !errors.Is(err, ErrFormat) {
		t.Errorf("Open of a cut file: %v", err)
	}
}

func TestReadFloat32RefusesIntegers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "i")
	if err := os.WriteFile(path, file(`{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}`, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.ReadFloat32("a", make([]float32, 1)); err == nil {
		t.Error("an integer tensor was read as float32")
	}
}

// Every file of reference results was written by the reference implementation
// (through other programs): written again, it has the same bytes.
func TestGoldenRewrite(t *testing.T) {
	root := os.Getenv("MOOT_GOLDEN")
	if root == "" {
		root = filepath.Join("..", "shared", "golden")
	}
	if !filepath.IsAbs(root) {
		root = filepath.Join("..", "..", root) // of the repository
	}
	paths, err := filepath.Glob(filepath.Join(root, "models", "*", "adapter_*", "*.safetensors"))
	if err != nil || len(paths) == 0 {
		t.Skipf("no reference adapters under %s", root)
	}
	for _, path := range paths {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		var tensors []Tensor
		for _, info := range slices.Backward(f.Header().Tensors) {
			values, _, err := f.ReadTensor(info.Name)
			if err != nil {
				t.Fatal(err)
			}
			tensors = append(tensors, Tensor{info.Name, info.DType, info.Shape, values})
		}
		f.Close()
		var got bytes.Buffer
		if err := Write(&got, tensors, f.Header().Metadata); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: %d bytes written again are not the %d read", path, got.Len(), len(want))
		}
	}
}

func TestHalfFloats(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if f := F16ToFloat32(h); f == f && Float32ToF16(f) != h {
			t.Fatalf("f16 %#04x is %v is %#04x", h, f, Float32ToF16(f))
		} else if f != f && F16ToFloat32(Float32ToF16(f)) == F16ToFloat32(Float32ToF16(f)) {
			t.Fatalf("f16 %#04x lost its NaN", h)
		}
		if f := BF16ToFloat32(h); f == f && Float32ToBF16(f) != h {
			t.Fatalf("bf16 %#04x is %v is %#04x", h, f, Float32ToBF16(f))
		} else if f != f && BF16ToFloat32(Float32ToBF16(f)) == BF16ToFloat32(Float32ToBF16(f)) {
			t.Fatalf("bf16 %#04x lost its NaN", h)
		}
	}
	for _, tt := range []struct {
		f     float32
		f16   uint16
		bf16  uint16
		about string
	}{
		{1 + 0x1p-11, 0x3c00, 0x3f80, "f16 tie to even, down"},
		{1 + 3*0x1p-11, 0x3c02, 0x3f80, "f16 tie to even, up"},
		{1 + 0x1p-8, 0x3c04, 0x3f80, "bf16 tie to even, down"},
		{1 + 3*0x1p-8, 0x3c0c, 0x3f82, "bf16 tie to even, up"},
		{65519.996, 0x7bff, 0x4780, "largest f16"},
		{65520, 0x7c00, 0x4780, "f16 infinite"},
		{1e10, 0x7c00, 0x5015, "f16 infinite"},
		{0x1p-25, 0, 0x3300, "f16 tie to zero"},
		{0x1.8p-25, 1, 0x3340, "least f16"},
		{0x1.ffcp-15, 0x3ff + 1, 0x3880, "subnormal rounds up to normal"},
		{math.MaxFloat32, 0x7c00, 0x7f80, "bf16 infinite"},
		{float32(math.Copysign(0, -1)), 0x8000, 0x8000, "minus zero"},
	} {
		if got := Float32ToF16(tt.f); got != tt.f16 {
			t.Errorf("%s: f16(%v) = %#04x, want %#04x", tt.about, tt.f, got, tt.f16)
		}
		if got := Float32ToBF16(tt.f); got != tt.bf16 {
			t.Errorf("%s: bf16(%v) = %#04x, want %#04x", tt.about, tt.f, got, tt.bf16)
		}
	}
}

// What is accepted can be written again and reads back the same.
func FuzzReadHeader(f *testing.F) {
	f.Add(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[],"data_offsets":[8,10]}}`, 10))
	f.Add(file(`{"é\n":{"dtype":"U8","shape":[0,18446744073709551615],"data_offsets":[0,0]}}  `, 0))
	f.Add(file(`{`, 0))
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := read(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("err = %v, want ErrFormat", err)
			}
			return
		}
		at := int64(0)
		var tensors []Tensor
		for _, info := range h.Tensors {
			if info.Begin != at || info.Elements()*info.DType.Size() != info.End-info.Begin {
				t.Fatalf("accepted %v at %d", info, at)
			}
			at = info.End
			if isFloat(info.DType) {
				values := make([]float32, info.Elements())
				DecodeFloats(values, b[h.DataStart+info.Begin:], info.DType)
				tensors = append(tensors, Tensor{info.Name, info.DType, info.Shape, values})
			}
		}
		if h.DataStart+at != int64(len(b)) {
			t.Fatalf("tensors end at %d of %d", h.DataStart+at, len(b))
		}
		var buf bytes.Buffer
		if err := Write(&buf, tensors, h.Metadata); err != nil {
			t.Fatalf("write what was read: %v", err)
		}
		again, err := read(buf.Bytes())
		if err != nil {
			t.Fatalf("read what was written: %v", err)
		}
		if len(again.Tensors) != len(tensors) || !cmp.Equal(again.Metadata, h.Metadata) {
			t.Fatalf("wrote %d tensors, read %d", len(tensors), len(again.Tensors))
		}
	})
}
