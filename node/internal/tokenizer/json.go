package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// header is the first field of every step in tokenizer.json.
type header struct {
	Type string `json:"type"`
}

// kindOf returns the type of a step, "" for null.
func kindOf(raw json.RawMessage, depth int) (string, error) {
	if depth > maxDepth {
		return "", fmt.Errorf("sequences are nested deeper than %d", maxDepth)
	}
	if len(raw) == 0 || string(raw) == "null" {
		return "", nil
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil {
		return "", err
	}
	if h.Type == "" {
		return "", errors.New("a step without a type")
	}
	return h.Type, nil
}

// strict reads JSON and refuses fields that v does not have: they could mean
// other tokens.
func strict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return fmt.Errorf("%w: setting %s", ErrUnsupported, name)
		}
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more after the end")
	}
	return nil
}

// jsonTokenizer is tokenizer.json.
type jsonTokenizer struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"` // as transformers does, lengths are left to the caller
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// jsonModel is the model in tokenizer.json.
type jsonModel struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int64 `json:"vocab"`
	Merges                  []mergePair      `json:"merges"`
}

// mergePair is written "a b", or ["a","b"], in which a text may have spaces.
type mergePair [2]string

// UnmarshalJSON reads both forms.
func (p *mergePair) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		var list []string
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		if len(list) != 2 {
			return fmt.Errorf("a merge of %d tokens", len(list))
		}
		*p = mergePair(list)
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	left, right, ok := strings.Cut(s, " ")
	if !ok || strings.Contains(right, " ") {
		return fmt.Errorf("merge %q is not two tokens", s)
	}
	*p = mergePair{left, right}
	return nil
}

func parseJSON(data []byte) (*Tokenizer, error) {
	var file jsonTokenizer
	if err := strict(data, &file); err != nil {
		return nil, err
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1}
	var byteLevel bool
	var err error
	if t.norm, err = parseNormalizer(file.Normalizer, 0); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if t.pre, byteLevel, err = parsePreTokenizer(file.PreTokenizer, 0); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	if t.decoders, err = parseDecoder(file.Decoder, 0); err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	if err := t.parseModel(file.Model, byteLevel); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if err := t.parseAdded(file.AddedTokens); err != nil {
		return nil, fmt.Errorf("added_tokens: %w", err)
	}
	var around template
	if err := around.parse(file.PostProcessor, 0); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	for _, id := range append(append([]int32(nil), around.prefix...), around.suffix...) {
		if _, ok := t.Token(id); !ok {
			return nil, fmt.Errorf("post_processor: there is no token %d", id)
		}
	}
	t.prefix, t.suffix = around.prefix, around.suffix
	t.segment, t.decoder = t.jsonSegment, (*Tokenizer).jsonDecode
	if t.bpe != nil {
		t.bpe.tokens = int32(len(t.tokens))
		t.bpe.safe = t.bpe.findSafe(metaspaceRune)
	}
	return t, nil
}

// parseModel reads vocabulary and merges, or scores.
func (t *Tokenizer) parseModel(raw json.RawMessage, byteLevel bool) (err error) {
	var kind header
	if err := json.Unmarshal(raw, &kind); err != nil {
		return fmt.Errorf("not an object: %w", err)
	}
	switch {
	case kind.Type == "Unigram" && byteLevel:
		return fmt.Errorf("%w: Unigram with a ByteLevel pre-tokenizer", ErrUnsupported)
	case kind.Type == "Unigram":
		t.unigram, err = t.parseUnigram(raw)
	case kind.Type == "BPE", kind.Type == "":
		t.bpe, err = t.parseBPE(raw, byteLevel)
	default:
		err = fmt.Errorf("%w: %q", ErrUnsupported, kind.Type)
	}
	return err
}

func (t *Tokenizer) parseBPE(raw json.RawMessage, byteLevel bool) (*bpe, error) {
	var m jsonModel
	if err := strict(raw, &m); err != nil {
		return nil, err
	}
	switch {
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, fmt.Errorf("%w: dropout %v", ErrUnsupported, *m.Dropout)
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return nil, fmt.Errorf("%w: continuing_subword_prefix %q", ErrUnsupported, *m.ContinuingSubwordPrefix)
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return nil, fmt.Errorf("%w: end_of_word_suffix %q", ErrUnsupported, *m.EndOfWordSuffix)
	case len(m.Vocab) == 0:
		return nil, errors.New("the vocabulary is empty")
	case len(m.Merges) > maxMerges:
		return nil, fmt.Errorf("%d merges, at most %d", len(m.Merges), maxMerges)
	case byteLevel && m.ByteFallback:
		return nil, fmt.Errorf("%w: byte_fallback of a byte-level vocabulary", ErrUnsupported)
	}
	for s, id := range m.Vocab {
		if err := t.setToken(id, s); err != nil {
			return nil, err
		}
	}
	b := &bpe{
		byteLevel: byteLevel, byteFallback: m.ByteFallback, unk: -1,
		fuseUnk: m.FuseUnk, wholeFirst: m.IgnoreMerges,
	}
	if m.UnkToken != nil {
		id, ok := m.Vocab[*m.UnkToken]
		if !ok {
			return nil, fmt.Errorf("unk_token %q is not in the vocabulary", *m.UnkToken)
		}
		b.unk = int32(id)
	}
	b.setVocab(m.Vocab)
	return b, b.setMerges(m.Merges, m.Vocab)
}

func (b *bpe) setVocab(vocab map[string]int64) {
	b.vocab = make(map[string]int32, len(vocab))
	for i := range b.symbols {
		b.symbols[i], b.fallback[i] = -1, -1
	}
	alphabet := newByteLevel()
	for s, id := range vocab {
		if b.byteLevel {
			raw, ok := alphabet.bytes(s)
			if !ok {
				continue // no text of bytes has it
			}
			s = raw
			if len(s) == 1 {
				b.symbols[s[0]] = int32(id)
			}
		} else if c, ok := byteToken(s); ok {
			b.fallback[c] = int32(id)
		}
		b.vocab[s] = int32(id)
	}
	for _, id := range b.fallback {
		if id < 0 { // all or none
			b.byteFallback = false
		}
	}
}

func (b *bpe) setMerges(merges []mergePair, vocab map[string]int64) error {
	b.merges = make(map[uint64]merge, len(merges))
	for rank, p := range merges {
		left, ok1 := vocab[p[0]]
		right, ok2 := vocab[p[1]]
		to, ok3 := vocab[p[0]+p[1]]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("merge %d of %q and %q: a token of it is not in the vocabulary", rank, p[0], p[1])
		}
		b.merges[pairKey(int32(left), int32(right))] = merge{int32(rank), int32(to)}
	}
	return nil
}

func (t *Tokenizer) parseAdded(list []addedToken) error {
	if len(list) > maxAdded {
		return fmt.Errorf("%d tokens, at most %d", len(list), maxAdded)
	}
	for _, a := range list {
		if a.Content == "" {
			return fmt.Errorf("token %d has no text", a.ID)
		}
		if err := t.setToken(a.ID, a.Content); err != nil {
			return err
		}
		t.special[a.ID] = a.Special
		normalized := a.Content
		if a.Normalized && t.norm != nil {
			normalized = t.norm(a.Content, first)
		}
		t.added.add(a, normalized)
	}
	return nil
}

// jsonSegment appends the tokens of a text between added tokens.
func (t *Tokenizer) jsonSegment(e *encoder, text string, at place, trusted trust) {
	if !t.added.normalized.any {
		t.cut(e, t.normalize(text, at), at, t.pre)
		return
	}
	if trusted.special && t.added.normalized.magic {
		// Where parts end cannot be told in what was normalised whole.
		var b strings.Builder
		parts := trusted.within(0, len(text))
		begin, continues := 0, at
		for i, p := range parts {
			b.WriteString(t.normalize(text[begin:p.Begin], continues))
			if b.Len() > 0 || begin < p.Begin {
				continues = continued
			}
			begin = p.End
			from := b.Len()
			b.WriteString(t.normalize(text[p.Begin:p.End], continues))
			continues = continued
			parts[i] = Range{from, b.Len()}
		}
		b.WriteString(t.normalize(text[begin:], continues))
		text, trusted.foreign, trusted.base = b.String(), parts, 0
	} else {
		text, trusted.foreign = t.normalize(text, at), nil
	}
	for p := range t.added.normalized.split(text, trusted) {
		if p.id >= 0 {
			e.out = append(e.out, p.id)
		} else {
			t.cut(e, p.text, at, t.pre)
		}
		at = later
	}
}

func (t *Tokenizer) normalize(s string, at place) string {
	if t.norm == nil {
		return s
	}
	return t.norm(s, at)
}

// cut applies the pre-tokenizers that are left.
func (t *Tokenizer) cut(e *encoder, s string, at place, steps []preTokenizer) {
	switch {
	case len(steps) > 0:
		t.cutMore(e, s, at, steps)
	case t.bpe != nil && t.bpe.safe:
		e.words(s)
	default:
		e.piece(s)
	}
}

// cutMore is apart from cut because at is on the heap here.
func (t *Tokenizer) cutMore(e *encoder, s string, at place, steps []preTokenizer) {
	steps[0](s, at, func(s string) {
		t.cut(e, s, at, steps[1:])
		at = later
	})
}

func (t *Tokenizer) jsonDecode(ids []int32) string {
	tokens := make([]string, len(ids))
	for i, id := range ids {
		tokens[i] = t.tokens[id]
	}
	if len(t.decoders) == 0 {
		return strings.Join(tokens, " ")
	}
	for _, step := range t.decoders {
		tokens = step(tokens)
	}
	return strings.Join(tokens, "")
}
