package sim

import "time"

// network is what lies between nodes.
type network struct {
	// minDelay and maxDelay bound the one-way delay, drawn for each message: so
	// messages overtake each other.
	minDelay, maxDelay time.Duration
	// loss and dup are the parts of gossip messages that do not arrive at a
	// neighbour, and that arrive twice. Transfers of payloads and records are
	// over streams, which repeat what is lost.
	loss, dup float64
	// upBits and downBits are the line of a node, per second; 0: without bound.
	upBits, downBits float64
	// degree is about how many neighbours a node gossips with. 0: everybody
	// sends to everybody else, and nobody passes on.
	degree int
	// weight is how many times as long payloads are on their way as their bytes
	// take; 0: once. With it a small model's deltas travel as a large one's do.
	weight float64
}

// traffic counts the bytes of a node.
type traffic struct {
	controlUp, controlDown uint64 // gossip and records
	bulkUp, bulkDown       uint64 // deltas and states
}

func (t *traffic) minus(o traffic) traffic {
	return traffic{t.controlUp - o.controlUp, t.controlDown - o.controlDown, t.bulkUp - o.bulkUp, t.bulkDown - o.bulkDown}
}

// line is one direction of a node's connection: what is sent waits for what was
// sent before.
type line struct{ free time.Duration }

// take returns when so many bytes are through.
func (l *line) take(now time.Duration, bytes int, bits float64) time.Duration {
	if bits <= 0 {
		return now
	}
	l.free = max(l.free, now) + time.Duration(float64(bytes)*8/bits*float64(time.Second))
	return l.free
}

func (w *world) delay() time.Duration {
	return w.net.minDelay + time.Duration(w.rnd.Int64N(int64(w.net.maxDelay-w.net.minDelay)+1))
}

// reaches reports whether two nodes can talk.
func (w *world) reaches(a, b *node) bool {
	return a.up && b.up && (w.cut == nil || !w.cut(a, b))
}

// request is a question over a stream and its answer, which is given by the time
// when the question arrives. Nothing comes of it if one of the two dies or the
// network is cut.
func (w *world) request(from, to *node, bytes int, answer func() (size int, arrive func())) {
	asker, answerer := from.life, to.life
	w.after(w.delay(), func() {
		if to.life != answerer || !w.reaches(from, to) {
			return
		}
		from.traffic.controlUp += uint64(bytes)
		to.traffic.controlDown += uint64(bytes)
		size, arrive := answer()
		sent := to.control.take(w.now, size, w.net.upBits)
		to.traffic.controlUp += uint64(size)
		w.after(sent-w.now+w.delay(), func() {
			if from.life == asker && w.reaches(from, to) {
				from.traffic.controlDown += uint64(size)
				arrive()
			}
		})
	})
}
