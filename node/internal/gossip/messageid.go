package gossip

import (
	"crypto/sha256"
	"encoding/binary"

	pb "github.com/libp2p/go-libp2p-pubsub/pb"
)

// messageID names a message by all that its author signed. Pubsub's own name, of
// author and number alone, would let an author say two things under one: who
// heard the first takes the second for it, and nobody ever hears both.
func messageID(m *pb.Message) string {
	h := sha256.New()
	for _, b := range [][]byte{m.GetFrom(), m.GetSeqno(), []byte(m.GetTopic()), m.GetData()} {
		h.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(b)))) //nolint:gosec // a frame is at most some hundred KiB
		h.Write(b)
	}
	return string(h.Sum(nil))
}
