package sim

import (
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// gossipBytes is what pubsub adds to an envelope: sender, sequence number,
	// topic, signature.
	gossipBytes = 230
	// wantBytes is from what size on a node tells its neighbours that it has a
	// message (gossipsub 1.2); noteBytes is that note.
	wantBytes = 1024
	noteBytes = 60
	// knownNodes is how many others a node remembers, to connect to.
	knownNodes = 64
)

// bitset is a set of nodes.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }
func (b bitset) add(i int)      { b[i/64] |= 1 << (i % 64) }

// flight is a message on its way through the mesh.
type flight struct {
	signed msg.Signed
	bytes  int
	seen   bitset
	// seenAt is when each node had it; nil for small messages.
	seenAt []time.Duration
}

// publish begins a flight. Publishing a message again makes a new one.
func (w *world) publish(n *node, s msg.Signed) {
	if _, ok := s.Message.(*msg.Status); ok && !w.carries(n) {
		w.countStatus(n)
		return
	}
	w.note('p', n, s.CID)
	if w.seen.onPublish != nil {
		w.seen.onPublish(n, s)
	}
	f := &flight{signed: s, bytes: len(s.Envelope) + gossipBytes}
	if audience := n.m.Audience(s); audience != nil {
		// To each seat of a cell itself; nobody passes it on.
		for _, id := range audience {
			if to := w.nodes[w.index[id]]; to != n && to.up {
				w.send(n, to, f)
			}
		}
		return
	}
	if w.net.degree == 0 {
		for _, to := range w.nodes {
			if to != n && to.up {
				w.send(n, to, f)
			}
		}
		return
	}
	f.seen = newBitset(len(w.nodes))
	f.seen.add(n.i)
	if f.bytes >= wantBytes {
		f.seenAt = make([]time.Duration, len(w.nodes))
		f.seenAt[n.i] = w.now
	}
	w.forward(n, nil, f)
}

// forward passes a message on to the neighbours, but not back.
func (w *world) forward(n, from *node, f *flight) {
	n.tend()
	for _, i := range n.links {
		to := w.nodes[i]
		if to == from {
			continue
		}
		if f.seenAt != nil {
			// It has said that it has the message, if that could arrive.
			if f.seen.has(i) && w.now-f.seenAt[i] > w.net.minDelay {
				continue
			}
			n.traffic.controlUp += noteBytes
			to.traffic.controlDown += noteBytes
		}
		w.send(n, to, f)
	}
}

// send carries a message over one hop.
func (w *world) send(n, to *node, f *flight) {
	n.traffic.controlUp += uint64(f.bytes)
	w.sent[kindOf(f.signed.Message)] += uint64(f.bytes)
	sent := n.control.take(w.now, f.bytes, w.net.upBits)
	if w.rnd.Float64() < w.net.loss || !w.reaches(n, to) {
		return
	}
	times := 1
	if w.net.dup > 0 && w.rnd.Float64() < w.net.dup {
		times = 2
	}
	for range times {
		w.after(sent-w.now+w.delay(), func() { w.arrive(n, to, f) })
	}
}

func (w *world) arrive(n, to *node, f *flight) {
	if !w.reaches(n, to) {
		return
	}
	to.traffic.controlDown += uint64(f.bytes)
	if f.seen != nil {
		if f.seen.has(to.i) {
			return
		}
		f.seen.add(to.i)
		if f.seenAt != nil {
			f.seenAt[to.i] = w.now
		}
	}
	if _, ok := f.signed.Message.(*msg.Status); ok {
		to.learn(w.index[f.signed.From])
	}
	// As in the daemon, a message is judged before the machine has it: the vote
	// that completes a certificate goes on.
	passes := f.seen != nil && to.m.PassesOn(f.signed)
	if !w.repeats(to, f.signed.CID) {
		to.step(round.Received{Signed: f.signed})
	}
	if passes && to.up {
		w.forward(to, n, f)
	}
}

// kindOf is the word for what a message is, in figures.
func kindOf(m msg.Message) string {
	switch m.(type) {
	case *msg.Commit:
		return "commits"
	case *msg.Have:
		return "haves"
	case *msg.Proposal:
		return "proposals"
	case *msg.Vote:
		return "votes"
	case *msg.Status:
		return "heartbeats"
	case *msg.CellResult:
		return "results"
	}
	return "joins"
}

// repeats reports whether a node had a message already. Only with very many nodes:
// a machine drops it as well, but that takes its time.
func (w *world) repeats(n *node, id cid.Cid) bool {
	if !w.quiet {
		return false
	}
	had := w.had[id]
	if had == nil {
		had = newBitset(len(w.nodes))
		w.had[id] = had
	}
	if had.has(n.i) {
		return true
	}
	had.add(n.i)
	return false
}

// learn remembers another node, to connect to when neighbours are gone.
func (n *node) learn(i int) {
	if i == n.i || slices.Contains(n.known, i) {
		return
	}
	if len(n.known) == knownNodes {
		n.known[n.w.rnd.IntN(knownNodes)] = i
		return
	}
	n.known = append(n.known, i)
}

// tend drops neighbours that are gone, and connects to others.
func (n *node) tend() {
	w := n.w
	if w.now < n.tendAt {
		return
	}
	n.tendAt = w.now + time.Second
	alive := 0
	n.links = slices.DeleteFunc(n.links, func(i int) bool { return !w.nodes[i].up })
	for _, i := range n.links {
		if w.reaches(n, w.nodes[i]) {
			alive++
		}
	}
	for tries := 0; alive < w.net.degree/2 && tries < 2*w.net.degree && len(n.known) > 0; tries++ {
		if n.connect(w.nodes[n.known[w.rnd.IntN(len(n.known))]]) {
			alive++
		}
	}
	// The neighbours of neighbours are how a newcomer finds the others.
	for tries := 0; alive < w.net.degree/2 && tries < w.net.degree && len(n.links) > 0; tries++ {
		via := w.nodes[n.links[w.rnd.IntN(len(n.links))]]
		if !w.reaches(n, via) || len(via.links) == 0 {
			continue
		}
		if n.connect(w.nodes[via.links[w.rnd.IntN(len(via.links))]]) {
			alive++
		}
	}
}

// connect makes two nodes neighbours, if they can talk and are not.
func (n *node) connect(o *node) bool {
	if n == o || !n.w.reaches(n, o) || slices.Contains(n.links, o.i) {
		return false
	}
	n.links, o.links = append(n.links, o.i), append(o.links, n.i)
	n.learn(o.i)
	o.learn(n.i)
	return true
}

// carries reports whether the heartbeats of a node are carried to all others.
// With very many nodes those of nodes without a seat are only counted: each
// would reach everybody, and no rule depends on them.
func (w *world) carries(n *node) bool {
	return !w.quiet || slices.ContainsFunc(n.chain.Head().Record.NextSeats, func(s msg.Seat) bool { return s.Peer == n.id })
}

// countStatus adds what the heartbeat of a node costs those to whom it is
// connected; it goes no further.
func (w *world) countStatus(n *node) {
	w.counted += uint64(statusBytes+gossipBytes) * uint64(len(n.links))
}

// statusBytes is the envelope of a heartbeat.
const statusBytes = 290
