package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
)

// content is the bytes of a delta or a state, and who has them.
type content struct {
	bytes   []byte
	delta   *fold.Delta // as decoded once
	err     error       // of decoding
	state   *fold.State
	holders []*node
	has     bitset
}

// contents are the payloads of the run, by CID.
type contents struct {
	w    *world
	byID map[cid.Cid]*content
}

// put makes bytes available from a node.
func (c *contents) put(n *node, b []byte) cid.Cid {
	id := fold.FileCID(b)
	c.hold(n, id, func() *content { return &content{bytes: b} })
	return id
}

func (c *contents) putState(n *node, id cid.Cid, st *fold.State) {
	c.hold(n, id, func() *content { return &content{state: st} })
}

func (c *contents) hold(n *node, id cid.Cid, make func() *content) {
	e := c.byID[id]
	if e == nil {
		e = make()
		e.has = newBitset(len(c.w.nodes))
		c.byID[id] = e
	}
	if n != nil && !e.has.has(n.i) {
		e.has.add(n.i)
		e.holders = append(e.holders, n)
	}
}

// decoded is the delta id as of the run's layout.
func (c *contents) decoded(id cid.Cid) (*fold.Delta, error) {
	e := c.byID[id]
	if e == nil || e.bytes == nil {
		return nil, fmt.Errorf("delta %v is not there", id)
	}
	if e.delta == nil && e.err == nil {
		e.delta, e.err = fold.Decode(c.w.layout, e.bytes)
	}
	return e.delta, e.err
}

// State implements round.Payloads.
func (c *contents) State(id cid.Cid) (*fold.State, error) {
	if st := c.stateOf(id); st != nil {
		return st, nil
	}
	return nil, fmt.Errorf("state %v is not there", id)
}

// Delta implements round.Payloads.
func (c *contents) Delta(in round.Input) (*fold.Delta, error) { return c.decoded(in.Delta) }

func (c *contents) stateOf(id cid.Cid) *fold.State {
	if e := c.byID[id]; e != nil {
		return e.state
	}
	return nil
}

// ReadBytes implements replay.Store: all that any node has.
func (c *contents) ReadBytes(_ context.Context, id cid.Cid, limit int64) ([]byte, error) {
	e := c.byID[id]
	if e == nil {
		return nil, fmt.Errorf("%v is not there", id)
	}
	b := e.bytes
	if b == nil {
		b = e.state.Marshal()
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%v has %d bytes, the limit is %d", id, len(b), limit)
	}
	return b, nil
}

// sizeOf is the length of the payload. What nobody has made has the size of a
// delta: it is asked for all the same.
func (c *contents) sizeOf(id cid.Cid) int {
	e := c.byID[id]
	switch {
	case e == nil || e.bytes == nil && e.state == nil:
		return int(fold.EncodedBytes(c.w.layout, int(c.w.manifest.CodecBits)))
	case e.bytes != nil:
		return len(e.bytes)
	}
	return int(fold.StateBytes(c.w.layout))
}

// sizeFor is the length of what a node pulls to have a payload: of a state, the
// difference from the one before, if it has that.
func (c *contents) sizeFor(n *node, id cid.Cid) int {
	if d, ok := c.w.differences[id]; ok {
		if e := c.byID[d.from]; e != nil && e.has.has(n.i) {
			return d.bytes
		}
	}
	return c.sizeOf(id)
}

const (
	requestBytes = 120 // a question for a payload, for each MiB of it
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// waiter waits for a payload.
type waiter struct {
	wanted func() bool
	done   func()
}

// fetch brings a payload to a node from whoever has it, for as long as wanted
// says so, and then calls done. It is brought once for all that wait for it.
func (n *node) fetch(id cid.Cid, wanted func() bool, done func()) {
	if e := n.w.contents.byID[id]; e != nil && e.has.has(n.i) {
		done()
		return
	}
	waiting := n.pending[id]
	n.pending[id] = append(waiting, waiter{wanted, done})
	if len(waiting) == 0 {
		n.tryFetch(id, firstPause)
	}
}

func (n *node) tryFetch(id cid.Cid, pause time.Duration) {
	w, life := n.w, n.life
	on := func() bool {
		if !n.up || n.life != life {
			return false
		}
		if slices.ContainsFunc(n.pending[id], func(e waiter) bool { return e.wanted() }) {
			return true
		}
		delete(n.pending, id)
		return false
	}
	again := func() {
		w.after(pause, func() {
			if on() {
				n.tryFetch(id, min(2*pause, longestPause))
			}
		})
	}
	from := n.holder(id)
	if from == nil {
		again()
		return
	}
	size := w.contents.sizeFor(n, id)
	if w.net.weight > 0 {
		size = int(float64(size) * w.net.weight)
	}
	bytes := size + requestBytes*(1+size>>20)
	sent := from.bulkUp.take(w.now, bytes, w.net.upBits)
	got := max(sent, n.bulkDown.take(w.now, bytes, w.net.downBits))
	giver := from.life
	w.after(got-w.now+2*w.delay(), func() {
		if from.life != giver || !w.reaches(from, n) {
			if on() {
				again()
			}
			return
		}
		from.traffic.bulkUp += uint64(bytes)
		n.traffic.bulkDown += uint64(bytes)
		if !on() {
			return
		}
		w.contents.hold(n, id, nil)
		waiting := n.pending[id]
		delete(n.pending, id)
		for _, e := range waiting {
			if e.wanted() {
				e.done()
			}
		}
	})
}

// holder draws a node that has a payload and can be reached; nil: none.
func (n *node) holder(id cid.Cid) *node {
	e := n.w.contents.byID[id]
	if e == nil || len(e.holders) == 0 {
		return nil
	}
	first := n.w.rnd.IntN(len(e.holders))
	for i := range e.holders {
		o := e.holders[(first+i)%len(e.holders)]
		if o != n && n.w.reaches(n, o) {
			return o
		}
	}
	return nil
}
