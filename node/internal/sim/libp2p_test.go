package sim

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/host"
	p2pnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/runner"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

var liveHosts = flag.Int("hosts", 8, "libp2p hosts of TestHosts")

// TestHosts is a run over real libp2p hosts in virtual time: QUIC on lines of
// 20 and 100 Mbit/s, 20 to 120 ms each way, one packet of a hundred lost, the
// daemon's gossip and pull. Each height is certified, and all have one chain.
func TestHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("some seconds")
	}
	const rounds = 4
	synctest.Test(t, func(t *testing.T) {
		n := *liveHosts
		ctx, cancel := context.WithCancel(t.Context())
		l := newLive(ctx, t, n)
		began := time.Now()
		for l.lowest() < rounds {
			if time.Since(began) > time.Hour {
				t.Fatalf("after an hour: rounds %v", l.rounds())
			}
			time.Sleep(time.Second)
		}
		took := time.Since(began)
		certified, included := 0, 0
		for r := msg.Round(1); r <= rounds; r++ {
			first := l.nodes[0].record(r)
			for _, x := range l.nodes[1:] {
				if other := x.record(r); !other.ID.Equals(first.ID) {
					t.Errorf("round %d: two records, %v and %v", r, first.ID, other.ID)
				}
			}
			if first.Certificate != nil {
				certified++
			}
			included += len(first.Record.Contributions)
		}
		last := l.nodes[0].record(rounds).Record
		t.Logf("%d hosts: %d rounds in %v, %d certified, %d contributions, %d seats at the end", n, rounds, took, certified, included, len(last.NextSeats))
		if certified < rounds {
			t.Errorf("%d of %d records are certified", certified, rounds)
		}
		// The first round lets peers in and trains nothing.
		if seats := min(n, int(l.manifest.Seats)); included < (rounds-1)*seats*8/10 {
			t.Errorf("%d contributions in %d rounds of %d seats", included, rounds-1, seats)
		}
		cancel()
		l.close(t)
	})
}

// live is a run over hosts.
type live struct {
	manifest *run.Manifest
	id       cid.Cid
	layout   *fold.Layout
	task     *quickTask
	net      *simnet.Simnet
	nodes    []*liveNode
	running  sync.WaitGroup
}

func newLive(ctx context.Context, t *testing.T, n int) *live {
	t.Helper()
	m := *quickManifest()
	m.MinPeers, m.PeriodMillis, m.Launcher = uint32(min(n, 4)), 60_000, ""
	l := &live{manifest: &m}
	rnd := rand.New(rand.NewPCG(1, 6))
	var mu sync.Mutex
	latency := func(*simnet.Packet) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(100) == 0 {
			return 24 * time.Hour // lost
		}
		return 20*time.Millisecond + time.Duration(rnd.Int64N(int64(100*time.Millisecond)))
	}
	nw, meta, err := simlibp2p.SimpleLibp2pNetwork([]simlibp2p.NodeLinkSettingsAndCount{{
		LinkSettings: simnet.NodeBiDiLinkSettings{
			Downlink: simnet.LinkSettings{BitsPerSecond: 100 * simlibp2p.OneMbps},
			Uplink:   simnet.LinkSettings{BitsPerSecond: 20 * simlibp2p.OneMbps},
		}, Count: n,
	}}, latency, simlibp2p.NetworkSettings{UseBlankHost: true})
	if err != nil {
		t.Fatal(err)
	}
	l.net = nw
	nw.Start()
	m.Launcher = meta.Nodes[0].ID()
	if l.id, err = m.ID(); err != nil {
		t.Fatal(err)
	}
	if l.layout, err = m.Layout(); err != nil {
		t.Fatal(err)
	}
	l.task = newQuickTask(l.layout, 1)
	state, genesis, err := run.Genesis(&m)
	if err != nil {
		t.Fatal(err)
	}
	id, err := genesis.CID()
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range meta.Nodes {
		x, err := l.newNode(h, i, round.Link{ID: id, Record: genesis}, state)
		if err != nil {
			t.Fatal(err)
		}
		// What the DHT tells a daemon.
		for _, o := range meta.Nodes {
			h.Peerstore().AddAddrs(o.ID(), o.Addrs(), peerstore.PermanentAddrTTL)
		}
		l.nodes = append(l.nodes, x)
	}
	for i, h := range meta.Nodes {
		for d := 1; d <= min(4, n-1); d++ {
			for h.Connect(ctx, peer.AddrInfo{ID: meta.Nodes[(i+d)%n].ID()}) != nil {
				if ctx.Err() != nil {
					t.Fatal(ctx.Err())
				}
			}
		}
	}
	for _, x := range l.nodes {
		x.start(ctx, t)
	}
	return l
}

func (l *live) close(t *testing.T) {
	t.Helper()
	l.running.Wait()
	for _, x := range l.nodes {
		if x.failure != nil {
			t.Error(x.failure)
		}
		x.h.Close()
	}
	l.net.Close()
}

func (l *live) rounds() []msg.Round {
	var list []msg.Round
	for _, x := range l.nodes {
		list = append(list, x.head().Record.Round)
	}
	return list
}

// lowest is the highest round that all have certified.
func (l *live) lowest() msg.Round {
	least := msg.Round(1 << 40)
	for _, x := range l.nodes {
		h := x.head()
		if h.Certificate == nil {
			h.Record = x.record(h.Record.Round - min(h.Record.Round, 1)).Record
		}
		least = min(least, h.Record.Round)
	}
	return least
}

// liveNode is what a daemon has around its machine, in little.
type liveNode struct {
	*live
	i       int
	h       host.Host
	gossip  *gossip.Gossip
	topic   *gossip.Topic
	puller  *pull.Puller
	store   blockstore.Blockstore
	events  chan round.Event
	failure error // owned by loop

	// owned by loop
	machine  *round.Machine
	residual []int32
	stop     context.CancelFunc // of training

	mu    sync.Mutex
	chain *chain // guarded by mu
}

const liveSync = "/moot/sim/sync/1"

func (l *live) newNode(h host.Host, i int, genesis round.Link, state *fold.State) (*liveNode, error) {
	x := &liveNode{
		live: l, i: i, h: h, events: make(chan round.Event, 64), stop: func() {},
		store: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore())),
		chain: newChain(&world{genesis: genesis, records: make(map[cid.Cid][]byte)}),
	}
	if _, err := x.put(context.Background(), state.Marshal()); err != nil {
		return nil, err
	}
	var err error
	if x.gossip, err = gossip.New(h, gossip.Options{}); err != nil {
		return nil, err
	}
	if x.topic, err = x.gossip.Join(gossip.RunTopic(l.id), x.validate); err != nil {
		return nil, err
	}
	if x.puller, err = pull.New(h, x.store, pull.Options{}); err != nil {
		return nil, err
	}
	h.SetStreamHandler(liveSync, x.answer)
	return x, nil
}

// validate is what the daemon's runner does by form.
func (x *liveNode) validate(_ context.Context, from peer.ID, data []byte) (any, gossip.Verdict) {
	s, err := msg.Open(data)
	if err != nil || s.From != from || !s.Message.RunID().Equals(x.id) {
		return nil, gossip.Reject
	}
	return s, gossip.Accept
}

func (x *liveNode) start(ctx context.Context, t *testing.T) {
	t.Helper()
	for _, run := range []func(context.Context) error{x.gossip.Run, x.puller.Run} {
		x.running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	key := x.h.Peerstore().PrivKey(x.h.ID())
	m, err := round.New(round.Config{
		Manifest: x.manifest, Run: x.id, Self: x.h.ID(), Chain: x, Sign: func(v msg.Message) (msg.Signed, error) { return msg.Seal(key, v) },
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m.SetStatus("moot/sim", "cpu", 1)
	x.machine = m
	x.running.Go(func() { x.loop(ctx) })
}

// loop is the loop of the daemon's runner.
func (x *liveNode) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	x.step(ctx, round.Want{Seat: true})
	for x.failure == nil {
		if at := x.machine.Deadline(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case in, ok := <-x.topic.Messages():
			if !ok {
				return
			}
			x.step(ctx, round.Received{Signed: in.Parsed.(msg.Signed)})
		case ev := <-x.events:
			x.step(ctx, ev)
		case <-timer.C:
			x.step(ctx, round.Tick{})
		}
	}
}

func (x *liveNode) post(ctx context.Context, ev round.Event) {
	select {
	case x.events <- ev:
	case <-ctx.Done():
	}
}

func (x *liveNode) step(ctx context.Context, ev round.Event) {
	for _, e := range x.machine.Step(time.Now(), ev) {
		if err := x.do(ctx, e); err != nil && ctx.Err() == nil && x.failure == nil {
			x.failure = fmt.Errorf("node %d: %w", x.i, err)
		}
	}
}

func (x *liveNode) do(ctx context.Context, e round.Effect) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch e := e.(type) {
	case round.Store:
		x.chain.store(e.Signed)
	case round.Publish:
		return x.topic.Publish(ctx, e.Signed.Envelope)
	case round.Adopt:
		return x.chain.adopt(e.Links)
	case round.Certify:
		return x.chain.certify(e.Certificate)
	case round.Train:
		x.stop()
		var training context.Context
		training, x.stop = context.WithCancel(ctx)
		x.background(func() { x.train(training, e) })
	case round.StopTraining, round.TrainEarly:
		x.stop()
	case round.Check:
		x.background(func() { x.check(ctx, e) })
	case round.Audit:
		x.background(func() { x.audit(ctx, e) })
	case round.Fold:
		x.background(func() { x.fold(ctx, e) })
	case round.Sync:
		x.background(func() { x.sync(ctx, e) })
	case round.Evidence:
		return fmt.Errorf("%v is blamed", e.A.From)
	case round.Misbehaved:
		return fmt.Errorf("%v misbehaves: %w", e.Peer, e.Err)
	case round.Evaluate, round.Gate, round.Doubt:
	default:
		return fmt.Errorf("effect %T", e)
	}
	return nil
}

func (x *liveNode) background(f func()) { x.running.Go(f) }

// Link implements round.Chain.
func (x *liveNode) Link(id cid.Cid) (round.Link, bool) { return x.chain.Link(id) }

// Head implements round.Chain.
func (x *liveNode) Head() round.Link { return x.chain.Head() }

func (x *liveNode) head() round.Link {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.chain.Head()
}

func (x *liveNode) record(r msg.Round) round.Link {
	x.mu.Lock()
	defer x.mu.Unlock()
	l, _ := x.chain.Record(r)
	return l
}

func (x *liveNode) put(ctx context.Context, b []byte) (cid.Cid, error) {
	id := fold.FileCID(b)
	block, err := blocks.NewBlockWithCid(b, id)
	if err != nil {
		return id, err
	}
	return id, x.store.Put(ctx, block)
}

// get pulls a payload, again and again until it is here.
func (x *liveNode) get(ctx context.Context, id cid.Cid, from ...peer.ID) ([]byte, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := x.puller.Fetch(attempt, id, pull.FetchOptions{MaxBytes: 1 << 20, Providers: from})
		cancel()
		if err == nil {
			block, err := x.store.Get(ctx, id)
			if err != nil {
				return nil, err
			}
			return block.RawData(), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// payloads implements round.Payloads.
type payloads struct {
	ctx context.Context
	x   *liveNode
}

func (p payloads) State(id cid.Cid) (*fold.State, error) {
	b, err := p.x.get(p.ctx, id)
	if err != nil {
		return nil, err
	}
	return fold.UnmarshalState(p.x.layout, b)
}

func (p payloads) Delta(in round.Input) (*fold.Delta, error) {
	b, err := p.x.get(p.ctx, in.Delta, in.Peer)
	if err != nil {
		return nil, err
	}
	return fold.Decode(p.x.layout, b)
}

func (x *liveNode) train(ctx context.Context, e round.Train) {
	st, err := payloads{ctx, x}.State(e.State)
	if err != nil {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Until(e.Until) / 2):
	}
	const steps = 30
	l, err := x.task.train(ctx, assignment{node: x.i, peer: x.h.ID(), head: e.Head, state: st, done: runner.Done{Rounds: e.Trained, Tokens: e.Tokens}, steps: steps})
	if err != nil {
		return
	}
	if x.residual == nil {
		x.residual = make([]int32, x.layout.Params())
	}
	bits := int(x.manifest.CodecBits)
	b, err := fold.Encode(x.layout, bits, l.values, x.residual)
	if err != nil {
		return
	}
	id, err := x.put(ctx, b)
	if err != nil {
		return
	}
	d, err := fold.Decode(x.layout, b)
	if err != nil {
		return
	}
	x.post(ctx, round.Trained{Head: e.Head, Delta: id, DeltaBytes: uint64(len(b)), Tokens: l.tokens, Steps: steps, Norm: d.Norm(), LossMicro: uint64(l.loss * 1e6)})
}

func (x *liveNode) check(ctx context.Context, e round.Check) {
	d, err := payloads{ctx, x}.Delta(round.Input{Peer: e.Commit.Peer, Delta: e.Commit.Delta})
	reason := msg.Held
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		reason = msg.BadRange
	case d.Norm() != e.Commit.Norm:
		reason = msg.BadNorm
	}
	x.post(ctx, round.Checked{Commit: e.CID, Reason: reason})
}

func (x *liveNode) audit(ctx context.Context, e round.Audit) {
	p := payloads{ctx, x}
	st, err := p.State(e.State)
	if err != nil {
		return
	}
	theta := make([]float32, len(st.Theta))
	fold.ToFloat32(theta, st.Theta)
	before, _ := x.task.loss(ctx, theta, e.Record)
	ev := round.Audited{Record: e.Record}
	for _, item := range e.Items {
		d, err := p.Delta(round.Input{Peer: item.Maker, Delta: item.Delta})
		if err != nil {
			return
		}
		values := make([]int32, len(theta))
		d.Values(values)
		moved := slices.Clone(theta)
		for i, v := range values {
			moved[i] -= float32(float64(item.ClipQ16) / fold.One / 5 * float64(v) / (1 << 26))
		}
		after, _ := x.task.loss(ctx, moved, e.Record)
		ev.Gains = append(ev.Gains, msg.Audit{Seat: item.Seat, GainNano: int64((before - after) * 1e9)})
	}
	x.post(ctx, ev)
}

func (x *liveNode) fold(ctx context.Context, e round.Fold) {
	st, applied, err := e.Compute(payloads{ctx, x}, x.manifest.FoldOuter())
	if err != nil {
		return
	}
	id, err := x.put(ctx, st.Marshal())
	if err == nil {
		x.post(ctx, round.Folded{ID: e.ID, State: id, Applied: applied})
	}
}

type liveQuestion struct {
	Branch  cid.Cid
	Locator []cid.Cid
}

// answer answers what follows a locator, or a branch.
func (x *liveNode) answer(s p2pnet.Stream) {
	defer s.Close()
	var q liveQuestion
	if err := json.NewDecoder(s).Decode(&q); err != nil {
		return
	}
	x.mu.Lock()
	items := x.chain.after(q.Locator)
	if q.Branch.Defined() {
		items = x.chain.branch(q.Branch)
	}
	x.mu.Unlock()
	_ = json.NewEncoder(s).Encode(items) // the asker sees that it ends early
}

func (x *liveNode) sync(ctx context.Context, e round.Sync) {
	s, err := x.h.NewStream(ctx, e.From, liveSync)
	if err != nil {
		return
	}
	defer s.Close()
	x.mu.Lock()
	locator := x.chain.locator()
	x.mu.Unlock()
	if e.After.Defined() {
		locator = append([]cid.Cid{e.After}, locator...)
	}
	_ = s.SetDeadline(time.Now().Add(10 * time.Second))
	var items []round.Item
	if json.NewEncoder(s).Encode(liveQuestion{e.Branch, locator}) != nil || json.NewDecoder(s).Decode(&items) != nil || len(items) == 0 {
		return
	}
	x.post(ctx, round.Offered{From: e.From, Items: items})
}
