package runner

import (
	"runtime"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/run"
)

// heap is how much of it is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestPauseGivesMemoryBack: a pause gives back what a trainer on the processor
// takes, soon, and afterwards training goes on from the last step. It is not
// parallel, because it measures the memory of the process.
func TestPauseGivesMemoryBack(t *testing.T) {
	a := newNode(t, 62)
	gate := &Gate{}
	a.hub.o.Gate = gate
	man := launch(t, a, func(m *run.Manifest) { m.MaxRounds = 1000 })
	idle := heap()
	r, stop := a.takePart(t, man)
	until(t, "a trained round", func() bool { return r.Summary().TrainedRounds >= 1 })
	before := heap()
	began := time.Now()
	gate.Set(false, 100)
	until(t, "memory", func() bool { return heap()-idle <= (before-idle)/4 })
	t.Logf("%.1f MB more than without a trainer before the pause, %.1f MB more %v after it",
		float64(before-idle)/1e6, float64(heap()-idle)/1e6, time.Since(began))
	rounds := r.Summary().TrainedRounds
	gate.Set(true, 100)
	until(t, "training that goes on", func() bool { return r.Summary().TrainedRounds > rounds })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
