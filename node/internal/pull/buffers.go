package pull

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/moot-net/moot/shard"
)

// maxBuffered is how many bytes of blocks that come, or wait for the store, a
// puller has in memory, whatever it fetches from whom.
const maxBuffered = 128 << 20

// buffers are where blocks come in. One that is given back is used again, unless
// the store keeps what it is given.
type buffers struct {
	left  *semaphore.Weighted
	reuse bool
	pool  sync.Pool // of *[]byte with room for a leaf
}

func newBuffers(reuse bool) *buffers {
	return &buffers{left: semaphore.NewWeighted(maxBuffered), reuse: reuse}
}

// get returns n bytes of any content, when there is room for them.
func (b *buffers) get(ctx context.Context, n int) ([]byte, error) {
	if err := b.left.Acquire(ctx, int64(n)); err != nil {
		return nil, err
	}
	if b.reuse && n <= shard.ChunkBytes {
		if p, ok := b.pool.Get().(*[]byte); ok {
			return (*p)[:n], nil
		}
		return make([]byte, n, shard.ChunkBytes), nil
	}
	return make([]byte, n), nil
}

// put gives back what get returned; nobody may use it any more if it is reused.
func (b *buffers) put(p []byte) {
	b.left.Release(int64(len(p)))
	if b.reuse && cap(p) == shard.ChunkBytes {
		p = p[:0]
		b.pool.Put(&p)
	}
}
