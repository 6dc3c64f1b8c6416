package runner

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// An audit tells a delta that was trained from its opposite and from one of
// zeros, and measures the same each time.
func TestAudit(t *testing.T) {
	t.Parallel()
	x := newNode(t, 40)
	man := launch(t, x, func(m *run.Manifest) {
		m.Inner.MaxSteps, m.Inner.BatchSamples = 8, 8
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 16}
	})
	w, j := openWorker(t, x, man, t.TempDir())
	out, err := w.train(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	layout, err := man.Layout()
	if err != nil {
		t.Fatal(err)
	}
	b, err := x.store.ReadBytes(t.Context(), out.delta, int64(out.bytes))
	if err != nil {
		t.Fatal(err)
	}
	trained, err := fold.Decode(layout, b)
	if err != nil {
		t.Fatal(err)
	}
	encoded := func(change func(int32) int32) *fold.Delta {
		values := make([]int32, layout.Params())
		trained.Values(values)
		for i, v := range values {
			values[i] = change(v)
		}
		b, err := fold.Encode(layout, int(man.CodecBits), values, nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := fold.Decode(layout, b)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	deltas := []*fold.Delta{trained, encoded(func(v int32) int32 { return -v }), encoded(func(int32) int32 { return 0 })}
	job := auditJob{round: 2, record: msg.RawCID([]byte("record")), state: j.state}
	for i := range deltas {
		job.items = append(job.items, round.AuditItem{Seat: uint32(i), ClipQ16: fold.One})
	}
	measure := func() []msg.Audit {
		gains, err := w.audit(t.Context(), job, func(_ context.Context, item round.AuditItem) (*fold.Delta, error) {
			return deltas[item.Seat], nil
		})
		if err != nil || len(gains) != 3 {
			t.Fatal(gains, err)
		}
		return gains
	}
	g := measure()
	if g[0].GainNano < 1e6 || g[1].GainNano > -1e6 || g[2].GainNano != 0 {
		t.Errorf("gains are %v: of the trained delta, its opposite, zeros", g)
	}
	if again := measure(); !slices.Equal(g, again) {
		t.Errorf("measured %v and then %v", g, again)
	}
	job.record = msg.RawCID([]byte("another"))
	if other := measure(); other[0] == g[0] {
		t.Error("another record draws the same samples")
	}
	// The next round is trained from its own state, not from what was measured.
	if again, err := w.train(t.Context(), j); err != nil || again.steps != out.steps {
		t.Errorf("trained again %+v, %v", again, err)
	}
}

func TestGainNano(t *testing.T) {
	for _, tt := range []struct {
		before, after float64
		want          int64
	}{
		{1, 0.5, 5e8},
		{0.5, 1, -5e8},
		{1, 1, 0},
		{1, math.NaN(), -msg.MaxGainNano},
		{1, math.Inf(1), -msg.MaxGainNano},
		{1e300, 0, msg.MaxGainNano},
	} {
		if got := gainNano(tt.before, tt.after); got != tt.want {
			t.Errorf("gainNano(%v, %v) = %d, want %d", tt.before, tt.after, got, tt.want)
		}
	}
}

func TestDrawSamples(t *testing.T) {
	pool := make([]train.Sample, 100)
	for i := range pool {
		pool[i].IDs = []int32{int32(i)}
	}
	draw := func(word string, n int) []int {
		seen := make(map[int]bool)
		var out []int
		for _, s := range drawSamples(pool, msg.RawCID([]byte(word)), n) {
			i := int(s.IDs[0])
			if seen[i] {
				t.Errorf("%d was drawn twice", i)
			}
			seen[i], out = true, append(out, i)
		}
		return out
	}
	a := draw("a", 10)
	if len(a) != 10 || !slices.Equal(a, draw("a", 10)) || slices.Equal(a, draw("b", 10)) || len(draw("a", 200)) != 100 {
		t.Errorf("drew %v", a)
	}
}

// The seats of a run measure each other's deltas, and find them useful; who
// comes later trains on probation.
func TestAuditedRun(t *testing.T) {
	a := newNode(t, 41)
	b := newNode(t, 42, a.addr())
	c := newNode(t, 43, a.addr())
	man := launch(t, a, func(m *run.Manifest) {
		m.MinPeers, m.MaxRounds, m.Inner.MaxSteps, m.Inner.BatchSamples = 3, 1000, 6, 8
		m.PeriodMillis = 12_000 // the machine may be busy; rounds end when all is there
		m.Trust = run.Trust{Auditors: 2, AuditSamples: 16, Probation: 1}
	})
	var runs []*Runner
	for _, x := range []*testNode{a, b, c} {
		r, _ := x.takePart(t, man)
		runs = append(runs, r)
	}
	// On a busy machine seats are late and take fewer steps: as many rounds as it takes.
	judged, useful := 0, 0
	until(t, "audits that find what all seats gave useful", func() bool {
		rounds, err := runs[0].Rounds(1, 1000)
		if err != nil {
			t.Fatal(err)
		}
		judged, useful = 0, 0
		for _, d := range rounds {
			for _, j := range d.Judged {
				judged++
				if j.Verdict == "useful" {
					useful++
				}
			}
		}
		if judged < 6 || useful < judged*2/3 {
			return false
		}
		last := rounds[len(rounds)-1]
		return len(last.Standings) == 3 && last.Standings[0].Work > 0
	})
	endNow(t, runs...)
	rounds, err := runs[0].Rounds(1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range rounds {
		for _, x := range d.Refused {
			if x.Reason != msg.Timeout.String() && x.Reason != msg.NotHeld.String() { // it was late
				t.Errorf("round %d refused %+v", d.Round, x)
			}
		}
		for _, j := range d.Judged {
			if j.Verdict == "damaging" {
				t.Errorf("round %d: %+v", d.Round, j)
			}
		}
	}
	t.Logf("%d contributions were judged, %d found useful", judged, useful)
	runs[0].copies.mu.Lock()
	defer runs[0].copies.mu.Unlock()
	t.Logf("cosines of the last round: %v", runs[0].copies.pairs)
	t.Logf("audits of the last round but one: %+v", rounds[len(rounds)-1].Judged)
}
