package round

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

const (
	// mergeRounds is how many rounds after a fork, in either chain, the branch
	// that lost can still be merged.
	mergeRounds = 50
	maxLost     = 4
	maxTries    = 5
)

// lostBranch is a branch that was not followed, or was left: what was trained
// in it need not be lost.
type lostBranch struct {
	fork  Link
	links []Link
	// asked: a Gate was asked for. passed: the merge makes nothing worse. One
	// that fails is tried again in a later round: rounds differ.
	asked, passed bool
	tries         int

	at    cid.Cid // head for which merge was computed
	merge *msg.Merge
}

func (l *lostBranch) first() cid.Cid { return l.links[0].ID }
func (l *lostBranch) last() Link     { return l.links[len(l.links)-1] }

// lostBook is the branches that can be merged, the ones met last at the end.
type lostBook struct{ list []*lostBranch }

// add takes a branch. Of two that begin alike the one that came further is kept.
func (b *lostBook) add(fork Link, links []Link) {
	if len(links) == 0 {
		return
	}
	l := &lostBranch{fork: fork, links: links}
	for i, old := range b.list {
		if old.first().Equals(l.first()) {
			if cmp.Or(cmp.Compare(l.last().Record.Tokens, old.last().Record.Tokens), compareCIDs(old.last().ID, l.last().ID)) > 0 {
				b.list[i] = l
			}
			return
		}
	}
	if len(b.list) == maxLost {
		b.list = slices.Delete(b.list, 0, 1)
	}
	b.list = append(b.list, l)
}

func (b *lostBook) find(head cid.Cid) *lostBranch {
	for _, l := range b.list {
		if l.last().ID.Equals(head) {
			return l
		}
	}
	return nil
}

// has reports whether the branch that ends with head is here, maybe as a part of
// a longer one.
func (b *lostBook) has(head cid.Cid) bool {
	return slices.ContainsFunc(b.list, func(l *lostBranch) bool {
		return slices.ContainsFunc(l.links, func(x Link) bool { return x.ID.Equals(head) })
	})
}

// keepLost drops what was merged, is too old, or does not part from our chain
// any more.
func (m *Machine) keepLost() {
	for _, l := range m.lost.list {
		l.asked = l.passed || l.tries >= maxTries
	}
	m.lost.list = slices.DeleteFunc(m.lost.list, func(l *lostBranch) bool {
		fork, ok := m.chain.link(l.fork.ID)
		if !ok || m.head.Record.Round > fork.Record.Round+mergeRounds || m.chain.has(l.first()) {
			return true
		}
		return slices.ContainsFunc(m.chain.after(l.fork.ID, m.head), func(x Link) bool {
			return x.Record.Merge != nil && x.Record.Merge.First.Equals(l.first())
		})
	})
}

// lostAfter notes a branch that parts from our chain and was not better.
func (m *Machine) lostAfter(fork Link, links []Link) {
	m.lost.add(fork, links)
	m.keepLost()
}

// mergeOf is what a branch is worth beside ours, of which it parted, over as
// many rounds. Its weight is its part of the tokens, but not more than its part
// of the support: tokens are claimed, and one seat can claim as many as it likes.
func (m *Machine) mergeOf(l *lostBranch) (msg.Merge, bool) {
	if !l.at.Equals(m.head.ID) {
		l.at, l.merge = m.head.ID, nil
		if e, ok := m.weighMerge(l); ok {
			l.merge = &e
		}
	}
	if l.merge == nil {
		return msg.Merge{}, false
	}
	return *l.merge, true
}

func (m *Machine) weighMerge(l *lostBranch) (msg.Merge, bool) {
	ours := m.chain.after(l.fork.ID, m.head)
	last := l.last().Record
	if len(ours) == 0 || len(l.links) > mergeRounds || last.Tokens <= l.fork.Record.Tokens {
		return msg.Merge{}, false
	}
	ours = ours[:min(len(ours), len(l.links))]
	base := ours[len(ours)-1].Record
	theirs := last.Tokens - l.fork.Record.Tokens
	all := theirs/2 + (base.Tokens-min(base.Tokens, l.fork.Record.Tokens))/2
	s, t := support(l.fork, l.links), support(l.fork, ours)
	if len(l.links) == 1 {
		s, t = apart(l.links[0].Record, ours[0].Record)
	}
	if all == 0 || s == 0 {
		return msg.Merge{}, false
	}
	e := msg.Merge{
		Fork: l.fork.ID, First: l.first(), Head: l.last().ID, State: last.State, Base: base.State, Tokens: theirs,
		WeightQ16: min(share(int64(theirs/2), int64(all)), share(int64(s), int64(s+t))),
	}
	return e, e.WeightQ16 > 0
}

// support counts the witnesses that signed for heads in links.
func support(fork Link, links []Link) int {
	n := 0
	for _, w := range fork.Record.NextSeats {
		if !w.Trainee && signedAfter(links, w.Peer) {
			n++
		}
	}
	return n
}

// apart counts the witnesses that had part in the only record of a branch and not
// in ours of that round, and those that had part in ours. Nobody signed for what
// follows such a branch, so its haves have to speak for it. There are none for it if
// what is in it is in ours too, which would count twice then, or was found to be bad
// there.
func apart(theirs, ours *msg.Record) (s, t int) {
	for _, c := range theirs.Contributions {
		same := func(o msg.Contribution) bool { return o.Seat == c.Seat }
		bad := func(o msg.Refusal) bool { return o.Seat == c.Seat && o.Reason > msg.Timeout }
		if slices.ContainsFunc(ours.Contributions, same) || slices.ContainsFunc(ours.Refused, bad) {
			return 0, 0
		}
	}
	for _, w := range ours.Seats {
		switch {
		case w.Trainee:
		case present(ours, w.Peer):
			t++
		case present(theirs, w.Peer):
			s++
		}
	}
	return s, t
}

// gate asks whether merges make anything worse.
func (m *Machine) gate() {
	if m.cur == nil || !m.cur.witness || m.cur.assembly {
		return
	}
	for _, l := range m.lost.list {
		if e, ok := m.mergeOf(l); ok && !l.asked {
			l.asked = true
			m.emit(Gate{Round: m.cur.round, State: m.head.Record.State, Merge: e})
		}
	}
}

func (m *Machine) gated(ev Gated) {
	if l := m.lost.find(ev.Head); l != nil && l.asked {
		l.passed = ev.Passes
		l.tries++
	}
}

// merges are what Self's have says of branches that lost.
func (m *Machine) merges() []msg.Merge {
	var list []msg.Merge
	for _, l := range m.lost.list {
		if e, ok := m.mergeOf(l); ok && l.passed && len(list) < msg.MaxMerges {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, msg.Merge.Compare)
	return list
}

// mergeIn takes the merge that most counting haves want, if more than half of
// them do.
func mergeIn(haves []msg.Signed, t int) *msg.Merge {
	var all []msg.Merge
	for _, s := range haves {
		all = append(all, s.Message.(*msg.Have).Merges...)
	}
	slices.SortFunc(all, msg.Merge.Compare)
	var best *msg.Merge
	most := 0
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Compare(all[0]) == 0 {
			n++
		}
		if n > most && n >= t && 2*n > len(haves) {
			best, most = &all[0], n
		}
		all = all[n:]
	}
	return best
}

// lostHead is the branch that Self tells others of: that others do not know, for
// all it knows.
func (m *Machine) lostHead() cid.Cid {
	best := cid.Undef
	for _, l := range m.lost.list {
		if _, ok := m.mergeOf(l); ok && (!best.Defined() || bytes.Compare(l.last().ID.Bytes(), best.Bytes()) < 0) {
			best = l.last().ID
		}
	}
	return best
}

// askLost asks for a branch that a peer tells of and that is not here.
func (m *Machine) askLost() bool {
	if m.cur == nil || !m.cur.witness {
		return false
	}
	for _, id := range m.members.peers {
		e := m.members.byPeer[id]
		head := e.status.Lost
		if !head.Defined() || m.now.Before(e.askAt) || m.lost.has(head) || m.chain.has(head) || !m.chain.has(e.status.Head) || m.passedOver(head) {
			continue
		}
		m.overlooked = append(m.overlooked, head)
		m.emit(Sync{From: id, Branch: head})
		m.syncBefore = m.now.Add(m.timing.Status)
		m.members.asked(m, id)
		return true
	}
	return false
}

// passedOver reports whether a branch was asked for often enough.
func (m *Machine) passedOver(head cid.Cid) bool {
	const most, kept = 4, 64
	if n := len(m.overlooked); n > kept {
		m.overlooked = m.overlooked[n-kept:]
	}
	n := 0
	for _, id := range m.overlooked {
		if id.Equals(head) {
			n++
		}
	}
	return n >= most
}
