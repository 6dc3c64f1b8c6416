package exchange

import (
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxLate       = 1 << 16         // CIDs of one generation that were asked for a while ago
	lateFor       = 2 * time.Minute // a generation; an answer may come this late
	maxStrikes    = 3               // then a peer is banned
	startStrikes  = 32              // instead, while answers to an earlier process may arrive
	startFor      = time.Minute
	strikeForgets = 10 * time.Minute // a peer without strikes for so long starts anew
	maxStruck     = 1024             // peers with strikes
	maxBanQueue   = 64
)

// guard watches all messages. Bitswap drops a block whose hash is of nothing
// that it wants, and tells nobody; so a forged block, which has such a hash,
// is noticed here.
type guard struct {
	now   func() time.Time
	start time.Time
	bans  chan peer.ID // when full, the next strike tries again

	mu        sync.Mutex
	wanted    map[cid.Cid]*want    // guarded by mu: asked for now
	late      [2]map[cid.Cid]bool  // guarded by mu: asked for before, newest generation first
	turned    time.Time            // guarded by mu: when the generations moved on
	strikes   map[peer.ID]*strikes // guarded by mu
	pulled    uint64               // guarded by mu, as the rest
	sent      uint64
	duplicate uint64
	unwanted  uint64
}

type want struct {
	asking int // fetches that ask for it
	got    bool
}

type strikes struct {
	n    int
	last time.Time
}

func newGuard(now func() time.Time) *guard {
	return &guard{
		now:     now,
		start:   now(),
		bans:    make(chan peer.ID, maxBanQueue),
		wanted:  make(map[cid.Cid]*want),
		late:    [2]map[cid.Cid]bool{{}, {}},
		turned:  now(),
		strikes: make(map[peer.ID]*strikes),
	}
}

// ask is called before a block is asked for, and release when it came or is
// not waited for any more.
func (g *guard) ask(c cid.Cid) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.wanted[c]
	if w == nil {
		w = &want{}
		g.wanted[c] = w
	}
	w.asking++
}

func (g *guard) release(c cid.Cid) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.wanted[c]
	if w.asking--; w.asking > 0 {
		return
	}
	delete(g.wanted, c)
	if now := g.now(); len(g.late[0]) >= maxLate || now.Sub(g.turned) > lateFor {
		g.late[0], g.late[1] = map[cid.Cid]bool{}, g.late[0]
		g.turned = now
	}
	g.late[0][c] = true
}

// MessageReceived is called by bitswap before it looks at the message itself.
func (g *guard) MessageReceived(from peer.ID, m bsmsg.BitSwapMessage) {
	bs := m.Blocks()
	if len(bs) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range bs {
		size := uint64(len(b.RawData()))
		w := g.wanted[b.Cid()]
		switch {
		case w != nil && !w.got:
			w.got = true
			g.pulled += size
		case w != nil, g.late[0][b.Cid()], g.late[1][b.Cid()]:
			g.duplicate += size
		default:
			g.unwanted += size
			g.strike(from)
		}
	}
}

// strike is called with g.mu held.
func (g *guard) strike(p peer.ID) {
	now := g.now()
	s := g.strikes[p]
	if s == nil || now.Sub(s.last) > strikeForgets {
		if s == nil && len(g.strikes) >= maxStruck {
			oldest := p
			for q, o := range g.strikes {
				if oldest == p || o.last.Before(g.strikes[oldest].last) {
					oldest = q
				}
			}
			delete(g.strikes, oldest)
		}
		s = &strikes{}
		g.strikes[p] = s
	}
	s.n++
	s.last = now
	limit := maxStrikes
	if now.Sub(g.start) < startFor {
		limit = startStrikes
	}
	if s.n < limit {
		return
	}
	select {
	case g.bans <- p:
		delete(g.strikes, p)
	default:
	}
}

// MessageSent is called by bitswap for what it serves.
func (g *guard) MessageSent(_ peer.ID, m bsmsg.BitSwapMessage) {
	var n uint64
	for _, b := range m.Blocks() {
		n += uint64(len(b.RawData()))
	}
	if n == 0 {
		return
	}
	g.mu.Lock()
	g.sent += n
	g.mu.Unlock()
}

func (g *guard) stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{PulledBytes: g.pulled, SentBytes: g.sent, DuplicateBytes: g.duplicate, UnwantedBytes: g.unwanted}
}
