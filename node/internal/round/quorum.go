package round

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
)

// Quorum returns how many of n witnesses certify a record, and how many may lie
// without two records being certified on one head.
func Quorum(n int) (q, f int) {
	f = (n - 1) / 3
	if n == 3 {
		return 2, f
	}
	return n - f, f
}

// Witnesses counts the seats that witness.
func Witnesses(seats []msg.Seat) int {
	n := 0
	for _, s := range seats {
		if !s.Trainee {
			n++
		}
	}
	return n
}

// Proposers returns the indices of the witnesses in the order in which they
// propose on head. The order begins anew after the last.
func Proposers(head cid.Cid, seats []msg.Seat) []int {
	type ranked struct {
		seat int
		key  [sha256.Size]byte
	}
	var list []ranked
	for i, s := range seats {
		if !s.Trainee {
			list = append(list, ranked{i, rank(head, s.Peer)})
		}
	}
	slices.SortFunc(list, func(a, b ranked) int { return bytes.Compare(a.key[:], b.key[:]) })
	order := make([]int, len(list))
	for i, e := range list {
		order[i] = e.seat
	}
	return order
}

// rank orders peers on a head, in a way that nobody chooses.
func rank(head cid.Cid, id peer.ID) [sha256.Size]byte {
	return sha256.Sum256(append(head.Bytes(), id...))
}

// seatOf returns the index of the peer's seat, or -1.
func seatOf(seats []msg.Seat, id peer.ID) int {
	i, ok := slices.BinarySearchFunc(seats, id, func(s msg.Seat, id peer.ID) int { return cmp.Compare(s.Peer, id) })
	if !ok {
		return -1
	}
	return i
}

func compareCIDs(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) }
