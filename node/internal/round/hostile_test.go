package round

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// weight is how much a machine keeps of what others sent.
func (m *Machine) weight() (entries, bytes int) {
	add := func(s msg.Signed) { entries, bytes = entries+1, bytes+len(s.Envelope) }
	for _, h := range []*height{m.cur, m.prev} {
		if h == nil {
			continue
		}
		for i := range h.seats {
			for _, s := range append(slices.Clone(h.haves[i]), h.votes[i]...) {
				add(s)
			}
			for _, c := range h.commits[i] {
				add(c.signed)
			}
			for a := range h.proposals {
				if s := h.proposals[a][i].signed; s.Message != nil {
					add(s)
				}
			}
		}
		entries += len(h.candidates) + len(h.missing) + len(h.byCID)
	}
	for _, e := range m.ahead.list {
		add(e.signed)
	}
	for _, s := range m.joins.all() {
		add(s)
	}
	for _, s := range m.orders.list {
		add(s)
	}
	entries += len(m.joins.took) + len(m.members.peers) + len(m.folds.list)
	for _, b := range m.branches {
		entries += len(b.links)
	}
	return entries, bytes
}

// hostile draws messages that are of form and mean nothing good.
type hostile struct {
	rnd   *rand.Rand
	node  *simNode
	keys  []crypto.PrivKey
	peers []peer.ID
	cids  []cid.Cid
}

func (x *hostile) cid() cid.Cid {
	if x.rnd.IntN(3) > 0 {
		return x.cids[x.rnd.IntN(len(x.cids))]
	}
	return testCID(fmt.Sprint("junk", x.rnd.IntN(1000)))
}

func (x *hostile) message() msg.Signed {
	i := x.rnd.IntN(len(x.keys))
	if x.rnd.IntN(2) == 0 {
		i = x.rnd.IntN(4)
	}
	id := x.peers[i]
	n := x.node
	head := n.chain.Head()
	round := head.Record.Round + 1
	at := head.ID
	switch x.rnd.IntN(6) {
	case 0:
		at = head.Record.Parent
		round--
	case 1:
		at, round = x.cid(), round+msg.Round(x.rnd.IntN(3))
	}
	if round == 0 || !at.Defined() {
		at, round = head.ID, head.Record.Round+1
	}
	if x.rnd.IntN(8) == 0 {
		round = 1 + msg.Round(x.rnd.Uint64N(msg.MaxRound))
	}
	var v msg.Message
	switch x.rnd.IntN(6) {
	case 0:
		v = &msg.Commit{
			Run: n.sim.runID, Round: round, Head: at, Peer: id, Delta: x.cid(), DeltaBytes: n.sim.rules.deltaBytes + x.rnd.Uint64N(2),
			CodecBits: 2, Tokens: 1 + x.rnd.Uint64N(msg.MaxTokens), Steps: 1, Norm: x.rnd.Uint64N(msg.MaxNorm),
		}
	case 1:
		h := &msg.Have{Run: n.sim.runID, Round: round, Head: at, Peer: id}
		for seat := range uint32(5) {
			if x.rnd.IntN(2) == 0 {
				h.Entries = append(h.Entries, msg.HaveEntry{Seat: seat, Commit: x.cid(), Reason: msg.Reason(x.rnd.IntN(12))})
			}
		}
		for range x.rnd.IntN(4) {
			h.Joins = append(h.Joins, x.cid())
		}
		slices.SortFunc(h.Joins, compareCIDs)
		h.Joins = slices.Compact(h.Joins)
		if x.rnd.IntN(4) == 0 {
			h.Orders = []cid.Cid{x.cid()}
		}
		v = h
	case 2:
		v = &msg.Vote{Run: n.sim.runID, Round: round, Head: at, Attempt: uint32(x.rnd.IntN(4)), Record: x.cid(), Peer: id}
	case 3:
		v = &msg.JoinRequest{Run: n.sim.runID, Peer: id, Seq: x.rnd.Uint64N(5), Leave: x.rnd.IntN(3) == 0}
	case 4:
		v = &msg.Status{
			Run: n.sim.runID, Peer: id, Seq: x.rnd.Uint64(), Head: x.cid(), Round: msg.Round(x.rnd.Uint64N(msg.MaxRound)),
			Certified: x.rnd.Uint64N(1 << 20), Tokens: x.rnd.Uint64N(1 << 50),
		}
	case 5:
		r := x.record(id, at, round)
		b, err := r.Encode()
		if err != nil {
			return x.message()
		}
		x.cids = append(x.cids, msg.RawCID(b))
		v = &msg.Proposal{Run: n.sim.runID, Round: r.Round, Attempt: max(r.Attempt, uint32(x.rnd.IntN(4))), Peer: id, Record: b}
	}
	if i > 0 && x.rnd.IntN(12) == 0 { // the launcher's order would count
		v = &msg.Order{Run: n.sim.runID, Peer: id, Seq: 1 + x.rnd.Uint64N(5), Action: msg.Action(1 + x.rnd.IntN(3))}
	}
	s, err := msg.Seal(x.keys[i], v)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	x.cids = append(x.cids, s.CID)
	if len(x.cids) > 400 {
		x.cids = x.cids[200:]
	}
	return s
}

// record is of form; now and then it is what follows from a have of its maker.
func (x *hostile) record(id peer.ID, at cid.Cid, round msg.Round) *msg.Record {
	n := x.node
	parent, ok := n.chain.Link(at)
	if !ok || parent.Record.Round+1 != round {
		parent = n.chain.Head()
		at, round = parent.ID, parent.Record.Round+1
	}
	i := slices.Index(x.peers, id)
	have, err := msg.Seal(x.keys[i], &msg.Have{Run: n.sim.runID, Round: round, Head: at, Peer: id})
	if err != nil {
		n.sim.t.Fatal(err)
	}
	seats := parent.Record.NextSeats
	if seatOf(seats, id) < 0 {
		return &msg.Record{}
	}
	r := n.sim.rules.Consequence(Basis{Parent: parent, Haves: []msg.Signed{have}, Find: func(cid.Cid) (msg.Signed, bool) {
		return msg.Signed{}, false
	}}).Record
	r.Proposer, r.Attempt = id, uint32(x.rnd.IntN(4))
	switch x.rnd.IntN(6) {
	case 0:
		r.State = x.cid()
	case 1:
		r.Tokens += x.rnd.Uint64N(9)
	case 2:
		r.Haves = append(r.Haves, []byte{1, 2, 3})
	case 3:
		r.Refused = []msg.Refusal{{Seat: 0, Commit: x.cid(), Reason: msg.BadNorm}}
	}
	return r
}

func (x *hostile) event() Event {
	switch x.rnd.IntN(12) {
	case 0:
		return Checked{Commit: x.cid(), Reason: msg.Reason(x.rnd.IntN(12))}
	case 1:
		id := FoldID("x")
		if l := x.node.m.folds.list; len(l) > 0 {
			id = l[x.rnd.IntN(len(l))].id
		}
		return Folded{ID: id, State: x.cid(), Applied: make([]fold.Applied, x.rnd.IntN(3))}
	case 2:
		return Trained{Head: x.cid(), Delta: x.cid(), DeltaBytes: x.rnd.Uint64N(100), Tokens: x.rnd.Uint64N(2)}
	case 3:
		var items []Item
		head := x.node.chain.Head()
		for range x.rnd.IntN(4) {
			id := x.peers[x.rnd.IntN(4)]
			r := x.record(id, head.ID, head.Record.Round+1)
			b, err := r.Encode()
			if err != nil {
				b = []byte{8, 1}
			}
			item := Item{Record: b}
			if x.rnd.IntN(4) == 0 {
				item.Certificate = []byte{1, 2, 3}
			}
			items = append(items, item)
			head = Link{ID: msg.RawCID(b), Record: r}
		}
		return Offered{From: x.peers[x.rnd.IntN(len(x.peers))], Items: items}
	case 4:
		return Tick{}
	case 5:
		return Want{Seat: x.rnd.IntN(2) == 0}
	}
	return Received{x.message()}
}

// TestHostile: whatever is well formed makes nothing panic, nothing that is
// kept grows without bound, and no effect breaks what the driver relies on.
func TestHostile(t *testing.T) {
	for seed := range seeds(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := running(t, uint64(seed), 4, simOpts{}, 0)
			n := s.nodes[seed%4]
			for _, o := range s.nodes {
				s.liars[o.i] = o != n
			}
			s.conflict = true
			x := &hostile{rnd: rand.New(rand.NewPCG(uint64(seed), 2)), node: n, cids: []cid.Cid{testCID("x")}}
			for i := range 40 {
				priv, id := testKey(i)
				x.keys, x.peers = append(x.keys, priv), append(x.peers, id)
			}
			for range 3000 {
				s.now = s.now.Add(time.Duration(x.rnd.IntN(60)) * time.Millisecond)
				n.tickAt = s.now // no ticks of their own
				for _, e := range n.m.Step(s.now, x.event()) {
					switch e.(type) {
					case Publish, Train, Check, Fold, Sync, StopTraining:
					default:
						n.do(e)
					}
					if p, ok := e.(Publish); ok {
						s.checkSigned(p.Signed)
					}
				}
				if d := n.m.Deadline(); !d.IsZero() && !d.After(s.now) {
					t.Fatalf("deadline %v is not after %v", d, s.now)
				}
			}
			n.m.View()
		})
	}
}

// TestHostileCellRecord: a cell's record whose next seats are not its seats has no
// summary; its proposer is told of.
func TestHostileCellRecord(t *testing.T) {
	s := inCells(t, 50, simOpts{})
	head := s.nodes[0].chain.Head()
	members := CellsOf(head.ID, head.Record.NextSeats)[0]
	honest := s.nodes[s.indexOf(head.Record.NextSeats[members[0]])]
	if !s.runUntil(2*time.Minute, func() bool { h := honest.m.cur; return h.sub != nil && len(h.sub.candidates) > 0 }) {
		t.Fatal("no record of the cell was proposed")
	}
	h := honest.m.cur
	good := *h.sub.candidates[0].record
	proposer := s.nodes[s.indexOf(msg.Seat{Peer: good.Proposer})]
	for _, next := range [][]msg.Seat{testSeats(200), good.NextSeats[1:]} {
		bad := good
		bad.NextSeats = next
		b, err := bad.Encode()
		if err != nil {
			t.Fatal(err)
		}
		h.sub.candidates, h.sub.proposals[bad.Attempt] = nil, make([]proposalSlot, len(h.sub.seats))
		s.now = s.now.Add(time.Millisecond)
		out := honest.m.Step(s.now, Received{proposer.seal(&msg.Proposal{Run: s.runID, Round: h.round, Attempt: bad.Attempt, Peer: proposer.id, Record: b})})
		blamed := func(e Effect) bool { x, ok := e.(Misbehaved); return ok && x.Peer == proposer.id }
		if !slices.ContainsFunc(out, blamed) || len(h.sub.candidates) > 0 {
			t.Errorf("with %d next seats: %d candidates, effects %v", len(next), len(h.sub.candidates), out)
		}
	}
}

// TestBounds: a flood of everything from many peers is kept only in part.
func TestBounds(t *testing.T) {
	s := running(t, 1, 4, simOpts{}, 0)
	n := s.nodes[0]
	head := n.chain.Head()
	for i := range 3000 {
		priv, id := testKey(100 + i)
		if i%4 == 0 {
			priv, id = s.nodes[1+i/4%3].priv, s.nodes[1+i/4%3].id
		}
		for _, v := range []msg.Message{
			&msg.JoinRequest{Run: s.runID, Peer: id, Seq: uint64(i)},
			&msg.Status{Run: s.runID, Peer: id, Seq: uint64(i), Head: testCID(fmt.Sprint(i)), Round: 5},
			&msg.Vote{Run: s.runID, Round: head.Record.Round + 2, Head: testCID(fmt.Sprint(i)), Record: testCID("r"), Peer: id},
			&msg.Vote{Run: s.runID, Round: head.Record.Round + 1, Head: head.ID, Record: testCID(fmt.Sprint(i)), Peer: id},
			&msg.Have{Run: s.runID, Round: head.Record.Round + 1, Head: head.ID, Peer: id, Joins: []cid.Cid{testCID(fmt.Sprint(i))}},
		} {
			m, err := msg.Seal(priv, v)
			if err != nil {
				t.Fatal(err)
			}
			n.m.Step(s.now, Received{m})
		}
	}
	entries, bytes := n.m.weight()
	if limit := maxAhead + 2*maxRequests + maxEffects + maxMembers + 200; entries > limit {
		t.Errorf("%d entries are kept, want at most %d", entries, limit)
	}
	if bytes > 2<<20 {
		t.Errorf("%d bytes are kept", bytes)
	}
	if len(n.m.ahead.list) == 0 || len(n.m.members.peers) != maxMembers || len(n.m.joins.peers) != maxRequests {
		t.Errorf("kept %d ahead, %d members, %d requests", len(n.m.ahead.list), len(n.m.members.peers), len(n.m.joins.peers))
	}
	// What seats sent is not pushed out by strangers.
	for _, o := range s.nodes[1:] {
		if n.m.members.byPeer[o.id] == nil {
			t.Errorf("the status of seat %v was pushed out", o.id)
		}
	}
}

// TestDeterminism: the same seed gives the same run, so no order of a map
// reaches an effect.
func TestDeterminism(t *testing.T) {
	end := func() string {
		s := newSim(t, 21, 7, testManifest(func(m *run.Manifest) { m.MinPeers = 5 }), simOpts{loss: 100, dup: 50})
		s.startAll()
		s.after(10*time.Second, func() { s.restless(3, true) })
		s.runFor(2 * time.Minute)
		return fmt.Sprint(s.describe(), s.seq)
	}
	if a, b := end(), end(); a != b {
		t.Errorf("two runs of one seed differ:\n%s\n%s", a, b)
	}
}
