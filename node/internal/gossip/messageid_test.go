package gossip

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/protobuf/proto"
)

// signed is data as h would publish it, under a number of its choice.
func signed(t *testing.T, h host.Host, number uint64, data string) *pb.Message {
	t.Helper()
	m := &pb.Message{From: []byte(h.ID()), Data: []byte(data), Seqno: binary.BigEndian.AppendUint64(nil, number), Topic: &testTopic}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Signature, err = h.Peerstore().PrivKey(h.ID()).Sign(append([]byte(pubsub.SignPrefix), b...)); err != nil {
		t.Fatal(err)
	}
	return m
}

// writeRPC writes a frame.
func writeRPC(s network.Stream, rpc *pb.RPC) error {
	b, err := proto.Marshal(rpc)
	if err != nil {
		return err
	}
	_, err = s.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
	return err
}

// TestTwoMessagesOfOneNumber: who says one thing to one peer and another to the
// next, under one number, is found out: both hear both.
func TestTwoMessagesOfOneNumber(t *testing.T) {
	t.Parallel()
	nodes := swarm(t, 2)
	liar := newHost(t)
	var streams []network.Stream
	for _, n := range nodes {
		connect(t, liar, n.h)
		s, err := liar.NewStream(t.Context(), n.h.ID(), protocols()...)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	try := uint64(0) // what is said before there is a mesh is not passed on
	waitFor(t, "both to hear both votes", func() bool {
		try++
		for i, s := range streams {
			m := signed(t, liar, try, fmt.Sprint([]string{"yes ", "no "}[i], try))
			if err := writeRPC(s, &pb.RPC{Publish: []*pb.Message{m}}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(20 * time.Millisecond)
		for said := range try { // a busy machine may hear old ones only
			both := true
			for _, n := range nodes {
				both = both && n.has(fmt.Sprint("yes ", said+1)) && n.has(fmt.Sprint("no ", said+1))
			}
			if both {
				return true
			}
		}
		return false
	})
	for _, n := range nodes {
		heard := make(map[string]bool)
		for _, m := range n.all() {
			if heard[string(m.Data)] {
				t.Errorf("%q was heard twice", m.Data)
			}
			heard[string(m.Data)] = true
		}
	}
}

// TestMessageID: all that is signed makes a difference, and nothing else.
func TestMessageID(t *testing.T) {
	t.Parallel()
	of := func(from, number, topic, data string) *pb.Message {
		return &pb.Message{From: []byte(from), Seqno: []byte(number), Topic: &topic, Data: []byte(data)}
	}
	seen := make(map[string]int)
	for i, m := range []*pb.Message{
		of("a", "1", "t", "x"), of("b", "1", "t", "x"), of("a", "2", "t", "x"), of("a", "1", "u", "x"), of("a", "1", "t", "y"),
		of("a1", "", "t", "x"), of("a", "1t", "", "x"), of("a", "1", "", "tx"),
	} {
		id := messageID(m)
		if j, ok := seen[id]; ok {
			t.Errorf("messages %d and %d have one ID", i, j)
		}
		seen[id] = i
		m.Signature, m.Key = []byte("s"), []byte("k")
		if messageID(m) != id {
			t.Errorf("message %d: its signature changes its ID", i)
		}
	}
}
