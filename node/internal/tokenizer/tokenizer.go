package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// ErrUnsupported is wrapped by the error for a kind of tokenizer or a setting
// that this package does not know. The message names it.
var ErrUnsupported = errors.New("unsupported")

// Bounds on the files of a tokenizer. The largest published vocabularies have
// 262,144 entries and files of 35 MB.
const (
	maxFileBytes   = 64 << 20
	maxConfigBytes = 4 << 20
	maxVocab       = 1 << 20
	maxMerges      = 1 << 21
	maxTokenBytes  = 4 << 10
	maxAdded       = 1 << 16
)

// Names of the files in a model's folder.
const (
	jsonFile  = "tokenizer.json"
	modelFile = "tokenizer.model"
)

// EncodeOptions say what Encode does beyond the text itself. The zero value
// is right for text of which nothing is known: no tokens are added, and what
// looks like a special token in it is ordinary text.
type EncodeOptions struct {
	// AddSpecial adds the tokens that the model expects around a text, such
	// as BOS.
	AddSpecial bool
	// ParseSpecial makes tokens of special tokens that are written in the
	// text. It is for text that this program wrote, such as a rendered chat
	// template, never for text of a user.
	ParseSpecial bool
	// Foreign are the parts of the text that others wrote, in order, when
	// ParseSpecial is set: no special token is made of a byte of them. All
	// else is as if they were not named, so that a text in which nobody
	// writes special tokens has the same tokens with and without them.
	Foreign []Range
	// Continues is set for a text that goes on after the tokens that it is
	// appended to: the space that some tokenizers put in front of a text is
	// left out, unless the last of them is an added token, behind which it
	// would be.
	Continues bool
}

// Range is a part of a text, in bytes.
type Range struct{ Begin, End int }

// place says where in a text a piece is.
type place uint8

const (
	first     place = iota // at its beginning
	later                  // behind an added token
	continued              // at the beginning of one that goes on
)

// Tokenizer is a vocabulary and its rules. It does not change, and its methods
// may be called from several goroutines at once.
type Tokenizer struct {
	// constant after Load
	added    added
	segment  func(e *encoder, text string, at place, trusted trust) // appends the tokens of a text without added tokens
	decoder  func(t *Tokenizer, ids []int32) string                 // ids of tokens only
	byText   map[string]int32
	tokens   []string // text of each token as the file has it; "" where the id is not used
	used     []bool
	special  []bool // control tokens, which a reader does not want to see
	prefix   []int32
	suffix   []int32
	bpe      *bpe     // or else
	unigram  *unigram // this
	norm     normalizer
	pre      []preTokenizer
	decoders []decodeStep
	bos, pad int32
	eos      int32
	stop     []int32

	encoders sync.Pool // of *encoder
}

// Load reads the tokenizer in a model's folder: tokenizer.json if it is there,
// else tokenizer.model. BOS, EOS and padding are those of
// tokenizer_config.json, or else of config.json.
func Load(dir string) (*Tokenizer, error) {
	t, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer %s: %w", dir, err)
	}
	return t, nil
}

func load(dir string) (*Tokenizer, error) {
	settings, err := readSpecials(dir)
	if err != nil {
		return nil, err
	}
	b, err := readFile(filepath.Join(dir, jsonFile), maxFileBytes)
	if err == nil {
		t, err := parseJSON(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", jsonFile, err)
		}
		return t, t.setSpecials(settings)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b, err = readFile(filepath.Join(dir, modelFile), maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("neither %s nor %s is there: %w", jsonFile, modelFile, err)
	}
	if err != nil {
		return nil, err
	}
	t, err := parseSentencePiece(b, settings)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", modelFile, err)
	}
	return t, t.setSpecials(settings)
}

func readFile(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", path, st.Size(), limit)
	}
	return os.ReadFile(path)
}

// VocabSize is one more than the largest token.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// BOS is the token that begins a text, -1 if there is none. Whether texts of
// this model begin with it is what AddSpecial knows.
func (t *Tokenizer) BOS() int32 { return t.bos }

// EOS is the token that a model learns to end its answer with, -1 if there is
// none.
func (t *Tokenizer) EOS() int32 { return t.eos }

// Stop lists the tokens that end an answer: EOS, and those that
// generation_config.json and config.json name beside it. The caller must not
// change it.
func (t *Tokenizer) Stop() []int32 { return t.stop }

// Pad is the token that fills a batch, -1 if there is none.
func (t *Tokenizer) Pad() int32 { return t.pad }

// Special reports whether id is a special token.
func (t *Tokenizer) Special(id int32) bool {
	return id >= 0 && int(id) < len(t.special) && t.special[id]
}

// isAdded reports whether id is found in texts by its name.
func (t *Tokenizer) isAdded(id int32) bool {
	name, ok := t.Token(id)
	if !ok || name == "" {
		return false
	}
	for _, m := range []*matcher{&t.added.raw, &t.added.normalized} {
		if m.any && slices.ContainsFunc(m.list, func(a addedToken) bool { return a.ID == int64(id) }) {
			return true
		}
	}
	return false
}

// Token returns the text of a token as the tokenizer's file has it, and
// whether there is one of that number.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(t.tokens) || !t.used[id] {
		return "", false
	}
	return t.tokens[id], true
}

// Encode returns the tokens of text. Bytes that are not UTF-8 count as the
// replacement character. Tokens that are not special but were added to the
// vocabulary by name are recognised whatever the options are.
func (t *Tokenizer) Encode(text string, o EncodeOptions) []int32 {
	return t.AppendEncode(nil, text, o)
}

// AppendEncode appends the tokens of text to dst.
func (t *Tokenizer) AppendEncode(dst []int32, text string, o EncodeOptions) []int32 {
	if !utf8.ValidString(text) {
		text, o.Foreign = lossyRanges(text, o.Foreign)
	}
	e, _ := t.encoders.Get().(*encoder)
	if e == nil {
		e = &encoder{bpe: t.bpe, unigram: t.unigram}
	}
	e.out = dst
	if o.AddSpecial {
		e.out = append(e.out, t.prefix...)
	}
	at := first
	if o.Continues {
		at = continued
		if n := len(dst); n > 0 && t.isAdded(dst[n-1]) {
			at = later
		}
	}
	trusted := trust{special: o.ParseSpecial, foreign: o.Foreign}
	for part := range t.added.raw.split(text, trusted) {
		if part.id >= 0 {
			e.out = append(e.out, part.id)
		} else {
			trusted.base = part.at
			t.segment(e, part.text, at, trusted)
		}
		at = later
	}
	if o.AddSpecial {
		e.out = append(e.out, t.suffix...)
	}
	dst, e.out = e.out, nil
	t.encoders.Put(e)
	return dst
}

// Decode returns the text of ids. Numbers that are no tokens are left out, and
// with skipSpecial the special tokens are too. Bytes that do not make a
// character become replacement characters.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	keep := make([]int32, 0, len(ids))
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.tokens) || !t.used[id] || skipSpecial && t.special[id] {
			continue
		}
		keep = append(keep, id)
	}
	return t.decoder(t, keep)
}

// setToken enters a token into the table of texts.
func (t *Tokenizer) setToken(id int64, text string) error {
	if id < 0 || id >= maxVocab {
		return fmt.Errorf("token %q has number %d, must be 0 to %d", text, id, maxVocab-1)
	}
	if len(text) > maxTokenBytes {
		return fmt.Errorf("token %d has %d bytes, at most %d", id, len(text), maxTokenBytes)
	}
	if n := int(id) + 1; n > len(t.tokens) {
		t.tokens = slices.Grow(t.tokens, n-len(t.tokens))[:n]
		t.used = slices.Grow(t.used, n-len(t.used))[:n]
		t.special = slices.Grow(t.special, n-len(t.special))[:n]
	}
	if t.used[id] && t.tokens[id] != text {
		return fmt.Errorf("token %d is both %q and %q", id, t.tokens[id], text)
	}
	if t.byText == nil {
		t.byText = map[string]int32{}
	}
	if other, ok := t.byText[text]; ok && int64(other) != id {
		return fmt.Errorf("token %q has the numbers %d and %d", text, other, id)
	}
	t.tokens[id], t.used[id], t.byText[text] = text, true, int32(id)
	return nil
}

// lossy replaces what is not UTF-8, one replacement character for each longest
// beginning of a character, as most libraries do.
func lossy(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 8)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != utf8.RuneError || n != 1 {
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		b.WriteRune(utf8.RuneError)
		s = s[brokenLen(s):]
	}
	return b.String()
}

// lossyRanges is lossy for a text with parts.
func lossyRanges(s string, parts []Range) (string, []Range) {
	var b strings.Builder
	out := make([]Range, len(parts))
	at := 0
	for i, p := range parts {
		b.WriteString(lossy(s[at:p.Begin]))
		out[i].Begin = b.Len()
		b.WriteString(lossy(s[p.Begin:p.End]))
		out[i].End = b.Len()
		at = p.End
	}
	b.WriteString(lossy(s[at:]))
	return b.String(), out
}

// brokenLen returns how many bytes at the beginning of s, which is not valid
// there, could have begun a character: at least 1.
func brokenLen(s string) int {
	lo, hi, want := byte(0x80), byte(0xBF), 0
	switch c := s[0]; {
	case c >= 0xC2 && c <= 0xDF:
		want = 1
	case c >= 0xE0 && c <= 0xEF:
		want = 2
		if c == 0xE0 {
			lo = 0xA0
		}
		if c == 0xED {
			hi = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		want = 3
		if c == 0xF0 {
			lo = 0x90
		}
		if c == 0xF4 {
			hi = 0x8F
		}
	}
	n := 1
	for n <= want && n < len(s) && s[n] >= lo && s[n] <= hi {
		lo, hi = 0x80, 0xBF
		n++
	}
	return n
}
