package app

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/node/internal/train"
)

// A run that does not fit is refused with numbers, at launch and when it is
// joined; one whose activations alone do not fit keeps fewer of them.
func TestMemory(t *testing.T) {
	n, r, id := trained(t, "")
	dir, err := n.modelDir(t.Context(), r.manifest.Model)
	if err != nil {
		t.Fatal(err)
	}
	o := runner.TrainOptions(r.manifest, dir)
	need, err := train.EstimateMemory(o)
	if err != nil {
		t.Fatal(err)
	}
	free := func(bytes int64) { n.freeMemory = func() (int64, error) { return bytes + spareMemory, nil } }
	for _, tt := range []struct {
		free    int64
		bounded bool
		fits    bool
	}{
		{need.Total(), false, true},
		{need.Total() - 1, true, true},
		{need.Weights + need.Training, false, false},
		{0, false, false},
	} {
		free(tt.free)
		o.ActivationBytes = 0
		err := n.planMemory(&o)
		if tt.fits != (err == nil) || tt.fits && tt.bounded != (o.ActivationBytes > 0) {
			t.Errorf("with %d of %d bytes free: %d bytes of activations, %v", tt.free, need.Total(), o.ActivationBytes, err)
		}
		if tt.bounded {
			if less, err := train.EstimateMemory(o); err != nil || less.Total() > tt.free {
				t.Errorf("the plan takes %d bytes of %d, %v", less.Total(), tt.free, err)
			}
		}
	}
	free(1000)
	fitErr := func(n *node) error {
		f, err := n.fit(t.Context(), r.manifest, fitting{})
		if err != nil {
			t.Fatal(err)
		}
		return f.Err()
	}
	wantCode(t, fitErr(n), api.CodeRAM, "of optimizer")
	m, d := imported(t, n)
	_, err = n.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, d, "[inner]\nsequence_tokens = 32\n")}, quiet)
	wantCode(t, err, api.CodeRAM, "are free")
	if e := api.AsError(err); e.Exit != 10 || e.Hint == "" {
		t.Errorf("exit %d, hint %q", e.Exit, e.Hint)
	}
	other, _ := testNode(t, filepath.Join(t.TempDir(), "other"), new(fakeRuns).open)
	other.freeMemory = func() (int64, error) { return 1000, nil }
	wantCode(t, fitErr(other), api.CodeRAM, "of weights at least")
	other.freeMemory = func() (int64, error) { return 0, errors.ErrUnsupported }
	if err := fitErr(other); err != nil {
		t.Errorf("where free memory cannot be told: %v", err)
	}
	if _, err := n.Leave(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err = n.Join(t.Context(), api.JoinRequest{Run: id}, quiet)
	wantCode(t, err, api.CodeRAM, "are free")
}

func TestFreeMemory(t *testing.T) {
	free, err := freeMemory()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil || free < 1<<20 || free > 1<<50 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
}
