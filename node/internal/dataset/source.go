package dataset

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// cacheTokens bounds the samples that a Source keeps: 64 MiB of tokens and
// labels. A shard of 1 MiB is about 300,000 tokens.
const cacheTokens = 8 << 20

// Source draws samples from a data set. Its methods are called from one
// goroutine at a time.
//
// A shard is read when the first of its rows is drawn. One that is not local
// gives an error that wraps shard.ErrIncomplete, and the same call works once
// it is.
type Source struct {
	// constant after NewSource
	data        *shard.Dataset
	encoder     *Encoder
	cacheTokens int

	// owned by the caller's goroutine
	fitting []int        // by shard: rows that fit, -1 before it was read
	dropped int          // training rows of the shards that were read once
	heldOut int          // held-out rows that were passed over
	cache   []shardCache // the one used last is the last
	cached  int          // tokens in cache
}

// shardCache holds the samples of a shard, in its own order.
type shardCache struct {
	shard   int
	samples []train.Sample
	tokens  int
}

// NewSource returns a Source of the rows of data. It reads nothing yet.
func NewSource(data *shard.Dataset, encoder *Encoder) *Source {
	s := &Source{data: data, encoder: encoder, cacheTokens: cacheTokens, fitting: make([]int, len(data.TrainShards()))}
	for i := range s.fitting {
		s.fitting[i] = -1
	}
	return s
}

// Batch returns n samples, of which the first is the position-th of the order
// that seed gives. They must not be changed.
//
// The order is that of the shards, shuffled, and within each of its rows,
// shuffled; rows that are too long are passed over. After the last row it goes
// on with the next pass, shuffled anew. It depends on seed and the data set
// alone, not on the calls before.
func (s *Source) Batch(ctx context.Context, seed [32]byte, position uint64, n int) ([]train.Sample, error) {
	if n < 1 {
		return nil, fmt.Errorf("draw samples: a batch of %d, must be at least 1", n)
	}
	batch := make([]train.Sample, 0, min(n, 1024))
	for len(batch) < n {
		more, err := s.draw(ctx, seed, position+uint64(len(batch)), n-len(batch))
		if err != nil {
			return nil, fmt.Errorf("draw samples: %w", err)
		}
		batch = append(batch, more...)
	}
	return batch, nil
}

// draw returns 1 to n samples from position on, all of one shard.
func (s *Source) draw(ctx context.Context, seed [32]byte, position uint64, n int) ([]train.Sample, error) {
	pass := uint64(0)
	if total, ok := s.total(); ok && total > 0 {
		pass, position = position/total, position%total
	}
	for {
		var walked uint64
		for _, i := range shuffled(seed, pass, allShards, len(s.fitting)) {
			if s.fitting[i] < 0 {
				if _, err := s.samples(ctx, i); err != nil {
					return nil, err
				}
			}
			if count := uint64(s.fitting[i]); position >= count {
				position -= count
				walked += count
				continue
			}
			samples, err := s.samples(ctx, i)
			if err != nil {
				return nil, err
			}
			order := shuffled(seed, pass, uint64(i), len(samples))[position:]
			picked := make([]train.Sample, min(n, len(order)))
			for j := range picked {
				picked[j] = samples[order[j]]
			}
			return picked, nil
		}
		// Only the first walk comes here: now all shards are known.
		if walked == 0 {
			return nil, fmt.Errorf("no row of data set %s fits in %d tokens: raise sequence_tokens", s.data.Root(), s.encoder.maxTokens)
		}
		pass, position = 1+position/walked, position%walked
	}
}

// total returns how many training rows fit, once all shards were read.
func (s *Source) total() (uint64, bool) {
	var total uint64
	for _, n := range s.fitting {
		if n < 0 {
			return 0, false
		}
		total += uint64(n)
	}
	return total, true
}

// samples returns those of shard i.
func (s *Source) samples(ctx context.Context, i int) ([]train.Sample, error) {
	if at := slices.IndexFunc(s.cache, func(c shardCache) bool { return c.shard == i }); at >= 0 {
		c := s.cache[at]
		s.cache = append(slices.Delete(s.cache, at, at+1), c)
		return c.samples, nil
	}
	if err := s.encoder.Accepts(s.data.Index().Format); err != nil {
		return nil, fmt.Errorf("data set %s: %w", s.data.Root(), err)
	}
	rows, err := s.data.ReadShard(ctx, i)
	if err != nil {
		return nil, err
	}
	c := shardCache{shard: i}
	for _, row := range rows {
		if sample, ok := s.encoder.Encode(row); ok {
			c.samples = append(c.samples, sample)
			c.tokens += len(sample.IDs)
		}
	}
	if s.fitting[i] < 0 {
		s.fitting[i] = len(c.samples)
		s.dropped += len(rows) - len(c.samples)
	}
	s.cache = append(s.cache, c)
	s.cached += c.tokens
	for s.cached > s.cacheTokens && len(s.cache) > 1 {
		s.cached -= s.cache[0].tokens
		s.cache = slices.Delete(s.cache, 0, 1)
	}
	return c.samples, nil
}

// HeldOut returns up to n held-out samples, always the same: the first that
// are not too long.
func (s *Source) HeldOut(ctx context.Context, n int) ([]train.Sample, error) {
	var samples []train.Sample
	dropped := 0
	for row, err := range s.held(ctx) {
		if len(samples) >= n {
			break
		}
		if err != nil {
			return nil, err
		}
		if sample, ok := s.encoder.Encode(row); ok {
			samples = append(samples, sample)
		} else {
			dropped++
		}
	}
	s.heldOut = max(s.heldOut, dropped)
	return samples, nil
}

// HeldOutRows returns the first n held-out rows, or all when there are fewer,
// whatever their length.
func (s *Source) HeldOutRows(ctx context.Context, n int) ([]shard.Row, error) {
	var rows []shard.Row
	for row, err := range s.held(ctx) {
		if len(rows) >= n {
			break
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// held yields the held-out rows in their order. An error is the last.
func (s *Source) held(ctx context.Context) iter.Seq2[shard.Row, error] {
	return func(yield func(shard.Row, error) bool) {
		for i := range s.data.EvalShards() {
			rows, err := s.data.ReadEval(ctx, i)
			if err != nil {
				yield(shard.Row{}, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

// Dropped returns how many training rows were found too long, of the shards
// read so far, and how many held-out rows HeldOut passed over.
func (s *Source) Dropped() (training, heldOut int) { return s.dropped, s.heldOut }
