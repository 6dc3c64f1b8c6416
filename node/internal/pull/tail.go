package pull

import "time"

// maxTail is how many leaves are left to ask for when it begins to matter who
// gives the last ones.
const maxTail = 256

// share is what s is asked for of q: nothing when others, who have it too, would
// have given all that is left before s gives even a part of it, and no more than a
// part when they would before s gives all. So all sources end at about the same
// time. Who would be the first to give q is never refused, or all might be, each
// for all the others. It is called with f.mu held.
func (f *fetch) share(s *source, q *piece, now time.Time) (span, bool) {
	part := f.partOf(s, q, false)
	others := f.othersTake(s, q, now)
	if others == 0 || !f.late(s, q, part, others, now) || f.soonest(s, q, now) {
		return part, true
	}
	part = f.partOf(s, q, true)
	return part, !f.late(s, q, part, others, now)
}

// late says whether s would need more than d for what it is asked for already and
// a part of q.
func (f *fetch) late(s *source, q *piece, part span, d time.Duration, now time.Time) bool {
	need := q.expected()
	if part.n > 0 {
		need = part.n
	}
	return float64(s.bytes+need) > s.speed(now)*d.Seconds()
}

// soonest says whether none of those who help would give q before s does.
func (f *fetch) soonest(s *source, q *piece, now time.Time) bool {
	own := s.takes(q, now)
	for _, o := range f.sources {
		if o != s && f.helps(o, q, now) && o.speed(now) > 0 && o.takes(q, now) < own {
			return false
		}
	}
	return true
}

// takes is how many seconds s needs for what it is asked for already and q.
func (s *source) takes(q *piece, now time.Time) float64 {
	return float64(s.bytes+q.expected()) / s.speed(now)
}

// helps says whether o, which has all, would be asked for q now if it had nothing
// else to give.
func (f *fetch) helps(o *source, q *piece, now time.Time) bool {
	return o.had && o.has.has(q.leaf) && !o.stall && !now.Before(o.paused) && f.canAsk(o, q) &&
		(o.near || q.near == 0 || !f.nearServe(now))
}

// othersTake is how long the others that help with q would need for all that is
// left to ask for, and what they were asked for. 0: it does not matter yet,
// or nothing is known of them or of s. Peers that fetch too are left out: who
// has only a part is better asked than who has all.
func (f *fetch) othersTake(s *source, q *piece, now time.Time) time.Duration {
	if q.leaf < 0 || len(f.todo) > maxTail || s.rate == 0 || !s.had {
		return 0
	}
	var rate float64
	var left int64
	for _, o := range f.sources {
		if o != s && f.helps(o, q, now) {
			rate += o.speed(now)
			left += o.bytes
		}
	}
	if rate == 0 {
		return 0
	}
	for _, q := range f.todo {
		left += q.expected()
	}
	return time.Duration(float64(left) / rate * float64(time.Second))
}
