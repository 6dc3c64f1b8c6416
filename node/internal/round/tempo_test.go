package round

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// timed is a run of n peers that finds its steps, from 8 to 50, and its
// deadlines.
func timed(n int) *run.Manifest {
	return testManifest(func(m *run.Manifest) {
		m.MinPeers, m.MaxTokens, m.FollowArrivals = uint32(n), 1<<40, true
		m.Inner.MinSteps, m.Inner.StartSteps, m.Inner.MaxSteps = 8, 40, 50
	})
}

// hear lets all seats say the same of kappa and arrivals.
func hear(kappa uint32, arrival uint64) turn {
	return turn{edit: func(_ int, h *msg.Have) { h.KappaPPM, h.ArrivalMillis = kappa, arrival }}
}

// TestSteerSteps: which steps follow from which kappas, each told in the round
// after its own. A change shows in the second kappa after it.
func TestSteerSteps(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kappas []uint32
		steps  []uint32 // of the next round
	}{
		{"in between", []uint32{0, 50_000, 200_000, 100_000, 60_000}, []uint32{40, 40, 40, 40, 40}},
		{"high", []uint32{0, 200_001, 300_000, 300_000, 250_000, 250_000}, []uint32{40, 20, 20, 10, 10, 8}},
		{"at the least", []uint32{0, 300_000, 300_000, 300_000, 300_000, 300_000, 300_000, 300_000, 300_000}, []uint32{40, 20, 20, 10, 10, 8, 8, 8, 8}},
		{"high at the least", []uint32{0, 300_000, 0, 300_000, 0, 300_000, 0, 1, 1, 300_000, 1}, []uint32{40, 20, 20, 10, 10, 8, 8, 8, 8, 8, 8}},
		{"low three times", []uint32{0, 49_999, 1, 2, 3, 3}, []uint32{40, 40, 40, 50, 50, 50}},
		{"low, but not in a row", []uint32{0, 1, 1, 50_000, 1, 1, 1}, []uint32{40, 40, 40, 40, 40, 40, 50}},
		{"what is not told does not count", []uint32{0, 1, 0, 1, 0, 1}, []uint32{40, 40, 40, 40, 40, 50}},
		{"the first round has none to tell of", []uint32{900_000, 100_000}, []uint32{40, 40}},
		{"low before a change does not count after it", []uint32{0, 1, 1, 300_000, 0, 1, 1, 1}, []uint32{40, 40, 40, 20, 20, 20, 20, 25}},
		{"up again", []uint32{0, 300_000, 0, 1, 1, 1, 0, 1, 1, 1}, []uint32{40, 20, 20, 20, 20, 25, 25, 25, 25, 31}},
	} {
		s := newTale(t, 4, timed(4))
		before := uint32(40)
		for i, k := range tt.kappas {
			r := s.follow(hear(k, 0)).Record
			if r.Tempo.Steps != tt.steps[i] || r.Tempo.StepsBefore != before || s.rules.StepsAfter(r) != tt.steps[i] {
				t.Fatalf("%s: after kappa %d of number %d: %+v, want %d steps after %d", tt.name, k, i, r.Tempo, tt.steps[i], before)
			}
			before = tt.steps[i]
		}
	}
}

// TestLow: how low counts at the least and the most steps, where they do not change.
func TestLow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		start  uint32
		kappas []uint32
		low    []uint32
	}{
		{"high at the least", 8, []uint32{0, 1, 1, 300_000}, []uint32{0, 1, 2, 0}},
		{"due at the most", 50, []uint32{0, 1, 1, 1, 1}, []uint32{0, 1, 2, 0, 1}},
	} {
		m := timed(4)
		m.Inner.StartSteps = tt.start
		s := newTale(t, 4, m)
		for i, k := range tt.kappas {
			if r := s.follow(hear(k, 0)).Record; r.Tempo.Steps != tt.start || r.Tempo.Low != tt.low[i] {
				t.Errorf("%s: after kappa %d of number %d: %+v, want low %d", tt.name, k, i, r.Tempo, tt.low[i])
			}
		}
	}
}

// TestStepsOfRollback: a run that goes back takes fewer steps.
func TestStepsOfRollback(t *testing.T) {
	m := timed(4)
	m.Rollback = run.Rollback{Rounds: 1, WorsePPM: 1}
	s := newTale(t, 4, m)
	s.follow(tell(500))
	s.follow(tell(400))
	if r := s.follow(tell(600)).Record; !r.Trend.Back || r.Tempo.Steps != 20 {
		t.Errorf("back %v, %d steps, want half of 40", r.Trend.Back, r.Tempo.Steps)
	}
}

// late has entries that say that the deltas of the last seats did not come.
func late(h *msg.Have, n int) {
	for i := len(h.Entries) - n; i < len(h.Entries); i++ {
		h.Entries[i].Reason = msg.Timeout
	}
}

// TestSteerDeadline: which deadline follows from which arrivals; the period is
// ten seconds.
func TestSteerDeadline(t *testing.T) {
	const n = 9
	type told struct {
		arrival uint64
		late    int
	}
	all := func(list ...uint64) (out []told) {
		for _, a := range list {
			out = append(out, told{a, 0})
		}
		return out
	}
	for _, tt := range []struct {
		name string
		told []told
		want []uint64
	}{
		{"three arrivals", all(6000, 6000, 6000, 6000), []uint64{10_000, 10_000, 7500, 7500}},
		{"very fast", all(10, 10, 10, 10), []uint64{10_000, 10_000, 5000, 5000}},
		{"very slow", all(20_000, 20_000, 20_000), []uint64{10_000, 10_000, 12_000}},
		{"scattered", all(4000, 5000, 5500, 6500, 4500), []uint64{10_000, 10_000, 6500, 8500, 6500}},
		{"the last eight", all(9000, 9000, 9000, 4000, 4000, 4000, 4000, 4000, 4000, 4000, 4000), []uint64{
			10_000, 10_000, 11_250, 11_250, 11_250, 12_000, 5000, 5000, 5000, 5000, 5000,
		}},
		{"training was cut short", all(4000, 4000, 4000, 0, 4000), []uint64{10_000, 10_000, 5000, 10_000, 10_000}},
		{"one of nine is late", []told{{4000, 1}, {4000, 1}, {4000, 1}}, []uint64{10_000, 10_000, 5000}},
		{"two are", []told{{4000, 0}, {4000, 0}, {4000, 0}, {0, 2}, {0, 2}, {0, 0}, {11_000, 0}, {6000, 0}, {6000, 0}, {6000, 0}}, []uint64{
			10_000, 10_000, 5000, 10_000, 12_000, 12_000, 12_000, 12_000, 7500, 7500,
		}},
	} {
		s := newTale(t, n, timed(n))
		for i, w := range tt.told {
			r := s.follow(turn{edit: func(_ int, h *msg.Have) { h.ArrivalMillis = w.arrival; late(h, w.late) }}).Record
			if got := r.Tempo; got.ArrivalMillis != w.arrival || got.DeadlineMillis != tt.want[i] {
				t.Errorf("%s: after number %d: %+v, want arrival %d, deadline %d", tt.name, i, got, w.arrival, tt.want[i])
			}
			if got := s.rules.DeadlineAfter(r); got != time.Duration(tt.want[i])*time.Millisecond {
				t.Errorf("%s: the deadline is %v", tt.name, got)
			}
		}
	}
}

// TestTempoWithFewHaves: of fewer than 2f+1 haves liars could be half.
func TestTempoWithFewHaves(t *testing.T) {
	s := newTale(t, 7, timed(7))
	for range 3 {
		s.follow(hear(100_000, 4000))
	}
	before := s.head().Record.Tempo
	b := s.basis(hear(900_000, 1))
	b.Haves, b.Fallback = b.Haves[:4], true
	got := s.rules.Consequence(b).Record.Tempo
	if got.KappaPPM != 0 || got.Steps != before.Steps || got.ArrivalMillis != 0 || got.DeadlineMillis != before.DeadlineMillis || len(got.Arrivals) != 3 {
		t.Errorf("four of seven say %+v after %+v", got, before)
	}
}

// TestLiarsAndTempo: whatever f liars say, what is recorded lies among what the
// honest say, steps and deadlines stay within the manifest's bounds, and neither
// is moved where the honest agree.
func TestLiarsAndTempo(t *testing.T) {
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		n := []int{4, 7, 10, 13}[seed%4]
		_, f := Quorum(n)
		m := timed(n)
		s := newTale(t, n, m)
		agreed := seed%2 == 0
		for i := range 14 {
			kappas, arrivals := [2]uint32{math.MaxUint32, 0}, [2]uint64{math.MaxUint64, 0}
			liars := make(map[int]bool)
			for _, j := range rnd.Perm(n)[:f] {
				liars[j] = true
			}
			r := s.follow(turn{edit: func(j int, h *msg.Have) {
				h.KappaPPM, h.ArrivalMillis = 60_000+rnd.Uint32N(130_000), 7000
				if !agreed {
					h.KappaPPM, h.ArrivalMillis = 1+rnd.Uint32N(400_000), 1+rnd.Uint64N(15_000)
				}
				if liars[j] {
					h.KappaPPM = []uint32{0, 1, msg.MaxKappaPPM}[rnd.IntN(3)]
					h.ArrivalMillis = []uint64{0, 1, msg.MaxArrivalMillis}[rnd.IntN(3)]
					return
				}
				kappas = [2]uint32{min(kappas[0], h.KappaPPM), max(kappas[1], h.KappaPPM)}
				arrivals = [2]uint64{min(arrivals[0], h.ArrivalMillis), max(arrivals[1], h.ArrivalMillis)}
			}}).Record.Tempo
			if i > 0 && (r.KappaPPM < kappas[0] || r.KappaPPM > kappas[1]) {
				t.Fatalf("seed %d: kappa %d, honest peers say %v", seed, r.KappaPPM, kappas)
			}
			if r.ArrivalMillis < arrivals[0] || r.ArrivalMillis > arrivals[1] {
				t.Fatalf("seed %d: arrival %d, honest peers say %v", seed, r.ArrivalMillis, arrivals)
			}
			if r.Steps < m.Inner.MinSteps || r.Steps > m.Inner.MaxSteps || r.DeadlineMillis < 5000 || r.DeadlineMillis > 12_000 {
				t.Fatalf("seed %d: %+v is out of bounds", seed, r)
			}
			if agreed && (r.Steps != 40 || i >= 2 && r.DeadlineMillis != 8750) {
				t.Fatalf("seed %d: liars moved it to %+v", seed, r)
			}
		}
	}
}

// TestTempoOfARun: with one peer of eight that takes as much time as it gets,
// rounds become shorter, it goes on to contribute, and all do what the records
// say. When all are slow, rounds last as long as the manifest says.
func TestTempoOfARun(t *testing.T) {
	const n = 8
	slow := func(i int) bool { return i == n-1 }
	kappa := uint32(100_000)
	s := newSim(t, 9, n, timed(n), simOpts{
		trainTime: func(i int) time.Duration {
			if slow(i) {
				return time.Hour
			}
			return 2 * time.Second
		},
		kappa: func(*simNode) uint32 { return kappa },
	})
	s.startAll()
	head := func() *msg.Record { return s.nodes[0].chain.Head().Record }
	if !s.runUntil(5*time.Minute, func() bool { return head().Tempo != nil && head().Tempo.DeadlineMillis == 5000 && s.minRound() >= 8 }) {
		t.Fatalf("rounds did not become shorter: %+v\n%s", head().Tempo, s.describe())
	}
	from, began := s.minRound(), s.now
	kappa = 300_000
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= from+10 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	if took := s.now.Sub(began) / 10; took > 5500*time.Millisecond {
		t.Errorf("a round takes %v, want about 0.45 of the period", took)
	}
	if head().Tempo.Steps != 8 {
		t.Errorf("%d steps, want the least, 8", head().Tempo.Steps)
	}
	links := s.nodes[0].chain.links
	for i, l := range links {
		if l.Record.Round <= from {
			continue
		}
		if len(l.Record.Contributions) != n {
			t.Errorf("round %d: %d contributions, want all %d", l.Record.Round, len(l.Record.Contributions), n)
		}
		for k, e := range l.Record.Commits {
			c, _, err := msg.OpenAs[*msg.Commit](e)
			if err != nil {
				t.Fatal(err)
			}
			want := s.rules.StepsAfter(links[i-1].Record)
			if steps := uint32(c.Steps); !slow(s.indexOf(l.Record.Seats[l.Record.Contributions[k].Seat])) && steps != want || steps > want {
				t.Errorf("round %d: %d steps, want %d", l.Record.Round, steps, want)
			}
		}
	}
	slow = func(int) bool { return true }
	if !s.runUntil(5*time.Minute, func() bool { return head().Tempo.DeadlineMillis == 10_000 && s.minRound() >= from+14 }) {
		t.Errorf("nobody is ready in time, and the deadline is %+v", head().Tempo)
	}
	if err := s.agree(s.minRound()); err != nil {
		t.Error(err)
	}
}

// TestArrival: when all but an eighth of the expected deltas, with all of their
// steps, were held; who had none in the round before is not expected.
func TestArrival(t *testing.T) {
	const n = 10
	s := newSim(t, 6, n, timed(n), simOpts{kappa: func(*simNode) uint32 { return 100_000 }})
	s.startAll()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 4 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	m := s.nodes[0].m
	h := m.cur
	began := h.began
	steps := uint64(m.rules.StepsAfter(h.parent.Record))
	entry := func(after time.Duration, steps uint64, reason msg.Reason) []*commitEntry {
		return []*commitEntry{{commit: &msg.Commit{Steps: steps}, decided: true, reason: reason, at: began.Add(after)}}
	}
	for i := range n {
		h.commits[i] = entry(time.Duration(i+1)*time.Second, steps, msg.Held)
	}
	if got := m.arrival(h); got != 9000 {
		t.Errorf("all of ten came, one after each second: %d ms, want 9000", got)
	}
	h.commits[4] = entry(time.Second, steps, msg.Timeout)
	if got := m.arrival(h); got != 10_000 {
		t.Errorf("one did not: %d ms, want 10000", got)
	}
	h.commits[7] = entry(time.Second, steps-1, msg.Held)
	if got := m.arrival(h); got != 0 {
		t.Errorf("and one was cut short: %d ms, want 0", got)
	}
	h.commits[4], h.commits[7] = nil, nil
	parent := *h.parent.Record
	parent.Contributions = slices.DeleteFunc(slices.Clone(parent.Contributions), func(c msg.Contribution) bool { return c.Seat == 4 || c.Seat == 7 })
	h.parent.Record = &parent
	if got := m.arrival(h); got != 9000 {
		t.Errorf("two of whom nothing is expected: %d ms, want 9000", got)
	}
}

// TestHaste: who was too late trains less until that is forgotten.
func TestHaste(t *testing.T) {
	const n = 10
	s := newSim(t, 4, n, timed(n), simOpts{kappa: func(*simNode) uint32 { return 100_000 }})
	isLate := false
	for _, k := range s.nodes {
		k.lateCheck = func(maker int) bool { return isLate && maker == 3 }
	}
	s.startAll()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= 4 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	left := func(i int) time.Duration {
		m := s.nodes[i].m
		return m.trainUntil(m.cur).Sub(m.cur.began)
	}
	usual := left(3)
	isLate = true
	at := s.minRound()
	if !s.runUntil(5*time.Minute, func() bool { return s.minRound() >= at+3 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	if hurried, others := left(3), left(4); hurried > others*3/4 || others < usual*9/10 {
		t.Errorf("who was late trains for %v, others for %v, before for %v", hurried, others, usual)
	}
	isLate = false
	if !s.runUntil(10*time.Minute, func() bool { return s.minRound() >= at+3+haste+2 }) {
		t.Fatalf("no rounds\n%s", s.describe())
	}
	if a, b := left(3), left(4); a != b {
		t.Errorf("long after, it trains for %v, others for %v", a, b)
	}
}
