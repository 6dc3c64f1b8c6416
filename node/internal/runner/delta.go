package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/pull"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/shard"
)

// deltas fetches, checks and keeps the deltas of the rounds that are under
// way.
type deltas struct {
	store   Store
	fetcher Fetcher
	layout  *fold.Layout
	bits    int // of the codec that the run begins with
	least   int // of the coarsest one

	mu      sync.Mutex
	decoded map[cid.Cid]*fold.Delta // guarded by mu; by the delta's CID
	rounds  map[cid.Cid]msg.Round   // guarded by mu; when it was last asked for

	leftovers leftovers
}

func newDeltas(store Store, fetcher Fetcher, layout *fold.Layout, bits, least int) *deltas {
	return &deltas{
		store: store, fetcher: fetcher, layout: layout, bits: bits, least: least,
		decoded: make(map[cid.Cid]*fold.Delta), rounds: make(map[cid.Cid]msg.Round),
	}
}

// check pulls the delta that c announces and compares it with what c says. It
// returns msg.Held or why the delta cannot be used. The size is known from the
// layout before the first byte is asked for.
func (d *deltas) check(ctx context.Context, c *msg.Commit) msg.Reason {
	bits := int(c.CodecBits)
	if bits > d.bits || bits < d.least {
		return msg.BadCodec // which the round knows before
	}
	want := fold.EncodedBytes(d.layout, bits)
	switch {
	case c.DeltaBytes > uint64(want):
		return msg.TooLarge
	case c.DeltaBytes != uint64(want):
		return msg.BadSize
	}
	delta, err := d.getBits(ctx, c.Delta, bits, c.Round, c.Peer)
	switch {
	case errors.Is(err, fold.ErrRange):
		return msg.BadRange
	case errors.Is(err, fold.ErrCodec):
		return msg.BadCodec
	case errors.Is(err, errSize), errors.Is(err, pull.ErrTooLarge):
		return msg.BadSize
	case errors.Is(err, shard.ErrInvalid):
		return msg.BadHash // not the file that a CID of this construction names
	case err != nil:
		return msg.Timeout
	case delta.Bits() != bits:
		return msg.BadCodec
	case delta.Norm() != c.Norm:
		return msg.BadNorm
	}
	return msg.Held
}

var errSize = errors.New("not the size of a delta of this run")

// get returns the decoded delta id, in any codec of the run. from is a peer that
// has it.
func (d *deltas) get(ctx context.Context, id cid.Cid, round msg.Round, from ...peer.ID) (*fold.Delta, error) {
	return d.getBits(ctx, id, 0, round, from...)
}

// getBits is get for a delta of so many bits; 0: of a codec of the run.
func (d *deltas) getBits(ctx context.Context, id cid.Cid, bits int, round msg.Round, from ...peer.ID) (*fold.Delta, error) {
	d.mu.Lock()
	delta := d.decoded[id]
	if delta != nil {
		d.rounds[id] = max(d.rounds[id], round)
	}
	d.mu.Unlock()
	if delta != nil {
		d.leftovers.of(id, round)
		return delta, nil
	}
	size := fold.EncodedBytes(d.layout, cmp.Or(bits, d.bits))
	b, err := d.bring(ctx, id, size, from)
	d.leftovers.of(id, round)
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != size && (bits > 0 || !d.isLength(len(b))) {
		return nil, fmt.Errorf("read delta %s: %d bytes: %w", id, len(b), errSize)
	}
	delta, err = fold.Decode(d.layout, b)
	if err != nil {
		return nil, fmt.Errorf("decode delta %s: %w", id, err)
	}
	d.mu.Lock()
	d.decoded[id], d.rounds[id] = delta, round
	d.mu.Unlock()
	return delta, nil
}

// bring returns the bytes of a delta. What was damaged on this disk since it came is
// fetched once more; a disk that cannot be read is nobody else's fault.
func (d *deltas) bring(ctx context.Context, id cid.Cid, size int64, from []peer.ID) (b []byte, err error) {
	for range 2 {
		if err := d.fetcher.Fetch(ctx, id, size+dagOverhead(size), from); err != nil {
			return nil, fmt.Errorf("fetch delta %s: %w", id, err)
		}
		b, err = d.store.ReadBytes(ctx, id, size)
		switch {
		case err == nil:
			return b, nil
		case errors.Is(err, shard.ErrTooLarge):
			return nil, fmt.Errorf("read delta %s: %w: %w", id, errSize, err)
		case errors.Is(err, shard.ErrInvalid):
			return nil, fmt.Errorf("read delta %s: %w", id, err)
		}
	}
	return nil, fmt.Errorf("read delta %s: %w", id, err)
}

// isLength reports whether a delta in one of the run's codecs has so many bytes.
func (d *deltas) isLength(n int) bool {
	for bits := d.least; bits <= d.bits; bits *= 2 {
		if fold.EncodedBytes(d.layout, bits) == int64(n) {
			return true
		}
	}
	return false
}

// forget drops the decoded deltas of rounds before the given one. The bytes
// stay in the store.
func (d *deltas) forget(before msg.Round) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, r := range d.rounds {
		if r < before {
			delete(d.rounds, id)
			delete(d.decoded, id)
		}
	}
}
