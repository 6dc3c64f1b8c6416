package pull

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/node/internal/traffic"
)

const (
	streamsPerPeer = 2
	dialTimeout    = 15 * time.Second
	readBytes      = 64 << 10
	idleTime       = 20 * time.Second // without a byte of an answer that is waited for
	haveTimeout    = 3 * haveKeepAlive
	writeTimeout   = 20 * time.Second
	firstHaveRetry = time.Second // after which a peer that lacks inner nodes is asked for leaves again
	maxHaveRetry   = 15 * time.Second
	maxWrongHaves  = 256 // leaves that a peer said to have and had not
	maxIdleUpdates = 64  // without news, and one more each second
)

// lane is one of the streams for blocks with a source.
type lane struct {
	s       network.Stream
	queue   chan *request // in the order of the answers; of capacity maxWindow
	pending atomic.Int32  // requests without complete answer
	parts   bool          // of blocks; constant
}

// open opens a stream with a peer. It dials if needed.
func (f *fetch) open(ctx context.Context, s *source, what byte) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if f.p.opt.OverRelay {
		// A connection that a relay ended is made anew.
		if _, err := f.p.host.Network().DialPeer(network.WithAllowLimitedConn(ctx, string(Protocol)), s.id); err != nil {
			return nil, err
		}
	}
	if f.p.onlyRelayed(s.id) {
		if !f.p.mayRelay(s.id) {
			return nil, errRelayed
		}
		ctx = network.WithAllowLimitedConn(ctx, string(Protocol))
	}
	st, err := f.p.host.NewStream(ctx, s.id, Protocol)
	if err != nil {
		return nil, err
	}
	if c := st.Conn(); !p2p.CarriesShards(c) {
		// Another connection would, but this one was taken; it is in the way unless
		// others use it.
		_ = st.Reset() // nothing was sent
		if len(c.GetStreams()) == 0 {
			_ = c.Close() // likewise
		}
		return nil, errRelayed
	}
	if err := f.send(st, []byte{what}); err != nil {
		_ = st.Reset() // it is of no use
		return nil, err
	}
	return st, nil
}

func (f *fetch) send(st network.Stream, b []byte) error {
	if err := st.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := st.Write(b)
	return err
}

// talk asks s for blocks until ctx is done or something breaks. connected is
// called when s is known to speak the protocol.
func (f *fetch) talk(ctx context.Context, s *source, connected func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outer := ctx
	g, ctx := errgroup.WithContext(ctx)
	var lanes []*lane
	for range streamsPerPeer {
		st, err := f.open(ctx, s, streamBlocks)
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = st.Reset() }) // ends the reads
		lanes = append(lanes, &lane{s: st, queue: make(chan *request, maxWindow)})
		s.near, s.relayed = isNear(st.Conn().RemoteMultiaddr()), st.Conn().Stat().Limited
	}
	connected()
	s.end = cancel
	f.enter(s)
	defer f.leave(s)
	for _, l := range lanes {
		g.Go(func() error { return f.listen(ctx, s, l) })
	}
	g.Go(func() error {
		return f.ask(ctx, s, lanes, func() (*lane, error) {
			l, err := f.openParts(ctx, s)
			if err == nil {
				g.Go(func() error { return f.listenParts(ctx, s, l) })
			}
			return l, err
		})
	})
	g.Go(func() error { return f.watch(ctx, s) })
	err := g.Wait()
	if cause := context.Cause(outer); cause != nil {
		return cause
	}
	return err
}

// ask writes requests as the window of s allows. Parts opens a lane for parts.
func (f *fetch) ask(ctx context.Context, s *source, lanes []*lane, parts func() (*lane, error)) error {
	var partLane *lane
	for turn := 0; ; {
		f.mu.Lock()
		r := f.next(s, time.Now())
		d, fell := f.dag, f.fell
		f.mu.Unlock()
		if r == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-s.wake:
			}
			continue
		}
		if fell {
			here, err := f.already(ctx, r.piece)
			if err != nil {
				f.fail(err)
				return err
			}
			if here {
				f.mu.Lock()
				f.finished(r)
				f.mu.Unlock()
				continue
			}
		}
		if r.piece.leaf >= 0 {
			d.ask(r.piece.leaf)
		}
		if r.part.n > 0 {
			if partLane == nil {
				var err error
				if partLane, err = parts(); err != nil {
					return err
				}
			}
			f.askPart(s, partLane, r)
			continue
		}
		// The lane with fewer requests; of equal ones, in turn.
		turn++
		l := lanes[turn%len(lanes)]
		for _, o := range lanes {
			if o.pending.Load() < l.pending.Load() {
				l = o
			}
		}
		l.pending.Add(1)
		l.queue <- r // has room: the window is not larger
		if err := f.send(l.s, appendRequest(nil, r.piece.cid)); err != nil {
			return err
		}
	}
}

// askPart asks for a part. That the stream broke is seen by who listens to it.
func (f *fetch) askPart(s *source, l *lane, r *request) {
	f.mu.Lock()
	forgone := s.whole
	if forgone {
		f.finished(r)
	} else {
		l.pending.Add(1)
		l.queue <- r // has room: the window is not larger
	}
	f.mu.Unlock()
	if !forgone {
		_ = f.send(l.s, appendPartRequest(nil, r.piece.cid, r.part))
	}
}

// listen reads the answers of one lane.
func (f *fetch) listen(ctx context.Context, s *source, l *lane) error {
	in := bufio.NewReaderSize(l.s, readBytes)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-l.queue:
			if err := f.answer(ctx, s, l, in, r); err != nil {
				return err
			}
		}
	}
}

// answer reads the answer to r.
func (f *fetch) answer(ctx context.Context, s *source, l *lane, in *bufio.Reader, r *request) error {
	defer l.pending.Add(-1)
	if err := l.s.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return err
	}
	st, n, err := readBlockHeader(in)
	if err != nil {
		return unexpected(err)
	}
	f.mu.Lock()
	s.answered(r, time.Now())
	f.mu.Unlock()
	if st != statusOK {
		return f.refused(s, r, st)
	}
	if l.parts && int64(n) > r.part.n {
		return fmt.Errorf("%w: %d bytes of a part of %d", errProtocol, n, r.part.n)
	}
	data, err := f.p.buffers.get(ctx, n)
	if err != nil {
		return err
	}
	if err := f.read(ctx, s, l, in, r, data); err != nil {
		f.p.buffers.put(data)
		return err
	}
	if l.parts {
		return f.takePart(ctx, r, data)
	}
	if f.p.shards == nil && digest(sha256.Sum256(data)) != digestOf(r.piece.cid) {
		f.p.buffers.put(data)
		return wrongBytesError{r.piece.cid}
	}
	b, err := blocks.NewBlockWithCid(data, r.piece.cid)
	if err != nil {
		f.p.buffers.put(data)
		return err
	}
	return f.take(ctx, r, b, nil)
}

// read reads the bytes of a block.
func (f *fetch) read(ctx context.Context, s *source, l *lane, in *bufio.Reader, r *request, data []byte) error {
	for at, n := 0, len(data); at < n; {
		if err := l.s.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
			return err
		}
		k, err := in.Read(data[at:min(at+readBytes, n)])
		at += k
		f.mu.Lock()
		s.received(r, k, time.Now())
		s.stall = false
		if s.window() {
			s.poke()
		}
		f.mu.Unlock()
		if err != nil && at < n {
			return unexpected(err)
		}
		if err := f.p.opt.Meter.Receive(ctx, s.id, f.o.Use, k); err != nil {
			if errors.Is(err, traffic.ErrQuota) {
				f.fail(err)
			}
			return err
		}
	}
	return nil
}

// refused notes that s does not give what r asked for.
func (f *fetch) refused(s *source, r *request, st status) error {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	s.last, s.stall = now, false
	q := r.piece
	switch {
	case st == statusBusy:
		s.paused = now.Add(busyTime)
	case q.leaf < 0:
		s.lacks[q] = now
	case s.has.has(q.leaf):
		s.has.clear(q.leaf)
		f.hold(s, q, -1)
		if s.wrong++; s.wrong > maxWrongHaves {
			return errors.New("it does not have what it says")
		}
	}
	f.finished(r)
	for _, o := range f.sources {
		o.poke()
	}
	return nil
}

// watch follows what s has.
func (f *fetch) watch(ctx context.Context, s *source) error {
	if isLeaf(f.root) {
		return nil
	}
	for retry := firstHaveRetry; ; retry = min(2*retry, maxHaveRetry) {
		if err := f.follow(ctx, s); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// follow reads a have stream. It returns nil when s has no answer yet. The
// request is sent before the answer can be read, for it saves a round trip.
func (f *fetch) follow(ctx context.Context, s *source) error {
	st, err := f.open(ctx, s, streamHave)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() }) // it may be gone
	defer stop()
	defer func() { _ = st.Reset() }() // the same
	if err := f.send(st, appendRequest(nil, f.root)); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.indexed:
	}
	in := bufio.NewReaderSize(st, 4096)
	if err := st.SetReadDeadline(time.Now().Add(nodesTime + haveTimeout)); err != nil {
		return err
	}
	leaves := len(f.leaves) // constant since indexed
	status, have, err := readHave(in, leaves)
	if err != nil || status != statusOK {
		return unexpected(err)
	}
	f.learn(s, have)
	var es []entry
	begun, idle := time.Now(), 0
	for {
		if err := st.SetReadDeadline(time.Now().Add(haveTimeout)); err != nil {
			return err
		}
		if es, err = readUpdate(in, leaves, es[:0]); err != nil {
			return unexpected(err)
		}
		if f.update(s, es) > 0 {
			continue
		}
		if idle++; idle > maxIdleUpdates+int(time.Since(begun)/time.Second) {
			return errors.New("it says nothing new again and again")
		}
	}
}

// complain tells a peer that it sent other bytes than those of a block, so that an
// honest one looks at its disk.
func (f *fetch) complain(ctx context.Context, id peer.ID, c cid.Cid) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	st, err := f.p.host.NewStream(ctx, id, Protocol)
	if err != nil {
		return // it may be gone, or know no such thing
	}
	defer func() { _ = st.Reset() }()                         // the same
	stop := context.AfterFunc(ctx, func() { _ = st.Reset() }) // the same
	defer stop()
	if f.send(st, appendRequest([]byte{streamWrong}, c)) == nil {
		_, _ = st.Read(make([]byte, 1)) // it is answered when it was heard
	}
}

// isProtocol says whether a session ended by what an honest peer does not do.
func isProtocol(err error) bool {
	return errors.Is(err, errProtocol) && !errors.Is(err, io.ErrUnexpectedEOF)
}
