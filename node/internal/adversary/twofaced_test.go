package adversary

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"

	"github.com/moot-net/moot/proto/msg"
)

// twoFaced is a peer with a seat that votes for one thing before half of the
// nodes and for another before the rest, both under one number of gossip.
type twoFaced struct {
	*attacker
	at      []*attacker // the same peer, at each node
	streams []network.Stream
	banned  atomic.Pointer[msg.Record] // the record that bans it
}

func newTwoFaced(t testing.TB, a *attacker, victims []*victim) *twoFaced {
	f := &twoFaced{attacker: a, streams: make([]network.Stream, len(victims))}
	a.takes()
	for _, v := range victims {
		x := *a
		x.to = v.info
		if !x.connect(t.Context(), x.h) {
			t.Fatal("not connected")
		}
		f.at = append(f.at, &x)
	}
	return f
}

// lie takes a seat, whenever it has none, and votes twice in each round, until it
// is banned.
func (f *twoFaced) lie(ctx context.Context) {
	head, id := f.first, f.id()
	for ; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		list, ids := f.records(ctx, head)
		if len(list) == 0 {
			continue
		}
		head = ids[len(ids)-1]
		for _, r := range list {
			for _, e := range r.Standings {
				if e.Peer == id && e.Reason == msg.Equivocation && e.Until == msg.MaxRound {
					f.banned.Store(r)
					return
				}
			}
		}
		last := list[len(list)-1]
		if seatOf(last, id) < 0 {
			f.tell(ctx, &msg.JoinRequest{Run: f.run, Peer: id, Seq: uint64(last.Round) + 1, Until: msg.MaxRound})
			continue
		}
		vote := msg.Vote{Run: f.run, Round: last.Round + 1, Head: head, Peer: id}
		yes, no := vote, vote
		yes.Record, no.Record = f.cid(), f.cid()
		f.tell(ctx, &yes, &no)
	}
}

// tell publishes messages under one number, one to each node, in turn.
func (f *twoFaced) tell(ctx context.Context, list ...msg.Message) {
	number := binary.BigEndian.AppendUint64(nil, f.rnd.Uint64())
	for i, x := range f.at {
		m := f.publishedAs(f.key, number, f.seal(f.key, list[i%len(list)]))
		b, err := proto.Marshal(&pubsubpb.RPC{Publish: []*pubsubpb.Message{m}})
		if err != nil {
			f.t.Error(err)
			return
		}
		if f.streams[i] == nil {
			f.streams[i] = x.stream(ctx, mesh)
		}
		if f.streams[i] == nil {
			continue // it is tried again in the next round
		}
		_ = f.streams[i].SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := f.streams[i].Write(frame(b)); err != nil {
			_ = f.streams[i].Reset()
			f.streams[i] = nil
		}
		f.done.Add(1)
	}
}
