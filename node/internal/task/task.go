// Package task reads questions that have right answers, and counts how many a
// model gives: to be answered in words (exact match), or by the most likely of
// several choices, as lm-evaluation-harness does. It knows no model.
package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const (
	// MaxTasks bounds the questions of a file.
	MaxTasks = 100_000
	// MaxLineBytes bounds a line of it.
	MaxLineBytes = 1 << 20
	// MaxChoices bounds the choices of a question.
	MaxChoices = 64
	// maxWrong bounds the lines that an error names.
	maxWrong = 10
)

// Task is one question.
type Task struct {
	Line        int // of the file, from 1
	Instruction string
	Input       string
	// Answers are right, each of them; Choices is empty then.
	Answers []string
	// Right is the index of the right one of Choices.
	Choices []string
	Right   int
}

// Read reads JSONL: a question in each line. Its text is in instruction, prompt,
// question or ctx, an input in input. What is right is in answer, output or
// target, a text or a list of texts; or with choices (endings, or a list of
// texts in an object with labels) in answer, label, target or answerKey: an
// index from 0, a label (A, B, …, or one of the labels) or the text of a choice.
// Other fields are ignored.
//
// An error names the lines, the first of them.
func Read(r io.Reader) ([]Task, error) {
	var list []Task
	var wrong []error
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), MaxLineBytes)
	line := 0
	for s.Scan() {
		line++
		b := bytes.TrimSpace(s.Bytes())
		if line == 1 {
			b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
		}
		if len(b) == 0 {
			continue
		}
		t, err := parse(b)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("line %d: %w", line, err))
			if len(wrong) == maxWrong {
				break
			}
			continue
		}
		if len(list) == MaxTasks {
			return nil, fmt.Errorf("line %d: there are more than %d questions", line, MaxTasks)
		}
		t.Line = line
		list = append(list, t)
	}
	if err := s.Err(); errors.Is(err, bufio.ErrTooLong) {
		wrong = append(wrong, fmt.Errorf("line %d: has more than %d bytes", line+1, MaxLineBytes))
	} else if err != nil {
		wrong = append(wrong, err)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	if len(list) == 0 {
		return nil, errors.New("there is no question in it")
	}
	return list, nil
}

// fields are those of a line.
type fields map[string]json.RawMessage

func (f fields) first(names ...string) (string, json.RawMessage) {
	for _, n := range names {
		if v, ok := f[n]; ok && string(v) != "null" {
			return n, v
		}
	}
	return "", nil
}

func parse(b []byte) (Task, error) {
	var f fields
	if err := json.Unmarshal(b, &f); err != nil {
		return Task{}, fmt.Errorf("is not a JSON object: %w", err)
	}
	var t Task
	name, v := f.first("instruction", "prompt", "question", "ctx")
	if name == "" {
		return t, errors.New("has no instruction, prompt, question or ctx")
	}
	if err := json.Unmarshal(v, &t.Instruction); err != nil || strings.TrimSpace(t.Instruction) == "" {
		return t, fmt.Errorf("%s must be a text", name)
	}
	if v, ok := f["input"]; ok && string(v) != "null" {
		if err := json.Unmarshal(v, &t.Input); err != nil {
			return t, errors.New("input must be a text")
		}
	}
	if name, v := f.first("choices", "endings"); name != "" {
		return t, t.choose(name, v, f)
	}
	name, v = f.first("answer", "output", "target")
	if name == "" {
		return t, errors.New("has no answer, output or target")
	}
	var one string
	if err := json.Unmarshal(v, &one); err == nil {
		t.Answers = []string{one}
	} else if err := json.Unmarshal(v, &t.Answers); err != nil || len(t.Answers) == 0 {
		return t, fmt.Errorf("%s must be a text or a list of texts", name)
	}
	if slices.ContainsFunc(t.Answers, func(s string) bool { return strings.TrimSpace(s) == "" }) {
		return t, fmt.Errorf("%s is empty", name)
	}
	return t, nil
}

// choose reads the choices, and which is right.
func (t *Task) choose(name string, v json.RawMessage, f fields) error {
	var labels []string
	if err := json.Unmarshal(v, &t.Choices); err != nil {
		var both struct{ Text, Label []string }
		if err := json.Unmarshal(v, &both); err != nil || len(both.Text) != len(both.Label) {
			return fmt.Errorf("%s must be a list of texts, or have as many labels as texts", name)
		}
		t.Choices, labels = both.Text, both.Label
	}
	if n := len(t.Choices); n < 2 || n > MaxChoices {
		return fmt.Errorf("%s are %d, must be 2 to %d", name, n, MaxChoices)
	}
	if slices.Contains(t.Choices, "") {
		return fmt.Errorf("one of the %s is empty", name)
	}
	key, v := f.first("answer", "label", "target", "answerKey")
	if key == "" {
		return errors.New("has no answer, label, target or answerKey")
	}
	var given string
	if err := json.Unmarshal(v, &given); err != nil {
		given = string(v) // a number
	}
	if t.Right = rightOf(given, t.Choices, labels); t.Right < 0 {
		return fmt.Errorf("%s is %q, which is none of the %d %s", key, given, len(t.Choices), name)
	}
	for i, c := range t.Choices {
		if i != t.Right && c == t.Choices[t.Right] {
			return fmt.Errorf("the right one of the %s is there twice", name)
		}
	}
	return nil
}

// rightOf returns the index of the choice that is named, or -1.
func rightOf(given string, choices, labels []string) int {
	if i := slices.Index(labels, given); i >= 0 {
		return i
	}
	if i := slices.Index(choices, given); i >= 0 {
		return i
	}
	if n, err := strconv.Atoi(given); err == nil && n >= 0 && n < len(choices) {
		return n
	}
	if len(given) == 1 && given[0] >= 'A' && int(given[0]-'A') < len(choices) {
		return int(given[0] - 'A')
	}
	return -1
}

// Matches reports whether an answer in words is right: equal to one that is, but
// for white space at the ends; and whether it is when it is normalised.
func (t *Task) Matches(answer string) (exact, loose bool) {
	for _, want := range t.Answers {
		exact = exact || strings.TrimSpace(answer) == strings.TrimSpace(want)
		loose = loose || Normalize(answer) == Normalize(want)
	}
	return exact, loose
}

// Normalize makes lower case, and leaves out punctuation, the articles a, an and
// the, and white space beyond one space, as the evaluation of SQuAD does
// (Rajpurkar et al. 2016).
func Normalize(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPunct(r) || unicode.IsSymbol(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
	words := slices.DeleteFunc(strings.Fields(s), func(w string) bool { return w == "a" || w == "an" || w == "the" })
	return strings.Join(words, " ")
}

// Choose returns the index of the most likely choice by the natural logarithms
// of their probabilities, and of the most likely one by byte of its text.
func (t *Task) Choose(logs []float64) (plain, byByte int) {
	best, bestByte := math.Inf(-1), math.Inf(-1)
	for i, l := range logs {
		if l > best {
			best, plain = l, i
		}
		if n := l / float64(len(t.Choices[i])); n > bestByte {
			bestByte, byByte = n, i
		}
	}
	return plain, byByte
}

// Wilson returns the 95 % interval of a share that was measured, by Wilson's
// score (1927).
func Wilson(right, all int) (low, high float64) {
	if all == 0 {
		return 0, 1
	}
	const z = 1.959964
	n, p := float64(all), float64(right)/float64(all)
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(0, mid-half), min(1, mid+half)
}
