package exchange

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/moot-net/moot/node/internal/traffic"
)

// Settings of bitswap. With its own 1 MiB outstanding per peer it fills a
// fifth of a 100 Mbit/s line at 100 ms; with 16 MiB all of it.
const (
	outstandingPerPeer = 16 << 20
	readWorkers        = 8  // reads of the store for others, at once
	sendWorkers        = 16 // messages that are sent at once, of one block or a little more; a stalled peer holds one
	maxWantsPerPeer    = 1024
)

// Router finds peers that have a block.
type Router interface {
	FindProvidersAsync(ctx context.Context, c cid.Cid, limit int) <-chan peer.AddrInfo
}

// Options configure an [Exchange]; all are optional.
type Options struct {
	// Router is asked when no connected peer has a block. Default: nobody.
	Router Router

	// Ban is called, from [Exchange.Run], with a peer that must not be dealt
	// with any more. It should end the connection and refuse new ones.
	// Default: the connection is closed.
	Ban func(p peer.ID, reason string)

	// Serves says whether a peer may have a block. Default: it may.
	Serves func(p peer.ID, c cid.Cid) bool

	// Meter says when bytes may travel, and counts them. Default: at once.
	Meter *traffic.Meter

	// Log is where it is told what happened. Default: nowhere.
	Log *slog.Logger
}

// getter brings single blocks, each checked against its CID. It is all that
// [Exchange.Fetch] needs of a carrier.
type getter interface {
	// GetBlock waits until somebody gave the block, or ctx is done. It may
	// be called for many blocks at once.
	GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error)
}

// carrier is what carries blocks between peers.
type carrier interface {
	// session makes a getter for blocks that are likely to be at the same
	// peers. It ends with ctx.
	session(ctx context.Context) getter
	// stored says that blocks are now in the store, for peers that wait.
	stored(ctx context.Context, b blocks.Block) error
	close() error
}

// Exchange fetches and serves the blocks of a store.
type Exchange struct {
	// constant after New
	host  host.Host
	store blockstore.Blockstore
	opt   Options
	log   *slog.Logger
	guard *guard

	ready chan struct{}   // closed when Run has set the next two
	ctx   context.Context // Run's; constant once ready is closed
	proto carrier         // constant once ready is closed

	mu       sync.Mutex
	closed   bool           // guarded by mu: no fetch begins any more
	fetching sync.WaitGroup // Add is guarded by mu
}

// New makes an exchange of the blocks in store with the peers of h. It neither
// fetches nor serves before [Exchange.Run].
func New(h host.Host, store blockstore.Blockstore, o Options) (*Exchange, error) {
	if h == nil || store == nil {
		return nil, errors.New("exchange: no host or no store")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Exchange{
		host:  h,
		store: store,
		opt:   o,
		log:   o.Log.With("component", "exchange"),
		guard: newGuard(time.Now),
		ready: make(chan struct{}),
	}, nil
}

// Run serves and fetches until ctx is done. Then it ends all fetches and
// returns nil. It may be called once.
func (e *Exchange) Run(ctx context.Context) error {
	// Bitswap ends by close, after the fetches, and not before them by ctx.
	e.ctx = ctx // bitswap uses it from its start on: see metered
	e.proto = newBitswap(context.WithoutCancel(ctx), e)
	close(e.ready)
	e.serveBans(ctx)

	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.fetching.Wait() // they see that ctx is done
	if err := e.proto.close(); err != nil {
		return fmt.Errorf("exchange: close: %w", err)
	}
	return nil
}

func (e *Exchange) serveBans(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-e.guard.bans:
			const reason = "sent blocks that nobody asked for"
			e.log.WarnContext(ctx, "peer was banned", "peer", p, "reason", reason)
			if e.opt.Ban != nil {
				e.opt.Ban(p, reason)
				continue
			}
			if err := e.host.Network().ClosePeer(p); err != nil {
				e.log.DebugContext(ctx, "connection was not closed", "peer", p, "err", err)
			}
		}
	}
}

// served is the store as bitswap sees it. Bitswap takes a block without bytes for
// one that is missing, and asks for the size first.
type served struct{ blockstore.Blockstore }

func (s served) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	n, err := s.Blockstore.GetSize(ctx, c)
	if err == nil {
		n = max(n, 1)
	}
	return n, err
}

// metered is guard, and makes bitswap wait. Bitswap calls MessageSent before it
// sends, and both where nobody waits but those who have to do with the peer.
type metered struct {
	*guard
	e *Exchange
}

// MessageReceived is called by bitswap.
func (m metered) MessageReceived(p peer.ID, msg bsmsg.BitSwapMessage) {
	m.guard.MessageReceived(p, msg)
	if n := bytesOf(msg); n > 0 {
		// Whether anything may be asked for is looked at before it is.
		_ = m.e.opt.Meter.Receive(m.e.ctx, p, traffic.Seeding, n)
	}
}

// MessageSent is called by bitswap.
func (m metered) MessageSent(p peer.ID, msg bsmsg.BitSwapMessage) {
	if n := bytesOf(msg); n > 0 {
		_ = m.e.opt.Meter.Send(m.e.ctx, p, traffic.Seeding, n) // fails at the end, with all else
	}
	m.guard.MessageSent(p, msg)
}

func bytesOf(m bsmsg.BitSwapMessage) (n int) {
	for _, b := range m.Blocks() {
		n += len(b.RawData())
	}
	return n
}

// Stats are bytes of blocks since New.
type Stats struct {
	PulledBytes    uint64 // asked for and arrived, each block once
	SentBytes      uint64
	DuplicateBytes uint64 // asked for, and arrived again
	UnwantedBytes  uint64 // never asked for
}

// Stats counts what travelled.
func (e *Exchange) Stats() Stats { return e.guard.stats() }

// protocols are bitswap's names.
var protocols = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}

// bitswapProtocol adapts bitswap.
type bitswapProtocol struct{ bs *bitswap.Bitswap }

func newBitswap(ctx context.Context, e *Exchange) *bitswapProtocol {
	opts := []bitswap.Option{
		bitswap.MaxOutstandingBytesPerPeer(outstandingPerPeer),
		bitswap.MaxQueuedWantlistEntriesPerPeer(maxWantsPerPeer),
		bitswap.EngineBlockstoreWorkerCount(readWorkers),
		bitswap.TaskWorkerCount(sendWorkers),
		bitswap.WithoutDuplicatedBlockStats(), // it reads the store for every block
		bitswap.WithTracer(metered{e.guard, e}),
		bitswap.WithPeerBlockRequestFilter(func(p peer.ID, c cid.Cid) bool {
			return (e.opt.Serves == nil || e.opt.Serves(p, c)) && e.opt.Meter.MaySend(p, traffic.Seeding)
		}),
	}
	var find routing.ContentDiscovery // stays nil without a router
	if e.opt.Router != nil {
		find = e.opt.Router
	}
	return &bitswapProtocol{bitswap.New(ctx, bsnet.NewFromIpfsHost(e.host), find, served{e.store}, opts...)}
}

func (b *bitswapProtocol) session(ctx context.Context) getter { return b.bs.NewSession(ctx) }

func (b *bitswapProtocol) stored(ctx context.Context, blk blocks.Block) error {
	return b.bs.Server.NotifyNewBlocks(ctx, blk)
}

func (b *bitswapProtocol) close() error { return b.bs.Close() }
