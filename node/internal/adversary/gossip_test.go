package adversary

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pubsubpb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/moot-net/moot/node/internal/gossip"
	"github.com/moot-net/moot/proto/msg"
)

const mesh protocol.ID = "/meshsub/1.2.0"

// takes has the peer take what is said to it by gossip: a node reads what a peer says
// when it has a stream to it, or after a while.
func (a *attacker) takes() {
	a.h.Libp2p().SetStreamHandler(mesh, func(s network.Stream) { _, _ = io.Copy(io.Discard, s) })
}

// rpcs sends frames of gossip that next makes, as fast as they are taken, on
// connections of several identities.
func (a *attacker) rpcs(ctx context.Context, identities int, next func(x *attacker) *pubsubpb.RPC) {
	var wg sync.WaitGroup
	for i := range identities {
		x := *a
		x.rnd = newRand(a.rnd)
		if i > 0 {
			x.key = newKey(x.rnd)
			h, err := newHost(x.key)
			if err != nil {
				a.t.Error(err)
				break
			}
			defer h.Close()
			x.h = h
		}
		x.takes()
		if i > 0 {
			x.connect(ctx, x.h)
		}
		wg.Go(func() {
			var s network.Stream
			for ctx.Err() == nil {
				if s == nil {
					if s = x.stream(ctx, mesh); s == nil {
						continue
					}
				}
				b, err := proto.Marshal(next(&x))
				if err != nil {
					x.t.Error(err)
					return
				}
				_ = s.SetDeadline(time.Now().Add(5 * time.Second))
				if _, err := s.Write(frame(b)); err != nil {
					_ = s.Reset()
					s = nil
					continue
				}
				x.done.Add(1)
			}
		})
	}
	wg.Wait()
}

// topics subscribes to topics without end.
func (a *attacker) topics(ctx context.Context) {
	a.rpcs(ctx, 1, func(x *attacker) *pubsubpb.RPC {
		rpc := new(pubsubpb.RPC)
		for range 64 {
			name := fmt.Sprintf("/moot/1/run/%x%s", x.rnd.Uint64(), strings.Repeat("x", 2000))
			rpc.Subscriptions = append(rpc.Subscriptions, &pubsubpb.RPC_SubOpts{Subscribe: proto.Bool(true), Topicid: &name})
		}
		return rpc
	})
}

// control sends all kinds of control messages, about topics and messages that
// exist and that do not.
func (a *attacker) control(ctx context.Context) {
	topic := gossip.RunTopic(a.run)
	a.rpcs(ctx, 2, func(x *attacker) *pubsubpb.RPC {
		var ids []string
		for range 1500 {
			ids = append(ids, string(x.bytes(46)))
		}
		other := fmt.Sprintf("/moot/1/run/%x", x.rnd.Uint64())
		c := new(pubsubpb.ControlMessage)
		for _, name := range []string{topic, other} {
			c.Ihave = append(c.Ihave, &pubsubpb.ControlIHave{TopicID: &name, MessageIDs: ids[:400]})
			c.Graft = append(c.Graft, &pubsubpb.ControlGraft{TopicID: &name})
			prune := &pubsubpb.ControlPrune{TopicID: &name, Backoff: proto.Uint64(1 << 62)}
			for range 50 {
				prune.Peers = append(prune.Peers, &pubsubpb.PeerInfo{PeerID: []byte(idOf(newKey(x.rnd))), SignedPeerRecord: x.bytes(100)})
			}
			c.Prune = append(c.Prune, prune)
		}
		c.Iwant = []*pubsubpb.ControlIWant{{MessageIDs: ids[400:900]}}
		c.Idontwant = []*pubsubpb.ControlIDontWant{{MessageIDs: ids[900:]}}
		return &pubsubpb.RPC{Control: c, Subscriptions: []*pubsubpb.RPC_SubOpts{{Subscribe: proto.Bool(true), Topicid: &topic}}}
	})
}

// published is data as a peer publishes it in the run's topic.
func (a *attacker) published(k crypto.PrivKey, data []byte) *pubsubpb.Message {
	return a.publishedAs(k, binary.BigEndian.AppendUint64(nil, a.rnd.Uint64()), data)
}

// publishedAs is published, under a number.
func (a *attacker) publishedAs(k crypto.PrivKey, number, data []byte) *pubsubpb.Message {
	topic := gossip.RunTopic(a.run)
	m := &pubsubpb.Message{From: []byte(idOf(k)), Data: data, Seqno: number, Topic: &topic}
	b, err := proto.Marshal(m)
	if err != nil {
		a.t.Error(err)
	}
	if m.Signature, err = k.Sign(append([]byte(pubsub.SignPrefix), b...)); err != nil {
		a.t.Error(err)
	}
	return m
}

// invalid publishes what is signed and no message, and what is a message and not
// signed.
func (a *attacker) invalid(ctx context.Context) {
	a.rpcs(ctx, 2, func(x *attacker) *pubsubpb.RPC {
		k := newKey(x.rnd) // else the first few messages end it
		b := x.nonsense(k)
		switch x.rnd.IntN(4) {
		case 0:
			b = b[:x.rnd.IntN(len(b))]
		case 1:
			b[x.rnd.IntN(len(b))] ^= 1 << x.rnd.IntN(8)
		case 2:
			b = x.bytes(1 + x.rnd.IntN(300_000))
		}
		m := x.published(k, b)
		if x.rnd.IntN(4) == 0 {
			m.Signature[0] ^= 1
		}
		return &pubsubpb.RPC{Publish: []*pubsubpb.Message{m}}
	})
}

// valid publishes messages of form, of ever new identities, over connections of
// many.
func (a *attacker) valid(ctx context.Context) {
	a.rpcs(ctx, 24, func(x *attacker) *pubsubpb.RPC {
		rpc := new(pubsubpb.RPC)
		for range 8 {
			k := newKey(x.rnd)
			rpc.Publish = append(rpc.Publish, x.published(k, x.nonsense(k)))
		}
		return rpc
	})
}

// again publishes one valid message again and again.
func (a *attacker) again(ctx context.Context) {
	m := a.published(a.key, a.status(a.key))
	a.rpcs(ctx, 4, func(*attacker) *pubsubpb.RPC {
		rpc := new(pubsubpb.RPC)
		for range 200 {
			rpc.Publish = append(rpc.Publish, m)
		}
		return rpc
	})
}

// cellMessages brings messages of a cell, past gossip, the same ones and others.
func (a *attacker) cellMessages(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range 16 {
		x := *a
		x.rnd = newRand(a.rnd)
		wg.Go(func() {
			same := x.vote()
			for ctx.Err() == nil {
				b := same
				if i%2 == 0 {
					b = x.vote()
				}
				if _, err := x.h.Request(ctx, x.to.ID, "/moot/cellmsg/1", b, 1); err == nil || ctx.Err() == nil {
					x.done.Add(1)
				}
			}
		})
	}
	wg.Wait()
}

// nonsense is a message that is of form and signed, with numbers as large as
// they may be and CIDs that nobody has.
func (a *attacker) nonsense(k crypto.PrivKey) []byte {
	id := idOf(k)
	round := msg.Round(1 + a.rnd.Uint64N(msg.MaxRound-1))
	if a.rnd.IntN(2) == 0 {
		round = 1 + msg.Round(a.rnd.Uint64N(20))
	}
	switch a.rnd.IntN(7) {
	case 0:
		return a.seal(k, &msg.Commit{
			Run: a.run, Round: round, Head: a.cid(), Peer: id, Delta: a.cid(), DeltaBytes: msg.MaxDeltaBytes, CodecBits: 8,
			Tokens: msg.MaxTokens, Steps: msg.MaxSteps, Norm: msg.MaxNorm, LossMicro: msg.MaxLossMicro, Trace: a.cid(),
		})
	case 1:
		h := &msg.Have{Run: a.run, Round: round, Head: a.cid(), Peer: id, LossMicro: msg.MaxLossMicro, KappaPPM: msg.MaxKappaPPM, ArrivalMillis: msg.MaxArrivalMillis}
		for seat := range uint32(msg.MaxSeats) {
			h.Entries = append(h.Entries, msg.HaveEntry{Seat: seat, Commit: a.cid(), Reason: msg.Reason(a.rnd.IntN(12))})
		}
		for seat := range uint32(msg.MaxAudits) {
			h.Audits = append(h.Audits, msg.Audit{Seat: seat, GainNano: -msg.MaxGainNano})
		}
		return a.seal(k, h)
	case 2:
		return a.seal(k, &msg.Vote{Run: a.run, Round: round, Head: a.cid(), Attempt: 2, Record: a.cid(), Peer: id})
	case 3:
		return a.seal(k, &msg.JoinRequest{Run: a.run, Peer: id, Seq: a.rnd.Uint64N(1 << 53), Until: msg.MaxRound, Leave: true})
	case 4:
		return a.seal(k, &msg.Order{Run: a.run, Peer: id, Seq: 1 + a.rnd.Uint64N(msg.MaxSeq), Action: msg.ActionStop, Note: strings.Repeat("n", msg.MaxNoteBytes)})
	case 5:
		r := &msg.Report{Run: a.run, Round: round, Head: a.cid(), Peer: id}
		for seat := range uint32(msg.MaxReportAudits) {
			r.Audits = append(r.Audits, msg.Audit{Seat: seat * 100, GainNano: msg.MaxGainNano})
			if len(r.Retraces) < msg.MaxRetraces {
				r.Retraces = append(r.Retraces, msg.Retrace{Seat: seat, ErrorPPM: msg.MaxErrorPPM})
			}
		}
		return a.seal(k, r)
	}
	return a.status(k)
}

// status says that a peer is far ahead, with more certified rounds and tokens than
// there can be.
func (a *attacker) status(k crypto.PrivKey) []byte {
	return a.seal(k, &msg.Status{
		Run: a.run, Peer: idOf(k), Seq: a.rnd.Uint64(), Head: a.cid(), Round: msg.MaxRound, Certified: msg.MaxRound, Tokens: msg.MaxRunTokens,
		Phase: msg.PhaseTrain, TokensPerSecMilli: 1 << 40, Agent: strings.Repeat("a", msg.MaxNameBytes), Device: strings.Repeat("d", msg.MaxNameBytes), Lost: a.cid(),
	})
}

func (a *attacker) vote() []byte {
	return a.seal(a.key, &msg.Vote{Run: a.run, Round: 1, Head: a.cid(), Record: a.cid(), Peer: idOf(a.key), Cell: 1})
}

func (a *attacker) join() []byte {
	return a.seal(a.key, &msg.JoinRequest{Run: a.run, Peer: idOf(a.key), Seq: 1, Until: msg.MaxRound})
}
