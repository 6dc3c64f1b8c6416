package pull

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/shard"
)

// How much is asked of a peer at once.
const (
	firstWindow = 3 // blocks, or parts of one, while the rate is not known
	maxWindow   = 64
	windowTime  = 10 * time.Millisecond  // of its rate, beside twice the time that an answer takes to begin
	rateTime    = 100 * time.Millisecond // over which a rate is measured, at least
	delayTime   = 10 * time.Second       // after which the shortest delay is measured anew
)

// When peers that are near have a leaf, those that are far are not asked for it
// while the near ones give so much, or only began.
const (
	nearEnough = 4 << 20 // bytes per second
	nearBegins = time.Second
)

const (
	stallTime  = 3 * time.Second        // without a byte; then others are asked
	lackTime   = 2 * time.Second        // until a peer is asked again for an inner node that it did not have
	slowNode   = time.Second            // then another peer is asked for an inner node too
	busyTime   = time.Second            // that a busy peer is left alone
	maxCopies  = 3                      // requests for one block at the end
	maxLook    = 4096                   // leaves that are compared by rarity
	endgameGap = 100 * time.Millisecond // a second request must win at least this
	someBytes  = 1 << 20                // size of a block that is not known
)

// A peer on a slow line is asked for parts of blocks, which others can go on with.
const (
	slowRate  = 1 << 20   // bytes per second: below it
	partBytes = 256 << 10 // asked for at once
	maxParts  = shard.MaxBlockBytes / partBytes
	maxBegun  = 32 // blocks that are asked for in parts, of a puller
)

// request is one request for a block, or for a part of it.
type request struct {
	piece   *piece
	source  *source
	part    span      // what was asked for; zero: all of it
	at      time.Time // when it was made
	got     int64     // guarded by fetch.mu: bytes of it that came
	dropped bool      // guarded by fetch.mu: nobody counts on it any more
}

// source is a peer that is asked.
type source struct {
	id   peer.ID
	wake chan struct{} // there may be something to ask for; of capacity 1
	near bool          // on this machine or the LAN; constant once the session has begun
	end  func(error)   // ends the session, if it has not ended; constant likewise

	relayed bool // over a relay; constant likewise

	// the rest is guarded by fetch.mu
	has    bitset               // leaves; nil until it said
	asked  bitset               // leaves that it asked others for, as it says
	lacks  map[*piece]time.Time // inner nodes that it did not have
	out    []*request           // without answer, in their order
	bytes  int64                // of these, still to come
	came   int64                // bytes that came at all
	kept   int64                // bytes that came and are not stored yet
	rate   float64              // bytes per second; 0: not known
	since  time.Time            // the rate is being measured
	number int64                // bytes since then
	delay  [2]time.Duration     // shortest from a request to its answer: in this period, and in the one before; 0: none
	period time.Time            // when this period began
	begun  time.Time            // when it entered
	last   time.Time            // when a byte came, or it was first asked
	stall  bool                 // nothing comes
	paused time.Time            // it is busy until then
	gave   bool                 // a verified block
	wrong  int                  // leaves that it said to have and had not
	whole  bool                 // it knows no parts
	had    bool                 // it had all leaves when it first said what it has
}

func newSource(id peer.ID) *source {
	return &source{id: id, wake: make(chan struct{}, 1), lacks: make(map[*piece]time.Time)}
}

func (s *source) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (q *piece) expected() int64 {
	if q.size > 0 {
		return q.size
	}
	return someBytes
}

func (r *request) expected() int64 {
	if r.part.n > 0 {
		return r.part.n
	}
	return r.piece.expected()
}

// window says whether one more block may be asked for: when what is to come yet,
// and what waits for the store, takes less time than an answer takes to begin,
// twice over. More would not come sooner, and is what a process that is killed
// has asked for in vain.
func (s *source) window() bool {
	n := len(s.out)
	switch {
	case n >= maxWindow:
		return false
	case s.rate == 0 && (s.near || s.whole):
		return n < firstWindow
	case s.rate == 0: // it may be slow; each part that comes is a reason to ask for two
		return s.bytes < firstWindow*partBytes+s.came
	case s.bytes+s.kept < 2*partBytes:
		return true
	}
	delay := s.delay[0]
	if delay == 0 || (s.delay[1] > 0 && s.delay[1] < delay) {
		delay = s.delay[1]
	}
	return float64(s.bytes+s.kept) < s.rate*(2*delay+windowTime).Seconds()
}

// answered notes that the answer to r has begun. What a request waits for
// others before it is no delay of the line, but the shortest one has little of
// that.
func (s *source) answered(r *request, now time.Time) {
	if now.Sub(s.period) > delayTime {
		s.period = now
		s.delay = [2]time.Duration{0, s.delay[0]}
	}
	if d := max(now.Sub(r.at), time.Microsecond); s.delay[0] == 0 || d < s.delay[0] {
		s.delay[0] = d
	}
}

// speed is the rate, less when nothing came for a while. 0: not known.
func (s *source) speed(now time.Time) float64 {
	if idle := now.Sub(s.last).Seconds(); len(s.out) > 0 && idle > 1 {
		return s.rate / idle
	}
	return s.rate
}

// received counts bytes of the answer to r.
func (s *source) received(r *request, n int, now time.Time) {
	k := min(int64(n), max(r.expected()-r.got, 0))
	r.got += k
	s.bytes -= k
	s.came += k
	s.last = now
	if s.since.IsZero() {
		s.since = now // what came first tells nothing
		return
	}
	s.number += int64(n)
	if d := now.Sub(s.since); d >= rateTime {
		// Up at once, for lines begin slowly; down by and by.
		sample := float64(s.number) / d.Seconds()
		s.rate = max(sample, (s.rate+sample)/2)
		s.since, s.number = now, 0
	}
}

// next makes the next request of s, or returns nil when there is nothing to
// ask now. It is called with f.mu held.
func (f *fetch) next(s *source, now time.Time) *request {
	if s.stall || now.Before(s.paused) || !s.window() {
		return nil
	}
	var q *piece
	if f.dag == nil {
		q = f.nextNode(s, now)
	} else if s.has != nil && f.scanned {
		if q = f.rarest(s); q == nil {
			q = f.overdue(s, now)
		}
	}
	if q == nil {
		return nil
	}
	part, ok := f.share(s, q, now)
	if !ok {
		return nil
	}
	r := &request{piece: q, source: s, at: now, part: part}
	f.asked(r)
	if len(s.out) == 0 {
		s.last, s.since, s.number = now, time.Time{}, 0
	}
	s.out = append(s.out, r)
	s.bytes += r.expected()
	return r
}

// nextNode finds an inner node that s may have: one that nobody was asked for,
// else one that is slow to come.
func (f *fetch) nextNode(s *source, now time.Time) *piece {
	for _, q := range f.todo {
		if now.Sub(s.lacks[q]) > lackTime {
			return q
		}
	}
	for _, other := range f.sources {
		if other == s {
			continue
		}
		for _, r := range other.out {
			if q := r.piece; now.Sub(r.at) > slowNode && f.another(s, q) && now.Sub(s.lacks[q]) > lackTime {
				return q
			}
		}
	}
	return nil
}

// rarest finds the leaf that fewest have, of those that nobody was asked for
// and s has. Among equals it draws. What was begun is ended first.
func (f *fetch) rarest(s *source) *piece {
	n := len(f.todo)
	if n == 0 {
		return nil
	}
	var best *piece
	score := math.MaxInt
	spare := !s.near && f.nearServe(time.Now())
	for _, q := range f.begun {
		if q.todo >= 0 && f.canAsk(s, q) && s.has.has(q.leaf) && (!spare || q.near == 0) {
			return q
		}
	}
	// From a random place on, the first of equals is a draw.
	for i, at := 0, rand.IntN(n); i < min(n, maxLook); i++ {
		q := f.todo[(at+i)%n]
		if q.leaf < 0 || !s.has.has(q.leaf) || (spare && q.near > 0) || !f.canAsk(s, q) {
			continue
		}
		// Who has asked for it will have it soon.
		if k := 2*q.holder + q.askers; k < score {
			best, score = q, k
			if k <= 2 {
				break
			}
		}
	}
	return best
}

// nearServe says whether peers that are near are enough for what they have.
func (f *fetch) nearServe(now time.Time) bool {
	var rate float64
	for _, s := range f.sources {
		if !s.near || s.stall || s.has == nil {
			continue
		}
		if s.rate == 0 && now.Sub(s.begun) < nearBegins {
			return true
		}
		rate += s.speed(now)
	}
	return rate >= nearEnough
}

// hold notes that s has a leaf, or, with -1, has it no more.
func (f *fetch) hold(s *source, q *piece, n int) {
	q.holder += n
	if s.near {
		q.near += n
	}
}

// another says whether s may be asked for a block that others were asked for.
func (f *fetch) another(s *source, q *piece) bool {
	limit := maxCopies
	if q.begun {
		limit += maxParts // one for each part is no second one
	}
	if q.taken || q.here || q.copies >= limit {
		return false
	}
	for _, r := range s.out {
		if r.piece == q {
			return false
		}
	}
	return true
}

// overdue finds, when all leaves were asked for, the one that comes so late
// from another that s would give it in less than half the time.
func (f *fetch) overdue(s *source, now time.Time) *piece {
	mine := s.speed(now)
	if mine == 0 {
		return nil
	}
	var best *piece
	var most float64
	for _, other := range f.sources {
		if other == s || len(other.out) == 0 {
			continue
		}
		theirs := other.speed(now)
		var ahead int64
		for _, r := range other.out {
			q := r.piece
			ahead += r.expected() - r.got
			if q.leaf < 0 || !s.has.has(q.leaf) || !f.another(s, q) {
				continue
			}
			wait := math.MaxFloat64
			switch {
			case theirs > 0:
				wait = float64(ahead) / theirs
			case now.Sub(r.at) < slowNode:
				continue // it has just been asked for the first time
			}
			need := q.expected()
			if part := f.partOf(s, q, false); part.n > 0 {
				need = part.n
			}
			own := float64(s.bytes+need)/mine + endgameGap.Seconds()
			if wait > 2*own && wait > most {
				best, most = q, wait
			}
		}
	}
	return best
}

// finished takes r off the requests of its source; the caller says what
// became of the block. It is called with f.mu held.
func (f *fetch) finished(r *request) {
	s := r.source
	for i, o := range s.out {
		if o == r {
			s.out = append(s.out[:i], s.out[i+1:]...)
			break
		}
	}
	s.bytes -= r.expected() - r.got
	f.drop(r)
}

// drop counts on r no more. It is called with f.mu held.
func (f *fetch) drop(r *request) {
	if r.dropped {
		return
	}
	r.dropped = true
	q := r.piece
	q.copies--
	q.count(r.part, -1)
	if q.open() {
		f.addTodo(q)
	}
}

// overtake lets others be asked for what a stalled source was. It is called
// with f.mu held.
func (f *fetch) overtake(now time.Time) {
	for _, s := range f.sources {
		if s.stall || len(s.out) == 0 || now.Sub(s.last) < stallTime {
			continue
		}
		s.stall = true
		for _, r := range s.out {
			f.drop(r)
		}
	}
}

// enter adds a source, and leave takes it away with all that depends on it.
func (f *fetch) enter(s *source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.begun = time.Now()
	f.sources[s.id] = s
}

func (f *fetch) leave(s *source) {
	f.mu.Lock()
	for len(s.out) > 0 {
		f.finished(s.out[0])
	}
	if s.has != nil {
		for i, q := range f.leaves {
			if q != nil && s.has.has(i) {
				f.hold(s, q, -1)
			}
			if q != nil && s.asked.has(i) {
				q.askers--
			}
		}
	}
	delete(f.sources, s.id)
	f.mu.Unlock()
	f.wakeAll()
}

// learn takes what s says of the leaves that it has.
func (f *fetch) learn(s *source, have bitset) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s.has, s.asked, s.had = have, newBitset(len(f.leaves)), have.count() == len(f.leaves)
	for i, q := range f.leaves {
		if q != nil && have.has(i) {
			f.hold(s, q, 1)
		}
	}
	s.poke()
}

// update takes what s says later, and returns how much of it is new.
func (f *fetch) update(s *source, es []entry) (news int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range es {
		i := e.leaf()
		q := f.leaves[i]
		switch {
		case e.kind() == kindAsked:
			if s.has.has(i) || !s.asked.set(i) {
				continue
			}
			news++
			if q != nil {
				q.askers++
			}
		case s.has.set(i):
			news++
			if q != nil {
				f.hold(s, q, 1)
			}
			if s.asked.has(i) && q != nil {
				q.askers--
			}
			s.asked.clear(i)
		}
	}
	s.poke()
	return news
}

// wakeAll lets all sources look for something to ask.
func (f *fetch) wakeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sources {
		s.poke()
	}
}
