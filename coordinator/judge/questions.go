package judge

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"

	"github.com/moot-net/moot/node/api"
)

//go:embed questions.jsonl
var builtin []byte

// Questions returns the 80 questions that come with moot: ten each of seven
// kinds, seven of coding and three of mathematics, as in the Vicuna set, in
// words of our own.
func Questions() []Question {
	q, err := ReadQuestions(bytes.NewReader(builtin), "questions.jsonl")
	if err != nil {
		panic("bug: " + err.Error())
	}
	return q
}

// maxLine bounds a line of a file of questions or answers, in bytes.
const maxLine = 1 << 20

// ReadQuestions reads questions, an object of JSON a line, with text, id,
// category and reference. FastChat's question_id and turns (of which the
// first is used) are read as well.
func ReadQuestions(r io.Reader, name string) ([]Question, error) {
	var all []Question
	seen := map[string]bool{}
	err := lines(r, name, func(number int, line []byte) error {
		var v struct {
			Question
			QuestionID any      `json:"question_id"`
			Turns      []string `json:"turns"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		q := v.Question
		if q.Text == "" && len(v.Turns) > 0 {
			q.Text = v.Turns[0]
		}
		if q.ID == "" && v.QuestionID != nil {
			q.ID = fmt.Sprint(v.QuestionID)
		}
		if q.ID == "" {
			q.ID = fmt.Sprint(number)
		}
		switch {
		case q.Text == "":
			return fmt.Errorf("text is missing")
		case seen[q.ID]:
			return fmt.Errorf("id %q is there twice", q.ID)
		}
		seen[q.ID] = true
		all = append(all, q)
		return nil
	})
	return all, err
}

// ReadAnswers reads the answers of one model, an object of JSON a line with id
// and text (or FastChat's question_id).
func ReadAnswers(r io.Reader, file, name string) (Answers, error) {
	a := Answers{Name: name, Text: map[string]string{}}
	err := lines(r, file, func(_ int, line []byte) error {
		var v struct {
			ID         string  `json:"id"`
			QuestionID any     `json:"question_id"`
			Text       *string `json:"text"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		if v.ID == "" && v.QuestionID != nil {
			v.ID = fmt.Sprint(v.QuestionID)
		}
		switch {
		case v.ID == "":
			return fmt.Errorf("id is missing")
		case v.Text == nil:
			return fmt.Errorf("text is missing")
		}
		if _, twice := a.Text[v.ID]; twice {
			return fmt.Errorf("id %q is there twice", v.ID)
		}
		a.Text[v.ID] = *v.Text
		return nil
	})
	return a, err
}

// lines calls fn for each line that is not empty, and names the one that it
// does not like.
func lines(r io.Reader, name string, fn func(number int, line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	number := 0
	for s.Scan() {
		number++
		line := bytes.TrimSpace(s.Bytes())
		if len(line) == 0 {
			continue
		}
		if err := fn(number, line); err != nil {
			return api.Errorf(api.CodeData, "%s:%d: %w", name, number, err)
		}
	}
	if err := s.Err(); err != nil {
		return api.Errorf(api.CodeData, "%s:%d: %w", name, number+1, err)
	}
	return nil
}
