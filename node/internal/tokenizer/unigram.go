package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// unigram cuts a text into the pieces whose scores have the greatest sum.
type unigram struct {
	// constant after the tokenizer was read
	pieces       *trie
	scores       []float64 // by token
	perByte      []bool    // of user defined pieces the score is maxScore for each byte, less 0.1
	maxScore     float32
	unk          int32 // -1: what is in no piece is left out
	unkScore     float64
	single       bool // sums are rounded to single precision, as sentencepiece has them
	byteFallback bool
	fallback     [256]int32
}

// unkPenalty is what a character that is in no piece scores below the lowest
// piece.
const unkPenalty = 10

// lattice is the memory of the best way to each place of a text.
type lattice struct {
	score []float64
	start []int32 // -1: no way leads here
	id    []int32
}

func (l *lattice) reset(n int) {
	l.score = slices.Grow(l.score[:0], n)[:n]
	l.start = slices.Grow(l.start[:0], n)[:n]
	l.id = slices.Grow(l.id[:0], n)[:n]
	for i := range l.start {
		l.start[i] = -1
	}
}

// encode appends the tokens of a text.
func (u *unigram) encode(e *encoder, s string) {
	if s == "" {
		return
	}
	l := &e.lattice
	l.reset(len(s) + 1)
	l.score[0], l.start[0] = 0, 0
	for at := 0; at < len(s); {
		_, size := utf8.DecodeRuneInString(s[at:])
		u.reach(l, s, at, size)
		at += size
	}
	u.emit(e, s)
	if cap(l.start) > maxKeptSymbols {
		*l = lattice{}
	}
}

// reach offers the pieces that begin at a place, where a character of size
// bytes is.
func (u *unigram) reach(l *lattice, s string, at, size int) {
	till, alone := l.score[at], false
	state := int32(0)
	for end := at; end < len(s); {
		if state = u.pieces.step(state, s[end]); state == 0 {
			break
		}
		end++
		id := u.pieces.value[state]
		if id < 0 {
			continue
		}
		score := u.scores[id]
		if u.perByte != nil && u.perByte[id] {
			score = float64(float32(end-at)*u.maxScore) - 0.1
		}
		u.offer(l, at, end, id, score+till)
		alone = alone || end-at == size
	}
	if !alone {
		score := u.unkScore + till
		if u.single {
			score = float64(float32(score))
		}
		u.offer(l, at, at+size, u.unk, score)
	}
}

func (u *unigram) offer(l *lattice, at, end int, id int32, score float64) {
	if l.start[end] >= 0 && score <= l.score[end] {
		return
	}
	if u.single {
		score = float64(float32(score))
	}
	l.score[end], l.start[end], l.id[end] = score, int32(at), id
}

// emit appends the tokens of the best way through s.
func (u *unigram) emit(e *encoder, s string) {
	l := &e.lattice
	// The way is known from its end; l.score is free to hold it turned round.
	e.ids = e.ids[:0]
	for end := len(s); end > 0; end = int(l.start[end]) {
		e.ids = append(e.ids, int32(end))
	}
	begin, unknown := 0, false
	for i := len(e.ids) - 1; i >= 0; i-- {
		end := int(e.ids[i])
		id := l.id[end]
		switch {
		case id != u.unk:
			e.out = append(e.out, id)
			unknown = false
		case u.byteFallback:
			for k := begin; k < end; k++ {
				e.out = append(e.out, u.fallback[s[k]])
			}
		case !unknown && u.unk >= 0:
			e.out = append(e.out, u.unk)
			unknown = true
		}
		begin = end
	}
}

// unigram enters the pieces of a tokenizer.model into t.
func (m *spModel) unigram(t *Tokenizer, sp *sentencePiece) (*unigram, error) {
	u := &unigram{unk: -1, single: true, byteFallback: m.byteFallback, scores: make([]float64, len(m.pieces)), perByte: make([]bool, len(m.pieces))}
	bytes := 0
	for i := range u.fallback {
		u.fallback[i] = -1
	}
	for _, p := range m.pieces {
		bytes += len(p.text)
	}
	u.pieces = newTrie(bytes)
	lowest := float32(math.MaxFloat32)
	u.maxScore = -math.MaxFloat32
	for i, p := range m.pieces {
		if err := t.setToken(int64(i), p.text); err != nil {
			return nil, err
		}
		sp.kinds[i] = uint8(min(p.kind, 255))
		u.scores[i] = float64(p.score)
		switch id := int32(i); p.kind {
		case pieceNormal:
			u.pieces.add(p.text, id)
			lowest, u.maxScore = min(lowest, p.score), max(u.maxScore, p.score)
		case pieceUser:
			u.pieces.add(p.text, id)
			u.perByte[i] = true
			sp.user.add(p.text, addedToken{ID: int64(i)})
		case pieceUnused:
		default:
			if err := m.addOther(t, p, id, &u.unk, &u.fallback); err != nil {
				return nil, err
			}
		}
	}
	if err := checkOthers(u.unk, u.byteFallback, &u.fallback); err != nil {
		return nil, err
	}
	if lowest == math.MaxFloat32 {
		return nil, errors.New("no normal piece")
	}
	u.unkScore = float64(lowest - unkPenalty)
	return u, nil
}

// parseUnigram reads a model of that type in tokenizer.json.
func (t *Tokenizer) parseUnigram(raw json.RawMessage) (*unigram, error) {
	var m struct {
		header
		UnkID        *int64      `json:"unk_id"`
		ByteFallback bool        `json:"byte_fallback"`
		Vocab        []jsonPiece `json:"vocab"`
	}
	if err := strict(raw, &m); err != nil {
		return nil, err
	}
	if len(m.Vocab) == 0 || len(m.Vocab) > maxVocab {
		return nil, fmt.Errorf("%d pieces, must be 1 to %d", len(m.Vocab), maxVocab)
	}
	u := &unigram{unk: -1, byteFallback: m.ByteFallback, scores: make([]float64, len(m.Vocab))}
	bytes, lowest := 0, math.Inf(1)
	for _, p := range m.Vocab {
		bytes += len(p.text)
	}
	u.pieces = newTrie(min(bytes, maxFileBytes))
	for i, p := range m.Vocab {
		if p.text == "" {
			return nil, fmt.Errorf("piece %d has no text", i)
		}
		if err := t.setToken(int64(i), p.text); err != nil {
			return nil, err
		}
		u.pieces.add(p.text, int32(i))
		u.scores[i] = p.score
		lowest = min(lowest, p.score)
	}
	u.unkScore = lowest - unkPenalty
	if m.UnkID != nil {
		if *m.UnkID < 0 || *m.UnkID >= int64(len(m.Vocab)) {
			return nil, fmt.Errorf("unk_id is %d of %d pieces", *m.UnkID, len(m.Vocab))
		}
		u.unk = int32(*m.UnkID)
	}
	for i := range u.fallback {
		id, ok := t.byText[fmt.Sprintf("<0x%02X>", i)]
		if !ok {
			id = -1
		}
		u.fallback[i] = id
	}
	if u.byteFallback && slices.Contains(u.fallback[:], -1) {
		return nil, errors.New("byte_fallback without a piece for every byte")
	}
	return u, nil
}

// jsonPiece is written as a list of a text and its score.
type jsonPiece struct {
	text  string
	score float64
}

// UnmarshalJSON reads the list.
func (p *jsonPiece) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) != 2 {
		return fmt.Errorf("a piece of %d values", len(list))
	}
	if err := json.Unmarshal(list[0], &p.text); err != nil {
		return err
	}
	return json.Unmarshal(list[1], &p.score)
}
