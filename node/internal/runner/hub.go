package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/ledger"
	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
	"github.com/moot-net/moot/shard"
)

// HubOptions are what the runs of a node share. All but GrowModel, PlanMemory and Log are
// needed.
type HubOptions struct {
	Key    crypto.PrivKey
	Host   *p2p.Host
	Gossip *gossip.Gossip
	Puller *pull.Puller
	Store  *shard.Store
	// Fence is what others are kept from. Default: one that nobody asks.
	Fence *fence.Fence

	// ModelDir returns the folder of a model whose DAG is local. It may write
	// it first.
	ModelDir func(ctx context.Context, model cid.Cid) (string, error)
	// GrowModel, if not nil, makes a folder in which a model of so many bytes of
	// content grows as its blocks come. The inner nodes are local.
	GrowModel func(ctx context.Context, model cid.Cid, maxBytes int64) error
	// MayPull says until when no pull of a model or a data set may begin, the zero
	// time if it may. Nil: it always may.
	MayPull func() time.Time
	// PlanMemory makes a trainer fit into memory, or says why it does not.
	PlanMemory func(*train.Options) error
	// Threads is how many goroutines of a run compute.
	Threads int
	// OpenDevice gives the options of a trainer a backend. Nil: it computes on
	// the processor.
	OpenDevice func(*train.Options) error
	// Precision is that of train.Options.
	Precision cpu.Precision
	// Device and Agent are what other peers are told: "cpu (2 threads, avx2, f32)",
	// "moot/0.1.0".
	Device string
	Agent  string
	// Gate says whether the device may be used. Default: it may, always.
	Gate *Gate
	// Emit is told what happens. It must not block.
	Emit func(api.Event)
	// Log is where it is told in words. Default: nowhere.
	Log *slog.Logger
}

// Hub is what the runs of a node share.
type Hub struct {
	o                   HubOptions
	self                peer.ID
	idleAfter           time.Duration // without work a GPU's memory is given back
	proofWorth          msg.Round     // see there
	fillPause, fillWait time.Duration
	// records are answered with one request at a time, of strangers and of others,
	// so that who asks a lot takes little.
	strangers, others chan struct{}

	mu   sync.Mutex
	runs map[cid.Cid]*Runner // guarded by mu; the open ones
}

// NewHub makes a hub, and makes the node answer other peers of its runs.
func NewHub(o HubOptions) *Hub {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Gate == nil {
		o.Gate = new(Gate)
	}
	if o.Fence == nil {
		o.Fence = fence.New(o.Host.ID())
	}
	if o.Emit == nil {
		o.Emit = func(api.Event) {}
	}
	h := &Hub{strangers: make(chan struct{}, 1), others: make(chan struct{}, 1), idleAfter: idleAfter, proofWorth: proofWorth, fillPause: fillPause, fillWait: fillWait, o: o, self: o.Host.ID(), runs: make(map[cid.Cid]*Runner)}
	o.Host.Handle(memberProtocol, msg.MaxMessageBytes, h.answerMember)
	o.Host.Handle(syncProtocol, maxSyncRequest, h.answerSync)
	o.Host.Handle(branchProtocol, maxSyncRequest, h.answerBranch)
	o.Host.Handle(cellProtocol, msg.MaxProposalBytes, h.answerCell)
	o.Host.Handle(differenceProtocol, maxSyncRequest, h.answerDifference)
	o.Host.Handle(proofProtocol, maxSyncRequest, h.answerProof)
	o.Host.Handle(beforeProtocol, maxSyncRequest, h.answerBefore)
	return h
}

// answerSync answers a request of syncProtocol.
func (h *Hub) answerSync(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	r, req, err := h.asked(from, b)
	if err != nil {
		return nil, err
	}
	return h.tellItems(ctx, from, func() []syncItem { return r.ledger.After(req.Locator, maxSyncRecords, maxSyncResponse) })
}

// answerBranch answers a request of branchProtocol.
func (h *Hub) answerBranch(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	r, req, err := h.asked(from, b)
	switch {
	case err != nil:
		return nil, err
	case len(req.Locator) != 1:
		return nil, fmt.Errorf("%w: %d heads, must be 1", errSyncFrame, len(req.Locator))
	}
	return h.tellItems(ctx, from, func() []syncItem { return r.ledger.Branch(req.Locator[0], maxSyncRecords, maxSyncResponse) })
}

// answerProof answers a request of proofProtocol.
func (h *Hub) answerProof(ctx context.Context, from peer.ID, b []byte) ([]byte, error) {
	r, req, err := h.asked(from, b)
	switch {
	case err != nil:
		return nil, err
	case len(req.Locator) != 1:
		return nil, fmt.Errorf("%w: %d records that are known, must be 1", errSyncFrame, len(req.Locator))
	}
	return h.tellItems(ctx, from, func() []syncItem { return r.ledger.Proof(ctx, req.Locator[0], maxSyncResponse) })
}

// tellItems encodes what read gives, when it is the asker's turn.
func (h *Hub) tellItems(ctx context.Context, from peer.ID, read func() []syncItem) ([]byte, error) {
	turn := h.strangers
	if h.o.Host.Preferred(from) {
		turn = h.others
	}
	if !acquire(ctx, turn) {
		return nil, ctx.Err()
	}
	defer func() { <-turn }()
	return encodeSyncItems(read()), nil
}

// asked is the run that a request is about.
func (h *Hub) asked(from peer.ID, b []byte) (*Runner, syncRequest, error) {
	req, err := decodeSyncRequest(b)
	if err != nil {
		return nil, req, err
	}
	r, err := h.member(req.Run, from)
	return r, req, err
}

// Open prepares a run whose files are, or will be, in the folder dir. It
// starts nothing. A run can be open once at a time.
func (h *Hub) Open(dir string, m *run.Manifest) (*Runner, error) {
	id, err := m.ID()
	if err != nil {
		return nil, fmt.Errorf("open run: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs[id] != nil {
		return nil, fmt.Errorf("open run %s: it is open already", id)
	}
	layout, err := m.Layout()
	if err != nil {
		return nil, fmt.Errorf("open run %s: %w", id, err)
	}
	state, genesis, err := run.Genesis(m)
	if err != nil {
		return nil, fmt.Errorf("open run %s: %w", id, err)
	}
	l, err := ledger.Open(filepath.Join(dir, "ledger"), genesis)
	if err != nil {
		return nil, fmt.Errorf("open run %s: %w", id, err)
	}
	rules, err := round.NewRules(m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open run %s: %w", id, err), l.Close())
	}
	g, err := h.ground(context.Background(), dir, id, m)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open run %s: %w", id, err), l.Close())
	}
	g.know(l.Head().Record)
	r := newRunner(h, id, m, dir, layout, state, l, g)
	r.rules = rules
	h.runs[id] = r
	return r, nil
}

// fetcher is the Fetcher of deltas and states.
type fetcher struct {
	p *pull.Puller
	// claim, if not nil, says that the run has a DAG.
	claim func(ctx context.Context, root cid.Cid) error
	// begins, if not nil, is told what is about to be fetched.
	begins func(ctx context.Context, root cid.Cid)
}

func (f fetcher) Fetch(ctx context.Context, root cid.Cid, maxBytes int64, from []peer.ID) error {
	o := pull.FetchOptions{MaxBytes: maxBytes, Providers: from, Use: traffic.Training}
	if f.begins != nil {
		f.begins(ctx, root)
	}
	if f.claim == nil {
		return f.p.Fetch(ctx, root, o)
	}
	// All that is known of it is claimed before it can be served.
	if err := f.claim(ctx, root); err != nil {
		return err
	}
	o.Before = func(int64, int64) error { return f.claim(ctx, root) }
	if err := f.p.Fetch(ctx, root, o); err != nil {
		return err
	}
	return f.claim(ctx, root)
}

// roundStore stores deltas and states, and lets peers get them before models and
// data.
type roundStore struct {
	*shard.Store
	puller *pull.Puller
	claim  func(ctx context.Context, root cid.Cid) error // as in fetcher
}

func (s roundStore) PutBytes(ctx context.Context, data []byte) (cid.Cid, error) {
	c, err := s.Store.PutBytes(ctx, data)
	if err == nil && s.claim != nil {
		err = s.claim(ctx, c)
	}
	if err == nil {
		err = s.puller.Training(ctx, c)
	}
	return c, err
}

func newRunner(h *Hub, id cid.Cid, m *run.Manifest, dir string, layout *fold.Layout, genesis *fold.State, l *ledger.Ledger, g *ground) *Runner {
	log := h.o.Log.With("run", api.ShortID(id.String()))
	var claim func(context.Context, cid.Cid) error
	if g.Private() {
		claim = g.claim
	}
	f, store := fetcher{p: h.o.Puller, claim: claim}, roundStore{h.o.Store, h.o.Puller, claim}
	r := &Runner{
		ground: g, fetcher: f, store: store, badge: badge{changed: make(chan struct{})},
		hub: h, id: id, manifest: m, dir: dir, log: log, layout: layout, genesis: genesis, ledger: l,
		states: &states{store: store, fetcher: f, layout: layout},
		deltas: newDeltas(h.o.Store, f, layout, int(m.CodecBits), int(cmp.Or(m.MinCodecBits, m.CodecBits))),
		events: make(chan roundEvent, 64),
		moves:  make(chan move),
		scopes: newScopes(),
		folds:  make(chan struct{}, maxFolds),
		checks: make(chan struct{}, maxChecks), telling: make(chan struct{}, maxTelling),
		stage: stage{changed: make(chan struct{})},
	}
	r.deltas.fetcher = fetcher{h.o.Puller, claim, r.beginsDelta}
	r.whole.Store(isWhole(dir))
	err := r.deltas.leftovers.open(context.Background(), dir, h.o.Store.Has)
	if err != nil {
		log.Warn("deltas that no record includes stay", "err", err)
	}
	if r.online, err = readOnline(dir); err != nil {
		log.Warn("who was online is not known", "err", err)
	}
	if n := l.Cut(); n > 0 {
		log.Warn("an interrupted write was dropped from the ledger", "bytes", n)
	}
	return r
}
