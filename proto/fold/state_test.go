package fold

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestLayoutRefuses(t *testing.T) {
	long := strings.Repeat("x", MaxNameBytes+1)
	tests := []struct {
		name    string
		tensors []Tensor
		want    string
	}{
		{"none", nil, "tensors are 0, must be 1 to 8192"},
		{"too many", make([]Tensor, MaxTensors+1), "tensors are 8193, must be 1 to 8192"},
		{"no name", []Tensor{{"", 1, 1}}, "has 0 bytes, must have 1 to 256"},
		{"long name", []Tensor{{long, 1, 1}}, "has 257 bytes, must have 1 to 256"},
		{"space", []Tensor{{"a b", 1, 1}}, "must be printable ASCII"},
		{"umlaut", []Tensor{{"ä", 1, 1}}, "must be printable ASCII"},
		{"twice", []Tensor{{"a", 1, 1}, {"a", 1, 1}}, "a is out of order or there twice"},
		{"order", []Tensor{{"b", 1, 1}, {"a", 1, 1}}, "a is out of order or there twice"},
		{"no rows", []Tensor{{"a", 0, 1}}, "a is 0 x 1"},
		{"negative", []Tensor{{"a", -1, -1}}, "a is -1 x -1"},
		{"too large", []Tensor{{"a", 1 << 14, 1<<14 + 1}}, "a is 16384 x 16385"},
		{"overflow", []Tensor{{"a", math.MaxInt, 4}}, "at most 268435456 values"},
		{"one too many", []Tensor{{"a", 1 << 14, 1 << 14}, {"b", 1, 1}}, "b is 1 x 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewLayout(tt.tensors); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("NewLayout() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestLayoutChunks(t *testing.T) {
	l := newLayout(t, Tensor{"a", 3, 1}, Tensor{"b", 4096, 2}, Tensor{"c", 4097, 1})
	want := []chunk{{0, 0, 3}, {1, 3, 4096}, {1, 4099, 4096}, {2, 8195, 4096}, {2, 12291, 1}}
	if len(l.chunks) != len(want) {
		t.Fatalf("chunks are %v, want %v", l.chunks, want)
	}
	for i, c := range l.chunks {
		if c != want[i] {
			t.Errorf("chunk %d is %v, want %v", i, c, want[i])
		}
	}
}

func TestStateRoundTrip(t *testing.T) {
	l := smallLayout(t)
	s := randomState(l, 1)
	b := s.Marshal()
	if int64(len(b)) != StateBytes(l) {
		t.Errorf("a state has %d bytes, StateBytes says %d", len(b), StateBytes(l))
	}
	got, err := UnmarshalState(l, b)
	if err != nil {
		t.Fatal(err)
	}
	if !same(s, got) || !bytes.Equal(got.Marshal(), b) {
		t.Error("the state is not what it was")
	}
	if s.CID() != FileCID(b) {
		t.Error("CID is not that of the canonical bytes")
	}
}

func TestStateRefuses(t *testing.T) {
	l := newLayout(t, Tensor{"a", 1, 2})
	other := newLayout(t, Tensor{"a", 2, 1})
	valid := NewState(l).Marshal()
	lowest := bytes.Clone(valid)
	copy(lowest[len(lowest)-4:], []byte{0, 0, 0, 0x80})
	padding := bytes.Clone(valid)
	padding[len(stateHeader(l))-1] = 1
	for name, b := range map[string][]byte{
		"empty":        nil,
		"short":        valid[:len(valid)-1],
		"long":         append(bytes.Clone(valid), 0),
		"magic":        append([]byte("M"), valid[1:]...),
		"other layout": NewState(other).Marshal(),
		"-2^31":        lowest,
		"padding":      padding,
	} {
		if _, err := UnmarshalState(l, b); !errors.Is(err, ErrState) {
			t.Errorf("%s: UnmarshalState() = %v, want ErrState", name, err)
		}
	}
}

func FuzzUnmarshalState(f *testing.F) {
	l := newLayout(f, Tensor{"a", 1, 3})
	f.Add(NewState(l).Marshal())
	f.Add(randomState(l, 1).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := UnmarshalState(l, b)
		if err == nil && !bytes.Equal(s.Marshal(), b) {
			t.Fatal("what was decoded is not encoded as it was")
		}
	})
}
