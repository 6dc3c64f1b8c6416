package runner

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/round/roundtest"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// pastRun makes a run of n rounds that x, its launcher, has the records of. Others
// have seats with the keys of the nodes others.
func pastRun(t testing.TB, x *testNode, n int, change func(*run.Manifest), others ...int) (*run.Manifest, *roundtest.Chronicle) {
	t.Helper()
	man := launch(t, x, func(m *run.Manifest) {
		m.SkipLinks, m.MaxRounds = true, uint64(n+3)
		if change != nil {
			change(m)
		}
	})
	keys := []crypto.PrivKey{x.key}
	for _, i := range others {
		k, _ := nodeKey(t, i)
		keys = append(keys, k)
	}
	c := roundtest.New(t, man, keys...)
	c.Grow(n)
	return man, c
}

func endless(m *run.Manifest) { m.MaxRounds = 10_000 }

// has gives a node, which does not take part yet, the records of a chronicle.
func (x *testNode) has(t testing.TB, man *run.Manifest, c *roundtest.Chronicle) {
	t.Helper()
	r, err := x.hub.Open(filepath.Join(x.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	for links := range slices.Chunk(c.Links[1:], 200) {
		if err := r.ledger.Adopt(time.Now(), links); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

// quick makes a node join and fill in as in a run of many more rounds.
func (x *testNode) quick() {
	x.hub.proofWorth, x.hub.fillPause, x.hub.fillWait = 20, time.Millisecond, 200*time.Millisecond
}

// Who comes late takes part with the last records, and has all others in the end.
func TestJoinLate(t *testing.T) { t.Parallel(); testJoinLate(t, 50, 0) }

// The same of who was away. Its proof has steps without their certificates.
func TestJoinLateAgain(t *testing.T) { t.Parallel(); testJoinLate(t, 63, 50) }

// testJoinLate has nodes with keys from first on; the late one has some records.
func testJoinLate(t *testing.T, first, had int) {
	const past = 300
	a := newNode(t, first)
	man, c := pastRun(t, a, past, nil)
	a.has(t, man, c)
	ra, _ := a.takePart(t, man)
	late := newNode(t, first+1, a.addr())
	if had > 0 {
		known := *c
		known.Links = c.Links[:had+1]
		late.has(t, man, &known)
		steps := round.Prove(msg.Round(had), past, func([]round.ProofStep) bool { return true }, func(n msg.Round) (round.Link, bool) { k, _, ok := ra.ledger.At(n); return k, ok })
		if !slices.ContainsFunc(steps, func(s round.ProofStep) bool { return s.Bare }) {
			t.Fatalf("no step of %v is without its certificate", steps)
		}
	}
	late.quick()
	late.hub.fillPause, late.hub.fillWait = time.Hour, time.Hour
	rl, stop := late.takePart(t, man)
	sameEnd(t, ra, rl)
	floor, below, ok := rl.ledger.Gap()
	if !ok || floor < past-segmentRecords-1-fillRecords || below > past {
		t.Errorf("records are missing from %d to %d: %v", below, floor, ok)
	}
	quiet(t, rl)
	if n := late.events.count(api.EventRound); n > 10 {
		t.Errorf("%d rounds were told of, the run had 3 since", n)
	}
	end := rl.ledger.Head().Record.Round // on a slow machine some rounds have no contribution
	if l, _ := rl.Rounds(1, 1000); end < past+3 || len(l) == 0 || l[len(l)-1].Round != uint64(end) {
		t.Errorf("%d rounds are listed, the last one is %d", len(l), end)
	}
	until(t, "summary of the gap", func() bool { // which may be being filled
		floor, _, _ := rl.ledger.Gap()
		return rl.Summary().RecordsFrom == uint64(floor)
	})
	o := replay.Options{Manifest: man, Chain: chain{l: rl.ledger}, Store: a.store, From: past}
	if got, err := replay.Run(t.Context(), o); err != nil || got.Folded != int(end-past) || got.State != rl.ledger.Head().Record.State {
		t.Errorf("replay from the round that was joined: %+v, %v", got, err)
	}
	o.Chain, o.From = gapped{ra.ledger, past / 3, past - segmentRecords}, past
	if got, err := replay.Run(t.Context(), o); err != nil || got.Folded != int(end-past) || got.State != rl.ledger.Head().Record.State {
		t.Errorf("replay from a round after a second gap: %+v, %v", got, err)
	}
	o.From = past / 2
	if _, err := replay.Run(t.Context(), o); !errors.Is(err, replay.ErrMissing) {
		t.Errorf("replay from a round that is missing: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	late.quick()
	rl, _ = late.takePart(t, man) // goes on after a restart
	until(t, "filled gap", func() bool { _, _, ok := rl.ledger.Gap(); return !ok })
	for n := range end + 1 {
		x, _, _ := ra.ledger.At(n)
		y, _, ok := rl.ledger.At(n)
		if !ok || x.ID != y.ID || (x.Certificate == nil) != (y.Certificate == nil) {
			t.Fatalf("record %d is not here as others have it", n)
		}
	}
	if a, b := ra.ledger.Head(), rl.ledger.Head(); a.Certified != b.Certified {
		t.Errorf("%d records are certified, others have %d", b.Certified, a.Certified)
	}
}

// gapped is a ledger without the records from one round to before another.
type gapped struct {
	l        *ledger.Ledger
	from, to msg.Round
}

func (g gapped) Record(n msg.Round) (round.Link, bool) {
	k, _, ok := g.l.At(n)
	return k, ok && (n < g.from || n >= g.to)
}

// quiet checks that a runner with nothing to do does nothing: each of its steps makes
// another view. A few come with what others say.
func quiet(t *testing.T, r *Runner) {
	t.Helper()
	const looks = 50
	steps, seen := looks, 0
	for end := time.Now().Add(3 * time.Minute); steps > looks/2 && time.Now().Before(end); {
		steps = 0
		for n := 0; n < looks && time.Now().Before(end); {
			last, began := r.view.Load(), time.Now()
			time.Sleep(20 * time.Millisecond)
			if now := r.view.Load(); time.Since(began) < 100*time.Millisecond { // on a busy machine it may be much later
				n++
				if now != last {
					steps++
				}
			}
			seen = n
		}
	}
	if seen < looks {
		t.Logf("the machine is too busy to see whether it was quiet: %d looks of %d", seen, looks)
	}
	if steps > looks/2 {
		t.Errorf("in a quiet second there was a step %d times out of %d", steps, looks)
	}
}

// A chain that was proven and breaks the rules in the middle is left as soon as
// that is seen.
func TestJoinRefuted(t *testing.T) {
	t.Parallel()
	const wrong = 60
	a := newNode(t, 52)
	man, c := pastRun(t, a, wrong-1, endless, 53, 54, 55)
	c.Links = append(c.Links, c.Next(func(r *msg.Record) { r.Tokens += 1e6 }))
	c.Grow(150)
	a.has(t, man, c)
	a.takePart(t, man)
	late := newNode(t, 56, a.addr())
	late.quick()
	late.hub.fillPause = time.Second
	rl, stop := late.takePart(t, man)
	until(t, "jump", func() bool { return late.events.count(api.EventRound) > 0 })
	until(t, "alert", func() bool { return late.events.count(api.EventAlert) > 0 })
	until(t, "retreat", func() bool { _, _, ok := rl.ledger.Gap(); return !ok })
	until(t, "last true record", func() bool { return rl.ledger.Head().Record.Round == wrong-1 })
	if !rl.whole.Load() {
		t.Error("another proof would be believed")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	rl, err := late.hub.Open(filepath.Join(late.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	defer rl.Close()
	if !rl.whole.Load() {
		t.Error("another proof would be believed after a restart")
	}
}

// A runner whose disk fails ends, whatever it has under way.
func TestLoopFails(t *testing.T) {
	t.Parallel()
	x := newNode(t, 62)
	man, c := pastRun(t, x, 40, endless, 63, 64, 65)
	r, err := x.hub.Open(filepath.Join(x.dir, "run"), man)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ledger.Jump(time.Now(), c.Links[0].ID, nil, c.Links[30:41]); err != nil {
		t.Fatal(err)
	}
	x.hub.fillWait = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	until(t, "records being brought", r.filling.Load)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case r.moves <- move{}:
	case <-time.After(time.Minute):
		t.Fatal("the loop does not run")
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a disk that fails is no error")
		}
	case <-time.After(time.Minute):
		t.Fatal("Run does not end")
	}
}

// A head that others, who are as far, do not know is not joined.
func TestJoinDenied(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, 57), newNode(t, 58)
	man, c := pastRun(t, a, 40, endless, 58, 59, 60)
	other := *c
	other.Links = c.Links[:31:31]
	c.Grow(80)
	other.Links = append(other.Links, other.Next(func(r *msg.Record) { r.Tokens += 5 }))
	other.Grow(80)
	late := newNode(t, 61, a.addr(), b.addr())
	late.quick()
	open := func(x *testNode, c *roundtest.Chronicle) *Runner {
		r, err := x.hub.Open(filepath.Join(x.dir, "run"), man)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		if c != nil {
			if err := r.ledger.Adopt(time.Now(), c.Links[1:]); err != nil {
				t.Fatal(err)
			}
		}
		return r
	}
	open(a, c)
	open(b, &other)
	r := open(late, nil)
	r.scopes.begin(t.Context())
	until(t, "connection", func() bool { return len(late.host.Peers()) == 2 })
	v := &round.View{}
	for _, x := range []*testNode{a, b} {
		v.Members = append(v.Members, round.Member{Status: &msg.Status{Peer: x.hub.self, Round: 81}})
	}
	r.view.Store(v)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	steps, size, err := r.askProof(ctx, a.hub.self, c.Links[0], 80)
	if err != nil || len(steps) == 0 || size == 0 {
		t.Fatalf("%d steps of %d bytes, %v", len(steps), size, err)
	}
	for range maxDoubts {
		if r.whole.Load() {
			t.Error("given up too early")
		}
		if s := r.askSegment(ctx, a.hub.self, steps[len(steps)-1]); s != nil {
			t.Fatalf("%d records of a head that the other does not know", len(s))
		}
	}
	if !r.whole.Load() {
		t.Error("not given up")
	}
	// With a gap to fill, who proves another chain shows that too many lied.
	if err := r.ledger.Jump(time.Now(), c.Links[0].ID, steps[:len(steps)-1], c.Links[60:81]); err != nil {
		t.Fatal(err)
	}
	if err := r.contradicts(ctx, b.hub.self); !errors.Is(err, round.ErrRefuted) {
		t.Errorf("another chain of the same seats: %v", err)
	}
	if err := r.contradicts(ctx, a.hub.self); err != nil {
		t.Errorf("the same chain: %v", err)
	}
	v.Members = v.Members[:1]
	if s := r.askSegment(ctx, a.hub.self, steps[len(steps)-1]); len(s) != segmentRecords+1 {
		t.Errorf("%d records with nobody else to ask, want %d", len(s), segmentRecords+1)
	}
}
