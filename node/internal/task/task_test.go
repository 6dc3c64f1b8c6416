package task

import (
	"errors"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestRead(t *testing.T) {
	const file = "\xef\xbb\xbf" + `{"instruction": "2 + 2?", "output": "4", "source": "x"}
{"question": "Name a primary colour.", "input": "of light", "answer": ["red", "green", "blue"]}

{"question": "Which?", "choices": ["one", "two", "three"], "answer": 2}
{"question": "Which?", "choices": {"text": ["one", "two"], "label": ["1", "2"]}, "answerKey": "2"}
{"ctx": "He opens the", "endings": ["door.", "sea."], "label": "0"}
{"prompt": "Which?", "choices": ["x", "y"], "answer": "B"}
{"prompt": "Which?", "choices": ["x", "y"], "answer": "y"}
`
	got, err := Read(strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	want := []Task{
		{Line: 1, Instruction: "2 + 2?", Answers: []string{"4"}},
		{Line: 2, Instruction: "Name a primary colour.", Input: "of light", Answers: []string{"red", "green", "blue"}},
		{Line: 4, Instruction: "Which?", Choices: []string{"one", "two", "three"}, Right: 2},
		{Line: 5, Instruction: "Which?", Choices: []string{"one", "two"}, Right: 1},
		{Line: 6, Instruction: "He opens the", Choices: []string{"door.", "sea."}, Right: 0},
		{Line: 7, Instruction: "Which?", Choices: []string{"x", "y"}, Right: 1},
		{Line: 8, Instruction: "Which?", Choices: []string{"x", "y"}, Right: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Read() =\n%+v\nwant\n%+v", got, want)
	}
}

func TestReadErrors(t *testing.T) {
	for _, tt := range []struct{ file, want string }{
		{"", "there is no question"},
		{"\n\n", "there is no question"},
		{"{\"instruction\": \"x\", \"output\": \"y\"}\n[]", "line 2: is not a JSON object"},
		{`{"output": "y"}`, "line 1: has no instruction, prompt, question or ctx"},
		{`{"instruction": " ", "output": "y"}`, "instruction must be a text"},
		{`{"instruction": "x", "input": 3, "output": "y"}`, "input must be a text"},
		{`{"instruction": "x"}`, "has no answer, output or target"},
		{`{"instruction": "x", "output": null}`, "has no answer, output or target"},
		{`{"instruction": "x", "answer": {}}`, "answer must be a text or a list of texts"},
		{`{"instruction": "x", "answer": ["a", ""]}`, "answer is empty"},
		{`{"instruction": "x", "choices": ["a"], "answer": 0}`, "choices are 1, must be 2 to 64"},
		{`{"instruction": "x", "choices": ["a", ""], "answer": 0}`, "one of the choices is empty"},
		{`{"instruction": "x", "choices": 3, "answer": 0}`, "choices must be a list of texts"},
		{`{"instruction": "x", "choices": {"text": ["a", "b"], "label": ["1"]}, "answer": 0}`, "as many labels as texts"},
		{`{"instruction": "x", "choices": ["a", "b"]}`, "has no answer, label, target or answerKey"},
		{`{"instruction": "x", "choices": ["a", "b"], "answer": 2}`, `answer is "2", which is none of the 2 choices`},
		{`{"instruction": "x", "choices": ["a", "b"], "answer": "C"}`, `answer is "C", which is none of the 2 choices`},
		{`{"instruction": "x", "choices": ["a", "b", "a"], "answer": 2}`, "the right one of the choices is there twice"},
		{"{}\n" + `{"instruction": "x"}` + "\n[]", "line 1: has no instruction, prompt, question or ctx\nline 2: has no answer, output or target\nline 3: is not a JSON object"},
		{strings.Repeat("{}\n", maxWrong) + "[]", "\nline 10: has no instruction"},
		{`{"instruction": "` + strings.Repeat("x", MaxLineBytes) + `"}`, "line 1: has more than"},
		{"{}\n" + strings.Repeat("x", MaxLineBytes+1), "\nline 2: has more than"},
	} {
		if _, err := Read(strings.NewReader(tt.file)); err == nil || strings.Contains(err.Error(), "line 11") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Read(%.60s) = %v, want %q", tt.file, err, tt.want)
		}
	}
}

// TestReadBreaksOff: that a file cannot be read on is told beside its wrong lines.
func TestReadBreaksOff(t *testing.T) {
	broken := errors.New("the disk is broken")
	_, err := Read(io.MultiReader(strings.NewReader("{}\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 1: has no instruction") {
		t.Errorf("Read() = %v", err)
	}
}

func TestMatches(t *testing.T) {
	task := Task{Answers: []string{"The  swan.", "a goose"}}
	for _, tt := range []struct {
		answer       string
		exact, loose bool
	}{
		{"The  swan.", true, true},
		{" The  swan.\n", true, true},
		{"swan", false, true},
		{"Goose!", false, true},
		{"a swan or goose", false, false},
		{"", false, false},
	} {
		if exact, loose := task.Matches(tt.answer); exact != tt.exact || loose != tt.loose {
			t.Errorf("Matches(%q) = %v, %v", tt.answer, exact, loose)
		}
	}
}

// TestChoose: a long text is less likely as a whole and may be more likely by
// byte.
func TestChoose(t *testing.T) {
	task := Task{Choices: []string{"no", "certainly not", "yes"}}
	if plain, byByte := task.Choose([]float64{-3, -6, -5}); plain != 0 || byByte != 1 {
		t.Errorf("Choose() = %d, %d, want 0, 1", plain, byByte)
	}
	if plain, _ := task.Choose([]float64{-3, -3, -5}); plain != 0 {
		t.Errorf("of equal ones the %d-th", plain)
	}
}

// TestWilson compares with figures of R's prop.test(correct = FALSE).
func TestWilson(t *testing.T) {
	for _, tt := range []struct {
		right, all int
		low, high  float64
	}{{8, 10, 0.4901625, 0.9433178}, {0, 20, 0, 0.1611252}, {50, 100, 0.4038315, 0.5961685}, {0, 0, 0, 1}} {
		if low, high := Wilson(tt.right, tt.all); math.Abs(low-tt.low) > 1e-6 || math.Abs(high-tt.high) > 1e-6 {
			t.Errorf("Wilson(%d, %d) = %.7f, %.7f, want %.7f, %.7f", tt.right, tt.all, low, high, tt.low, tt.high)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"question": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}`))
	f.Add([]byte(`{"instruction": "x", "output": ["y"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := Read(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		for _, k := range list {
			if len(k.Choices) > 0 && (k.Right < 0 || k.Right >= len(k.Choices)) || len(k.Choices) == 0 && len(k.Answers) == 0 {
				t.Errorf("Read(%q) = %+v", b, k)
			}
		}
	})
}
