package round

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Older tells of records of the chain that came later than what follows them: a
// run can be joined by its last records. Rules that look back use them.
type Older struct{ Records []*msg.Record }

func (Older) event() {}

func (m *Machine) older(ev Older) {
	for _, r := range ev.Records {
		late := r.Round < m.head.Record.Round && r.Round+rememberDeltas > m.head.Record.Round
		if late {
			m.deltas.add(r)
		}
		if late || slices.ContainsFunc(m.head.Record.NextSeats, func(s msg.Seat) bool { return s.Since == r.Round+1 }) {
			m.tookEffect(r)
		}
	}
}

// ErrRefuted is wrapped by the error for records that are those of the chain, by
// their hashes, and break the rules: so what was proven of the chain was a lie of
// more witnesses than may lie.
var ErrRefuted = errors.New("the chain breaks the rules")

// VerifyBefore checks items that are to be the records before the last of known,
// newest first, and returns known with them. known are records of the chain, newest
// first as well, at least one. Each item is tied to the record after it by its hash;
// of each record that has two before it here, known or not, all is checked that
// Verify checks. What is checked comes back with an error, too.
func (ru *Rules) VerifyBefore(known []Link, items []Item) ([]Link, error) {
	links := append([]Link(nil), known...)
	for _, item := range items {
		after := links[len(links)-1]
		l, err := item.link()
		switch {
		case err != nil:
			return links, fmt.Errorf("record before round %d: %w", after.Record.Round, err)
		case !l.ID.Equals(after.Record.Parent):
			return links, fmt.Errorf("record %v is offered as the one before round %d, which is %v", l.ID, after.Record.Round, after.Record.Parent)
		}
		inside := after.Record.ParentCertificate
		if inside != nil {
			l.Certificate = inside
		}
		if l.Certificate != nil {
			if err := VerifyCertificate(l.Certificate, l.ID, l.Record); err != nil {
				if inside != nil {
					err = fmt.Errorf("%w: %w", ErrRefuted, err)
				}
				return links, err
			}
		}
		if n := len(links); n > 1 {
			if _, err := ru.Verify(l, after, links[n-2].Record); err != nil {
				return links, fmt.Errorf("%w: %w", ErrRefuted, err)
			}
		}
		links = append(links, l)
	}
	return links, nil
}

// Contradiction returns a round for which two proofs of heads name different
// records; ok is false if there is none. Both were checked, so the witnesses of a
// record before it signed for two chains.
func Contradiction(a, b []Link) (n msg.Round, ok bool) {
	named := make(map[msg.Round]cid.Cid)
	for _, l := range a {
		for _, e := range l.names() {
			named[e.round] = e.id
		}
	}
	for _, l := range b {
		for _, e := range l.names() {
			if had, ok := named[e.round]; ok && !had.Equals(e.id) {
				return e.round, true
			}
		}
	}
	return 0, false
}

// namedRecord is what a record says of another one.
type namedRecord struct {
	round msg.Round
	id    cid.Cid
}

// names are the records that a record says are of its chain, itself included.
func (l Link) names() []namedRecord {
	r := l.Record
	out := []namedRecord{{r.Round, l.ID}}
	if r.Round > 0 {
		out = append(out, namedRecord{r.Round - 1, r.Parent})
	}
	for i, id := range r.Skips {
		out = append(out, namedRecord{(r.Round - 1) >> (i + 1) << (i + 1), id})
	}
	return out
}

// Restart returns a machine for a chain that was moved under this one, by a jump to
// a head that was proven: it begins anew, with what it knows that does not depend on
// the chain. own and spent are as in Config. This machine must not be used any more.
func (m *Machine) Restart(now time.Time, own []msg.Signed, spent []cid.Cid) (*Machine, error) {
	cfg := m.cfg
	cfg.Own, cfg.Spent, cfg.Evidence = own, spent, nil
	n, err := New(cfg, now)
	if err != nil {
		return nil, err
	}
	n.proofs, n.joins, n.places, n.frauds = m.proofs, m.joins, m.places, m.frauds
	n.joins.known = n.works
	n.recallJoins()
	if n.cur != nil {
		n.joins.expire(n.cur.round)
	}
	n.orders.list = m.orders.list
	n.obeyed()
	n.lastSeq, n.statusSeq, n.want, n.about = max(m.lastSeq, n.lastSeq), m.statusSeq, m.want, m.about
	for _, id := range m.members.peers {
		e := *m.members.byPeer[id]
		e.since, e.askAt, e.wait = now, now, 0
		n.members.byPeer[id] = &e
	}
	n.members.peers = append([]peer.ID(nil), m.members.peers...)
	return n, nil
}
