package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// checkTime, foldTime and auditTime are what a node takes to compute.
	checkTime = 100 * time.Millisecond
	foldTime  = 300 * time.Millisecond
	auditTime = 2 * time.Second
)

// node is one peer: a machine and what the daemon has around it.
type node struct {
	w   *world
	i   int
	id  peer.ID
	key crypto.PrivKey

	// what outlives the process
	chain    *chain
	residual []int32
	known    []int

	// the process
	m        *round.Machine
	up       bool
	life     int // grows with each start, so that late answers of an earlier life are dropped
	tickAt   time.Time
	trainSeq int
	early    *earlyTraining // nil: none
	syncing  bool
	pending  map[cid.Cid][]waiter
	copies   runner.Copies
	links    []int
	tendAt   time.Duration

	// the machine and its line
	skew             time.Duration // of its clock
	drift            float64       // of its clock, seconds per second
	speed            float64       // of training, beside that of the others
	control          line          // small messages go before bulk
	bulkUp, bulkDown line
	traffic          traffic
	busy             time.Duration // training
	wants            bool          // a seat
	earlySteps       uint64        // that went into deltas
	fault            Fault
	lastDelta        cid.Cid
	misbehaved       map[peer.ID]error
}

// clock is the time as the node has it.
func (n *node) clock() time.Time {
	return epoch.Add(n.skew + n.w.now + time.Duration(n.drift*float64(n.w.now)))
}

// until is how long it takes until the node's clock shows at.
func (n *node) until(at time.Time) time.Duration {
	d := at.Sub(n.clock())
	return max(time.Duration(math.Ceil(float64(d)/(1+n.drift))), 0)
}

func (n *node) start() {
	m, err := round.New(round.Config{
		Manifest: n.w.manifest, Run: n.w.runID, Self: n.id, Chain: n.chain, Own: slices.Clone(n.chain.own), Sign: n.sign,
		Shared: &n.w.shared,
	}, n.clock())
	if err != nil {
		n.w.fail(fmt.Errorf("start node %d: %w", n.i, err))
		return
	}
	m.SetStatus("moot/sim", "cpu", 1)
	n.m, n.up, n.tickAt, n.copies, n.syncing = m, true, time.Time{}, runner.Copies{}, false
	n.pending = make(map[cid.Cid][]waiter)
	n.life++
	n.w.changes++
	n.step(round.Tick{})
	n.step(round.Want{Seat: n.wants})
}

// stop is a crash: nothing is said to anybody.
func (n *node) stop() {
	n.up = false
	n.w.changes++
	n.links = nil
	n.trainSeq++
	n.early = nil
}

func (n *node) sign(v msg.Message) (msg.Signed, error) {
	if s, ok := v.(*msg.Status); ok && !n.w.carries(n) {
		return msg.Signed{Message: s, From: n.id}, v.Validate()
	}
	if h, ok := v.(*msg.Have); ok && n.fault == lyingAuditor {
		// All came at once, and agree.
		h.KappaPPM, h.ArrivalMillis = min(h.KappaPPM, 1), min(h.ArrivalMillis, 1)
	}
	return msg.Seal(n.key, v)
}

// later gives an event to this life of the node.
func (n *node) later(d time.Duration, ev round.Event) {
	life := n.life
	n.w.after(d, func() {
		if n.up && n.life == life {
			n.step(ev)
		}
	})
}

func (n *node) step(ev round.Event) {
	for _, e := range n.m.Step(n.clock(), ev) {
		n.do(e)
	}
	at := n.m.Deadline()
	if !n.up || at.IsZero() || at.Equal(n.tickAt) {
		return
	}
	n.tickAt = at
	n.later(max(n.until(at), time.Nanosecond), round.Tick{})
}

func (n *node) do(e round.Effect) {
	w := n.w
	switch e := e.(type) {
	case round.Store:
		n.chain.store(e.Signed)
		if c, ok := e.Signed.Message.(*msg.Commit); ok {
			n.copies.Announce(c.Round, e.Signed.CID)
			n.compare(c, e.Signed.CID)
		}
	case round.Publish:
		w.publish(n, e.Signed)
	case round.Adopt:
		n.adopt(e.Links)
	case round.Certify:
		if err := n.chain.certify(e.Certificate); err != nil {
			w.fail(fmt.Errorf("node %d: %w", n.i, err))
			return
		}
		l, _ := n.chain.Link(e.Certificate.Record)
		w.sawCertificate(l.ID, l.Record, e.Certificate)
	case round.Train:
		n.train(e)
	case round.TrainEarly:
		n.trainSeq++
		n.early = &earlyTraining{e.Earlier, n.w.now}
	case round.StopTraining:
		n.trainSeq++
		n.early = nil
	case round.Check:
		n.check(e)
	case round.Pull:
		n.pull(e)
	case round.Audit:
		n.audit(e)
	case round.Evaluate:
		n.evaluate(e)
	case round.Compare:
		n.compareRound(e)
	case round.Gate:
		n.gate(e)
	case round.Fold:
		n.fold(e)
	case round.Sync:
		n.sync(e)
	case round.Evidence:
		w.seen.evidence[w.index[e.A.From]] = true
	case round.Misbehaved:
		n.misbehaved[e.Peer] = e.Err
	case round.Doubt:
	default:
		panic(fmt.Sprintf("bug: effect %T", e))
	}
}

func (n *node) adopt(links []round.Link) {
	w := n.w
	if !links[0].Record.Parent.Equals(n.chain.Head().ID) {
		w.seen.reorgs++
	}
	if err := n.chain.adopt(links); err != nil {
		w.fail(fmt.Errorf("node %d: %w", n.i, err))
		return
	}
	w.sawAdopt(n, links)
	head := n.chain.Head()
	// Who did not compute the state brings it.
	n.fetch(head.Record.State, func() bool { return n.chain.Head().ID.Equals(head.ID) }, func() {})
}

// during returns whether a round is still under way for the node.
func (n *node) during(r msg.Round) func() bool {
	return func() bool { return roundOf(n) < r }
}

// train takes inner steps until its time is up, and publishes the delta.
func (n *node) train(e round.Train) {
	n.trainSeq++
	seq, life := n.trainSeq, n.life
	on := func() bool { return n.up && n.life == life && n.trainSeq == seq }
	begun := n.early
	n.early = nil
	n.fetch(e.State, on, func() {
		if !on() {
			return
		}
		in := &n.w.manifest.Inner
		available := n.until(e.Until)
		perStep := n.perStep()
		early := begun.steps(n, e, perStep)
		steps := early + int(available/perStep)
		steps = min(max(steps, int(in.MinSteps)), int(e.Steps))
		d := perStep * time.Duration(steps-early)
		if d > 0 {
			d -= time.Duration(n.w.rnd.Int64N(int64(d)/10 + 1))
		}
		if n.fault.watches() {
			d = max(d, available) // what it does depends on what others did
		}
		n.w.after(d, func() {
			if on() {
				n.busy += d
				n.trained(e, steps, begun.taken(early))
			}
		})
	})
}

// perStep is how long a step takes: the usual node takes its most steps in half of
// the time there is.
func (n *node) perStep() time.Duration {
	return time.Duration(float64(n.w.period()) * 0.4 / float64(n.w.manifest.Inner.MaxSteps) / n.pace())
}

// earlyTraining is what was begun before the head was known.
type earlyTraining struct {
	earlier round.Earlier
	began   time.Duration
}

// steps is how many were taken early that count in the round that e begins.
func (b *earlyTraining) steps(n *node, e round.Train, perStep time.Duration) int {
	if b == nil || !e.Earlier.Head.Equals(b.earlier.Head) {
		return 0
	}
	k := min(int((n.w.now-b.began)/perStep), int(n.w.manifest.Inner.OverlapSteps))
	n.busy += time.Duration(k) * perStep
	if k > int(e.Steps) {
		return 0
	}
	n.earlySteps += uint64(k)
	return k
}

// taken is what a task has to know of so many early steps.
func (b *earlyTraining) taken(steps int) earlySteps {
	if steps == 0 {
		return earlySteps{}
	}
	return earlySteps{steps: steps, from: b.earlier}
}

func (n *node) trained(e round.Train, steps int, early earlySteps) {
	w := n.w
	ev, err := n.contribution(e, steps, early)
	if err != nil {
		w.fail(fmt.Errorf("node %d, round %d: %w", n.i, e.Round, err))
		return
	}
	n.step(ev)
}

// check is what the daemon's deltas.check does.
func (n *node) check(e round.Check) {
	n.copies.Announce(e.Round, e.CID)
	n.fetch(e.Commit.Delta, n.during(e.Round), func() {
		w, life := n.w, n.life
		w.after(checkTime, func() {
			if !n.up || n.life != life {
				return
			}
			reason := n.judge(e.Commit)
			n.step(round.Checked{Commit: e.CID, Reason: reason})
			if reason == msg.Held && n.up {
				n.compare(e.Commit, e.CID)
			}
		})
	})
}

// pull brings what a cell came to.
func (n *node) pull(e round.Pull) {
	n.fetch(e.Aggregate, n.during(e.Round), func() {
		reason := msg.Held
		if d, err := n.w.contents.decoded(e.Aggregate); err != nil || d.Bits() != fold.CellBits {
			reason = msg.BadCodec
		}
		n.later(checkTime, round.Checked{Commit: e.Commit, Reason: reason})
	})
}

func (n *node) judge(c *msg.Commit) msg.Reason {
	bits := int(c.CodecBits) // the round saw that it is the one of the round
	if c.DeltaBytes != uint64(fold.EncodedBytes(n.w.layout, bits)) {
		return msg.BadSize
	}
	d, err := n.w.contents.decoded(c.Delta)
	switch {
	case err != nil:
		return msg.BadRange
	case d.Bits() != bits:
		return msg.BadCodec
	case d.Norm() != c.Norm:
		return msg.BadNorm
	}
	return msg.Held
}

// compare looks for copies; not in a world with very many nodes or seats, where it
// would be most of the work.
func (n *node) compare(c *msg.Commit, id cid.Cid) {
	d, err := n.w.contents.decoded(c.Delta)
	if err != nil || n.w.quiet {
		return
	}
	head, ok := n.chain.Link(c.Head)
	seats := 0
	if ok {
		seats = len(head.Record.NextSeats)
	}
	if !ok || seats > comparedSeats {
		return
	}
	if c := round.Cells(seats); c > 0 {
		seats /= c // as in the daemon: those of the cell
	}
	for _, id := range n.copies.Found(c.Round, id, d, n.w.layout.Params(), seats) {
		n.later(time.Millisecond, round.Checked{Commit: id, Reason: msg.Copy})
	}
}

func (n *node) fold(e round.Fold) {
	states, deltas := e.States(), e.Deltas()
	lacking := len(states) + len(deltas)
	life := n.life
	here := func() {
		if lacking--; lacking > 0 {
			return
		}
		f, err := n.w.fold(e)
		if err != nil {
			return // a liar's own delta, say: the daemon would try until the round is decided
		}
		n.w.after(foldTime, func() {
			if n.up && n.life == life {
				n.w.contents.hold(n, f.State, nil)
				n.step(f)
			}
		})
	}
	wanted := n.during(e.Round)
	for _, id := range states {
		n.fetch(id, wanted, here)
	}
	for _, in := range deltas {
		n.fetch(in.Delta, wanted, here)
	}
}

// comparedSeats is up to how many seats copies are looked for.
const comparedSeats = 128

const syncBytes = 2500 // of a question with a locator

func (n *node) sync(e round.Sync) {
	i, ok := n.w.index[e.From]
	if !ok || n.syncing {
		return
	}
	n.syncing = true
	life := n.life
	n.w.after(10*time.Second, func() {
		if n.life == life {
			n.syncing = false
		}
	})
	o := n.w.nodes[i]
	n.w.request(n, o, syncBytes, func() (int, func()) {
		var items []round.Item
		if e.Branch.Defined() {
			items = o.chain.branch(e.Branch)
		} else {
			locator := n.chain.locator()
			if e.After.Defined() {
				locator = append([]cid.Cid{e.After}, locator...)
			}
			items = o.chain.after(locator)
		}
		size := 0
		for _, it := range items {
			size += len(it.Record) + len(it.Certificate)
		}
		return size, func() {
			n.syncing = false
			if len(items) > 0 {
				n.step(round.Offered{From: o.id, Items: items})
			}
		}
	})
}
