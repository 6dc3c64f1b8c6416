package tokenizer

import (
	"math"
	"strings"
	"unicode/utf8"
)

// bpe merges neighbouring symbols in the order of their ranks. A symbol is a
// token, or a character that tokens begin with and that is none itself.
type bpe struct {
	// constant after the tokenizer was read
	vocab        map[string]int32 // by text; of a byte-level tokenizer by bytes
	merges       map[uint64]merge
	byteLevel    bool
	symbols      [256]int32 // of a byte-level tokenizer: token of each byte, -1 if none
	byteFallback bool
	fallback     [256]int32       // tokens <0x00> to <0xFF>
	extra        map[string]int32 // characters that are no tokens, numbered from tokens on
	extraText    []string
	tokens       int32
	unk          int32 // -1: what is not in the vocabulary is left out
	fuseUnk      bool  // neighbouring ones are one
	wholeFirst   bool  // a piece that is in the vocabulary is not merged (ignore_merges)
	safe         bool  // no token has a metaspace behind another character
}

// merge says what a pair of symbols becomes. Lower ranks merge earlier.
type merge struct{ rank, to int32 }

const noMerge = math.MaxInt32

func (b *bpe) lookup(left, right int32) merge {
	if m, ok := b.merges[pairKey(left, right)]; ok {
		return m
	}
	return merge{rank: noMerge}
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// Bounds of the memory that an encoder keeps between calls.
const (
	maxCacheEntries = 1 << 15
	maxCachedBytes  = 64 // of a piece
	maxKeptSymbols  = 1 << 16
)

// encoder is the memory of one Encode.
type encoder struct {
	bpe     *bpe
	unigram *unigram
	out     []int32
	cache   map[string][]int32

	ids     []int32 // symbols of the piece
	lattice lattice
	pairs   []merge // pairs[i] is that of ids[i] and ids[i+1]
	links   []link
	heap    []candidate
}

// piece appends the tokens of a piece of text. No merge leaves it.
func (e *encoder) piece(s string) {
	if len(s) > maxCachedBytes {
		e.encode(s)
		return
	}
	if ids, ok := e.cache[s]; ok {
		e.out = append(e.out, ids...)
		return
	}
	at := len(e.out)
	e.encode(s)
	if e.cache == nil || len(e.cache) >= maxCacheEntries {
		e.cache = make(map[string][]int32, 256)
	}
	e.cache[strings.Clone(s)] = append([]int32(nil), e.out[at:]...)
}

// metaspaceRune stands for a space in vocabularies of characters.
const metaspaceRune = '\u2581'

// findSafe reports whether text can be cut before each run of r without a
// change to its tokens: when no token has r behind another character, no merge
// crosses such a place.
func (b *bpe) findSafe(r rune) bool {
	if b.byteLevel || b.wholeFirst {
		return false
	}
	if _, ok := b.vocab[string(r)]; !ok {
		return false // it could be part of a run of unknown characters
	}
	for s := range b.vocab {
		before := r
		for _, c := range s {
			if c == r && before != r {
				return false
			}
			before = c
		}
	}
	return true
}

// words cuts a text before each run of metaspaces.
func (e *encoder) words(s string) {
	const space = string(metaspaceRune)
	for s != "" {
		end := 0
		for strings.HasPrefix(s[end:], space) {
			end += len(space)
		}
		if next := strings.Index(s[end:], space); next >= 0 {
			end += next
		} else {
			end = len(s)
		}
		e.piece(s[:end])
		s = s[end:]
	}
}

// longPiece is the number of symbols from which on a heap is worth it.
const longPiece = 32

func (e *encoder) encode(s string) {
	if e.unigram != nil {
		e.unigram.encode(e, s)
		return
	}
	b := e.bpe
	if b.wholeFirst {
		if id, ok := b.vocab[s]; ok {
			e.out = append(e.out, id)
			return
		}
	}
	e.ids = e.ids[:0]
	if b.byteLevel {
		for i := range len(s) {
			e.push(b.symbols[s[i]])
		}
	} else {
		for i := 0; i < len(s); {
			_, n := utf8.DecodeRuneInString(s[i:])
			e.pushRune(s[i : i+n])
			i += n
		}
	}
	if len(e.ids) < longPiece {
		e.mergeShort()
	} else {
		e.mergeLong()
	}
	e.emit()
	if cap(e.ids) > maxKeptSymbols {
		e.ids, e.pairs, e.links, e.heap = nil, nil, nil, nil
	}
}

func (e *encoder) pushRune(c string) {
	b := e.bpe
	if id, ok := b.vocab[c]; ok {
		e.push(id)
	} else if id, ok := b.extra[c]; ok {
		e.push(id)
	} else {
		e.pushUnknown(c)
	}
}

func (e *encoder) pushUnknown(c string) {
	if !e.bpe.byteFallback {
		e.push(-1)
		return
	}
	for i := range len(c) {
		e.push(e.bpe.fallback[c[i]])
	}
}

// push appends a symbol to the piece; -1 stands for one that does not exist.
func (e *encoder) push(id int32) { e.ids = append(e.ids, id) }

// emit appends the symbols of the piece to the output as tokens.
func (e *encoder) emit() {
	b, unknown := e.bpe, false
	for _, id := range e.ids {
		if id >= b.tokens { // a character that stayed alone
			if b.byteFallback {
				c := b.extraText[id-b.tokens]
				for i := range len(c) {
					e.out = append(e.out, b.fallback[c[i]])
				}
				unknown = false
				continue
			}
			id = -1
		}
		if id >= 0 {
			e.out = append(e.out, id)
			unknown = false
			continue
		}
		if b.unk >= 0 && (!unknown || !b.fuseUnk) {
			e.out = append(e.out, b.unk)
		}
		unknown = true
	}
}

// mergeShort looks at all pairs for each merge, which is fastest for words.
func (e *encoder) mergeShort() {
	ids, pairs := e.ids, e.pairs[:0]
	for i := range len(ids) - 1 {
		pairs = append(pairs, e.bpe.lookup(ids[i], ids[i+1]))
	}
	for len(pairs) > 0 {
		best := 0
		for i := range pairs {
			if pairs[i].rank < pairs[best].rank {
				best = i
			}
		}
		if pairs[best].rank == noMerge {
			break
		}
		ids[best] = pairs[best].to
		ids = append(ids[:best+1], ids[best+2:]...)
		pairs = append(pairs[:best], pairs[best+1:]...)
		if best > 0 {
			pairs[best-1] = e.bpe.lookup(ids[best-1], ids[best])
		}
		if best < len(pairs) {
			pairs[best] = e.bpe.lookup(ids[best], ids[best+1])
		}
	}
	e.ids, e.pairs = ids, pairs[:0]
}

// link makes a list of the symbols that are left.
type link struct{ prev, next int32 } // index, -1 at an end

// candidate is a merge that was possible when it was found.
type candidate struct {
	rank, at    int32
	left, right int32 // the symbols then
	to          int32
}

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// mergeLong does what mergeShort does in n log n steps.
func (e *encoder) mergeLong() {
	n := int32(len(e.ids))
	e.links, e.heap = e.links[:0], e.heap[:0]
	for i := range n {
		e.links = append(e.links, link{i - 1, i + 1})
	}
	e.links[n-1].next = -1
	for i := range n - 1 {
		if m := e.bpe.lookup(e.ids[i], e.ids[i+1]); m.rank != noMerge {
			e.heap = append(e.heap, candidate{m.rank, i, e.ids[i], e.ids[i+1], m.to})
		}
	}
	for i := len(e.heap)/2 - 1; i >= 0; i-- {
		e.down(i)
	}
	for len(e.heap) > 0 {
		c := e.heap[0]
		last := len(e.heap) - 1
		e.heap[0] = e.heap[last]
		e.heap = e.heap[:last]
		e.down(0)
		e.apply(c)
	}
	kept := e.ids[:0]
	for i := int32(0); i >= 0; i = e.links[i].next {
		kept = append(kept, e.ids[i])
	}
	e.ids = kept
}

// gone marks a symbol that was merged into the one before it. It is not -1,
// which stands for a symbol that does not exist.
const gone = -2

func (e *encoder) apply(c candidate) {
	next := e.links[c.at].next
	if e.ids[c.at] != c.left || next < 0 || e.ids[next] != c.right {
		return // one of them has changed since
	}
	e.ids[c.at], e.ids[next] = c.to, gone
	after := e.links[next].next
	e.links[c.at].next = after
	if after >= 0 {
		e.links[after].prev = c.at
		e.offer(c.at, after)
	}
	if prev := e.links[c.at].prev; prev >= 0 {
		e.offer(prev, c.at)
	}
}

// offer adds the merge of two neighbours to the heap if there is one.
func (e *encoder) offer(left, right int32) {
	m := e.bpe.lookup(e.ids[left], e.ids[right])
	if m.rank == noMerge {
		return
	}
	e.heap = append(e.heap, candidate{m.rank, left, e.ids[left], e.ids[right], m.to})
	for i := len(e.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !e.heap[i].before(e.heap[up]) {
			break
		}
		e.heap[i], e.heap[up] = e.heap[up], e.heap[i]
		i = up
	}
}

func (e *encoder) down(i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(e.heap) && e.heap[child].before(e.heap[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		e.heap[i], e.heap[least] = e.heap[least], e.heap[i]
		i = least
	}
}
