package round

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

var exhaustive = flag.Bool("exhaustive", false, "check votes in all three attempts, whichever of them the liar proposes in; takes minutes")

// voting is the end of one round of 4 seats of which one lies: the machines of
// the honest ones hold all commits and haves, and what is left is proposals,
// votes and clocks.
type voting struct {
	*bench
	liar    *simNode
	honest  []*simNode
	setup   map[int][]Event // by node: what brings a machine there
	started time.Time
	records []cid.Cid // all that were proposed
	runs    int
}

// local is what happened to one honest seat after the setup.
type local struct {
	clock     int   // attempts that have begun for it, 0 to 3
	delivered []int // proposals, in their order
	order     []int // of clock steps (-1) and deliveries (their numbers)
	votes     []int // records that it voted for: one at most
	proposed  []int // proposals that it published
}

// world is a state of the search.
type world struct {
	seats []local
	pool  []proposed // what was published
}

type proposed struct {
	attempt uint32
	record  int
	signed  msg.Signed
}

// newVoting has the liar propose in attempt liarAt; 3: never.
func newVoting(t *testing.T, liarAt int) *voting {
	t.Helper()
	b := newBench(t, 4, liarAt)
	v := &voting{bench: b, liar: b.node, setup: make(map[int][]Event), started: b.now.Add(time.Second)}
	for _, n := range b.nodes {
		if n != v.liar {
			v.honest = append(v.honest, n)
		}
	}
	var commits, haves []msg.Signed
	commits = append(commits, v.liar.seal(b.commitOf(v.liar, 1000)))
	for _, n := range v.honest {
		v.setup[n.i] = []Event{Tick{}, Want{Seat: true}, Trained{
			Head: b.head().ID, Delta: testCID(fmt.Sprint("own", n.i)), DeltaBytes: b.rules.deltaBytes, Tokens: 1000, Steps: 1, Norm: 1,
		}}
		_, out := v.play(n, local{}, nil)
		commits = append(commits, published[*msg.Commit](t, out))
	}
	lie := &msg.Have{Run: b.runID, Round: b.head().Record.Round + 1, Head: b.head().ID, Peer: v.liar.id}
	haves = append(haves, v.liar.seal(lie))
	for _, n := range v.honest {
		for _, c := range commits {
			if c.From != n.id {
				v.setup[n.i] = append(v.setup[n.i], Received{c}, Checked{Commit: c.CID, Reason: msg.Held})
			}
		}
		_, out := v.play(n, local{}, nil)
		haves = append(haves, published[*msg.Have](t, out))
	}
	for _, n := range v.honest {
		for _, h := range haves {
			if h.From != n.id {
				v.setup[n.i] = append(v.setup[n.i], Received{h})
			}
		}
	}
	return v
}

func published[M msg.Message](t *testing.T, out []msg.Signed) msg.Signed {
	t.Helper()
	for _, s := range out {
		if _, ok := s.Message.(M); ok {
			return s
		}
	}
	t.Fatal("nothing of that kind was published")
	return msg.Signed{}
}

// play makes the machine of a seat anew and lets everything happen to it again.
// It returns the machine and what it published.
func (v *voting) play(n *simNode, l local, pool []proposed) (*Machine, []msg.Signed) {
	v.runs++
	m, err := New(Config{
		Manifest: v.manifest, Run: v.runID, Self: n.id, Chain: n.chain, Own: n.saidBefore(),
		Sign: func(x msg.Message) (msg.Signed, error) { return msg.Seal(n.priv, x) },
	}, v.started)
	if err != nil {
		v.t.Fatal(err)
	}
	var out []msg.Signed
	var step func(time.Time, Event)
	step = func(at time.Time, ev Event) {
		var folds []Fold
		for _, e := range m.Step(at, ev) {
			switch e := e.(type) {
			case Publish:
				out = append(out, e.Signed)
			case Fold:
				folds = append(folds, e)
			}
		}
		for _, f := range folds {
			step(at, fakeFold(f))
		}
	}
	for _, ev := range v.setup[n.i] {
		step(v.started, ev)
	}
	now := v.started
	for _, k := range l.order {
		if k < 0 {
			now = now.Add(m.timing.Attempt)
			step(now, Tick{})
		} else {
			step(now, Received{pool[k].signed})
		}
	}
	return m, out
}

// after is a world in which one seat did one thing more.
func (v *voting) after(w world, seat, what int) world {
	next := world{seats: slices.Clone(w.seats), pool: slices.Clone(w.pool)}
	l := &next.seats[seat]
	l.order = append(slices.Clone(l.order), what)
	if what < 0 {
		l.clock++
	} else {
		l.delivered = append(slices.Clone(l.delivered), what)
		slices.Sort(l.delivered)
	}
	l.votes, l.proposed = nil, slices.Clone(l.proposed)
	_, out := v.play(v.honest[seat], *l, next.pool)
	for _, s := range out {
		switch x := s.Message.(type) {
		case *msg.Vote:
			if r := v.recordOf(x.Record); !slices.Contains(l.votes, r) {
				l.votes = append(l.votes, r)
			}
		case *msg.Proposal:
			known := slices.ContainsFunc(next.pool, func(p proposed) bool { return p.signed.CID.Equals(s.CID) })
			if x.Attempt < msg.MaxAttempt && !known {
				l.proposed = append(l.proposed, len(next.pool))
				next.pool = append(next.pool, proposed{x.Attempt, v.recordOf(msg.RawCID(x.Record)), s})
			}
		}
	}
	return next
}

func (v *voting) recordOf(id cid.Cid) int {
	if i := slices.IndexFunc(v.records, id.Equals); i >= 0 {
		return i
	}
	v.records = append(v.records, id)
	return len(v.records) - 1
}

// lies are two valid records in the liar's attempt, and one with a wrong state.
func (v *voting) lies(attempt uint32) []proposed {
	if attempt >= msg.MaxAttempt {
		return nil
	}
	n := v.honest[0]
	m, _ := v.play(n, local{}, nil)
	haves := m.cur.firstHaves()
	var out []proposed
	for i, without := range []int{0, len(haves) - 1, 0} {
		c := v.rules.Consequence(Basis{
			Parent: v.head(), Haves: slices.Delete(slices.Clone(haves), without, without+1), Find: m.cur.find,
		})
		if len(c.Blocked) > 0 {
			v.t.Fatal("the liar has no record")
		}
		r := c.Record
		if c.Folds() {
			r = c.weigh(fakeFold(c.Fold(v.head().Record.State)))
		}
		if i == 2 {
			r.State = testCID("wrong")
		}
		r.Proposer, r.Attempt, r.ParentCertificate = v.liar.id, attempt, v.head().Certificate
		b, err := r.Encode()
		if err != nil {
			v.t.Fatal(err)
		}
		s := v.liar.seal(&msg.Proposal{Run: v.runID, Round: r.Round, Attempt: attempt, Peer: v.liar.id, Record: b})
		out = append(out, proposed{attempt, v.recordOf(msg.RawCID(b)), s})
	}
	return out
}

// key tells worlds apart by clocks, votes and proposals. What else was delivered
// makes no difference: a machine that did not vote has seen nothing that it
// would vote for, and of one that did every delivery is tried from each of its
// states.
func (w world) key() string {
	var b strings.Builder
	for _, l := range w.seats {
		fmt.Fprintf(&b, "%d %v %v|", l.clock, l.votes, l.proposed)
	}
	for _, p := range w.pool {
		fmt.Fprintf(&b, "%d:%d ", p.attempt, p.record)
	}
	return b.String()
}

// certified returns the records for which a quorum can have voted, if the liar
// votes for all of them.
func (w world) certified() []int {
	count := map[int]int{}
	for _, l := range w.seats {
		for _, r := range l.votes {
			count[r]++
		}
	}
	var out []int
	for r, n := range count {
		if n+1 >= 3 {
			out = append(out, r)
		}
	}
	return out
}

// TestExhaustiveVotes: four seats, one of which lies as it likes, three
// attempts: in whatever order clocks run and proposals arrive, or do not, no two
// records of the height get a quorum. Without -exhaustive only the first two
// attempts are gone through.
func TestExhaustiveVotes(t *testing.T) {
	clocks, places := 1, []int{0, 1}
	switch {
	case testing.Short():
		places = []int{0}
	case *exhaustive:
		clocks, places = 3, []int{0, 1, 2, 3}
	}
	for _, liarAt := range places {
		t.Run(fmt.Sprintf("liar proposes in attempt %d", liarAt), func(t *testing.T) {
			v := newVoting(t, liarAt)
			start := world{seats: make([]local, 3), pool: v.lies(uint32(liarAt))}
			seen := map[string]bool{start.key(): true}
			queue := []world{start}
			certified, split := 0, 0
			for len(queue) > 0 {
				w := queue[0]
				queue = queue[1:]
				switch c := w.certified(); {
				case len(c) > 1:
					t.Fatalf("two certificates for a height: %s", w.key())
				case len(c) == 1:
					certified++
				}
				voted := map[int]bool{}
				for _, l := range w.seats {
					for _, r := range l.votes {
						voted[r] = true
					}
				}
				if len(voted) > 1 {
					split++
				}
				for i, l := range w.seats {
					if l.clock < clocks {
						queue = v.visit(queue, seen, v.after(w, i, -1))
					}
					for p := range w.pool {
						if !slices.Contains(l.delivered, p) && !slices.Contains(l.proposed, p) {
							queue = v.visit(queue, seen, v.after(w, i, p))
						}
					}
				}
			}
			t.Logf("%d states, %d with a certificate, %d with votes for several records, %d machines", len(seen), certified, split, v.runs)
			if certified == 0 || split == 0 && liarAt < 3 {
				t.Error("the search does not reach what it is about")
			}
		})
	}
}

func (v *voting) visit(queue []world, seen map[string]bool, w world) []world {
	k := w.key()
	if seen[k] {
		return queue
	}
	seen[k] = true
	return append(queue, w)
}
