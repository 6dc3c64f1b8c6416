package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/semaphore"

	"github.com/moot-net/moot/node/internal/exchange"
	"github.com/moot-net/moot/node/internal/traffic"
	"github.com/moot-net/moot/shard"
)

// FetchOptions are the particulars of one [Puller.Fetch].
type FetchOptions = exchange.FetchOptions

// What Fetch says is what [exchange.Exchange.Fetch] says.
var (
	ErrTooLarge = exchange.ErrTooLarge
	ErrClosed   = exchange.ErrClosed
)

// Fallback fetches from peers that do not speak [Protocol]. It must store
// nothing that it did not verify, and may be called for a DAG of which a part
// is local, and which grows meanwhile.
type Fallback interface {
	Fetch(ctx context.Context, root cid.Cid, o FetchOptions) error
}

// Options configure a [Puller]; all are optional.
type Options struct {
	// Fallback is used while no peer that speaks [Protocol] gives anything.
	// Default: the fetch waits for one that does.
	Fallback Fallback

	// Router is asked for peers that have a DAG. Default: nobody.
	Router exchange.Router

	// Ban is called with a peer that sent what no honest peer sends; it is
	// not dealt with any more in any case. It should end the connection and
	// refuse new ones. Default: the connection is closed.
	Ban func(p peer.ID, reason string)

	// Serves says whether a peer may have a block. Default: it may.
	Serves func(p peer.ID, c cid.Cid) bool

	// OverRelay lets blocks come from, and go to, peers that are connected over a
	// relay alone, if the relay carries so much ([p2p.CarriesShards]). Default:
	// they do not.
	OverRelay bool

	// Meter says when bytes may travel, and counts them. Default: at once.
	Meter *traffic.Meter

	// Log is where it is told what happened. Default: nowhere.
	Log *slog.Logger
}

// Puller fetches and serves the blocks of a store.
type Puller struct {
	// constant after New
	host  host.Host
	store blockstore.Blockstore
	opt   Options
	log   *slog.Logger
	reads *semaphore.Weighted // blocks that are read for others at once

	buffers  *buffers      // for blocks that come
	shards   *shard.Store  // the store, if it is one; it checks the hash of what it is given, and keeps no reference to it
	outgoing sync.Pool     // of *[]byte with room for writeBytes
	walks    chan struct{} // DAGs that are walked for others at once

	ready chan struct{}   // closed when Run has set the next
	ctx   context.Context // Run's; constant once ready is closed

	begun atomic.Int32 // blocks that are asked for in parts

	pulled, sent, duplicate atomic.Uint64
	rate                    atomic.Uint64 // bits of a float64: bytes per second of the last large fetch

	mu       sync.Mutex
	closed   bool                // guarded by mu: nothing begins any more
	active   sync.WaitGroup      // fetches and streams; Add is guarded by mu
	banned   map[peer.ID]bool    // guarded by mu
	struck   map[peer.ID]bool    // guarded by mu: those that sent wrong bytes once; at most maxStruck
	clients  map[peer.ID]*client // guarded by mu: peers with streams to this one
	streams  int                 // guarded by mu: of all clients
	fetches  map[cid.Cid]*fetch  // guarded by mu
	asked    map[peer.ID]int     // guarded by mu: sessions of fetches with a peer
	training recentSet           // guarded by mu: blocks that go before others
	dags     map[cid.Cid]*shared // guarded by mu: those that are followed
}

// shared is a dag with those who use it.
type shared struct {
	dag  *dag          // constant once done is closed
	err  error         // the same
	done chan struct{} // closed when the walk has ended
	uses int           // guarded by Puller.mu
}

// New makes a puller of the blocks in store. It neither fetches nor serves
// before [Puller.Run].
func New(h host.Host, store blockstore.Blockstore, o Options) (*Puller, error) {
	if h == nil || store == nil {
		return nil, errors.New("pull: no host or no store")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	shards, _ := store.(*shard.Store)
	return &Puller{
		host:    h,
		store:   store,
		opt:     o,
		log:     o.Log.With("component", "pull"),
		reads:   semaphore.NewWeighted(maxReads),
		walks:   make(chan struct{}, maxWalks),
		buffers: newBuffers(shards != nil),
		shards:  shards,
		asked:   make(map[peer.ID]int),
		struck:  make(map[peer.ID]bool),
		ready:   make(chan struct{}),
		banned:  make(map[peer.ID]bool),
		clients: make(map[peer.ID]*client),
		fetches: make(map[cid.Cid]*fetch),
		dags:    make(map[cid.Cid]*shared),
	}, nil
}

// Run serves and fetches until ctx is done. Then it ends all fetches and
// streams and returns nil. It may be called once.
func (p *Puller) Run(ctx context.Context) error {
	p.ctx = ctx
	close(p.ready)
	p.host.SetStreamHandler(Protocol, p.handle)
	<-ctx.Done()
	p.host.RemoveStreamHandler(Protocol)

	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.active.Wait() // they see that ctx is done
	return nil
}

// begin reports whether something may begin; then active.Done must be called.
func (p *Puller) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.active.Add(1)
	return true
}

// Stats are bytes of blocks since New. What the fallback does is not in it.
type Stats struct {
	PulledBytes    uint64 // asked for, arrived and verified, each block once
	SentBytes      uint64
	DuplicateBytes uint64 // verified, and was here already
}

// Rate is how many bytes per second came in the last fetch of some size; 0: there
// was none.
func (p *Puller) Rate() float64 { return math.Float64frombits(p.rate.Load()) }

// Stats counts what travelled.
func (p *Puller) Stats() Stats {
	return Stats{PulledBytes: p.pulled.Load(), SentBytes: p.sent.Load(), DuplicateBytes: p.duplicate.Load()}
}

func (p *Puller) ban(ctx context.Context, id peer.ID, reason string) {
	p.mu.Lock()
	again := p.banned[id]
	p.banned[id] = true
	p.mu.Unlock()
	if again {
		return
	}
	p.log.WarnContext(ctx, "peer was banned", "peer", id, "reason", reason)
	if p.opt.Ban != nil {
		p.opt.Ban(id, reason)
		return
	}
	if err := p.host.Network().ClosePeer(id); err != nil {
		p.log.DebugContext(ctx, "connection was not closed", "peer", id, "err", err)
	}
}

// maxStruck is how many peers are remembered that sent wrong bytes once.
const maxStruck = 4096

// strike notes that a peer sent wrong bytes, and reports whether it had done so
// before. Once may be a disk that decays.
func (p *Puller) strike(id peer.ID) (again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.struck[id] {
		return true
	}
	if len(p.struck) >= maxStruck {
		clear(p.struck)
	}
	p.struck[id] = true
	return false
}

// enter counts a session with a peer that is asked, unless there are too many,
// or it is banned; leave ends it.
func (p *Puller) enter(id peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.banned[id] || p.asked[id] >= maxSessions {
		return false
	}
	p.asked[id]++
	return true
}

func (p *Puller) leave(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked[id]--; p.asked[id] == 0 {
		delete(p.asked, id)
	}
}

// isNear says whether a peer is connected from this machine or the LAN.
func (p *Puller) isNear(id peer.ID) bool {
	for _, c := range p.host.Network().ConnsToPeer(id) {
		if isNear(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

func isNear(a multiaddr.Multiaddr) bool {
	if _, err := a.ValueForProtocol(multiaddr.P_CIRCUIT); err == nil {
		return false // the address is the relay's
	}
	return manet.IsIPLoopback(a) || manet.IsPrivateAddr(a)
}

// follow returns the dag of root, whose inner nodes must be local. Those who
// follow a DAG at the same time get the same one. unfollow must be called
// when err is nil.
func (p *Puller) follow(ctx context.Context, root cid.Cid) (*dag, error) {
	p.mu.Lock()
	s := p.dags[root]
	if s != nil {
		s.uses++
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			p.unfollow(root)
			return nil, context.Cause(ctx)
		case <-s.done:
		}
	} else {
		s = &shared{done: make(chan struct{}), uses: 1}
		p.dags[root] = s
		p.mu.Unlock()
		// For all who wait, so not only for as long as this one does.
		s.dag, s.err = openDAG(context.WithoutCancel(ctx), p.store, root)
		close(s.done)
	}
	if s.err != nil {
		p.unfollow(root)
		return nil, s.err
	}
	return s.dag, nil
}

func (p *Puller) unfollow(root cid.Cid) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.dags[root]
	if s.uses--; s.uses == 0 {
		delete(p.dags, root)
	}
}

// Fetch makes the DAG below root local and returns nil when all of it is.
// What is local already is not asked for, so that a fetch that was interrupted
// goes on where it was. It asks the providers that were named, connected peers
// that speak [Protocol], and peers that the router knows.
//
// It goes on asking until ctx is done; then the error says how far it came. A
// DAG that is larger than allowed ([ErrTooLarge]), or breaks a rule of shard's
// format (shard.ErrInvalid), ends it at once. Of several fetches of one DAG
// one asks, also the providers of the others, and the others wait for it.
func (p *Puller) Fetch(ctx context.Context, root cid.Cid, o FetchOptions) error {
	if !p.begin() {
		return fmt.Errorf("fetch %s: %w", root, ErrClosed)
	}
	defer p.active.Done()
	err := p.fetch(ctx, root, o)
	if err == nil && o.Use == traffic.Training {
		err = p.Training(ctx, root)
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", root, err)
	}
	return nil
}

func (p *Puller) fetch(ctx context.Context, root cid.Cid, o FetchOptions) error {
	if err := checkCID(root); err != nil {
		return err
	}
	f := newFetch(p, root, o)
	for {
		p.mu.Lock()
		other := p.fetches[root]
		if other == nil {
			p.fetches[root] = f
			p.mu.Unlock()
			break
		}
		p.mu.Unlock()
		other.suggest(o.Providers, true)
		select {
		case <-ctx.Done():
			return f.explain(context.Cause(ctx))
		case <-other.ended:
		}
	}
	defer func() {
		p.mu.Lock()
		delete(p.fetches, root)
		p.mu.Unlock()
		close(f.ended)
	}()
	begun := time.Now()
	err := f.run(ctx)
	if n := f.came.Load(); n >= rateBytes {
		p.rate.Store(math.Float64bits(float64(n) / time.Since(begun).Seconds()))
	}
	return err
}

// rateBytes is how much a fetch has to bring to tell a rate.
const rateBytes = 32 << 20

// sinceOr is the time since t, or since begun when that is later.
func sinceOr(now, t, begun time.Time) time.Duration {
	if begun.After(t) {
		t = begun
	}
	return now.Sub(t)
}
