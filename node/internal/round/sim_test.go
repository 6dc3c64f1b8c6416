package round

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// testKey is the key of the i-th peer.
func testKey(i int) (crypto.PrivKey, peer.ID) {
	seed := make([]byte, 32)
	binary.LittleEndian.PutUint64(seed, uint64(i)+1)
	priv, _, err := crypto.GenerateEd25519Key(bytes.NewReader(seed))
	if err != nil {
		panic(err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		panic(err)
	}
	return priv, id
}

func testCID(word string) cid.Cid { return msg.RawCID([]byte(word)) }

// testManifest is of a run that the 0-th peer launched.
func testManifest(change func(*run.Manifest)) *run.Manifest {
	_, launcher := testKey(0)
	m := &run.Manifest{
		Version: run.ManifestVersion, Name: "test", Model: testCID("model"), Dataset: testCID("data"),
		ModelBytes: 1, DatasetBytes: 1,
		LoRA: run.LoRA{Rank: 1, Alpha: 1, Targets: []string{"q"}},
		Tensors: []run.Tensor{
			{Name: "base_model.model.q.lora_A.weight", Rows: 1, Cols: 4},
			{Name: "base_model.model.q.lora_B.weight", Rows: 4, Cols: 1},
		},
		Inner:     run.Inner{LearningRateNano: 1, EpsilonPico: 1, MaxSteps: 10, MinSteps: 1, BatchSamples: 1, MaxTokens: 2},
		Outer:     run.Outer{LearningRateQ16: 45875, MomentumQ16: 39322},
		CodecBits: 2, PeriodMillis: 10_000, Seats: 48, MinPeers: 1, MaxRounds: 1e6,
		Schedule: run.ScheduleConstant, EvalSamples: 1, Launcher: launcher, Template: "alpaca",
	}
	if change != nil {
		change(m)
	}
	return m
}

// memChain is a chain in memory.
type memChain struct {
	links []Link
	at    map[cid.Cid]int
	side  map[cid.Cid]Link // what was left
}

func newMemChain(t testing.TB, m *run.Manifest) *memChain {
	t.Helper()
	_, genesis, err := run.Genesis(m)
	if err != nil {
		t.Fatal(err)
	}
	id, err := genesis.CID()
	if err != nil {
		t.Fatal(err)
	}
	return &memChain{links: []Link{{ID: id, Record: genesis}}, at: map[cid.Cid]int{id: 0}}
}

func (c *memChain) Link(id cid.Cid) (Link, bool) {
	i, ok := c.at[id]
	if !ok {
		return Link{}, false
	}
	return c.links[i], true
}

func (c *memChain) round(n msg.Round) (Link, bool) {
	if n >= msg.Round(len(c.links)) {
		return Link{}, false
	}
	return c.links[n], true
}

func (c *memChain) Head() Link { return c.links[len(c.links)-1] }

func (c *memChain) adopt(links []Link) error {
	i, ok := c.at[links[0].Record.Parent]
	if !ok {
		return fmt.Errorf("adopt %v: parent is not in the chain", links[0].ID)
	}
	for _, l := range c.links[i+1:] {
		delete(c.at, l.ID)
		if c.side == nil {
			c.side = make(map[cid.Cid]Link)
		}
		c.side[l.ID] = l
	}
	c.links = c.links[:i+1]
	for _, l := range links {
		p := c.Head()
		n := p.Certified
		if l.Certificate != nil {
			n++
		}
		if !l.Record.Parent.Equals(p.ID) || l.Certified != n {
			return fmt.Errorf("adopt %v: certified %d, want %d", l.ID, l.Certified, n)
		}
		c.at[l.ID] = len(c.links)
		c.links = append(c.links, l)
	}
	return nil
}

func (c *memChain) certify(cert *msg.Certificate) error {
	i, ok := c.at[cert.Record]
	if !ok || c.links[i].Certificate != nil {
		return fmt.Errorf("certify %v: not there, or certified already", cert.Record)
	}
	c.links[i].Certificate = cert
	for ; i < len(c.links); i++ {
		c.links[i].Certified++
	}
	return nil
}

// offer answers a sync request.
func (c *memChain) offer(t testing.TB, locator []cid.Cid, most int) []Item {
	var items []Item
	for _, id := range locator {
		i, ok := c.at[id]
		if !ok {
			continue
		}
		for _, l := range c.links[i+1:] {
			items = append(items, itemOf(t, l))
			if len(items) == most {
				break
			}
		}
		break
	}
	return items
}

// branch answers a request for a branch that was left.
func (c *memChain) branch(t testing.TB, head cid.Cid) []Item {
	var links []Link
	for l, ok := c.side[head]; ok; l, ok = c.side[l.Record.Parent] {
		links = append(links, l)
	}
	slices.Reverse(links)
	var items []Item
	for _, l := range links {
		items = append(items, itemOf(t, l))
	}
	return items
}

func itemOf(t testing.TB, l Link) Item {
	b, err := l.Record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	item := Item{Record: b}
	if l.Certificate != nil {
		if item.Certificate, err = l.Certificate.Encode(); err != nil {
			t.Fatal(err)
		}
	}
	return item
}

// locator is dense at the head and thin further back.
func (c *memChain) locator() []cid.Cid {
	var list []cid.Cid
	step := 1
	for i := len(c.links) - 1; i > 0 && len(list) < 62; i -= step {
		list = append(list, c.links[i].ID)
		if len(list) >= 8 {
			step *= 2
		}
	}
	return append(list, c.links[0].ID)
}

// fakeFold is deterministic and depends on all inputs.
func fakeFold(f Fold) Folded {
	out := Folded{ID: f.ID, State: testCID("state " + string(f.ID))}
	counted := slices.ContainsFunc(f.Inputs, func(in Input) bool { return in.FactorQ16 > 0 })
	for _, in := range f.Inputs {
		w := in.Tokens * uint64(in.FactorQ16) >> 16
		if !counted {
			w = in.Tokens
		}
		out.Applied = append(out.Applied, fold.Applied{Weight: w, ClipQ16: 65536})
	}
	return out
}

// sim is a network of machines in virtual time.
type sim struct {
	t        testing.TB
	manifest *run.Manifest
	runID    cid.Cid
	rules    *Rules
	rnd      *rand.Rand
	now      time.Time
	queue    eventHeap
	seq      int
	nodes    []*simNode
	opts     simOpts
	certs    map[cid.Cid]cid.Cid      // certified record by parent
	signed   map[string]cid.Cid       // what left a peer, by kind, peer, head, attempt
	evidence map[peer.ID]bool         // of whom there was evidence
	blocked  func(a, b *simNode) bool // the network between two nodes is cut
	overhear func(msg.Signed)         // hears all that anybody publishes
	opened   map[string]msg.Signed
	liars    map[int]bool
	conflict bool // certificates of one head that differ were expected
	isCalm   bool // no more faults
}

type simOpts struct {
	loss      int // of 1000 messages
	dup       int // of 1000
	minDelay  time.Duration
	maxDelay  time.Duration
	trainTime func(i int) time.Duration
	foldTime  time.Duration
	checkTime time.Duration
	offers    int // records in one answer
	backlog   int // messages that wait for who sleeps
	auditTime time.Duration
	tokens    func(i int) uint64
	// gain is what an auditor measures of the delta of a node; 0 nats if nil.
	gain func(auditor *simNode, maker int) int64
	// retrace is what an auditor finds of the training of a node; 0 if nil.
	retrace func(auditor *simNode, maker int) uint32
	// nowhere says of which nodes' deltas nobody else ever gets one.
	nowhere func(maker int) bool
	// heldOut is what a node measures of a state; nothing if nil.
	heldOut func(n *simNode, state cid.Cid) uint64
	// kappa is what a node finds of the deltas of a round.
	kappa func(n *simNode) uint32
	// gate says whether a merge passes for a node; it does if nil.
	gate func(n *simNode) bool
}

type simEvent struct {
	at  time.Time
	seq int
	run func()
}

type eventHeap []*simEvent

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(*simEvent)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}

// simNode is one peer: a machine and what a driver keeps for it.
type simNode struct {
	sim        *sim
	i          int
	id         peer.ID
	priv       crypto.PrivKey
	chain      *memChain
	stored     []msg.Signed
	m          *Machine
	up         bool
	life       int // grows with each start, so late answers of an earlier life are dropped
	tickAt     time.Time
	trainSeq   int
	wants      bool
	asleep     bool // like a laptop whose lid is closed
	slept      []Event
	behind     time.Duration // of its clock: some stand still while their machine sleeps
	heads      int           // adopted
	misbehaved map[peer.ID]error
	doubts     int
	// crashAt: crash before carrying out that many more effects; -1: never
	crashAt int
	// lie says what is sent to a node in place of a message
	lie func(to int, s msg.Signed) []msg.Signed
	// lag is by how much more others hear a message late
	lag func(m msg.Signed) time.Duration
	// lateCheck says whose deltas do not arrive
	lateCheck func(maker int) bool
	// answer replaces what is offered on a sync
	answer      func(locator []cid.Cid) []Item
	folds       int
	reorgs      int
	frauds      int
	credentials Credentials
	// asked is what training was asked for: Train, TrainEarly and StopTraining
	asked []Effect
}

func newSim(t testing.TB, seed uint64, n int, manifest *run.Manifest, opts simOpts) *sim {
	t.Helper()
	id, err := manifest.ID()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := NewRules(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if opts.maxDelay == 0 {
		opts.minDelay, opts.maxDelay = 20*time.Millisecond, 150*time.Millisecond
	}
	if opts.trainTime == nil {
		opts.trainTime = func(int) time.Duration { return 4 * time.Second }
	}
	if opts.foldTime == 0 {
		opts.foldTime = 50 * time.Millisecond
	}
	if opts.checkTime == 0 {
		opts.checkTime = 100 * time.Millisecond
	}
	if opts.tokens == nil {
		opts.tokens = func(i int) uint64 { return uint64(1000 + i) }
	}
	if opts.auditTime == 0 {
		opts.auditTime = 500 * time.Millisecond
	}
	if opts.offers == 0 {
		opts.offers = 64
	}
	s := &sim{
		t: t, manifest: manifest, runID: id, rules: rules, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0),
		opts: opts, certs: make(map[cid.Cid]cid.Cid), signed: make(map[string]cid.Cid), evidence: make(map[peer.ID]bool),
		opened: make(map[string]msg.Signed), liars: make(map[int]bool),
	}
	for i := range n {
		priv, id := testKey(i)
		s.nodes = append(s.nodes, &simNode{
			sim: s, i: i, id: id, priv: priv, chain: newMemChain(t, manifest), wants: true, crashAt: -1,
			misbehaved: make(map[peer.ID]error),
		})
	}
	return s
}

func (s *sim) after(d time.Duration, f func()) {
	s.seq++
	heap.Push(&s.queue, &simEvent{s.now.Add(d), s.seq, f})
}

// runUntil plays events until done says so, at most for d.
func (s *sim) runUntil(d time.Duration, done func() bool) bool {
	end := s.now.Add(d)
	for !done() {
		if len(s.queue) == 0 || s.queue[0].at.After(end) {
			s.now = end
			return done()
		}
		e := heap.Pop(&s.queue).(*simEvent)
		s.now = e.at
		e.run()
	}
	return true
}

func (s *sim) runFor(d time.Duration) { s.runUntil(d, func() bool { return false }) }

func (s *sim) startAll() {
	for _, n := range s.nodes {
		n.start()
	}
}

func (n *simNode) start() {
	own := slices.Clone(n.stored)
	n.sim.rnd.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
	m, err := New(Config{
		Manifest: n.sim.manifest, Run: n.sim.runID, Self: n.id, Chain: n.chain, At: n.chain.round, Own: own, Credentials: n.credentials,
		Sign: func(v msg.Message) (msg.Signed, error) { return msg.Seal(n.priv, v) },
	}, n.sim.now)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	m.SetStatus("test", "cpu", 1)
	n.m, n.up, n.tickAt = m, true, time.Time{}
	n.life++
	n.step(Tick{})
	if n.up && n.wants {
		n.step(Want{Seat: true})
	}
}

func (n *simNode) stop() { n.up = false }

// later delivers an event to this life of the node.
func (n *simNode) later(d time.Duration, ev Event) {
	life := n.life
	n.sim.after(d, func() {
		if n.up && n.life == life {
			n.step(ev)
		}
	})
}

// wake ends the sleep of a node: the time that it had asked for is long past, and
// what came meanwhile and was not lost comes at once.
func (n *simNode) wake() {
	n.asleep = false
	list := n.slept
	n.slept, n.tickAt = nil, time.Time{}
	n.step(Tick{})
	for _, ev := range list {
		n.step(ev)
	}
}

func (n *simNode) step(ev Event) {
	if n.asleep {
		if len(n.slept) < n.sim.opts.backlog {
			n.slept = append(n.slept, ev)
		}
		return
	}
	for _, e := range n.m.Step(n.clock(), ev) {
		if n.crashAt == 0 {
			n.crashAt = -1
			n.stop()
			return
		}
		if n.crashAt > 0 {
			n.crashAt--
		}
		n.do(e)
	}
	at := n.m.Deadline()
	if at.IsZero() || at.Equal(n.tickAt) {
		return
	}
	if !at.After(n.clock()) {
		n.sim.t.Fatalf("deadline %v is not after now, %v", at, n.clock())
	}
	n.tickAt = at
	n.later(at.Sub(n.clock()), Tick{})
}

func (n *simNode) clock() time.Time { return n.sim.now.Add(-n.behind) }

func (n *simNode) do(e Effect) {
	s := n.sim
	switch e := e.(type) {
	case Store:
		n.stored = append(n.stored, e.Signed)
	case Publish:
		n.publish(e.Signed)
	case Adopt:
		if !e.Links[0].Record.Parent.Equals(n.chain.Head().ID) {
			n.reorgs++
			n.checkLeft(e.Links)
		}
		if err := n.chain.adopt(e.Links); err != nil {
			s.t.Fatal(err)
		}
		n.heads++
		for _, l := range e.Links {
			s.checkLink(n, l.ID, l.Record, l.Certificate)
		}
	case Certify:
		if err := n.chain.certify(e.Certificate); err != nil {
			s.t.Fatal(err)
		}
		l, _ := n.chain.Link(e.Certificate.Record)
		s.checkLink(n, l.ID, l.Record, e.Certificate)
	case Train:
		n.asked = append(n.asked, e)
		n.train(e)
	case TrainEarly:
		n.asked = append(n.asked, e)
		n.trainSeq++
	case StopTraining:
		n.asked = append(n.asked, e)
		n.trainSeq++
	case Check:
		if maker := s.indexOf(msg.Seat{Peer: e.Commit.Peer}); n.lateCheck != nil && n.lateCheck(maker) {
			return // the delta is on its way
		}
		if s.opts.nowhere != nil && s.opts.nowhere(n.sim.indexOf(msg.Seat{Peer: e.Commit.Peer})) {
			return
		}
		n.later(s.opts.checkTime, Checked{Commit: e.CID, Reason: msg.Held})
	case Pull:
		n.later(s.opts.checkTime, Checked{Commit: e.Commit, Reason: msg.Held})
	case Audit:
		n.audit(e)
	case Evaluate:
		if head := n.chain.Head(); !e.Record.Equals(head.ID) || !e.State.Equals(head.Record.State) {
			s.t.Fatalf("node %d: asked for the loss of %v, the head is %v", n.i, e.Record, head.ID)
		}
		if s.opts.heldOut != nil {
			n.later(s.opts.auditTime, Evaluated{Record: e.Record, LossMicro: s.opts.heldOut(n, e.State)})
		}
	case Compare:
		if head := n.chain.Head(); !e.Record.Equals(head.ID) || len(e.Items) < 2 {
			s.t.Fatalf("node %d: asked to compare %d deltas of %v, the head is %v", n.i, len(e.Items), e.Record, head.ID)
		}
		n.later(s.opts.auditTime, Compared{Record: e.Record, KappaPPM: s.opts.kappa(n)})
	case Gate:
		n.later(s.opts.auditTime, Gated{Head: e.Merge.Head, Passes: s.opts.gate == nil || s.opts.gate(n)})
	case Fold:
		n.folds++
		if s.opts.nowhere != nil && slices.ContainsFunc(e.Inputs, func(in Input) bool { return in.Peer != n.id && s.opts.nowhere(s.indexOf(msg.Seat{Peer: in.Peer})) }) {
			return
		}
		n.later(s.opts.foldTime, fakeFold(e))
	case Sync:
		n.sync(e)
	case Evidence:
		if e.A.From != e.B.From || e.A.CID.Equals(e.B.CID) {
			s.t.Fatalf("evidence against nobody: %v", e)
		}
		s.evidence[e.A.From] = true
	case Fraud:
		n.frauds++
	case Misbehaved:
		n.misbehaved[e.Peer] = e.Err
	case Doubt:
		n.doubts++
	default:
		s.t.Fatalf("unknown effect %T", e)
	}
}

// checkLeft holds that a certified record is not left for a sibling that is not.
func (n *simNode) checkLeft(links []Link) {
	at, ok := n.chain.at[links[0].Record.Parent]
	if !ok || at+1 >= len(n.chain.links) {
		return
	}
	left := n.chain.links[at+1]
	if left.Certificate != nil && links[0].Certificate == nil && !left.ID.Equals(links[0].ID) && !n.sim.liars[n.i] {
		n.sim.t.Fatalf("node %d leaves certified record %v of round %d for %v, which is provisional", n.i, left.ID, left.Record.Round, links[0].ID)
	}
}

// checkLink holds that no two records of one head are certified, and that what
// is adopted keeps the rules.
func (s *sim) checkLink(n *simNode, id cid.Cid, r *msg.Record, c *msg.Certificate) {
	if c == nil {
		return
	}
	if err := VerifyCertificate(c, id, r); err != nil {
		s.t.Fatalf("node %d: %v", n.i, err)
	}
	old, ok := s.certs[r.Parent]
	if ok && !old.Equals(id) && !s.conflict {
		s.t.Fatalf("two certified records of round %d: %v and %v", r.Round, old, id)
	}
	s.certs[r.Parent] = id
}

func (n *simNode) audit(e Audit) {
	before, ok := n.chain.Link(e.Record)
	if !ok || len(e.Items) == 0 {
		n.sim.t.Fatalf("node %d: audit of record %v with %d items", n.i, e.Record, len(e.Items))
	}
	if grandparent, _ := n.chain.Link(before.Record.Parent); !grandparent.Record.State.Equals(e.State) {
		n.sim.t.Fatalf("node %d: audit of round %d on another state than its deltas are of", n.i, before.Record.Round)
	}
	ev := Audited{Record: e.Record}
	for _, item := range e.Items {
		gain := int64(0)
		if n.sim.opts.gain != nil {
			gain = n.sim.opts.gain(n, n.sim.indexOf(msg.Seat{Peer: item.Maker}))
		}
		ev.Gains = append(ev.Gains, msg.Audit{Seat: item.Seat, GainNano: gain})
	}
	for _, item := range e.Retraces {
		maker := n.sim.indexOf(msg.Seat{Peer: item.Maker})
		if !item.Trace.Defined() || item.Part >= 8 || item.Before.Equals(item.Trace) || before.Record.TrainedRounds == 1 && item.Before.Defined() {
			n.sim.t.Fatalf("node %d: retrace of %+v", n.i, item)
		}
		ppm := uint32(0)
		if n.sim.opts.retrace != nil {
			ppm = n.sim.opts.retrace(n, maker)
		}
		ev.Retraces = append(ev.Retraces, msg.Retrace{Seat: item.Seat, ErrorPPM: ppm})
	}
	n.later(n.sim.opts.auditTime, ev)
}

func (n *simNode) train(e Train) {
	n.trainSeq++
	seq, life := n.trainSeq, n.life
	d, steps := n.sim.opts.trainTime(n.i), uint64(e.Steps)
	if left := e.Until.Sub(n.clock()); left < d {
		d, steps = left, max(steps*uint64(max(left, 0))/uint64(d), 1)
	}
	n.sim.after(d, func() {
		if !n.up || n.life != life || n.trainSeq != seq {
			return
		}
		// Another life trains another delta.
		delta := testCID(fmt.Sprintf("delta %d %v %d", n.i, e.Head, life))
		trace := cid.Undef
		if n.sim.manifest.Trust.RetracePPM > 0 {
			trace = testCID("trace of " + delta.String())
		}
		n.step(Trained{
			Trace: trace,
			Head:  e.Head, Delta: delta, DeltaBytes: n.sim.rules.deltaBytesOf(e.CodecBits),
			Tokens: n.sim.opts.tokens(n.i), Steps: steps, Norm: 5, LossMicro: 1_000_000,
		})
	})
}

func (n *simNode) publish(m msg.Signed) {
	if !n.sim.liars[n.i] {
		n.sim.checkSigned(m)
	}
	if n.sim.overhear != nil {
		n.sim.overhear(m)
	}
	audience := n.m.Audience(m)
	for _, to := range n.sim.nodes {
		switch {
		case to == n || audience != nil && !slices.Contains(audience, to.id):
		case n.lie == nil:
			n.sim.deliver(n, to, m)
		default:
			for _, m := range n.lie(to.i, m) {
				n.sim.deliver(n, to, m)
			}
		}
	}
}

// checkSigned holds that an honest peer signs nothing of one kind twice.
func (s *sim) checkSigned(m msg.Signed) {
	head, _, ok := slotOf(m.Message)
	if !ok {
		return
	}
	key := fmt.Sprintf("%T %s %s", m.Message, m.From, head)
	if p, ok := m.Message.(*msg.Proposal); ok {
		key += fmt.Sprint(p.Attempt)
	}
	if old, ok := s.signed[key]; ok && !old.Equals(m.CID) {
		s.t.Fatalf("%v signed two %T for one head", m.From, m.Message)
	}
	s.signed[key] = m.CID
}

func (s *sim) deliver(from, to *simNode, m msg.Signed) {
	if s.blocked != nil && s.blocked(from, to) || s.rnd.IntN(1000) < s.opts.loss {
		return
	}
	times := 1
	if s.rnd.IntN(1000) < s.opts.dup {
		times = 2
	}
	for range times {
		d := s.opts.minDelay + time.Duration(s.rnd.Int64N(int64(s.opts.maxDelay-s.opts.minDelay)+1))
		if from.lag != nil {
			d += from.lag(m)
		}
		s.after(d, func() {
			if to.up {
				to.step(Received{m})
			}
		})
	}
}

func (n *simNode) sync(e Sync) {
	s, from, after := n.sim, e.From, e.After
	i := slices.IndexFunc(s.nodes, func(o *simNode) bool { return o.id == from })
	if i < 0 {
		return
	}
	o := s.nodes[i]
	locator := n.chain.locator()
	if after.Defined() {
		locator = append([]cid.Cid{after}, locator...)
	}
	life := n.life
	s.after(100*time.Millisecond, func() {
		if !o.up || s.blocked != nil && s.blocked(n, o) {
			return
		}
		items := o.chain.offer(s.t, locator, s.opts.offers)
		if e.Branch.Defined() {
			items = o.chain.branch(s.t, e.Branch)
		}
		if o.answer != nil {
			items = o.answer(locator)
		}
		s.after(100*time.Millisecond, func() {
			if n.up && n.life == life {
				n.step(Offered{From: o.id, Items: items})
			}
		})
	})
}

// round is the lowest head round of the nodes that are up and honest.
func (s *sim) minRound() msg.Round {
	least := msg.Round(1 << 40)
	for _, n := range s.nodes {
		if n.up && !s.liars[n.i] {
			least = min(least, n.chain.Head().Record.Round)
		}
	}
	return least
}

// agree reports whether all honest nodes that are up have the same record at
// the round.
func (s *sim) agree(round msg.Round) error {
	var id cid.Cid
	for _, n := range s.nodes {
		if !n.up || s.liars[n.i] {
			continue
		}
		if int(round) >= len(n.chain.links) {
			return fmt.Errorf("node %d is at round %d only", n.i, n.chain.Head().Record.Round)
		}
		l := n.chain.links[round]
		if id.Defined() && !l.ID.Equals(id) {
			return fmt.Errorf("node %d has another record of round %d", n.i, round)
		}
		id = l.ID
	}
	return nil
}

func (s *sim) describe() string {
	var b bytes.Buffer
	for _, n := range s.nodes {
		h := n.chain.Head()
		v := n.m.View()
		fmt.Fprintf(&b, "node %d up %v: round %d certified %d seats %d seat %d phase %v haves %d commits %d head %s\n",
			n.i, n.up, h.Record.Round, h.Certified, len(h.Record.NextSeats), v.Seat, v.Phase, v.Haves, v.Commits, h.ID.String()[50:])
	}
	return b.String()
}
