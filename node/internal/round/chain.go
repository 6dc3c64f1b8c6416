package round

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/proto/msg"
)

// chainView is the chain as it will be when the effects of this step were
// carried out.
type chainView struct {
	chain  Chain
	recent []Link // adopted in this step, oldest first
	certs  []Link // certified in this step
	cut    bool   // the chain was cut in this step
	last   msg.Round
}

func (v *chainView) begin() { v.recent, v.certs, v.cut = nil, nil, false }

func (v *chainView) adopt(links []Link) {
	from := links[0].Record.Round
	v.recent = slices.DeleteFunc(v.recent, func(l Link) bool { return l.Record.Round >= from })
	v.recent = append(v.recent, links...)
	if !v.cut || from-1 < v.last {
		v.cut, v.last = true, from-1
	}
}

// certify takes a certificate for a link of the chain.
func (v *chainView) certify(l Link, c *msg.Certificate) {
	l.Certificate = c
	for i := range v.recent {
		v.recent[i] = v.recent[i].after(l)
	}
	v.certs = append(v.certs, l)
}

// after returns l as it is when an earlier one of its chain, or l itself, gets
// a certificate.
func (l Link) after(certified Link) Link {
	if l.Record.Round >= certified.Record.Round {
		l.Certified++
	}
	if l.ID.Equals(certified.ID) {
		l.Certificate = certified.Certificate
	}
	return l
}

func (v *chainView) link(id cid.Cid) (Link, bool) {
	for _, l := range v.recent {
		if l.ID.Equals(id) {
			return l, true
		}
	}
	l, ok := v.chain.Link(id)
	if !ok || v.cut && l.Record.Round > v.last {
		return Link{}, false
	}
	for _, c := range v.certs {
		l = l.after(c)
	}
	return l, true
}

func (v *chainView) has(id cid.Cid) bool {
	_, ok := v.link(id)
	return ok
}

// after returns the links that follow ancestor up to head, oldest first.
func (v *chainView) after(ancestor cid.Cid, head Link) []Link {
	var list []Link
	for !head.ID.Equals(ancestor) {
		list = append(list, head)
		next, ok := v.link(head.Record.Parent)
		if !ok {
			break
		}
		head = next
	}
	slices.Reverse(list)
	return list
}
