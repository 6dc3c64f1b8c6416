package adversary

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/moot-net/moot/node/internal/p2p"
	"github.com/moot-net/moot/proto/msg"
)

func multiaddrs(t testing.TB, list []string) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for _, s := range list {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// attacker is a peer that does what it likes to one node.
type attacker struct {
	t     testing.TB
	h     *p2p.Host
	key   crypto.PrivKey
	to    peer.AddrInfo
	run   cid.Cid
	first cid.Cid // the genesis record
	rnd   *rand.Rand
	done  *atomic.Int64 // what of the attack reached the node: streams, messages
}

func newKey(rnd *rand.Rand) crypto.PrivKey {
	var seed [ed25519.SeedSize]byte
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	k, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return k
}

// newAttacker is a peer that is connected to v.
func newAttacker(t testing.TB, v *victim, run, first cid.Cid, seed uint64) *attacker {
	t.Helper()
	a := &attacker{t: t, to: v.info, run: run, first: first, rnd: rand.New(rand.NewPCG(seed, 8)), done: new(atomic.Int64)}
	a.key = newKey(a.rnd)
	h, err := newHost(a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.h = h
	t.Cleanup(func() { a.h.Close() })
	a.connect(t.Context(), a.h)
	return a
}

func newHost(k crypto.PrivKey) (*p2p.Host, error) {
	return p2p.New(p2p.Options{Key: k, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, NoPortMap: true, NoRelay: true})
}

func (a *attacker) id() peer.ID { return a.h.ID() }

// connect tries until it succeeds, and it is known what the node speaks, or ctx is
// done: a node under attack may refuse for a while.
func (a *attacker) connect(ctx context.Context, h *p2p.Host) bool {
	for ctx.Err() == nil {
		c, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := h.Libp2p().Connect(c, a.to)
		cancel()
		if err == nil {
			if known, err := h.Libp2p().Peerstore().GetProtocols(a.to.ID); err == nil && len(known) > 0 {
				return true
			}
			_ = h.Libp2p().Network().ClosePeer(a.to.ID) // nobody asks twice over one connection
		}
		pause(ctx, 20*time.Millisecond)
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// stream opens a stream, nil if that is refused.
func (a *attacker) stream(ctx context.Context, p protocol.ID) network.Stream {
	c, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := a.h.Libp2p().NewStream(c, a.to.ID, p)
	if err != nil {
		if ctx.Err() == nil && a.h.Libp2p().Network().Connectedness(a.to.ID) != network.Connected {
			a.connect(ctx, a.h)
		}
		pause(ctx, 5*time.Millisecond)
		return nil
	}
	_ = s.SetDeadline(time.Now().Add(5 * time.Second)) // those in memory alone have none
	a.done.Add(1)
	return s
}

// send opens a stream and writes b to it; nil if that did not work.
func (a *attacker) send(ctx context.Context, p protocol.ID, b []byte) network.Stream {
	s := a.stream(ctx, p)
	if s == nil {
		return nil
	}
	if _, err := s.Write(b); err != nil {
		_ = s.Reset()
		return nil
	}
	return s
}

// protocols are all that the node speaks.
func (a *attacker) protocols() []protocol.ID {
	list, err := a.h.Libp2p().Peerstore().GetProtocols(a.to.ID)
	if err != nil || len(list) < 10 {
		a.t.Fatal("protocols of the node:", list, err)
	}
	return list
}

func (a *attacker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 8 {
		var x [8]byte
		binary.LittleEndian.PutUint64(x[:], a.rnd.Uint64())
		copy(b[i:], x[:])
	}
	return b
}

func (a *attacker) cid() cid.Cid { return msg.RawCID(a.bytes(16)) }

func frame(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// items are each a length and bytes, as the requests of section 7 are made of.
func items(list ...[]byte) []byte {
	var b []byte
	for _, x := range list {
		b = append(b, frame(x)...)
	}
	return b
}

func (a *attacker) seal(k crypto.PrivKey, m msg.Message) []byte {
	s, err := msg.Seal(k, m)
	if err != nil {
		a.t.Error(err)
		return nil
	}
	return s.Envelope
}

func idOf(k crypto.PrivKey) peer.ID {
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		panic(err)
	}
	return id
}

// head is the node's head.
func (a *attacker) head(ctx context.Context) cid.Cid {
	id := a.first
	for {
		_, ids := a.records(ctx, id)
		if len(ids) == 0 {
			return id
		}
		id = ids[len(ids)-1]
	}
}
