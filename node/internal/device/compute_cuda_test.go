//go:build cuda && cgo

package device

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/moot-net/moot/node/internal/cuda/cudatest"
	"github.com/moot-net/moot/node/internal/cuda/emu"
	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/model"
)

// What was planned for a model is what it takes: the driver is asked once.
func TestOpenModel(t *testing.T) {
	driver, err := cudatest.Load()
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if driver != nil {
		driver.Reset()
	}
	assets, err := demo.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g, err := Find("cuda:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const tokens = 256
	b, err := g.OpenModel(Computing{Dir: assets.ModelDir, Tokens: tokens, Text: tokens})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	m, err := model.Load(assets.ModelDir, model.Options{Backend: b})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]int32, tokens/2)
	for i := range ids {
		ids[i] = int32(i % 50)
	}
	var batch model.Batch
	for range 2 {
		if err := batch.Add(ids, ids); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Evaluate(&batch); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Generate(t.Context(), ids, model.GenerateOptions{MaxTokens: tokens - len(ids)}); err != nil {
		t.Fatal(err)
	}
	u := b.Usage()
	t.Logf("reserved %d bytes, used %d", u.Reserved, u.Peak)
	if u.Grown != 0 || float64(u.Peak) < 0.9*float64(u.Reserved) {
		t.Errorf("%d bytes were planned, and more asked for %d times; %d were used", u.Reserved, u.Grown, u.Peak)
	}
}
