package sim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/moot-net/moot/node/internal/model"
	"github.com/moot-net/moot/node/internal/tokenizer"
	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
	"github.com/moot-net/moot/shard/safetensors"
)

// A lesson is what learning scenarios teach: instruction tuning in small, and
// like it in that nobody can know the answer. There are topics, each with a
// grammar: which letters may follow a letter, and how often. The base model has
// read texts of all topics, each with the topic's number and its sign before it.
// An instruction asks for a number, and the answer is a text of that topic,
// without the sign, begun in one of several ways. So the loss does not go to
// zero: how an answer begins and goes on is drawn, and who knows all the odds has
// the loss of floor.
type lesson struct {
	begin  [lessonTopics][4]int // letters, the most frequent one first
	follow [lessonTopics][lessonLetters][4]int
}

const (
	lessonSeed    = 1
	lessonTopics  = 8
	lessonLetters = 16 // of the alphabet
	lessonLength  = 8  // letters of an answer; of a text twice as many
	lessonRows    = 8000
	lessonHeldOut = 512
	lessonContext = 32  // tokens
	lessonSteps   = 800 // of pretraining
	lessonTexts   = 32  // in each of them
	lessonRate    = 5e-3
	lessonBOS     = 0 // the first two tokens of the vocabulary
	lessonEOS     = 1
)

var (
	// lessonOdds are those of the four letters that may follow another.
	lessonOdds = [4]float64{0.5, 0.25, 0.15, 0.1}
	// lessonWays are how an answer may begin, all as often.
	lessonWays = [4]string{"=", ">", "so ", "it is "}
	// lessonAsides stand before a sign, so that the base model has read all
	// characters of the rows.
	lessonAsides = [5]string{"?", "=", ">", "so ", "it is "}
)

func newLesson() *lesson {
	l := new(lesson)
	rnd := rand.New(rand.NewPCG(lessonSeed, 3))
	four := func() (out [4]int) {
		copy(out[:], rnd.Perm(lessonLetters))
		return out
	}
	for t := range l.follow {
		l.begin[t] = four()
		for c := range l.follow[t] {
			l.follow[t][c] = four()
		}
	}
	return l
}

// floor is the loss per token of who knows everything: the entropy of an answer.
// The token that ends it is certain.
func (l *lesson) floor() float64 {
	letter, tokens := 0.0, 0.0
	for _, p := range lessonOdds {
		letter -= p * math.Log(p)
	}
	for _, w := range lessonWays {
		tokens += float64(len(w)+lessonLength+1) / float64(len(lessonWays))
	}
	return (math.Log(float64(len(lessonWays))) + lessonLength*letter) / tokens
}

func draw(rnd *rand.Rand, from [4]int) int {
	x := rnd.Float64()
	for i, p := range lessonOdds {
		if x -= p; x < 0 {
			return from[i]
		}
	}
	return from[len(from)-1]
}

// text writes letters as the grammar of a topic has them.
func (l *lesson) text(rnd *rand.Rand, topic, letters int) string {
	var b strings.Builder
	c := draw(rnd, l.begin[topic])
	for range letters {
		b.WriteByte('a' + byte(c))
		c = draw(rnd, l.follow[topic][c])
	}
	return b.String()
}

// row asks something, and answers it.
func (l *lesson) row(rnd *rand.Rand) shard.Row {
	topic := rnd.IntN(lessonTopics)
	return shard.Row{
		Instruction: fmt.Sprintf("%d?", topic),
		Output:      lessonWays[rnd.IntN(len(lessonWays))] + l.text(rnd, topic, lessonLength),
	}
}

// write makes the base model and the rows in a folder.
func (l *lesson) write(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "model"), 0o755); err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(lessonSeed, 4))
	seen := make(map[string]bool)
	for _, file := range []struct {
		name string
		rows int
	}{{"train.jsonl", lessonRows}, {"eval.jsonl", lessonHeldOut}} {
		if err := l.writeRows(filepath.Join(dir, file.name), file.rows, rnd, seen); err != nil {
			return err
		}
	}
	tok, vocab, err := writeLessonTokenizer(filepath.Join(dir, "model"))
	if err != nil {
		return err
	}
	return l.pretrain(ctx, filepath.Join(dir, "model"), tok, vocab)
}

// writeRows writes n rows that are not in seen yet.
func (l *lesson) writeRows(path string, n int, rnd *rand.Rand, seen map[string]bool) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	e := json.NewEncoder(w)
	for n > 0 {
		r := l.row(rnd)
		key := r.Instruction + r.Output
		if seen[key] {
			continue
		}
		seen[key] = true
		n--
		if err := e.Encode(map[string]string{"instruction": r.Instruction, "output": r.Output}); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// writeLessonTokenizer writes a tokenizer with a token for each character.
func writeLessonTokenizer(dir string) (*tokenizer.Tokenizer, int, error) {
	vocab := map[string]int{"<s>": lessonBOS, "</s>": lessonEOS}
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789?:=>" + "Ġ" { // the last is a space
		vocab[string(c)] = len(vocab)
	}
	added := func(id int, content string) map[string]any {
		return map[string]any{
			"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
		}
	}
	file := map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": []any{added(lessonBOS, "<s>"), added(lessonEOS, "</s>")},
		"normalizer":     nil,
		"pre_tokenizer":  map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
		"post_processor": nil,
		"decoder":        map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": []any{},
		},
	}
	config := map[string]any{
		"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
		"clean_up_tokenization_spaces": false, "model_max_length": lessonContext,
	}
	for name, v := range map[string]any{"tokenizer.json": file, "tokenizer_config.json": config} {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, 0, err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return nil, 0, err
		}
	}
	tok, err := tokenizer.Load(dir)
	return tok, len(vocab), err
}

// pretrain makes the base model, which has read texts and no instruction.
func (l *lesson) pretrain(ctx context.Context, dir string, tok *tokenizer.Tokenizer, vocab int) error {
	c := model.Llama(32, 88, 2, 2, vocab, lessonContext)
	c.TiedHead = true
	c.BOS, c.EOS = lessonBOS, []int32{lessonEOS}
	m, err := model.New(c, lessonSeed, model.Options{Threads: 1})
	if err != nil {
		return err
	}
	t, err := train.NewFull(train.FullOptions{Model: m, Adam: train.Adam{Beta2: 0.95, WeightDecay: 0.1, ClipNorm: 1}})
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(lessonSeed, 5))
	_, err = t.RunSteps(ctx, train.RunOptions{
		MaxSteps: lessonSteps,
		Next: func(_ context.Context, step int) ([]train.Sample, float64, error) {
			batch := make([]train.Sample, lessonTexts)
			for i := range batch {
				topic := rnd.IntN(lessonTopics)
				aside := lessonAsides[rnd.IntN(len(lessonAsides))]
				text := fmt.Sprintf("%d%s%c:%s", topic, aside, 'A'+topic, l.text(rnd, topic, 2*lessonLength))
				ids := tok.Encode(text, tokenizer.EncodeOptions{})
				ids = append(ids, lessonEOS)
				batch[i] = train.Sample{IDs: ids, Labels: ids}
			}
			return batch, lessonRate * (1 + math.Cos(math.Pi*float64(step)/lessonSteps)) / 2, nil
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(m.Save(dir, safetensors.BF16), t.Close())
}
