package round

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

const (
	maxAhead      = 1024
	maxAheadBytes = 8 << 20
	maxAheadOf    = 8 // messages of one peer
)

// aheadBuffer keeps messages for a head that is not ours, of this round or the
// next: others may be a little ahead. When it is full, what seats sent stays.
type aheadBuffer struct {
	list  []aheadMessage // oldest first
	bytes int
}

type aheadMessage struct {
	signed msg.Signed
	head   cid.Cid
	round  msg.Round
	seated bool
}

func (b *aheadBuffer) add(s msg.Signed, head cid.Cid, round msg.Round, seated bool) {
	n := 0
	for _, e := range b.list {
		if e.signed.CID.Equals(s.CID) {
			return
		}
		if e.signed.From == s.From {
			n++
		}
	}
	if n >= maxAheadOf {
		i := slices.IndexFunc(b.list, func(e aheadMessage) bool { return e.signed.From == s.From })
		b.remove(i)
	}
	for len(b.list) >= maxAhead || b.bytes+len(s.Envelope) > maxAheadBytes {
		i := slices.IndexFunc(b.list, func(e aheadMessage) bool { return !e.seated })
		if i < 0 && !seated {
			return
		}
		b.remove(max(i, 0))
	}
	b.list = append(b.list, aheadMessage{s, head, round, seated})
	b.bytes += len(s.Envelope)
}

func (b *aheadBuffer) remove(i int) {
	b.bytes -= len(b.list[i].signed.Envelope)
	b.list = slices.Delete(b.list, i, i+1)
}

// take removes and returns what is for head, and drops what is too old.
func (b *aheadBuffer) take(head cid.Cid, round msg.Round) []msg.Signed {
	var out []msg.Signed
	for i := 0; i < len(b.list); {
		e := b.list[i]
		if e.head.Equals(head) {
			out = append(out, e.signed)
		} else if e.round >= round {
			i++
			continue
		}
		b.remove(i)
	}
	return out
}
