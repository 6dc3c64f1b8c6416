package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kinds of pieces in tokenizer.model.
const (
	pieceNormal = iota + 1
	pieceUnknown
	pieceControl
	pieceUser
	pieceUnused
	pieceByte
)

// Kinds of models in tokenizer.model.
const (
	kindUnigram = 1
	kindBPE     = 2
)

// spModel is what of tokenizer.model decides tokens.
type spModel struct {
	pieces       []spPiece
	kind         uint64
	byteFallback bool
	suffix       bool // white space belongs to the word before it
	unkSurface   string
	bos, eos     int64
	pad          int64
	name         string
	charsMap     []byte
	dummyPrefix  bool
	squeeze      bool // remove_extra_whitespaces
	escape       bool
	denormalizes bool
}

type spPiece struct {
	text  string
	score float32
	kind  uint64
}

// field is one field of a protobuf message.
type field struct {
	num   protowire.Number
	n     uint64 // value of a varint or of fixed bits
	bytes []byte
}

// eachField calls f for the fields of a message.
func eachField(b []byte, f func(field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		v := field{num: num}
		switch typ {
		case protowire.VarintType:
			v.n, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var u uint32
			u, n = protowire.ConsumeFixed32(b)
			v.n = uint64(u)
		case protowire.Fixed64Type:
			v.n, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d has the wire type %d", num, typ)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

func parseSPModel(data []byte) (*spModel, error) {
	m := &spModel{
		kind: kindUnigram, unkSurface: " \u2047 ", bos: 1, eos: 2, pad: -1,
		dummyPrefix: true, squeeze: true, escape: true,
	}
	return m, eachField(data, func(f field) error {
		switch f.num {
		case 1:
			return m.addPiece(f.bytes)
		case 2:
			return eachField(f.bytes, m.setTrainer)
		case 3:
			return eachField(f.bytes, m.setNormalizer)
		case 5:
			return eachField(f.bytes, func(f field) error {
				m.denormalizes = m.denormalizes || f.num == 2 && len(f.bytes) > 0
				return nil
			})
		}
		return nil // self tests
	})
}

func (m *spModel) addPiece(b []byte) error {
	p := spPiece{kind: pieceNormal}
	err := eachField(b, func(f field) error {
		switch f.num {
		case 1:
			p.text = string(f.bytes)
		case 2:
			p.score = math.Float32frombits(uint32(f.n))
		case 3:
			p.kind = f.n
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(m.pieces) >= maxVocab:
		return fmt.Errorf("more than %d pieces", maxVocab)
	case p.text == "" || len(p.text) > maxTokenBytes || !utf8.ValidString(p.text):
		return fmt.Errorf("piece %d has %d bytes, must be 1 to %d of UTF-8", len(m.pieces), len(p.text), maxTokenBytes)
	case p.score != p.score:
		return fmt.Errorf("piece %d has no score", len(m.pieces))
	}
	m.pieces = append(m.pieces, p)
	return nil
}

func (m *spModel) setTrainer(f field) error {
	switch f.num {
	case 3:
		m.kind = f.n
	case 24:
		m.suffix = f.n != 0
	case 35:
		m.byteFallback = f.n != 0
	case 41:
		m.bos = int64(int32(f.n))
	case 42:
		m.eos = int64(int32(f.n))
	case 43:
		m.pad = int64(int32(f.n))
	case 44:
		m.unkSurface = string(f.bytes)
	}
	return nil
}

func (m *spModel) setNormalizer(f field) error {
	switch f.num {
	case 1:
		m.name = string(f.bytes)
	case 2:
		m.charsMap = f.bytes
	case 3:
		m.dummyPrefix = f.n != 0
	case 4:
		m.squeeze = f.n != 0
	case 5:
		m.escape = f.n != 0
	}
	return nil
}

func (m *spModel) check() error {
	switch {
	case m.kind != kindUnigram && m.kind != kindBPE:
		names := map[uint64]string{3: "word", 4: "char"}
		return fmt.Errorf("%w: sentencepiece model of type %d (%s), only unigram and BPE are known", ErrUnsupported, m.kind, names[m.kind])
	case m.suffix:
		return fmt.Errorf("%w: treat_whitespace_as_suffix", ErrUnsupported)
	case !m.escape:
		return fmt.Errorf("%w: escape_whitespaces false", ErrUnsupported)
	case m.denormalizes:
		return fmt.Errorf("%w: denormalizer_spec", ErrUnsupported)
	case len(m.pieces) == 0:
		return errors.New("no pieces")
	}
	return nil
}

func parseSentencePiece(data []byte, s *specials) (*Tokenizer, error) {
	m, err := parseSPModel(data)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	t := &Tokenizer{bos: -1, eos: -1, pad: -1}
	sp := &sentencePiece{dummyPrefix: m.dummyPrefix, squeeze: m.squeeze, unkSurface: m.unkSurface, kinds: make([]uint8, len(m.pieces))}
	if sp.chars, err = parseCharsMap(m.charsMap); err != nil {
		return nil, err
	}
	if m.kind == kindUnigram {
		t.unigram, err = m.unigram(t, sp)
	} else {
		t.bpe, err = m.bpe(t, sp)
	}
	if err != nil {
		return nil, err
	}
	t.segment, t.decoder = sp.segment(t), sp.decode
	for _, f := range []struct {
		id int64
		to *int32
	}{{m.bos, &t.bos}, {m.eos, &t.eos}, {m.pad, &t.pad}} {
		if f.id >= 0 && f.id < int64(len(m.pieces)) && m.pieces[f.id].kind == pieceControl {
			*f.to = int32(f.id)
		}
	}
	t.around(s)
	return t, nil
}

// around sets what AddSpecial adds; the defaults are those of Llama, whose
// format this is.
func (t *Tokenizer) around(s *specials) {
	bos, eos := t.bos, t.eos
	if s.bos != nil {
		bos, _ = t.id(*s.bos)
	}
	if s.eos != nil {
		eos, _ = t.id(*s.eos)
	}
	if isTrue(s.addBOS) && bos >= 0 {
		t.prefix = []int32{bos}
	}
	if s.addEOS != nil && *s.addEOS && eos >= 0 {
		t.suffix = []int32{eos}
	}
}

// bpe enters the pieces into t and makes their merges: two symbols merge when
// together they are a piece, those with the greatest score first.
func (m *spModel) bpe(t *Tokenizer, sp *sentencePiece) (*bpe, error) {
	b := &bpe{vocab: map[string]int32{}, merges: map[uint64]merge{}, byteFallback: m.byteFallback, unk: -1, fuseUnk: true}
	for i := range b.symbols {
		b.symbols[i], b.fallback[i] = -1, -1
	}
	for i, p := range m.pieces {
		if err := t.setToken(int64(i), p.text); err != nil {
			return nil, err
		}
		sp.kinds[i] = uint8(min(p.kind, 255))
		id := int32(i)
		switch p.kind {
		case pieceNormal:
			if _, twice := b.vocab[p.text]; twice {
				return nil, fmt.Errorf("piece %q is there twice", p.text)
			}
			b.vocab[p.text] = id
		case pieceUser:
			sp.user.add(p.text, addedToken{ID: int64(i)})
		default:
			if err := m.addOther(t, p, id, &b.unk, &b.fallback); err != nil {
				return nil, err
			}
		}
	}
	if err := checkOthers(b.unk, b.byteFallback, &b.fallback); err != nil {
		return nil, err
	}
	b.tokens = int32(len(m.pieces))
	m.setMerges(b)
	b.safe = b.findSafe(metaspaceRune)
	return b, nil
}

// addOther enters a piece that no text is cut into.
func (m *spModel) addOther(t *Tokenizer, p spPiece, id int32, unk *int32, fallback *[256]int32) error {
	switch p.kind {
	case pieceUnknown:
		if *unk >= 0 {
			return errors.New("two unknown pieces")
		}
		*unk, t.special[id] = id, true
	case pieceControl:
		t.special[id] = true
		t.added.raw.add(p.text, addedToken{ID: int64(id), Special: true})
	case pieceByte:
		c, ok := byteToken(p.text)
		if !ok {
			return fmt.Errorf("byte piece %q", p.text)
		}
		fallback[c] = id
	default:
		return fmt.Errorf("%w: piece %q of type %d", ErrUnsupported, p.text, p.kind)
	}
	return nil
}

func checkOthers(unk int32, byteFallback bool, fallback *[256]int32) error {
	if unk < 0 {
		return errors.New("no unknown piece")
	}
	if byteFallback && slices.Contains(fallback[:], -1) {
		return errors.New("byte_fallback without a piece for every byte")
	}
	return nil
}

func (m *spModel) setMerges(b *bpe) {
	var scores []float32
	for _, id := range b.vocab {
		scores = append(scores, m.pieces[id].score)
	}
	slices.Sort(scores)
	scores = slices.Compact(scores)
	slices.Reverse(scores)
	rank := make(map[float32]int32, len(scores))
	for i, s := range scores {
		rank[s] = int32(i)
	}
	b.extra = map[string]int32{}
	for i, p := range m.pieces { // in order: numbers of characters do not depend on a map's order
		if p.kind != pieceNormal {
			continue
		}
		for at := 0; at < len(p.text); {
			_, n := utf8.DecodeRuneInString(p.text[at:])
			c := p.text[at : at+n]
			_, token := b.vocab[c]
			_, known := b.extra[c]
			if !token && !known {
				b.extra[c] = b.tokens + int32(len(b.extraText))
				b.extraText = append(b.extraText, c)
			}
			if at > 0 {
				m.addMerge(b, p.text[:at], p.text[at:], merge{rank[p.score], int32(i)})
			}
			at += n
		}
	}
}

func (m *spModel) addMerge(b *bpe, left, right string, to merge) {
	l, ok := b.symbol(left)
	if !ok {
		return
	}
	if r, ok := b.symbol(right); ok {
		b.merges[pairKey(l, r)] = to
	}
}

func (b *bpe) symbol(s string) (int32, bool) {
	if id, ok := b.vocab[s]; ok {
		return id, true
	}
	id, ok := b.extra[s]
	return id, ok
}

// sentencePiece is the part of a tokenizer.model that is not BPE.
type sentencePiece struct {
	dummyPrefix bool
	squeeze     bool
	unkSurface  string
	kinds       []uint8
	user        matcher // pieces that are found in the text first
	chars       *charsMap
}

func (sp *sentencePiece) segment(t *Tokenizer) func(*encoder, string, place, trust) {
	return func(e *encoder, text string, at place, _ trust) {
		text = sp.normalize(text, at)
		if t.unigram != nil {
			t.unigram.encode(e, text)
			return
		}
		for p := range sp.user.split(text, trust{special: true}) {
			switch {
			case p.id >= 0:
				e.out = append(e.out, p.id)
			case t.bpe.safe:
				e.words(p.text)
			default:
				e.piece(p.text)
			}
		}
	}
}

const spaceSymbol = string(metaspaceRune)

// normalize maps characters and writes spaces as the space symbol.
func (sp *sentencePiece) normalize(s string, at place) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/4 + len(spaceSymbol))
	begun, wasSpace := at == continued, sp.squeeze && at != continued
	for s != "" {
		out, n := sp.prefix(s)
		s = s[n:]
		if sp.squeeze && wasSpace {
			out = strings.TrimLeft(out, " ")
		}
		if out == "" {
			continue
		}
		if !begun {
			begun = true
			if sp.dummyPrefix {
				b.WriteString(spaceSymbol)
			}
		}
		writeEscaped(&b, out)
		wasSpace = sp.squeeze && strings.HasSuffix(out, " ")
	}
	if !sp.squeeze {
		return b.String()
	}
	text := b.String()
	for strings.HasSuffix(text, spaceSymbol) {
		text = strings.TrimSuffix(text, spaceSymbol)
	}
	return text
}

func writeEscaped(b *strings.Builder, s string) {
	for i := range len(s) {
		if s[i] == ' ' {
			b.WriteString(spaceSymbol)
		} else {
			b.WriteByte(s[i])
		}
	}
}

// prefix returns what the beginning of s becomes, and its length.
func (sp *sentencePiece) prefix(s string) (string, int) {
	if sp.user.any && sp.user.begin[s[0]] {
		if _, n := sp.user.longest(s, 0, &trust{special: true}); n > 0 {
			return s[:n], n
		}
	}
	if sp.chars != nil {
		if out, n := sp.chars.longest(s); n > 0 {
			return out, n
		}
	}
	_, n := utf8.DecodeRuneInString(s)
	return s[:n], n
}

// decode joins pieces as the sentencepiece library does: control pieces cannot
// be seen, and the space in front of the text was not written.
func (sp *sentencePiece) decode(t *Tokenizer, ids []int32) string {
	var b strings.Builder
	var bytes []byte
	beginning := true
	flush := func() {
		for len(bytes) > 0 {
			r, n := utf8.DecodeRune(bytes)
			b.WriteRune(r)
			bytes = bytes[n:]
		}
		bytes = bytes[:0]
	}
	sawSpace := false
	for _, id := range ids {
		if sp.kinds[id] == pieceByte {
			c, _ := byteToken(t.tokens[id])
			bytes = append(bytes, c)
			continue
		}
		flush()
		if sawSpace || b.Len() > 0 {
			beginning = false
		}
		switch sp.kinds[id] {
		case pieceControl:
			continue
		case pieceUnknown:
			b.WriteString(sp.unkSurface)
			continue
		}
		s := t.tokens[id]
		if beginning && (sp.dummyPrefix || sp.squeeze) {
			trimmed := strings.TrimPrefix(s, spaceSymbol)
			sawSpace = len(trimmed) < len(s) && !sp.squeeze
			s = trimmed
		}
		b.WriteString(strings.ReplaceAll(s, spaceSymbol, " "))
	}
	flush()
	return b.String()
}
