package adversary

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/proto/msg"
)

var attackedRounds = flag.Uint64("rounds", 0, "attack a run for so many rounds")

// A run of four nodes is attacked by one that has a seat in it, from one core, and
// by many without: its rounds are certified all the same, by all four with one chain,
// and each node stays within its memory.
func TestRun(t *testing.T) {
	linuxOnly(t)
	if *attackedRounds == 0 {
		t.Skip("attacks four nodes for a minute or more: -rounds 4")
	}
	first := startVictim(t)
	victims := []*victim{first}
	run := first.launch(4, 8, 4*time.Second)
	for range 3 {
		v := startVictim(t)
		if _, err := v.Join(t.Context(), api.JoinRequest{Run: run.String(), Peers: first.addrs}, nil); err != nil {
			t.Fatal(err)
		}
		victims = append(victims, v)
	}
	for _, v := range victims {
		v.await(run, "rounds are certified", func(r api.Run) bool { return r.TrainedRounds >= 1 && r.CertifiedRounds >= 2 })
	}
	a := newAttacker(t, first, run, first.genesis(run), *seed)
	h := &hostileSeat{attacker: a, sees: newAttacker(t, first, run, a.first, *seed+1)}
	ctx, cancel := context.WithCancel(t.Context())
	var attack sync.WaitGroup
	defer attack.Wait()
	defer cancel()
	strangers := make([]uint64, len(victims))
	for i := range strangers {
		strangers[i] = a.rnd.Uint64() // which is the seat's from here on
	}
	h.take(ctx, &attack, victims)
	begun := first.await(run, "the liar has a seat", func(r api.Run) bool { return h.seated() })
	for i, v := range victims { // each by strangers, too
		x := newAttacker(t, v, run, a.first, strangers[i])
		attack.Go(func() { x.valid(ctx) })
		attack.Go(func() { x.asks(ctx) })
		v.resetPeak()
	}
	began := time.Now()
	want := begun.CertifiedRounds + *attackedRounds
	for _, v := range victims {
		v.await(run, "rounds are certified under attack", func(r api.Run) bool { return r.CertifiedRounds >= want })
	}
	t.Logf("%d certified rounds in %v under attack; the liar's messages: %d", *attackedRounds, time.Since(began).Round(time.Second), a.done.Load())
	for _, p := range []protocol.ID{"/moot/shard/1", bsnet.ProtocolBitswap} { // they end the connection for that
		a.h.Libp2p().SetStreamHandler(p, func(s network.Stream) { h.lie(ctx, s) })
	}
	for _, v := range victims {
		was := v.await(run, "it is known", func(api.Run) bool { return true })
		v.await(run, "it goes on", func(r api.Run) bool { return r.CertifiedRounds > was.CertifiedRounds })
	}
	cancel()
	attack.Wait()
	// Only now: under attack a liar hears of rounds too late, and who is in two records
	// in a row with nothing has no seat that a proof could take away.
	two := newTwoFaced(t, newAttacker(t, first, run, a.first, *seed+2), victims)
	ctx, cancel = context.WithCancel(t.Context())
	var lies sync.WaitGroup
	defer lies.Wait()
	defer cancel()
	lies.Go(func() { two.lie(ctx) })
	began = time.Now()
	first.await(run, "who votes twice is banned", func(api.Run) bool { return two.banned.Load() != nil })
	if r := two.banned.Load(); len(r.Proofs) != 1 || seatOf(r, two.id()) >= 0 {
		t.Errorf("the record that bans it has %d proofs and leaves it its seat: %v", len(r.Proofs), seatOf(r, two.id()) >= 0)
	}
	t.Logf("who votes twice was banned in round %d, after %v", two.banned.Load().Round, time.Since(began).Round(time.Second))
	first.await(run, "there is one record of a round", func(r api.Run) bool {
		for _, v := range victims {
			x, err := v.Run(t.Context(), run.String())
			if err != nil {
				return false
			}
			r.Round = min(r.Round, x.Round)
		}
		var records []string
		for _, v := range victims {
			x, err := v.Round(t.Context(), run.String(), r.Round)
			if err != nil {
				return false
			}
			records = append(records, x.Record)
		}
		return len(slices.Compact(records)) == 1
	})
	for i, v := range victims {
		peak := v.memory("VmHWM")
		if t.Logf("node %d: %d MB at most", i, peak); peak > attackedMB {
			t.Errorf("node %d had %d MB, at most %d are promised", i, peak, attackedMB)
		}
		v.diskBytes(t)
	}
}

// hostileSeat is a peer with a seat that does nothing that it should.
type hostileSeat struct {
	*attacker
	sees  *attacker // follows the run for it, as nobody deals with a liar for long
	topic *gossip.Topic
	seatState
}

// take asks for a seat, and then says in each round what is of form and false.
func (h *hostileSeat) take(ctx context.Context, wg *sync.WaitGroup, victims []*victim) {
	t := h.t
	for _, p := range []protocol.ID{
		"/moot/sync/1", "/moot/proof/2", "/moot/branch/1", "/moot/before/1", "/moot/difference/1", "/moot/presence/1",
	} {
		h.h.Libp2p().SetStreamHandler(p, func(s network.Stream) { h.lie(ctx, s) })
	}
	g, err := gossip.New(h.h.Libp2p(), gossip.Options{})
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	h.topic, err = g.Join(gossip.RunTopic(h.run), func(context.Context, peer.ID, []byte) (any, gossip.Verdict) { return nil, gossip.Ignore })
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range victims {
		if err := h.h.Libp2p().Connect(ctx, v.info); err != nil {
			t.Fatal(err)
		}
	}
	wg.Go(func() {
		for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; {
			h.follow(ctx)
			h.speak(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
			}
		}
	})
}

func (h *hostileSeat) say(ctx context.Context, m msg.Message) {
	_ = h.topic.Publish(ctx, h.seal(h.key, m)) // who attacks does not mind
	h.done.Add(1)
}

// speak publishes the messages of the round, all of form and none true.
func (h *hostileSeat) speak(ctx context.Context) {
	head, rec := h.now()
	id := h.id()
	if rec == nil || seatOf(rec, id) < 0 {
		h.say(ctx, &msg.JoinRequest{Run: h.run, Peer: id, Seq: 1, Until: msg.MaxRound})
		return
	}
	n := rec.Round + 1
	h.once(n, func() {
		h.say(ctx, &msg.Commit{
			Run: h.run, Round: n, Head: head, Peer: id, Delta: h.cid(), DeltaBytes: h.deltaBytes(), CodecBits: 2,
			Tokens: msg.MaxTokens, Steps: msg.MaxSteps, Norm: msg.MaxNorm, LossMicro: msg.MaxLossMicro,
		})
		lie := &msg.Have{Run: h.run, Round: n, Head: head, Peer: id, LossMicro: msg.MaxLossMicro, KappaPPM: msg.MaxKappaPPM, ArrivalMillis: msg.MaxArrivalMillis}
		for seat := range rec.NextSeats {
			lie.Entries = append(lie.Entries, msg.HaveEntry{Seat: uint32(seat), Commit: h.cid(), Reason: []msg.Reason{msg.Held, msg.Copy, msg.BadNorm}[h.rnd.IntN(3)]})
			lie.Audits = append(lie.Audits, msg.Audit{Seat: uint32(seat), GainNano: -msg.MaxGainNano})
		}
		for range msg.MaxJoins {
			lie.Joins, lie.Orders = append(lie.Joins, h.cid()), append(lie.Orders, h.cid())
		}
		sortCIDs(lie.Joins)
		sortCIDs(lie.Orders)
		h.say(ctx, lie)
		h.say(ctx, &msg.Vote{Run: h.run, Round: n, Head: head, Record: h.cid(), Peer: id})
		for attempt := range uint32(msg.MaxAttempt + 1) {
			wrong := *rec // what was decided before, as if it was the next
			wrong.Round, wrong.Parent, wrong.Seats, wrong.Attempt, wrong.Proposer, wrong.State = n, head, rec.NextSeats, attempt, id, h.cid()
			wrong.Tokens += 1 << 40
			if b, err := wrong.Encode(); err == nil {
				h.say(ctx, &msg.Proposal{Run: h.run, Round: n, Attempt: attempt, Peer: id, Record: b})
			}
		}
	})
	for range 5 {
		if s, err := msg.Open(h.status(h.key)); err == nil {
			h.say(ctx, s.Message)
		}
	}
	h.say(ctx, &msg.Order{Run: h.run, Peer: id, Seq: 1 + h.rnd.Uint64N(msg.MaxSeq), Action: msg.ActionStop})
	h.say(ctx, &msg.JoinRequest{Run: h.run, Peer: id, Seq: 1, Until: msg.MaxRound})
}

// lie answers what the nodes ask it for: with nothing, with something else, or
// without end.
func (h *hostileSeat) lie(ctx context.Context, s network.Stream) {
	defer s.Reset()
	h.done.Add(1)
	_ = s.SetDeadline(time.Now().Add(time.Minute))
	rnd := h.random()
	junk := bytes.Repeat([]byte{0, 0xff, byte(rnd.Uint32())}, 1<<16)
	var b []byte
	switch rnd.IntN(6) {
	case 0: // nothing
		pause(ctx, time.Minute)
		return
	case 1: // as much as may be, and nonsense
		b = append(binary.AppendUvarint([]byte{0}, 4<<20), bytes.Repeat(junk, 22)...)[:4<<20]
	case 2: // a length that cannot be
		b = append(binary.AppendUvarint([]byte{0}, 1<<62), junk...)
	case 3: // records without end, all of length 0
		b = append(binary.AppendUvarint([]byte{0}, 1<<20), make([]byte, 1<<20)...)
	case 4: // a byte now and then
		for _, x := range junk {
			if _, err := s.Write([]byte{x}); err != nil || ctx.Err() != nil {
				return
			}
			pause(ctx, 50*time.Millisecond)
		}
	case 5: // without end
		for ctx.Err() == nil {
			if _, err := s.Write(junk); err != nil {
				return
			}
		}
	}
	_, _ = s.Write(b)
	_ = s.CloseWrite()
	pause(ctx, time.Second)
}

func sortCIDs(list []cid.Cid) {
	slices.SortFunc(list, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
}

func seatOf(rec *msg.Record, id peer.ID) int {
	return slices.IndexFunc(rec.NextSeats, func(s msg.Seat) bool { return s.Peer == id })
}
