package sim

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// epoch is the time at which a simulation begins.
var epoch = time.Unix(1_800_000_000, 0)

// world is one simulation. All of it belongs to the goroutine that calls.
type world struct {
	ctx context.Context
	rnd *rand.Rand
	now time.Duration
	queue
	events  uint64
	changes uint64 // times that a node adopted something, began or ended
	nodes   []*node
	index   map[peer.ID]int
	net     network
	cut     func(a, b *node) bool // the network between two nodes is cut; nil: nowhere
	quiet   bool                  // heartbeats of nodes without a seat are only counted
	counted uint64                // bytes of those that are received
	sent    map[string]uint64     // bytes of gossip that nodes sent, by what it was
	had     map[cid.Cid]bitset    // who had a message, with quiet

	// sybilSpeed is that of all Sybils together.
	sybilSpeed float64

	manifest *run.Manifest
	runID    cid.Cid
	rules    *round.Rules
	shared   round.Shared
	layout   *fold.Layout
	genesis  round.Link
	task     task
	contents contents
	// differences are how states come of those before.
	differences map[cid.Cid]difference
	folded      map[round.FoldID]round.Folded // what was computed already, by whomever
	records     map[cid.Cid][]byte
	gains       map[gainKey]int64
	losses      map[cid.Cid]float64 // before what a record's audits measure
	kappas      map[cid.Cid]float64 // of the rounds of records
	// honestDeltas are those of the newest heads.
	honestDeltas map[cid.Cid][]*fold.Delta

	transcript hash.Hash
	seen       observations
	failure    error // of the simulation itself
}

// difference is from which state a state comes, and in how many bytes.
type difference struct {
	from  cid.Cid
	bytes int
}

// worldOptions say what a world is made of.
type worldOptions struct {
	seed     uint64
	nodes    int
	net      network
	manifest *run.Manifest
	task     task
}

// nodeKey is the key of the i-th node.
func nodeKey(i int) (crypto.PrivKey, peer.ID, error) {
	seed := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("moot sim node"), uint64(i)))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

// newWorld makes nodes, of which none is started. Node 0 launched the run.
func newWorld(ctx context.Context, o worldOptions) (*world, error) {
	m := *o.manifest
	_, launcher, err := nodeKey(0)
	if err != nil {
		return nil, err
	}
	m.Launcher = launcher
	if err := m.Validate(); err != nil {
		return nil, err
	}
	w := &world{
		ctx: ctx, rnd: rand.New(rand.NewPCG(o.seed, 0x6d6f6f74)), net: o.net, manifest: &m, task: o.task,
		index: make(map[peer.ID]int), folded: make(map[round.FoldID]round.Folded), differences: make(map[cid.Cid]difference), records: make(map[cid.Cid][]byte),
		sent: make(map[string]uint64), had: make(map[cid.Cid]bitset), gains: make(map[gainKey]int64), losses: make(map[cid.Cid]float64), kappas: make(map[cid.Cid]float64), honestDeltas: make(map[cid.Cid][]*fold.Delta), transcript: sha256.New(), seen: newObservations(),
	}
	w.contents = contents{w: w, byID: make(map[cid.Cid]*content)}
	if w.runID, err = m.ID(); err != nil {
		return nil, err
	}
	if w.rules, err = round.NewRules(&m); err != nil {
		return nil, err
	}
	if w.layout, err = m.Layout(); err != nil {
		return nil, err
	}
	state, genesis, err := run.Genesis(&m)
	if err != nil {
		return nil, err
	}
	id, err := genesis.CID()
	if err != nil {
		return nil, err
	}
	w.genesis = round.Link{ID: id, Record: genesis}
	for i := range o.nodes {
		key, id, err := nodeKey(i)
		if err != nil {
			return nil, err
		}
		w.index[id] = i
		w.nodes = append(w.nodes, &node{
			w: w, i: i, id: id, key: key, chain: newChain(w), wants: true, speed: 1, misbehaved: make(map[peer.ID]error),
		})
	}
	// Everybody computes the genesis state from the manifest.
	for _, n := range w.nodes {
		w.contents.putState(n, genesis.State, state)
	}
	return w, nil
}

func (w *world) after(d time.Duration, f func()) { w.push(w.now+d, f) }

// fail ends the simulation: the simulator or the round has a bug.
func (w *world) fail(err error) {
	if w.failure == nil {
		w.failure = err
	}
}

// runUntil plays events until done says so, for at most d. It reports what done
// said last.
func (w *world) runUntil(d time.Duration, done func() bool) (bool, error) {
	end := w.now + d
	for !done() {
		if w.failure != nil {
			return false, w.failure
		}
		if len(w.heap) == 0 || w.heap[0].at > end {
			w.now = end
			return done(), nil
		}
		if w.events++; w.events%4096 == 0 && w.ctx.Err() != nil {
			return false, w.ctx.Err()
		}
		e := w.pop()
		w.now = e.at
		e.run()
	}
	return true, w.failure
}

// onChange is done, asked only when a node has adopted something, or has begun or
// ended, since it was asked last: it may look at all nodes.
func (w *world) onChange(done func() bool) func() bool {
	asked, answer := false, false
	var at uint64
	return func() bool {
		if !asked || at != w.changes {
			asked, at, answer = true, w.changes, done()
		}
		return answer
	}
}

func (w *world) runFor(d time.Duration) error {
	_, err := w.runUntil(d, func() bool { return false })
	return err
}

// start starts nodes, one shortly after the other, as neighbours of others that
// were started before.
func (w *world) start(nodes ...*node) {
	for _, n := range nodes {
		n.start()
		for tries := 0; len(n.links) < w.net.degree/2+1 && tries < 8*w.net.degree; tries++ {
			n.connect(w.nodes[w.rnd.IntN(len(w.nodes))])
		}
	}
}

// note writes an event into the transcript.
func (w *world) note(kind byte, n *node, id cid.Cid) {
	b := append(make([]byte, 0, 64), kind)
	b = binary.LittleEndian.AppendUint64(b, uint64(w.now))
	b = binary.LittleEndian.AppendUint32(b, uint32(n.i))
	w.transcript.Write(append(b, id.Bytes()...))
}

// transcriptHash is over all that was published and adopted, by whom and when.
func (w *world) transcriptHash() string { return hex.EncodeToString(w.transcript.Sum(nil)) }

// replay computes the whole run again from the chain of a node, as anybody can.
func (w *world) replay(n *node) error {
	got, err := replay.Run(w.ctx, replay.Options{Manifest: w.manifest, Chain: n.chain, Store: &w.contents})
	if err != nil {
		return err
	}
	if head := n.chain.Head(); !got.Head.Equals(head.ID) || !got.State.Equals(head.Record.State) {
		return errors.New("replay came to another head")
	}
	return nil
}

// fold computes a fold, once for all nodes that ask for it.
func (w *world) fold(e round.Fold) (round.Folded, error) {
	if f, ok := w.folded[e.ID]; ok {
		return f, nil
	}
	if e.Cell {
		c, err := e.ComputeCell(&w.contents)
		if err != nil {
			return round.Folded{}, fmt.Errorf("mean of a cell of round %d: %w", e.Round, err)
		}
		f := round.Folded{ID: e.ID, State: w.contents.put(nil, c.Delta), Applied: c.Applied}
		w.folded[e.ID] = f
		return f, nil
	}
	next, applied, err := e.Compute(&w.contents, w.manifest.FoldOuter())
	if err != nil {
		return round.Folded{}, fmt.Errorf("fold of round %d: %w", e.Round, err)
	}
	f := round.Folded{ID: e.ID, State: next.CID(), Applied: applied}
	w.contents.putState(nil, f.State, next)
	if prev := w.contents.stateOf(e.State); prev != nil {
		w.differences[f.State] = difference{e.State, len(fold.Difference(prev, next, w.manifest.FoldOuter()))}
	}
	w.folded[e.ID] = f
	return f, nil
}

// up are the nodes that run.
func (w *world) up() []*node {
	var list []*node
	for _, n := range w.nodes {
		if n.up {
			list = append(list, n)
		}
	}
	return list
}

// roundOf is the round of a node's head.
func roundOf(n *node) msg.Round { return n.chain.Head().Record.Round }

// lowest is the lowest round of the honest nodes that are up.
func (w *world) lowest() msg.Round {
	least := msg.Round(1 << 40)
	for _, n := range w.nodes {
		if n.up && n.fault == honest {
			least = min(least, roundOf(n))
		}
	}
	return least
}

// highest is the highest round of the honest nodes that are up.
func (w *world) highest() msg.Round {
	most := msg.Round(0)
	for _, n := range w.nodes {
		if n.up && n.fault == honest {
			most = max(most, roundOf(n))
		}
	}
	return most
}

// oneHead reports whether all honest nodes that are up have the same head.
func (w *world) oneHead() bool {
	var id cid.Cid
	for _, n := range w.nodes {
		if !n.up || n.fault != honest {
			continue
		}
		if h := n.chain.Head().ID; !id.Defined() {
			id = h
		} else if !id.Equals(h) {
			return false
		}
	}
	return true
}

// period is that of the run.
func (w *world) period() time.Duration {
	return time.Duration(w.manifest.PeriodMillis) * time.Millisecond
}
