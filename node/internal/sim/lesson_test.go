package sim

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/moot-net/moot/node/internal/dataset"
	"github.com/moot-net/moot/node/internal/tokenizer"
)

// TestFloor: the loss of who knows the odds of each token is the floor.
func TestFloor(t *testing.T) {
	l := newLesson()
	rnd := rand.New(rand.NewPCG(7, 7))
	odds := func(from [4]int, c byte) float64 {
		for i, x := range from {
			if x == int(c-'a') {
				return lessonOdds[i]
			}
		}
		t.Fatalf("the letter %c does not follow", c)
		return 0
	}
	sum, tokens := 0.0, 0
	for range 20_000 {
		r := l.row(rnd)
		topic := int(r.Instruction[0] - '0')
		letters := r.Output[len(r.Output)-lessonLength:]
		if way := strings.TrimSuffix(r.Output, letters); way != lessonWays[0] && way != lessonWays[1] && way != lessonWays[2] && way != lessonWays[3] {
			t.Fatalf("an answer begins with %q", way)
		}
		sum -= math.Log(1 / float64(len(lessonWays)))
		from := l.begin[topic]
		for i := range lessonLength {
			sum -= math.Log(odds(from, letters[i]))
			from = l.follow[topic][letters[i]-'a']
		}
		tokens += len(r.Output) + 1
	}
	if got := sum / float64(tokens); math.Abs(got/l.floor()-1) > 0.01 {
		t.Errorf("the loss of who knows the odds is %.4f, the floor %.4f", got, l.floor())
	}
}

// TestTokens: each character of a row is a token, and none is left out.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	tok, vocab, err := writeLessonTokenizer(dir)
	if err != nil {
		t.Fatal(err)
	}
	e, err := dataset.NewEncoder(tok, dataset.None, lessonContext)
	if err != nil {
		t.Fatal(err)
	}
	l, rnd := newLesson(), rand.New(rand.NewPCG(7, 8))
	for range 100 {
		r := l.row(rnd)
		s, ok := e.Encode(r)
		if !ok || len(s.IDs) != len(r.Instruction)+len(r.Output)+1 || s.Counted() != len(r.Output)+1 {
			t.Fatalf("%q and %q: %d tokens, %d counted", r.Instruction, r.Output, len(s.IDs), s.Counted())
		}
	}
	if got := tok.Encode("7it is A:abc", tokenizer.EncodeOptions{}); len(got) != 12 || vocab > 64 {
		t.Errorf("%d tokens of a vocabulary of %d", len(got), vocab)
	}
}

// TestLesson: one node learns most of what there is to learn, and not more.
func TestLesson(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	lab := new(Lab)
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	tr := &trial{ctx: t.Context(), Options: Options{Seed: 1, Lab: lab}}
	l, err := tr.alone(4e-3, 1, 60_000)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loss %.4f, then %.4f; at least %.4f", l.before, l.after, tr.floor())
	if l.before < 2*tr.floor() || l.after > 1.15*tr.floor() || l.after < tr.floor() {
		t.Errorf("loss %.4f, then %.4f, with a floor of %.4f", l.before, l.after, tr.floor())
	}
}
