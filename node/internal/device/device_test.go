package device

import (
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda"
)

func TestParse(t *testing.T) {
	auto := -1
	if cuda.Built {
		auto = 0
	}
	for name, want := range map[string]int{"cpu": -1, "auto": auto, "cuda:0": 0, "cuda:7": 7} {
		if got, err := Parse(name); got != want || err != nil {
			t.Errorf("Parse(%q) = %d, %v, want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:x", "cuda:9999", "CPU"} {
		if _, err := Parse(name); err == nil || !strings.Contains(err.Error(), "auto, cpu or cuda:N") {
			t.Errorf("Parse(%q): %v", name, err)
		}
	}
	if g, err := Find("cpu", nil); g != nil || err != nil {
		t.Errorf("Find(cpu) = %v, %v", g, err)
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		i    cuda.Info
		err  error
		want string
	}{
		{i: cuda.Info{Name: "NVIDIA GeForce RTX 3060", TotalBytes: 12<<30 - 1<<26, Capability: 86}, want: "cuda:1 (NVIDIA GeForce RTX 3060, 12 GB, 8.6)"},
		{i: cuda.Info{Name: strings.Repeat("ü", 60), TotalBytes: 1 << 30, Capability: 61}, want: "cuda:1 (" + strings.Repeat("ü", 21) + ", 1 GB, 6.1)"},
		{err: errors.New("gone"), want: "cuda:1 cannot be used (" + cuda.ErrorKind(errors.New("gone")) + ")"},
	} {
		tt.i.Ordinal = 1
		g := &GPU{ordinal: 1, log: slog.New(slog.DiscardHandler), query: func(int) (cuda.Info, error) { return tt.i, tt.err }}
		got, err := g.Text()
		if !errors.Is(err, tt.err) || len(got) > maxText {
			t.Errorf("Text() = %q of %d bytes, %v", got, len(got), err)
		}
		if got != tt.want && len(got) < maxText-1 {
			t.Errorf("Text() = %q, want %q", got, tt.want)
		}
	}
}

func TestChoices(t *testing.T) {
	dir := t.TempDir()
	want := map[string]string{"2048x4096x4096 nt": "own"}
	if err := writeChoices(dir, nil, want); err != nil {
		t.Fatal(err)
	}
	if got, err := readChoices(dir); err != nil || !maps.Equal(got, want) {
		t.Errorf("readChoices() = %v, %v", got, err)
	}
	if got, err := readChoices(t.TempDir()); got != nil || err != nil {
		t.Errorf("readChoices() = %v, %v", got, err)
	}
}
