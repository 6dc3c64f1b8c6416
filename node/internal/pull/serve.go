package pull

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/shard"
)

// Limits on what others can make this node do.
const (
	maxStreams      = 1024 // of all peers
	maxBlockStreams = 32   // of a peer; it needs up to three for each DAG that it fetches at once, up to 8, and more while it comes back
	maxHaveStreams  = 16   // of a peer
	maxReads        = 32   // blocks in memory for others
	maxPeerReads    = 2    // of these, for one peer
	maxWalks        = 2    // DAGs that are walked at once

	writeBytes    = 64<<10 - 12      // written at once: what yamux puts in a frame
	slowest       = 16 << 10         // bytes per second that an asker must take
	writeGrace    = 20 * time.Second // and this much more
	firstByteTime = 10 * time.Second
	requestTime   = 10 * time.Minute // without a request
	readTime      = 5 * time.Second  // for a turn to read; then the peer is busy
	nodesTime     = 30 * time.Second // for the inner nodes that are being fetched
	haveInterval  = 50 * time.Millisecond
	haveKeepAlive = 15 * time.Second
)

// client is a peer that is served.
type client struct {
	reads  chan struct{} // of capacity maxPeerReads
	blocks int           // streams; guarded by Puller.mu
	haves  int           // streams; guarded by Puller.mu
}

// admit counts a stream whose kind is known, unless there are too many.
func (p *Puller) admit(id peer.ID, what byte) (*client, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.clients[id]
	if c == nil {
		c = &client{reads: make(chan struct{}, maxPeerReads)}
	}
	switch {
	case p.banned[id], p.streams >= maxStreams:
		return nil, false
	case (what == streamBlocks || what == streamWrong || what == streamParts) && c.blocks < maxBlockStreams:
		c.blocks++
	case what == streamHave && c.haves < maxHaveStreams:
		c.haves++
	default:
		return nil, false
	}
	p.clients[id] = c
	p.streams++
	return c, true
}

func (p *Puller) dismiss(id peer.ID, c *client, what byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if what == streamHave {
		c.haves--
	} else {
		c.blocks--
	}
	p.streams--
	if c.blocks+c.haves == 0 {
		delete(p.clients, id)
	}
}

// handle serves a stream that a peer opened.
func (p *Puller) handle(s network.Stream) {
	if !p.begin() {
		_ = s.Reset() // it may be gone
		return
	}
	defer p.active.Done()
	stop := context.AfterFunc(p.ctx, func() { _ = s.Reset() }) // it may be gone
	defer stop()
	id := s.Conn().RemotePeer()
	err := errRelayed
	if c := s.Conn(); !c.Stat().Limited || p.opt.OverRelay && p2p.CarriesShards(c) {
		err = p.serve(p.ctx, id, s)
	}
	if err != nil {
		p.log.DebugContext(p.ctx, "stream ended", "peer", id, "err", err)
		_ = s.Reset() // the same
		return
	}
	s.Close()
}

func (p *Puller) serve(ctx context.Context, id peer.ID, s network.Stream) error {
	if err := s.SetReadDeadline(time.Now().Add(firstByteTime)); err != nil {
		return err
	}
	r := bufio.NewReaderSize(s, 4096)
	what, err := r.ReadByte()
	if err != nil {
		return err
	}
	c, ok := p.admit(id, what)
	if !ok {
		return errors.New("too many streams, or none of ours")
	}
	defer p.dismiss(id, c, what)
	switch what {
	case streamHave:
		return p.serveHave(ctx, id, s, r)
	case streamWrong:
		return p.serveWrong(ctx, id, c, s, r)
	}
	for {
		if err := s.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
			return err
		}
		var want cid.Cid
		var part span
		if what == streamParts {
			want, part, err = readPartRequest(r)
		} else {
			want, err = readRequest(r)
		}
		if err != nil {
			return err
		}
		if err := p.serveBlock(ctx, id, c, s, want, part); err != nil {
			return err
		}
	}
}

// serveBlock answers one request.
func (p *Puller) serveBlock(ctx context.Context, id peer.ID, c *client, s network.Stream, want cid.Cid, part span) error {
	if !p.serves(id, want) {
		return p.answer(s, statusMissing)
	}
	use := p.useOf(want)
	if !p.opt.Meter.MaySend(id, use) {
		return p.answer(s, statusBusy)
	}
	done, err := p.turn(ctx, c)
	if err != nil {
		return p.answer(s, statusBusy)
	}
	defer done()
	b, err := p.open(ctx, want)
	switch {
	case ipld.IsNotFound(err):
		return p.answer(s, statusMissing)
	case err != nil:
		p.log.WarnContext(ctx, "block was not read", "shard", want, "err", err)
		return p.answer(s, statusBusy)
	}
	defer b.Close()
	if part.n > 0 {
		b.Part(int(part.from), int(part.n))
	}
	buf := p.outBuffer()
	defer p.outgoing.Put(buf)
	begun := time.Now()
	head := appendBlockHeader((*buf)[:0], b.Size())
	for sent := 0; ; {
		bytes, err := b.Next((*buf)[len(head):])
		if err != nil {
			return err
		}
		if len(bytes) == 0 && len(head) == 0 {
			return nil
		}
		waiting := time.Now()
		if err := p.opt.Meter.Send(ctx, id, use, len(bytes)); err != nil {
			return err
		}
		// The limit counts against the asker only if it is slower.
		begun = begun.Add(time.Since(waiting))
		sent += len(bytes)
		allowed := writeGrace + time.Duration(sent)*time.Second/slowest
		if err := s.SetWriteDeadline(begun.Add(allowed)); err != nil {
			return err
		}
		out := bytes
		if len(head) > 0 { // before the first part
			out = (*buf)[:len(head)+copy((*buf)[len(head):], bytes)]
			head = nil
		}
		if _, err := s.Write(out); err != nil {
			return err
		}
		p.sent.Add(uint64(len(bytes)))
	}
}

// serves reports whether a peer may have a block.
func (p *Puller) serves(id peer.ID, c cid.Cid) bool {
	return p.opt.Serves == nil || p.opt.Serves(id, c)
}

func (p *Puller) outBuffer() *[]byte {
	if b, ok := p.outgoing.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, writeBytes)
	return &b
}

// outBlock is a block that is given to a peer piece by piece.
type outBlock interface {
	Size() int
	Part(from, n int)
	Next(buf []byte) ([]byte, error)
	Close()
}

// open opens a block. One that others could not store is not found.
func (p *Puller) open(ctx context.Context, c cid.Cid) (outBlock, error) {
	if p.shards != nil {
		return p.shards.OpenQuick(ctx, c)
	}
	b, err := p.store.Get(ctx, c)
	if err == nil && len(b.RawData()) > shard.MaxBlockBytes {
		err = ipld.ErrNotFound{Cid: c}
	}
	if err != nil {
		return nil, err
	}
	return &memoryBlock{len(b.RawData()), b.RawData()}, nil
}

// memoryBlock is an outBlock that is all in memory.
type memoryBlock struct {
	size int
	left []byte
}

func (b *memoryBlock) Size() int { return b.size }
func (b *memoryBlock) Close()    {}

func (b *memoryBlock) Part(from, n int) {
	from = min(from, b.size)
	b.size = min(n, b.size-from)
	b.left = b.left[from : from+b.size]
}

func (b *memoryBlock) Next(buf []byte) ([]byte, error) {
	n := min(len(buf), len(b.left))
	part := b.left[:n]
	b.left = b.left[n:]
	return part, nil
}

// serveWrong hears that a block was sent with other bytes. What a peer can make
// this node do so is to hash one block, like a request for it.
func (p *Puller) serveWrong(ctx context.Context, id peer.ID, c *client, s network.Stream, r *bufio.Reader) error {
	which, err := readRequest(r)
	if err != nil {
		return err
	}
	if !p.serves(id, which) {
		return p.answer(s, statusOK)
	}
	done, err := p.turn(ctx, c)
	if err != nil {
		return p.answer(s, statusBusy)
	}
	defer done()
	if p.shards == nil {
		return p.answer(s, statusOK)
	}
	right, err := p.shards.Doubt(ctx, which)
	switch {
	case err != nil:
		return p.answer(s, statusBusy)
	case right:
		return p.answer(s, statusOK)
	}
	p.log.WarnContext(ctx, "a block that was sent is damaged", "shard", which)
	return p.answer(s, statusMissing)
}

// turn waits until one more block may be read for c.
func (p *Puller) turn(ctx context.Context, c *client) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	select {
	case c.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := p.reads.Acquire(ctx, 1); err != nil {
		<-c.reads
		return nil, err
	}
	return func() {
		p.reads.Release(1)
		<-c.reads
	}, nil
}

func (p *Puller) answer(s network.Stream, st status) error {
	return p.write(s, []byte{byte(st)})
}

func (p *Puller) write(s network.Stream, b []byte) error {
	allowed := writeGrace + time.Duration(len(b))*time.Second/slowest
	if err := s.SetWriteDeadline(time.Now().Add(allowed)); err != nil {
		return err
	}
	_, err := s.Write(b)
	return err
}

// serveHave tells which leaves are here, and what becomes of them.
func (p *Puller) serveHave(ctx context.Context, id peer.ID, s network.Stream, r *bufio.Reader) error {
	root, err := readRequest(r)
	if err != nil {
		return err
	}
	if !p.serves(id, root) {
		return p.answer(s, statusMissing)
	}
	// Nothing more is read, but that the other side ends the stream is seen.
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	p.active.Add(1) // this stream is counted, so it is not yet waited for
	p.mu.Unlock()
	go func() {
		defer p.active.Done()
		defer cancel()
		_, _ = r.ReadByte()
	}()

	d, st := p.followFor(ctx, root)
	if d == nil {
		return p.answer(s, st)
	}
	defer p.unfollow(root)
	have, at := d.snapshot()
	if err := p.write(s, appendHave(nil, len(d.leaves), have)); err != nil {
		return err
	}
	for {
		es, changed := d.since(at, maxEntries)
		if len(es) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				continue
			case <-time.After(haveKeepAlive):
			}
		}
		if err := p.write(s, appendUpdate(nil, es)); err != nil {
			return err
		}
		at += len(es)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(haveInterval): // so that they come in groups
		}
	}
}

// followFor is follow for another peer. Without a dag the status says why.
func (p *Puller) followFor(ctx context.Context, root cid.Cid) (*dag, status) {
	p.mu.Lock()
	f := p.fetches[root]
	p.mu.Unlock()
	if f != nil {
		select {
		case <-ctx.Done():
			return nil, statusBusy
		case <-f.indexed:
		case <-f.ended:
		case <-time.After(nodesTime):
			return nil, statusMissing
		}
	}
	// A DAG that is here is walked at its owner's cost, so not many at once.
	select {
	case <-ctx.Done():
		return nil, statusBusy
	case p.walks <- struct{}{}:
		defer func() { <-p.walks }()
	case <-time.After(readTime):
		return nil, statusBusy
	}
	d, err := p.follow(ctx, root)
	switch {
	case err == nil:
		return d, statusOK
	case ipld.IsNotFound(err):
		return nil, statusMissing
	default:
		p.log.DebugContext(ctx, "DAG was not walked", "shard", root, "err", err)
		return nil, statusMissing
	}
}
