package adversary

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/fence"
	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/shard"
)

// largeFile is one that nobody asked for.
const largeFile = 48 << 20

// liar is a peer with a seat that gives what it says it has, which is no delta.
type liar struct {
	*attacker
	store  *shard.Store
	puller *pull.Puller
	topic  *gossip.Topic
	heard  atomic.Int64 // messages in the run's topic, of others
}

// newLiar is a liar; what f, if it is not nil, keeps from others it does not give them.
func newLiar(ctx context.Context, wg *sync.WaitGroup, a *attacker, f *fence.Fence) *liar {
	t := a.t
	x := &liar{attacker: a}
	var err error
	if x.store, err = shard.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.store.Close() })
	if x.puller, err = pull.New(a.h.Libp2p(), x.store, pull.Options{Serves: f.Serves}); err != nil {
		t.Fatal(err)
	}
	g, err := gossip.New(a.h.Libp2p(), gossip.Options{Fence: f})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []func(context.Context) error{x.puller.Run, g.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	x.topic, err = g.Join(gossip.RunTopic(a.run), func(_ context.Context, from peer.ID, _ []byte) (any, gossip.Verdict) {
		if from != a.id() {
			x.heard.Add(1)
		}
		return nil, gossip.Ignore
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *liar) say(ctx context.Context, m msg.Message) {
	_ = x.topic.Publish(ctx, x.seal(x.key, m))
	x.done.Add(1)
}

func (x *liar) put(b []byte) cid.Cid {
	c, err := x.store.PutBytes(x.t.Context(), b)
	if err != nil {
		x.t.Fatal(err)
	}
	return c
}

// understated is a file whose node claims to have so many bytes, in one leaf that
// has more.
func (x *liar) understated(claim int) cid.Cid {
	t := x.t
	leaf := blocks.NewBlock(bytes.Repeat([]byte{7}, 1<<20))
	raw := cid.NewCidV1(cid.Raw, leaf.Cid().Hash())
	field := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	number := func(b []byte, n protowire.Number, v int) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), uint64(v))
	}
	link := number(field(field(nil, 1, raw.Bytes()), 2, nil), 3, claim)
	data := number(number(number(nil, 1, 2), 3, claim), 4, claim)
	node := field(field(nil, 2, link), 1, data)
	hash, err := multihash.Sum(node, multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	root := cid.NewCidV1(cid.DagProtobuf, hash)
	for c, b := range map[cid.Cid][]byte{raw: leaf.RawData(), root: node} {
		block, err := blocks.NewBlockWithCid(b, c)
		if err == nil {
			err = x.store.Put(t.Context(), block)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A peer with a seat gives files that are no deltas, and one that is too large, each
// under its right CID: the node says of each what it is, holds none, stores none that is
// larger than a delta, and trains on.
func TestSeat(t *testing.T) {
	linuxOnly(t)
	if *attackedRounds == 0 {
		t.Skip("takes 40 s: -rounds 1")
	}
	v := startVictim(t)
	run := v.launch(1, 8, 2*time.Second)
	v.await(run, "rounds have trained", func(r api.Run) bool { return r.TrainedRounds >= 2 })
	first := v.genesis(run)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	x := newLiar(ctx, &wg, newAttacker(t, v, run, first, *seed), nil)
	deadline := time.Now().Add(8 * time.Minute)
	head, rec, good := first, (*msg.Record)(nil), (*msg.Commit)(nil)
	told := make(map[cid.Cid]msg.Reason)
	follow := func() {
		list, ids := x.records(ctx, head)
		for i, r := range list {
			head, rec = ids[i], r
			for _, e := range r.Refused {
				told[e.Commit] = e.Reason
			}
			for _, e := range r.Commits {
				c, s, err := msg.OpenAs[*msg.Commit](e)
				if err != nil {
					t.Fatal(err)
				}
				if told[s.CID] = msg.Held; c.Peer == v.info.ID {
					good = c
				}
			}
		}
	}
	for follow(); good == nil || seatOf(rec, x.id()) < 0; follow() {
		if time.Now().After(deadline) {
			t.Fatal("no seat")
		}
		x.say(ctx, &msg.JoinRequest{Run: run, Peer: x.id(), Seq: 1, Until: msg.MaxRound})
		pause(ctx, 100*time.Millisecond)
	}
	if err := x.puller.Fetch(ctx, good.Delta, pull.FetchOptions{Providers: []peer.ID{v.info.ID}, MaxBytes: 64 << 20}); err != nil {
		t.Fatal("the delta of the node: ", err)
	}
	delta, err := x.store.ReadBytes(ctx, good.Delta, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	chunks := int(delta[12]) | int(delta[13])<<8 | int(delta[14])<<16
	changed := func(at int, b ...byte) []byte {
		c := bytes.Clone(delta)
		copy(c[at:], b)
		return c
	}
	noise := append(bytes.Clone(delta[:48+3*chunks]), x.bytes(len(delta)-48-3*chunks)...)
	before, said := v.diskBytes(t), cid.Undef
	for _, tt := range []struct {
		name string
		file cid.Cid
		norm uint64
		want []msg.Reason
	}{
		{"random bytes", x.put(x.bytes(len(delta))), good.Norm, []msg.Reason{msg.BadCodec}},
		{"a scale beyond all values", x.put(changed(48, 0xff, 0xff, 15)), good.Norm, []msg.Reason{msg.BadRange}},
		{"a scale that is not canonical", x.put(changed(48, 1, 0, 1)), good.Norm, []msg.Reason{msg.BadRange}},
		{"codes of another norm", x.put(noise), good.Norm, []msg.Reason{msg.BadNorm, msg.BadRange, msg.BadCodec}},
		{"one byte less", x.put(delta[:len(delta)-1]), good.Norm, []msg.Reason{msg.BadSize}},
		{"a file that is far too large", x.put(x.bytes(largeFile)), good.Norm, []msg.Reason{msg.BadSize}},
		{"a file that claims less than it has", x.understated(len(delta)), good.Norm, []msg.Reason{msg.BadHash, msg.BadSize}},
		{"the node's own delta", good.Delta, good.Norm, []msg.Reason{msg.Replayed, msg.Copy}},
		{"no norm", x.put(noise), 0, []msg.Reason{msg.Zero}},
	} {
		var signed []cid.Cid
		reason, ok := msg.Held, false
		for ; !ok; follow() {
			if time.Now().After(deadline) {
				t.Fatalf("%s: no record tells of it", tt.name)
			}
			if seatOf(rec, x.id()) < 0 {
				x.say(ctx, &msg.JoinRequest{Run: run, Peer: x.id(), Seq: uint64(rec.Round) + 1, Until: msg.MaxRound})
			} else if said != head {
				said = head
				c := &msg.Commit{
					Run: run, Round: rec.Round + 1, Head: head, Peer: x.id(), Delta: tt.file, DeltaBytes: uint64(len(delta)),
					CodecBits: good.CodecBits, Tokens: 100, Steps: 2, Norm: tt.norm, Trace: good.Trace,
				}
				s, err := msg.Seal(x.key, c)
				if err != nil {
					t.Fatal(err)
				}
				signed = append(signed, s.CID)
				x.say(ctx, c)
				x.say(ctx, &msg.Have{Run: run, Round: c.Round, Head: head, Peer: x.id()})
			}
			pause(ctx, 50*time.Millisecond)
			for _, id := range signed {
				if r, is := told[id]; is && r != msg.Timeout && r != msg.NotHeld {
					reason, ok = r, true
				}
			}
		}
		if !slices.Contains(tt.want, reason) {
			t.Errorf("%s: it is %v, want one of %v", tt.name, reason, tt.want)
		}
		t.Logf("%s: %v", tt.name, reason)
	}
	if grew := v.diskBytes(t) - before; grew > largeFile/4 {
		t.Errorf("the node has %.1f MB more than before", float64(grew)/1e6)
	} else {
		t.Logf("the node has %.1f MB more than before", float64(grew)/1e6)
	}
	was := v.await(run, "it is known", func(api.Run) bool { return true })
	v.await(run, "it trains on", func(r api.Run) bool { return r.TrainedRounds > was.TrainedRounds })
}
