package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
)

// allShards stands for no shard: the order of the shards themselves.
const allShards = 1<<64 - 1

// shuffled returns 0 to n-1 in an order drawn by seed, pass and shard. The draw
// is spelled out here and not rand.Perm, which may change between versions of
// Go; two peers with the same seed would read other rows.
func shuffled(seed [32]byte, pass, shard uint64, n int) []int {
	b := append([]byte("moot row order 1"), seed[:]...)
	b = binary.LittleEndian.AppendUint64(b, pass)
	b = binary.LittleEndian.AppendUint64(b, shard)
	random := rand.NewChaCha8(sha256.Sum256(b))
	order := make([]int, n)
	for i := range order {
		at, _ := bits.Mul64(random.Uint64(), uint64(i+1))
		order[i] = order[at]
		order[at] = i
	}
	return order
}
