package adversary

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/proto/msg"
)

// guest is a peer that asks to be let into a run.
type guest struct {
	*liar
	name   string
	ground *fence.Run
	asks   func(seq uint64) *msg.JoinRequest // what it shows
}

// show has the node look at what it shows; it is no member if that fails.
func (g *guest) show(ctx context.Context, envelope []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := g.h.Request(ctx, g.to.ID, "/moot/member/1", envelope, msg.MaxMessageBytes)
	return err
}

// heldBy are the requests of a peer with a ticket.
func heldBy(run cid.Cid, id peer.ID, t msg.Ticket) func(uint64) *msg.JoinRequest {
	return func(seq uint64) *msg.JoinRequest {
		return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound, Invite: t.Invite, Proof: t.Prove(run, id)}
	}
}

// A run for invited peers is attacked by peers that show what lets nobody in: invitations
// to another run of the same launcher, of somebody else, that are over, and what they saw of one that is in,
// in its words and their own. Nobody gets a seat, a record, a delta, or hears a message by it. Who is
// banned stays out, with its invitation, too; who comes with the same one under a new name is new.
func TestInvitations(t *testing.T) {
	linuxOnly(t)
	v := startVictim(t)
	run := v.launch(1, 8, 2*time.Second, `admission.mode = "invite"`)
	other := v.launch(1, 8, time.Minute, `admission.mode = "invite"`)
	v.await(run, "rounds have trained", func(r api.Run) bool { return r.TrainedRounds >= 1 })
	first := v.genesis(run)
	invite := func(run cid.Cid, rounds uint64) (msg.Ticket, uint64) {
		t.Helper()
		a, err := v.Invite(t.Context(), api.InviteRequest{Run: run.String(), Rounds: rounds})
		if err != nil {
			t.Fatal(err)
		}
		ticket, err := msg.ParseTicket(a.Invite)
		if err != nil {
			t.Fatal(err)
		}
		return ticket, a.Until
	}
	good, _ := invite(run, 0)
	elsewhere, _ := invite(other, 0)
	short, until := invite(run, 1)

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	n := *seed * 100
	arrive := func(name string) *guest {
		n++
		a := newAttacker(t, v, run, first, n)
		f := fence.New(a.id()) // they get to know each other, and only the node is attacked
		members := f.Open(run, true, gossip.RunTopic(run), []peer.ID{v.info.ID})
		return &guest{name: name, liar: newLiar(ctx, &wg, a, f), ground: members}
	}
	friend := arrive("the friend")
	friend.asks = heldBy(run, friend.id(), good)
	if err := friend.show(ctx, friend.seal(friend.key, friend.asks(0))); err != nil {
		t.Fatal("an invitation does not let in: ", err)
	}
	head, rec, delta := first, (*msg.Record)(nil), cid.Undef
	var since []*msg.Record // the records that came since this was emptied
	follow := func(who *guest) {
		list, ids := who.records(ctx, head)
		for i, r := range list {
			head, rec, since = ids[i], r, append(since, r)
			for _, c := range r.Contributions {
				delta = c.Delta
			}
		}
	}
	wait := func(what string, who *guest, each func(), ok func() bool) {
		t.Helper()
		deadline := time.Now().Add(8 * time.Minute)
		for follow(who); rec == nil || !ok(); follow(who) {
			switch late := time.Now().After(deadline); {
			case rec == nil && late:
				t.Fatalf("waited until %s; the node gives no records", what)
			case late:
				t.Fatalf("waited until %s; round %d, %d seats", what, rec.Round, len(rec.NextSeats))
			case rec != nil: // else the node is busy
				each()
			}
			pause(ctx, 100*time.Millisecond)
		}
	}
	said := cid.Undef
	stays := func() { // in each round, so that its seat stays
		if said != head && seatOf(rec, friend.id()) >= 0 {
			said = head
			friend.say(ctx, &msg.Have{Run: run, Round: rec.Round + 1, Head: head, Peer: friend.id()})
		}
	}
	asked := friend.asks(0)
	wait("the friend has a seat, and an invitation is over", friend, func() {
		stays()
		if seatOf(rec, friend.id()) < 0 {
			// One that took effect does not count again, should the seat be gone already.
			asked = friend.asks(asked.Seq + 1)
			friend.say(ctx, asked)
		}
	}, func() bool { return seatOf(rec, friend.id()) >= 0 && uint64(rec.Round) > until && delta.Defined() })

	thief := func(name string, asks func(id peer.ID, seq uint64) *msg.JoinRequest) *guest {
		g := arrive(name)
		g.asks = func(seq uint64) *msg.JoinRequest { return asks(g.id(), seq) }
		return g
	}
	own, err := msg.NewTicket(friend.key, run, 0, [32]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	thieves := []*guest{
		thief("nothing", func(id peer.ID, seq uint64) *msg.JoinRequest {
			return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound}
		}),
		thief("an invitation to another run", func(id peer.ID, seq uint64) *msg.JoinRequest {
			return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound, Invite: elsewhere.Invite, Proof: elsewhere.Prove(run, id)}
		}),
		thief("an invitation that is over", func(id peer.ID, seq uint64) *msg.JoinRequest { return heldBy(run, id, short)(seq) }),
		thief("an invitation of one that is in", func(id peer.ID, seq uint64) *msg.JoinRequest { return heldBy(run, id, own)(seq) }),
		thief("another one's invitation and proof", func(id peer.ID, seq uint64) *msg.JoinRequest {
			return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound, Invite: asked.Invite, Proof: asked.Proof}
		}),
		thief("another one's invitation, proven with another key", func(id peer.ID, seq uint64) *msg.JoinRequest {
			return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound, Invite: asked.Invite, Proof: own.Prove(run, id)}
		}),
		thief("a leave", func(id peer.ID, seq uint64) *msg.JoinRequest {
			return &msg.JoinRequest{Run: run, Peer: id, Seq: seq, Until: msg.MaxRound, Leave: true}
		}),
	}
	saw := friend.seal(friend.key, asked) // what the friend said, to all
	since = nil
	from, seq := rec.Round, asked.Seq
	wait("rounds went on under attack", friend, func() {
		stays()
		seq++
		if seatOf(rec, friend.id()) < 0 {
			friend.say(ctx, friend.asks(seq))
		}
		for i, g := range thieves {
			g.say(ctx, g.asks(seq))
			if g.show(ctx, g.seal(g.key, g.asks(seq))) == nil {
				t.Errorf("%s makes a member", g.name)
			}
			if i == 0 && g.show(ctx, saw) == nil {
				t.Error("what another one signed makes a member")
			}
			// As the friend published it, in its name, and as the thief's own word.
			for _, m := range []*pubsubpb.Message{g.published(friend.key, saw), g.published(g.key, saw)} {
				if b, err := proto.Marshal(&pubsubpb.RPC{Publish: []*pubsubpb.Message{m}}); err != nil {
					t.Fatal(err)
				} else if s := g.send(ctx, mesh, frame(b)); s != nil {
					_ = s.CloseWrite()
				}
			}
			if _, err := g.h.Request(ctx, v.info.ID, "/moot/sync/1", items(run.Bytes(), first.Bytes()), 4<<20); err == nil {
				t.Errorf("%s: records are given for it", g.name)
			}
		}
	}, func() bool { return rec.Round >= from+3 })
	if len(since) < 3 {
		t.Errorf("%d records came", len(since))
	}
	for _, r := range since {
		for _, s := range r.NextSeats {
			if s.Peer != v.info.ID && s.Peer != friend.id() {
				t.Errorf("round %d gives a seat to who has no invitation", r.Round)
			}
		}
	}
	friend.ground.Claim(delta, []cid.Cid{delta})
	if err := friend.puller.Fetch(ctx, delta, pull.FetchOptions{Providers: []peer.ID{v.info.ID}, MaxBytes: 64 << 20}); err != nil {
		t.Error("the friend gets no delta: ", err)
	}
	short3, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	var fetching sync.WaitGroup
	for _, g := range thieves {
		fetching.Go(func() {
			if err := g.puller.Fetch(short3, delta, pull.FetchOptions{Providers: []peer.ID{v.info.ID}, MaxBytes: 64 << 20}); err == nil {
				t.Errorf("%s: a delta is given for it", g.name)
			}
		})
	}
	fetching.Wait()
	for _, g := range thieves {
		if n := g.heard.Load(); n > 0 {
			t.Errorf("%s: %d messages were heard for it", g.name, n)
		}
	}
	if friend.heard.Load() == 0 {
		t.Error("the friend heard nothing either")
	}

	// The friend votes for two things in each round until it is banned.
	banned := func() bool {
		for _, e := range rec.Standings {
			if e.Peer == friend.id() && e.Reason == msg.Equivocation && e.Until == msg.MaxRound {
				return true
			}
		}
		return false
	}
	lied := cid.Undef
	wait("who votes twice is banned", friend, func() {
		stays()
		if seatOf(rec, friend.id()) < 0 { // it was late, as the machine was busy
			seq++
			friend.say(ctx, friend.asks(seq))
			return
		}
		if lied == head {
			return
		}
		lied = head
		for range 2 {
			friend.say(ctx, &msg.Vote{Run: run, Round: rec.Round + 1, Head: head, Record: friend.cid(), Peer: friend.id()})
		}
	}, banned)
	heir := arrive("the same under another name")
	heir.asks = heldBy(run, heir.id(), good)
	if err := heir.show(ctx, heir.seal(heir.key, heir.asks(0))); err != nil {
		t.Error("an invitation does not let in who has it because somebody else was banned: ", err)
	}
	since, from = nil, rec.Round
	wait("the one with a new name has a seat", heir, func() {
		seq++
		friend.say(ctx, friend.asks(seq))
		_ = friend.show(ctx, friend.seal(friend.key, friend.asks(0)))
		heir.say(ctx, heir.asks(seq))
	}, func() bool { return rec.Round >= from+3 && seatOf(rec, heir.id()) >= 0 })
	for _, r := range since {
		if seatOf(r, friend.id()) >= 0 {
			t.Errorf("round %d gives a seat to who is banned, for its invitation", r.Round)
		}
	}
	was := v.await(run, "it is known", func(api.Run) bool { return true })
	v.await(run, "it trains on", func(r api.Run) bool { return r.TrainedRounds > was.TrainedRounds })
}
