package judge

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// crowded is a comparison of 24 requests.
func crowded() Comparison {
	c := Comparison{Reference: Answers{"base", map[string]string{}}, Candidates: []Answers{{"better", map[string]string{}}}, Parallel: 3}
	for i := range 12 {
		id := strconv.Itoa(i)
		c.Questions = append(c.Questions, Question{ID: id, Category: "generic", Text: id + "?"})
		c.Reference.Text[id], c.Candidates[0].Text[id] = "xx", "xxx"
	}
	return c
}

// hesitant makes a service say nothing of use, twice, of every third question.
func hesitant(q request) bool {
	_, text, _ := strings.Cut(q.Messages[1].Content, "--- question")
	id, _, _ := strings.Cut(text, "?")
	n, err := strconv.Atoi(strings.TrimSpace(id[strings.LastIndexByte(id, '\n')+1:]))
	return err == nil && n%3 == 0
}

// TestKilled: of a comparison that is killed, again and again, no more is asked anew
// than what was under way: one request of each that are at once, however often one
// pair has to be asked.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("MOOT_TEST_JUDGE"); dir != "" {
		judged(t, dir, os.Getenv("MOOT_TEST_JUDGE_AT"))
		return
	}
	if runtime.GOOS == "windows" {
		t.Skip("kills by signal")
	}
	dir := t.TempDir()
	s := newService(t)
	const kills, parallel, pairs, doubtful = 4, 3, 24, 8
	// turn is a process that is killed: it gets so many answers, and then none.
	type turn struct {
		left     int
		answered chan struct{} // closed after the last one
		over     chan struct{} // closed when it is dead
	}
	var mu sync.Mutex
	var now *turn            // nil: all is answered
	said := map[string]int{} // by what was asked: times answered
	s.mu.Lock()
	s.plan = func(_ int, q request, w http.ResponseWriter) bool {
		mu.Lock()
		defer mu.Unlock()
		if at := now; at != nil {
			if at.left == 0 {
				mu.Unlock()
				<-at.over
				mu.Lock()
				return true
			}
			if at.left--; at.left == 0 {
				defer close(at.answered)
			}
		}
		said[q.Messages[1].Content]++
		again := len(q.Messages) > 2
		switch {
		case !hesitant(q) || again && strings.Contains(q.Messages[2].Content, "second"):
			return false
		case again:
			says(w, "second: it depends")
		default:
			says(w, "first: it depends")
		}
		return true
	}
	s.mu.Unlock()
	for i := range kills {
		at := &turn{left: 4 + i, answered: make(chan struct{}), over: make(chan struct{})}
		mu.Lock()
		now = at
		mu.Unlock()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "MOOT_TEST_JUDGE="+dir, "MOOT_TEST_JUDGE_AT="+s.URL+"/v1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-at.answered:
		case err := <-ended:
			close(at.over)
			t.Fatalf("it ended before it was killed: %v", err)
		}
		_ = cmd.Process.Kill()
		<-ended
		close(at.over)
	}
	mu.Lock()
	now = nil
	mu.Unlock()
	before := s.count()
	judged(t, dir, s.URL+"/v1")
	want := pairs + 2*doubtful
	if got := s.count(); got < want || got > want+kills*parallel {
		t.Errorf("asked %d times in all, want %d and at most %d more", got, want, kills*parallel)
	}
	if before == 0 || before >= want {
		t.Errorf("%d requests before the last run", before)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(said) != pairs {
		t.Errorf("%d pairs were asked, want %d", len(said), pairs)
	}
	t.Logf("%d requests, of which %d again", s.count(), s.count()-want)
}

// judged is the comparison with what is known in a folder.
func judged(t *testing.T, dir, at string) {
	t.Helper()
	e, err := NewEndpoint(at, "owl", "")
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, crowded(), e, journal(t, filepath.Join(dir, "judgements.jsonl")))
	if len(r.Candidates) != 1 || r.Candidates[0].Wins != 12 {
		t.Errorf("the result is %+v", r.Candidates)
	}
}

// TestAskedAgainGoesOn: of a pair whose first answers could not be read, the journal has
// these, and who goes on asks what is left.
func TestAskedAgainGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "judgements.jsonl")
	c := comparison()
	c.Questions, c.Parallel = c.Questions[:1], 1
	for asks, status := range []int{http.StatusUnauthorized, http.StatusUnauthorized, 0} {
		s := newService(t)
		s.plan = func(n int, q request, w http.ResponseWriter) bool {
			if asks > 0 && (len(q.Messages) != 4 || q.Messages[2].Content != "well") && n == 1 {
				t.Errorf("run %d begins with %d messages", asks, len(q.Messages))
			}
			if n == 2 && status != 0 {
				return fails(w, status, "")
			}
			says(w, "well")
			return true
		}
		j := journal(t, path)
		_, err := Run(t.Context(), c, s.endpoint(t, "", nil), j, quiet)
		if err == nil {
			t.Fatal("there are no points, and no error")
		}
		// In the last run one answer is left of the first pair, and three of the second.
		if want := []int{2, 2, 4}[asks]; s.count() != want {
			t.Errorf("run %d asks %d times, want %d", asks, s.count(), want)
		}
		if j.Close() != nil {
			t.Error("the journal does not close")
		}
	}
}

// TestWhatIsUnderWayIsKept: a request that is refused ends a comparison, and another one
// that is under way is waited for and kept.
func TestWhatIsUnderWayIsKept(t *testing.T) {
	s := newService(t)
	both, refused := make(chan struct{}), make(chan struct{})
	s.plan = func(n int, _ request, w http.ResponseWriter) bool {
		switch n {
		case 1:
			<-both
			return fails(w, http.StatusUnauthorized, "")
		case 2:
			close(both)
			<-refused
		}
		return false
	}
	j := journal(t, filepath.Join(t.TempDir(), "judgements.jsonl"))
	e := s.endpoint(t, "", nil)
	go func() {
		<-both
		time.Sleep(100 * time.Millisecond) // nearly always the refusal was taken by then; what is asserted holds if not
		close(refused)
	}()
	_, err := Run(t.Context(), comparison(), e, j, quiet)
	if x := new(api.Error); !errors.As(err, &x) || x.Code != api.CodeAuth {
		t.Errorf("Run() = %v, want a refused key", err)
	}
	if s.count() < 2 || len(j.by) != s.count()-1 {
		t.Errorf("%d requests, %d judgements kept, want all that were not refused", s.count(), len(j.by))
	}
}
