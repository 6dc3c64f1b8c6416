// Package roundtest writes chains of records as a test wants them.
package roundtest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Chronicle is a run told record by record: everybody sends a delta in each round,
// all hold all of them, all vote. Records keep all rules but one: the deltas do not
// exist, and the state stays that of genesis, on the word of the certificates.
type Chronicle struct {
	Links []round.Link // from genesis on

	tb       testing.TB
	manifest *run.Manifest
	rules    *round.Rules
	run      cid.Cid
	bytes    uint64
	keys     map[peer.ID]crypto.PrivKey
	others   []peer.ID // that ask for a seat in the first round
}

// New begins a run of the launcher, whose key is the first, and others.
func New(tb testing.TB, m *run.Manifest, keys ...crypto.PrivKey) *Chronicle {
	tb.Helper()
	c := &Chronicle{tb: tb, manifest: m, keys: make(map[peer.ID]crypto.PrivKey)}
	var err error
	if c.rules, err = round.NewRules(m); err != nil {
		tb.Fatal(err)
	}
	if c.run, err = m.ID(); err != nil {
		tb.Fatal(err)
	}
	layout, err := m.Layout()
	if err != nil {
		tb.Fatal(err)
	}
	c.bytes = uint64(fold.EncodedBytes(layout, int(m.CodecBits)))
	_, genesis, err := run.Genesis(m)
	if err != nil {
		tb.Fatal(err)
	}
	c.Links = []round.Link{c.link(genesis)}
	for i, k := range keys {
		id, err := peer.IDFromPrivateKey(k)
		if err != nil {
			tb.Fatal(err)
		}
		c.keys[id] = k
		if i > 0 {
			c.others = append(c.others, id)
		}
	}
	return c
}

// Head is the last record.
func (c *Chronicle) Head() round.Link { return c.Links[len(c.Links)-1] }

func (c *Chronicle) link(r *msg.Record) round.Link {
	c.tb.Helper()
	id, err := r.CID()
	if err != nil {
		c.tb.Fatal(err)
	}
	return round.Link{ID: id, Record: r}
}

func (c *Chronicle) seal(m msg.Message, by peer.ID) msg.Signed {
	c.tb.Helper()
	s, err := msg.Seal(c.keys[by], m)
	if err != nil {
		c.tb.Fatal(err)
	}
	return s
}

// Grow adds records until there are n after genesis.
func (c *Chronicle) Grow(n int) {
	c.tb.Helper()
	for len(c.Links) <= n {
		c.Links = append(c.Links, c.Next(nil))
	}
}

// Next returns a record that may follow the last one, with a certificate. change, if
// not nil, makes another of it before it is voted for.
func (c *Chronicle) Next(change func(*msg.Record)) round.Link {
	c.tb.Helper()
	parent := c.Head()
	p, n := parent.Record, parent.Record.Round+1
	known := make(map[cid.Cid]msg.Signed)
	var joins []cid.Cid
	if n == 1 {
		for _, id := range c.others {
			s := c.seal(&msg.JoinRequest{Run: c.run, Peer: id, Seq: 1}, id)
			known[s.CID], joins = s, append(joins, s.CID)
		}
		slices.SortFunc(joins, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	}
	var entries []msg.HaveEntry
	for i, seat := range p.NextSeats {
		if c.rules.Assembly(p) {
			break
		}
		s := c.seal(&msg.Commit{
			Run: c.run, Round: n, Head: parent.ID, Peer: seat.Peer, Delta: msg.RawCID(fmt.Append(nil, "delta ", n, i)), DeltaBytes: c.bytes,
			CodecBits: c.manifest.CodecBits, Tokens: 1000, Steps: 10, Norm: 1000,
		}, seat.Peer)
		known[s.CID] = s
		entries = append(entries, msg.HaveEntry{Seat: uint32(i), Commit: s.CID})
	}
	before := round.Link{}
	if n > 1 {
		before = c.Links[n-2]
	}
	var haves []msg.Signed
	for _, seat := range p.NextSeats {
		v := &msg.Have{Run: c.run, Round: n, Head: parent.ID, Peer: seat.Peer, Entries: entries, Joins: joins}
		for _, a := range c.rules.Audits(parent, seat.Peer) {
			v.Audits = append(v.Audits, msg.Audit{Seat: a.Seat, GainNano: 1e6})
		}
		slices.SortFunc(v.Audits, func(a, b msg.Audit) int { return int(a.Seat) - int(b.Seat) })
		haves = append(haves, c.seal(v, seat.Peer))
	}
	got := c.rules.Consequence(round.Basis{
		Before: before, Parent: parent, Haves: haves, Find: func(id cid.Cid) (msg.Signed, bool) { s, ok := known[id]; return s, ok },
	})
	r := got.Record
	r.Proposer = p.NextSeats[round.Proposers(parent.ID, p.NextSeats)[0]].Peer
	r.State = p.State
	for i := range r.Contributions {
		r.Contributions[i].Weight, r.Contributions[i].ClipQ16 = r.Contributions[i].Tokens, fold.One
	}
	if n > 1 {
		r.ParentCertificate = parent.Certificate
	}
	if change != nil {
		change(r)
	}
	l := c.link(r)
	l.Certificate, l.Certified = c.Certify(l), parent.Certified+1
	return l
}

// Certify returns the votes of all witnesses that are needed.
func (c *Chronicle) Certify(l round.Link) *msg.Certificate {
	q, _ := round.Quorum(round.Witnesses(l.Record.Seats))
	cert := &msg.Certificate{Record: l.ID}
	for _, seat := range l.Record.Seats {
		if len(cert.Votes) == q || seat.Trainee {
			continue
		}
		s := c.seal(&msg.Vote{Run: c.run, Round: l.Record.Round, Head: l.Record.Parent, Record: l.ID, Peer: seat.Peer}, seat.Peer)
		cert.Votes = append(cert.Votes, s.Envelope)
	}
	return cert
}
