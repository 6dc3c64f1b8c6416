package sim

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

const (
	// keepOwn is how many own messages a node finds again after a restart.
	keepOwn = 256
	// offerItems and offerBytes bound what is answered to a sync, as in the
	// daemon.
	offerItems = 512
	offerBytes = 4 << 20
)

// chain is what the ledger is to a daemon, without a disk: the records from
// genesis to the head, branches that were left, and own messages. It outlives
// the node's process.
type chain struct {
	world *world
	links []round.Link
	at    map[cid.Cid]int
	left  map[cid.Cid]round.Link
	own   []msg.Signed
}

func newChain(w *world) *chain {
	return &chain{world: w, links: []round.Link{w.genesis}, at: map[cid.Cid]int{w.genesis.ID: 0}, left: make(map[cid.Cid]round.Link)}
}

// Link implements round.Chain.
func (c *chain) Link(id cid.Cid) (round.Link, bool) {
	i, ok := c.at[id]
	if !ok {
		return round.Link{}, false
	}
	return c.links[i], true
}

// Head implements round.Chain.
func (c *chain) Head() round.Link { return c.links[len(c.links)-1] }

// Record implements replay.Chain.
func (c *chain) Record(n msg.Round) (round.Link, bool) {
	if n >= msg.Round(len(c.links)) {
		return round.Link{}, false
	}
	return c.links[n], true
}

func (c *chain) adopt(links []round.Link) error {
	i, ok := c.at[links[0].Record.Parent]
	if !ok {
		return fmt.Errorf("adopt %v: its parent is not in the chain", links[0].ID)
	}
	for _, l := range c.links[i+1:] {
		delete(c.at, l.ID)
		c.left[l.ID] = l
	}
	c.links = c.links[:i+1]
	for _, l := range links {
		p := c.Head()
		n := p.Certified
		if l.Certificate != nil {
			n++
		}
		if !l.Record.Parent.Equals(p.ID) || l.Certified != n {
			return fmt.Errorf("adopt %v: does not follow %v with %d certified records", l.ID, p.ID, n)
		}
		c.at[l.ID] = len(c.links)
		c.links = append(c.links, l)
	}
	return nil
}

func (c *chain) certify(cert *msg.Certificate) error {
	i, ok := c.at[cert.Record]
	if !ok || c.links[i].Certificate != nil {
		return fmt.Errorf("certify %v: not in the chain, or certified already", cert.Record)
	}
	c.links[i].Certificate = cert
	for ; i < len(c.links); i++ {
		c.links[i].Certified++
	}
	return nil
}

func (c *chain) store(s msg.Signed) {
	if len(c.own) >= 2*keepOwn {
		c.own = slices.Clone(c.own[len(c.own)-keepOwn:])
	}
	c.own = append(c.own, s)
}

// after is what a daemon answers to a sync.
func (c *chain) after(locator []cid.Cid) []round.Item {
	for _, id := range locator {
		if i, ok := c.at[id]; ok {
			return c.items(c.links[i+1:])
		}
	}
	return nil
}

// branch is what a daemon answers when it is asked for a branch that was left.
func (c *chain) branch(head cid.Cid) []round.Item {
	var links []round.Link
	for l, ok := c.left[head]; ok; l, ok = c.left[l.Record.Parent] {
		links = append(links, l)
	}
	slices.Reverse(links)
	if items := c.items(links); len(items) == len(links) {
		return items
	}
	return nil
}

func (c *chain) items(links []round.Link) []round.Item {
	var items []round.Item
	size := 0
	for _, l := range links {
		item := round.Item{Record: c.world.encoded(l)}
		if l.Certificate != nil {
			b, err := l.Certificate.Encode()
			if err != nil {
				panic("bug: a certificate of the chain is not of form: " + err.Error())
			}
			item.Certificate = b
		}
		if size += len(item.Record) + len(item.Certificate); len(items) == offerItems || size > offerBytes {
			break
		}
		items = append(items, item)
	}
	return items
}

// locator is dense at the head and thin further back.
func (c *chain) locator() []cid.Cid {
	var list []cid.Cid
	step := 1
	for i := len(c.links) - 1; i > 0 && len(list) < 62; i -= step {
		list = append(list, c.links[i].ID)
		if len(list) >= 8 {
			step *= 2
		}
	}
	return append(list, c.links[0].ID)
}

// encoded is the record's bytes, encoded once for all nodes.
func (w *world) encoded(l round.Link) []byte {
	b, ok := w.records[l.ID]
	if !ok {
		var err error
		if b, err = l.Record.Encode(); err != nil {
			panic("bug: a record of the chain is not of form: " + err.Error())
		}
		w.records[l.ID] = b
	}
	return b
}
