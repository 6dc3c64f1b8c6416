package pull

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/shard"
)

const (
	maxSources   = 24 // peers that are asked at once
	maxSessions  = 8  // of all fetches with one peer; see the limits of those who answer
	fewSources   = 3  // peers that are asked for something small, and one more each second
	smallBytes   = 64 << 20
	maxSuggested = 64
	tickTime     = 250 * time.Millisecond
	routeTime    = 30 * time.Second // between questions to the router
	maxRouted    = 16
	firstBackoff = time.Second
	maxBackoff   = 30 * time.Second
	muteBackoff  = time.Minute      // for a peer that does not speak the protocol
	patience     = 10 * time.Second // without a block; then the fallback is begun
	impatience   = time.Second      // instead, when there is nobody to wait for
)

// candidate is a peer that may have the DAG.
type candidate struct {
	named bool // by who fetches; constant

	// guarded by fetch.mu
	busy    bool      // a session is under way
	speaks  bool      // it is connected and speaks the protocol
	tried   bool      // once at least
	after   time.Time // not before then
	backoff time.Duration
}

// suggest adds peers that are likely to have the DAG. The caller may have been
// told so, or only suppose it.
func (f *fetch) suggest(ps []peer.ID, named bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ps {
		if len(f.suggested) >= maxSuggested {
			return
		}
		if id != f.p.host.ID() && f.suggested[id] == nil {
			f.suggested[id] = &candidate{named: named, backoff: firstBackoff}
		}
	}
}

// manage keeps sessions with all candidates, and the fallback when they are of
// no use, until ctx is done.
func (f *fetch) manage(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	begun := time.Now()
	fb := &fallback{f: f}
	defer fb.stop()
	if f.p.opt.Router != nil {
		wg.Go(func() { f.route(ctx) })
	}
	t := time.NewTicker(tickTime)
	defer t.Stop()
	for {
		now := time.Now()
		f.suggest(f.connected(), false)
		for _, x := range f.due(now, begun) {
			wg.Go(func() { f.session(ctx, x.id, x.candidate) })
		}
		f.mu.Lock()
		f.overtake(now)
		f.leaveRelays(now)
		last, waiting := f.last, f.waiting()
		f.mu.Unlock()
		f.wakeAll()
		fb.decide(ctx, now, begun, last, waiting)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// connected are the connected peers that speak the protocol.
func (f *fetch) connected() (out []peer.ID) {
	for _, id := range f.p.host.Network().Peers() {
		if ok, err := f.p.host.Peerstore().SupportsProtocols(id, Protocol); err == nil && len(ok) > 0 {
			out = append(out, id)
		}
	}
	return out
}

// route asks the router for peers now and then.
func (f *fetch) route(ctx context.Context) {
	for ctx.Err() == nil {
		var release []func()
		for info := range f.p.opt.Router.FindProvidersAsync(ctx, f.root, maxRouted) {
			release = append(release, p2p.HoldAddrs(f.p.host, info))
			f.suggest([]peer.ID{info.ID}, true)
		}
		select {
		case <-ctx.Done():
		case <-time.After(routeTime):
		}
		for _, done := range release {
			done()
		}
	}
}

// turn is a candidate whose turn it is.
type turn struct {
	id peer.ID
	*candidate
	rank int // at most rankRelayed
}

const rankRelayed = 3

// due are the candidates to begin a session with now: first those that were
// named, then those that are near. Over relays none is begun together with the
// first one with somebody who may need none. They are marked as busy, and have a
// session of the puller's.
func (f *fetch) due(now, begun time.Time) (out []turn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	busy := 0
	for id, c := range f.suggested {
		if c.busy {
			busy++
			continue
		}
		if now.Before(c.after) {
			continue
		}
		t := turn{id, c, 2}
		switch {
		case c.named:
			t.rank = 0
		case f.p.isNear(id):
			t.rank = 1
		}
		if f.p.onlyRelayed(id) {
			if !f.p.mayRelay(id) {
				f.mute = errRelayed
				continue
			}
			if f.direct(now) {
				continue
			}
			t.rank = rankRelayed
		}
		out = append(out, t)
	}
	limit := maxSources
	if f.o.MaxBytes > 0 && f.o.MaxBytes <= smallBytes {
		limit = min(limit, fewSources+int(now.Sub(begun)/time.Second))
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	slices.SortStableFunc(out, func(a, b turn) int { return a.rank - b.rank })
	kept := out[:0]
	hope := false
	for _, t := range out {
		if busy >= limit || hope && t.rank == rankRelayed {
			break
		}
		if f.p.enter(t.id) {
			hope = hope || t.rank < rankRelayed && !t.tried
			t.busy = true
			busy++
			kept = append(kept, t)
		}
	}
	return kept
}

// waiting says whether there is a peer that may give something yet: one that
// speaks the protocol, or was not tried. It is called with f.mu held.
func (f *fetch) waiting() bool {
	for _, c := range f.suggested {
		if c.speaks || (c.busy && !c.tried) {
			return true
		}
	}
	return false
}

// session is one session with a candidate.
func (f *fetch) session(ctx context.Context, id peer.ID, c *candidate) {
	defer f.p.leave(id)
	s := newSource(id)
	err := f.talk(ctx, s, func() {
		f.mu.Lock()
		c.speaks = true
		f.mu.Unlock()
	})
	if ctx.Err() != nil {
		return
	}
	if !isMute(err) {
		f.p.log.DebugContext(ctx, "session ended", "peer", id, "shard", f.root, "err", err)
	} else if err = p2p.VersionError(f.p.host, id, Protocol, err); !c.tried {
		// The fallback may bring what it has.
		f.p.log.InfoContext(ctx, "peer speaks no version of this node's protocol", "peer", id, "err", err)
	}
	wrong := wrongBytesError{}
	switch {
	case isProtocol(err):
		f.p.ban(ctx, id, err.Error())
	case errors.As(err, &wrong) && f.p.strike(id):
		f.p.ban(ctx, id, "again "+err.Error())
	case errors.As(err, &wrong):
		f.p.log.WarnContext(ctx, "peer sent a block with other bytes", "peer", id, "shard", wrong.cid)
		f.complain(ctx, id, wrong.cid)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c.busy, c.speaks, c.tried = false, false, true
	switch {
	case errors.Is(err, p2p.ErrVersion):
		c.backoff = muteBackoff
		f.mute = err
	case s.relayed && !s.gave:
		c.backoff = min(2*c.backoff, maxBackoff)
		f.mute = errRelayed
	case s.gave:
		c.backoff = firstBackoff
	default:
		c.backoff = min(2*c.backoff, maxBackoff)
	}
	c.after = time.Now().Add(c.backoff)
}

// isMute says whether a session ended because the peer does not know the
// protocol.
func isMute(err error) bool {
	var unknown multistream.ErrNotSupported[protocol.ID]
	return errors.As(err, &unknown)
}

// fallback is the use of Options.Fallback. It is owned by manage.
type fallback struct {
	f      *fetch
	cancel context.CancelFunc // nil when it is not at work
	begun  time.Time
	done   chan struct{} // closed when it has ended
}

// decide begins the fallback when nothing comes, and ends it when blocks come
// from peers that speak the protocol.
func (b *fallback) decide(ctx context.Context, now, begun, last time.Time, waiting bool) {
	if b.f.p.opt.Fallback == nil {
		return
	}
	if b.cancel != nil {
		select {
		case <-b.done:
			b.cancel = nil // by an error that does not end the fetch
		default:
			if last.After(b.begun) && now.Sub(last) < impatience {
				b.stop()
			}
		}
		return
	}
	limit := patience
	if !waiting {
		limit = impatience
	}
	if sinceOr(now, last, begun) < limit || now.Sub(b.begun) < limit {
		return
	}
	b.f.p.log.InfoContext(ctx, "no peer gave blocks, others are asked", "shard", b.f.root)
	b.start(ctx, now)
}

func (b *fallback) start(ctx context.Context, now time.Time) {
	f := b.f
	f.mu.Lock()
	f.fell = true
	o := FetchOptions{MaxBytes: f.o.MaxBytes, Leaves: f.o.Leaves, Use: f.o.Use}
	o.Before = func(missing, total int64) error {
		err := f.before(missing, total)
		if err != nil {
			f.fail(err)
		}
		return err
	}
	for id := range f.suggested {
		o.Providers = append(o.Providers, id)
	}
	f.mu.Unlock()
	if f.o.Progress != nil {
		o.Progress = func(done, total int64) {
			f.tell.Lock()
			defer f.tell.Unlock()
			f.report(done, total)
		}
	}
	ctx, b.cancel = context.WithCancel(ctx)
	b.begun, b.done = now, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		err := f.p.opt.Fallback.Fetch(ctx, f.root, o)
		switch {
		case err == nil:
			f.fail(errFull)
		case errors.Is(err, ErrTooLarge), errors.Is(err, shard.ErrInvalid):
			f.fail(err)
		case ctx.Err() == nil:
			f.p.log.WarnContext(ctx, "fallback ended", "shard", f.root, "err", err)
		}
	}(b.done)
}

// stop ends the fallback and waits for it.
func (b *fallback) stop() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	<-b.done
	b.cancel = nil
}

// errFull ends a fetch that the fallback has completed.
var errFull = errors.New("all is local")
