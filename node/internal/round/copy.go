package round

import (
	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// rememberDeltas is for how many rounds it is known which deltas they had.
const rememberDeltas = 64

// deltaBook is the deltas of the last rounds.
type deltaBook struct {
	byRound map[msg.Round][]cid.Cid
}

// fill takes the last records of a chain.
func (b *deltaBook) fill(chain Chain) {
	b.byRound = make(map[msg.Round][]cid.Cid)
	for l, n := chain.Head(), 0; n < rememberDeltas && l.Record.Round > 0; n++ {
		b.add(l.Record)
		parent, ok := chain.Link(l.Record.Parent)
		if !ok {
			return
		}
		l = parent
	}
}

func (b *deltaBook) add(r *msg.Record) {
	var list []cid.Cid
	for _, c := range r.Contributions {
		list = append(list, c.Delta)
	}
	b.byRound[r.Round] = list
}

// adopt takes records that were adopted. What another branch had stays until it
// is old: it was made in an earlier round as well.
func (b *deltaBook) adopt(links []Link) {
	for _, l := range links {
		b.add(l.Record)
		delete(b.byRound, l.Record.Round-rememberDeltas)
	}
}

// had reports whether a delta is of a round before round.
func (b *deltaBook) had(id cid.Cid, round msg.Round) bool {
	for r := round - min(round, rememberDeltas); r < round; r++ {
		for _, d := range b.byRound[r] {
			if d.Equals(id) {
				return true
			}
		}
	}
	return false
}

// taken says whether a commit names a delta that somebody else had first, or
// that is of an earlier round. Of two seats with one delta, the later one is the
// copy.
func (m *Machine) taken(h *height, seat int, c *msg.Commit) msg.Reason {
	if m.deltas.had(c.Delta, h.round) {
		return msg.Replayed
	}
	for i, list := range h.commits {
		if i != seat && len(list) > 0 && list[0].commit.Delta.Equals(c.Delta) && list[0].reason != msg.Copy {
			return msg.Copy
		}
	}
	return msg.Held
}
