package round

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

const (
	maxBranches     = 4
	maxPartialBytes = 64 << 20 // of the records of a branch that is not all here
)

// branch is what a peer offered and what keeps the rules: records after one of
// our chain.
type branch struct {
	from     peer.ID
	ancestor Link
	links    []Link
	cons     *Consequence // of the last link if it still has to be folded
	foldID   FoldID
	bytes    int // of the records
}

// last is the last record of the branch; the ancestor if there is none.
func (b *branch) last() Link {
	if len(b.links) == 0 {
		return b.ancestor
	}
	return b.links[len(b.links)-1]
}

// before is the record before the last one.
func (b *branch) before(m *Machine) Link {
	switch n := len(b.links); n {
	case 0:
		return m.before(b.ancestor)
	case 1:
		return b.ancestor
	default:
		return b.links[n-2]
	}
}

// offered checks what a peer says comes after our chain.
func (m *Machine) offered(ev Offered) {
	m.syncBefore = m.now
	var from msg.Round // all before is here
	if m.partialOf(ev.From).Defined() {
		from = m.partial.last().Record.Round
	}
	b, err := m.checkOffer(ev)
	if err != nil {
		m.emit(Misbehaved{Peer: ev.From, Err: fmt.Errorf("sync: %w", err)})
	}
	if b == nil {
		return
	}
	if !m.forks.better(b.ancestor, b.links, m.chain.after(b.ancestor.ID, m.head)) {
		if err == nil && b.last().Record.Round > from {
			m.keepPartial(b)
		}
		if m.partial == nil && len(b.links) > 0 {
			m.lostAfter(b.ancestor, b.links)
		}
		return
	}
	for _, old := range m.branches {
		if old.last().ID.Equals(b.last().ID) && old.ancestor.ID.Equals(b.ancestor.ID) {
			return
		}
	}
	m.members.useful(m, ev.From)
	if len(m.branches) == maxBranches {
		m.branches = slices.Delete(m.branches, 0, 1)
	}
	if b.cons != nil {
		if !b.cons.Folds() {
			b.cons = nil
		} else {
			parent := b.ancestor.Record
			if n := len(b.links); n > 1 {
				parent = b.links[n-2].Record
			}
			b.foldID = m.need(parent, b.cons)
		}
	}
	m.branches = append(m.branches, b)
}

// checkOffer returns the part of an offer that keeps the rules, nil if none of
// it has to do with our chain, and the first rule that the rest breaks.
func (m *Machine) checkOffer(ev Offered) (*branch, error) {
	b := &branch{from: ev.From}
	known := true // so far all is in our chain
	if p := m.partialOf(ev.From); p.Defined() && len(ev.Items) > 0 {
		if r, err := msg.DecodeRecord(ev.Items[0].Record); err == nil && r.Parent.Equals(p) {
			b, known = m.partial, len(m.partial.links) == 0
		}
	}
	m.partial = nil
	for _, item := range ev.Items {
		r, err := msg.DecodeRecord(item.Record)
		if err != nil {
			return b.orNil(), err
		}
		id := msg.RawCID(item.Record)
		var cert *msg.Certificate
		if len(item.Certificate) > 0 {
			if cert, err = msg.DecodeCertificate(item.Certificate); err != nil {
				return b.orNil(), err
			}
		}
		if known {
			if l, ok := m.chain.link(id); ok {
				if err := m.confirm(l, cert); err != nil {
					return nil, err
				}
				b.ancestor, _ = m.chain.link(id)
				continue
			}
			ancestor, ok := m.chain.link(r.Parent)
			if !ok {
				return nil, nil // our chain has changed since
			}
			b.ancestor, known = ancestor, false
		}
		b.bytes += len(item.Record)
		if err := b.extend(m, id, r, cert); err != nil {
			return b.orNil(), err
		}
	}
	return b.orNil(), nil
}

// keepPartial keeps what is here of a branch of which there is more.
func (m *Machine) keepPartial(b *branch) {
	e := m.members.byPeer[b.from]
	if e == nil || e.status.Head.Equals(b.last().ID) || b.bytes > maxPartialBytes {
		return
	}
	m.partial = b
	e.askAt = m.now
}

// partialOf returns the last record that is here of a peer's branch, if there
// is more of it.
func (m *Machine) partialOf(id peer.ID) cid.Cid {
	if p := m.partial; p != nil && p.from == id && m.chain.has(p.ancestor.ID) {
		return p.last().ID
	}
	return cid.Undef
}

func (b *branch) orNil() *branch {
	if b.ancestor.Record == nil {
		return nil
	}
	return b
}

// confirm takes a certificate for a record that is in our chain without one.
func (m *Machine) confirm(l Link, cert *msg.Certificate) error {
	if cert == nil || l.Certificate != nil {
		return nil
	}
	if err := verifyCertificate(cert, l.ID, l.Record, m.open); err != nil {
		return err
	}
	m.certify(cert)
	return nil
}

// extend checks one more record.
func (b *branch) extend(m *Machine, id cid.Cid, r *msg.Record, cert *msg.Certificate) error {
	parent := b.last()
	if slices.ContainsFunc(m.frauds, id.Equals) {
		return fmt.Errorf("record %v of round %d has a wrong state, whoever voted for it", id, r.Round)
	}
	v, err := m.rules.verify(b.before(m), parent, r, m.open)
	if err != nil {
		return err
	}
	if cert != nil {
		if err := verifyCertificate(cert, id, r, m.open); err != nil {
			return err
		}
	}
	switch c := r.ParentCertificate; {
	case c == nil || parent.Certificate != nil:
	case len(b.links) > 0:
		b.links[len(b.links)-1].Certificate = c
	default:
		m.certify(c)
	}
	l := Link{ID: id, Record: r, Certificate: cert}
	b.links = append(b.links, l)
	b.cons = nil
	if cert == nil {
		b.cons = v.Consequence
	}
	return nil
}

// followBranch adopts an offered branch that is better than ours. It returns
// true if that gives another head.
func (m *Machine) followBranch() bool {
	for _, b := range slices.Clone(m.branches) {
		if b.cons != nil {
			if f, ok := m.folds.result(b.foldID); ok {
				b.cons = nil
				if err := Weigh(b.last().Record, f); err != nil {
					m.emit(Misbehaved{Peer: b.from, Err: fmt.Errorf("sync: %w", err)})
					b.links = b.links[:len(b.links)-1]
				}
			}
		}
		links := b.links
		if b.cons != nil {
			links = links[:len(links)-1]
		}
		if len(b.links) == 0 {
			m.drop(b)
			continue
		}
		b.ancestor, _ = m.chain.link(b.ancestor.ID)
		ours := m.chain.after(b.ancestor.ID, m.head)
		if m.forks.better(b.ancestor, links, ours) && m.mayLeave(links, ours) {
			m.adopt(counted(links, b.ancestor))
			return true
		}
		if b.cons == nil && !m.forks.better(b.ancestor, links, ours) {
			m.drop(b)
		}
	}
	return false
}

func (m *Machine) drop(b *branch) {
	m.branches = slices.DeleteFunc(m.branches, func(x *branch) bool { return x == b })
}

// mayLeave reports whether a seat may give up its round for records that nobody
// certified: when the round has failed for itself as well, or when so many
// seats went on that one of them is honest. Else one seat could end every round
// for the others by a record of its own.
func (m *Machine) mayLeave(theirs, ours []Link) bool {
	h := m.cur
	if len(ours) > 0 || theirs[0].Certificate != nil || h == nil || h.self < 0 {
		return true
	}
	if !h.t0.IsZero() && !m.now.Before(m.settledAt(h)) {
		return true
	}
	return m.seatsAhead(h) > h.f
}

// keepBranch drops the branches that do not go on from the new head.
func (m *Machine) keepBranch(head Link) {
	var keep []*branch
	for _, b := range m.branches {
		i := slices.IndexFunc(b.links, func(l Link) bool { return l.ID.Equals(head.ID) })
		if i >= 0 && i+1 < len(b.links) {
			b.ancestor, b.links = head, b.links[i+1:]
			keep = append(keep, b)
		}
	}
	m.branches = keep
}

// counted returns the links with their certificates counted from ancestor on.
func counted(links []Link, ancestor Link) []Link {
	list := slices.Clone(links)
	n := ancestor.Certified
	for i := range list {
		if list[i].Certificate != nil {
			n++
		}
		list[i].Certified = n
	}
	return list
}
