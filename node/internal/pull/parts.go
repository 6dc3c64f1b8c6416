package pull

import (
	"bufio"
	"context"
	"crypto/sha256"
	"slices"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

// contribution is a part of a block that a peer gave. Nothing says whether it is
// right before all parts are there.
type contribution struct {
	from peer.ID
	part span
	sum  digest
}

// partsOf are the parts of q that a span touches: from one to before another. The
// zero span touches all.
func (q *piece) partsOf(p span) (from, to int) {
	if p.n == 0 {
		return 0, int((max(q.size, 1) + partBytes - 1) / partBytes)
	}
	return int(p.from / partBytes), int((p.from + p.n + partBytes - 1) / partBytes)
}

// count counts a request for a span. It is called with fetch.mu held.
func (q *piece) count(p span, n int8) {
	from, to := q.partsOf(p)
	for i := from; i < min(to, maxParts); i++ {
		q.live[i] += n
	}
}

// open says whether a part of q is neither there nor asked for. It is called with
// fetch.mu held.
func (q *piece) open() bool {
	_, to := q.partsOf(span{})
	for i := range min(to, maxParts) {
		if !q.have[i] && q.live[i] == 0 {
			return true
		}
	}
	return false
}

// canAsk says whether s can give what is open of q. It is called with f.mu held.
func (f *fetch) canAsk(s *source, q *piece) bool {
	return !q.begun || !s.whole && !q.whole || q.copies == 0
}

// partOf is what s is asked for of a block: all of it, unless its line is slow, or
// there are parts already, or small is set. It is called with f.mu held.
func (f *fetch) partOf(s *source, q *piece, small bool) span {
	if s.whole || q.whole || q.leaf < 0 || q.size == 0 || q.size > shard.MaxBlockBytes {
		return span{}
	}
	slow := (small || (s.rate > 0 || !s.near) && s.rate < slowRate) && q.size > partBytes
	if !q.begun && (!slow || int(f.p.begun.Load()) >= maxBegun) {
		return span{}
	}
	again := !q.open() // somebody is asked for all that is missing
	free := func(i int) bool { return !q.have[i] && (again || q.live[i] == 0) }
	_, end := q.partsOf(span{})
	from := 0
	for from < end && !free(from) {
		from++
	}
	to := from + 1
	for to < end && !slow && free(to) {
		to++
	}
	return span{int64(from) * partBytes, min(int64(to)*partBytes, q.size) - int64(from)*partBytes}
}

// asked notes that r is made. It is called with f.mu held.
func (f *fetch) asked(r *request) {
	q := r.piece
	q.copies++
	q.count(r.part, 1)
	if r.part.n > 0 && !q.begun {
		q.begun = true
		f.begun = append(f.begun, q)
		f.p.begun.Add(1)
	}
	if !q.open() {
		f.dropTodo(q)
	}
}

// takePart takes the answer to r, which asked for a part. The last one completes
// the block. data is given back.
func (f *fetch) takePart(ctx context.Context, r *request, data []byte) error {
	defer f.p.buffers.put(data)
	q := r.piece
	f.mu.Lock()
	if whole := f.addPart(r, data); whole == nil {
		f.finished(r)
		f.mu.Unlock()
		f.wakeAll()
		return nil
	}
	whole, parts := q.partial, q.parts
	f.endParts(q)
	f.mu.Unlock()
	if f.p.shards == nil && digest(sha256.Sum256(whole)) != digestOf(q.cid) {
		f.p.buffers.put(whole)
		alone := f.suspect(q, parts)
		f.mu.Lock()
		f.finished(r)
		f.mu.Unlock()
		f.wakeAll()
		if alone {
			return wrongBytesError{q.cid}
		}
		return nil
	}
	b, err := blocks.NewBlockWithCid(whole, q.cid)
	if err != nil {
		f.p.buffers.put(whole)
		return err
	}
	return f.take(ctx, r, b, parts)
}

// addPart returns the block if r completes it. It is called with f.mu held.
func (f *fetch) addPart(r *request, data []byte) (whole []byte) {
	q, n := r.piece, int64(len(data))
	if n < r.part.n { // the block is shorter than its link says
		q.whole = true
		f.dropParts(q)
	}
	fits := q.begun && !q.taken && !q.here && !q.whole
	if fits && q.partial == nil {
		if fits = f.p.buffers.left.TryAcquire(q.size); fits {
			q.partial = make([]byte, q.size)
		}
	}
	if !fits {
		f.p.duplicate.Add(uint64(n))
		return nil
	}
	r.source.gave = true
	from, to := q.partsOf(r.part)
	for i := from; i < to; i++ {
		part := span{int64(i) * partBytes, min(partBytes, q.size-int64(i)*partBytes)}
		if q.have[i] { // somebody was faster
			f.p.duplicate.Add(uint64(part.n))
			continue
		}
		q.have[i] = true
		bytes := data[part.from-r.part.from:][:part.n]
		copy(q.partial[part.from:], bytes)
		q.parts = append(q.parts, contribution{from: r.source.id, part: part, sum: sha256.Sum256(bytes)})
	}
	_, end := q.partsOf(span{})
	for i := range end {
		if !q.have[i] {
			return nil
		}
	}
	return q.partial
}

// dropParts gives the memory of what came of a block back. It is called with
// f.mu held.
func (f *fetch) dropParts(q *piece) {
	if !q.begun {
		return
	}
	if q.partial != nil {
		f.p.buffers.left.Release(int64(len(q.partial)))
		for _, c := range q.parts {
			f.p.duplicate.Add(uint64(c.part.n))
		}
	}
	f.endParts(q)
}

// endParts is called with f.mu held.
func (f *fetch) endParts(q *piece) {
	q.begun, q.partial, q.parts = false, nil, nil
	clear(q.have[:])
	f.begun = slices.DeleteFunc(f.begun, func(o *piece) bool { return o == q })
	f.p.begun.Add(-1)
}

// suspect notes who gave parts of a block that is wrong, and reports whether it was
// one peer alone. The block is asked for as a whole from now on; the right one
// shows who lied.
func (f *fetch) suspect(q *piece, parts []contribution) (alone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q.whole = true
	alone = true
	for _, c := range parts {
		alone = alone && c.from == parts[0].from
	}
	if !alone {
		q.suspects = parts
	}
	return alone
}

// accuse ends the sessions with those whose parts are not those of the right block.
func (f *fetch) accuse(ctx context.Context, q *piece, right []byte) {
	f.mu.Lock()
	suspects := q.suspects
	q.suspects = nil
	f.mu.Unlock()
	for _, c := range suspects {
		if sha256.Sum256(right[c.part.from:c.part.from+c.part.n]) == c.sum {
			continue
		}
		f.mu.Lock()
		s := f.sources[c.from]
		f.mu.Unlock()
		switch {
		case s != nil:
			s.end(wrongBytesError{q.cid})
		case f.p.strike(c.from):
			f.p.ban(ctx, c.from, "again "+wrongBytesError{q.cid}.Error())
		}
	}
}

// openParts opens a stream for parts. That a peer does not know them ends nothing
// but that stream.
func (f *fetch) openParts(ctx context.Context, s *source) (*lane, error) {
	st, err := f.open(ctx, s, streamParts)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = st.Reset() }) // ends the reads
	return &lane{s: st, queue: make(chan *request, maxWindow), parts: true}, nil
}

// listenParts is listen for a lane of parts.
func (f *fetch) listenParts(ctx context.Context, s *source, l *lane) error {
	in := bufio.NewReaderSize(l.s, readBytes)
	for answered := false; ; answered = true {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-l.queue:
			err := f.answer(ctx, s, l, in, r)
			if err != nil && !answered && ctx.Err() == nil && !isProtocol(err) {
				f.forgo(s)
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

// forgo asks s for no more parts, and others for what it was asked for.
func (f *fetch) forgo(s *source) {
	f.mu.Lock()
	s.whole = true
	for i := 0; i < len(s.out); {
		if r := s.out[i]; r.part.n > 0 {
			f.finished(r) // takes it off the list
			continue
		}
		i++
	}
	f.mu.Unlock()
	f.wakeAll()
}
