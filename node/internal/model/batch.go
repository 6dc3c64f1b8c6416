package model

import (
	"fmt"

	"github.com/moot-net/moot/node/internal/tensor"
)

// NotCounted is the label of a token that the loss does not count.
const NotCounted = -100

// Batch is a number of sequences, one after the other without padding. The
// zero Batch is empty.
type Batch struct {
	ids     []int32
	pos     []int32
	spans   []tensor.Span
	rows    []int32 // that predict a counted token
	targets []int32 // what they are to predict
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.ids, b.pos, b.spans, b.rows, b.targets = b.ids[:0], b.pos[:0], b.spans[:0], b.rows[:0], b.targets[:0]
}

// Add appends a sequence at positions 0, 1, 2 and so on. labels may be nil, or
// say for each token whether the one before it is to predict it.
func (b *Batch) Add(ids, labels []int32) error { return b.AddAt(ids, labels, nil) }

// AddAt is like Add with explicit positions.
func (b *Batch) AddAt(ids, labels, positions []int32) error {
	if labels != nil && len(labels) != len(ids) || positions != nil && len(positions) != len(ids) {
		return fmt.Errorf("%d tokens with %d labels and %d positions", len(ids), len(labels), len(positions))
	}
	at := len(b.ids)
	b.ids = append(b.ids, ids...)
	for i := range ids {
		p := int32(i)
		if positions != nil {
			p = positions[i]
		}
		b.pos = append(b.pos, p)
		if i > 0 && labels != nil && labels[i] != NotCounted {
			b.rows = append(b.rows, int32(at+i-1))
			b.targets = append(b.targets, labels[i])
		}
	}
	b.spans = append(b.spans, tensor.Span{Q: at, QLen: len(ids), K: at, KLen: len(ids)})
	return nil
}

// Tokens returns the number of tokens.
func (b *Batch) Tokens() int { return len(b.ids) }

// Counted returns the number of tokens that the loss counts.
func (b *Batch) Counted() int { return len(b.rows) }

// check refuses tokens, targets and positions that the model does not have.
func (b *Batch) check(c *Config) error {
	for _, list := range [][]int32{b.ids, b.targets} {
		for _, id := range list {
			if id < 0 || int(id) >= c.Vocab {
				return fmt.Errorf("token %d is outside a vocabulary of %d", id, c.Vocab)
			}
		}
	}
	end := maxPosition
	if c.Position == Learned || c.Rope.Scaling.Kind == "dynamic" { // frequencies would change from there on
		end = min(end, c.Context)
	}
	for _, p := range b.pos {
		if p < 0 || int(p) >= end {
			return fmt.Errorf("position %d, must be 0 to %d", p, end-1)
		}
	}
	return nil
}

// maxPosition bounds the rotary tables.
const maxPosition = 1 << 20

func (b *Batch) positions() int {
	most := int32(-1)
	for _, p := range b.pos {
		most = max(most, p)
	}
	return int(most) + 1
}
