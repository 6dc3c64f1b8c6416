package journal_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/journal"
)

func event(epoch string, n uint64) api.Event {
	loss := float64(n) / 3
	return api.Event{
		Cursor: api.Cursor{Epoch: epoch, N: n}, Type: api.EventCommit, Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		Run: "r", N: n, Peer: "p", Tokens: 7, Loss: &loss, Text: "line\nbreak \u2028 <b>",
	}
}

// open returns the journal in dir and the numbers of what it has.
func open(t *testing.T, dir string, keep int) (*journal.Journal, string) {
	t.Helper()
	j, past, err := journal.Open(filepath.Join(dir, "events"), 2000, keep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j, numbers(past)
}

func numbers(events []api.Event) string {
	var out []string
	for _, e := range events {
		out = append(out, e.Cursor.String())
	}
	return strings.Join(out, " ")
}

func add(t *testing.T, j *journal.Journal, epoch string, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := j.Append([]api.Event{event(epoch, n)}); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	j, past := open(t, dir, 10)
	if past != "" {
		t.Errorf("a new journal has %s", past)
	}
	add(t, j, "a", 1, 2)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, events, err := journal.Open(filepath.Join(dir, "events"), 2000, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if diff := cmp.Diff([]api.Event{event("a", 1), event("a", 2)}, events); diff != "" {
		t.Errorf("came back as (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(dir, "events")); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file is %v, %v, want one that its user alone can read", info.Mode(), err)
	}
}

// It is killed at every byte of a write.
func TestTornWrite(t *testing.T) {
	whole := t.TempDir()
	j, _ := open(t, whole, 10)
	add(t, j, "a", 1, 3)
	b := read(t, filepath.Join(whole, "events"))
	two := strings.Index(b, `{"schema":1,"id":"a.3"`)
	for cut := two; cut < len(b); cut++ {
		for _, rest := range []string{"", strings.Repeat("\x00", 50)} { // blocks that were not written are zeros
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "events"), []byte(b[:cut]+rest), 0o600); err != nil {
				t.Fatal(err)
			}
			j, past := open(t, dir, 10)
			if past != "a.1 a.2" {
				t.Fatalf("cut after %d of %d bytes there are %s", cut-two, len(b)-two, past)
			}
			add(t, j, "a", 3, 4)
			if _, past := open(t, dir, 10); past != "a.1 a.2 a.3 a.4" {
				t.Fatalf("cut after %d bytes, then written: %s", cut-two, past)
			}
		}
	}
}

// What is damaged in the middle may have held numbers that somebody saw.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, 10)
	add(t, j, "a", 1, 3)
	path := filepath.Join(dir, "events")
	if err := os.WriteFile(path, []byte(strings.Replace(read(t, path), `"id":"a.2"`, `"id":"a.`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	j, past := open(t, dir, 10)
	if past != "" {
		t.Errorf("a damaged journal has %s", past)
	}
	if !strings.Contains(read(t, path+".1"), "a.3") {
		t.Error("the damaged file was not put aside")
	}
	add(t, j, "b", 1, 1)
	if _, past := open(t, dir, 10); past != "b.1" {
		t.Errorf("then there are %s", past)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, 100)
	add(t, j, "a", 1, 40) // about 190 bytes each
	var total int64
	for _, name := range []string{"events", "events.1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > 2000 {
			t.Errorf("%s has %d bytes, more than 2000", name, info.Size())
		}
		total += info.Size()
	}
	_, past := open(t, dir, 100)
	if n := len(strings.Fields(past)); n < 10 || !strings.HasSuffix(past, "a.40") {
		t.Errorf("of %d bytes there are %s", total, past)
	}
	if _, past := open(t, dir, 3); past != "a.38 a.39 a.40" {
		t.Errorf("the last three are %s", past)
	}
	// A process that dies between the two names leaves one file.
	if err := os.Rename(filepath.Join(dir, "events"), filepath.Join(dir, "events.1")); err != nil {
		t.Fatal(err)
	}
	if _, past := open(t, dir, 2); past != "a.39 a.40" {
		t.Errorf("without a newest file there are %s", past)
	}
}

// Events of an older epoch, and from before a hole, are not those to go on from.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, 10)
	add(t, j, "a", 1, 2)
	add(t, j, "b", 1, 2)
	add(t, j, "b", 4, 5)
	if _, past := open(t, dir, 10); past != "b.4 b.5" {
		t.Errorf("there are %s", past)
	}
}

// A write that fails leaves nothing, and the next one goes on elsewhere if it
// must.
func TestFailedWrite(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir, 10)
	add(t, j, "a", 1, 2)
	bad := event("a", 3)
	nan := 0.0
	nan /= nan
	bad.Loss = &nan
	if err := j.Append([]api.Event{event("a", 3), bad}); err == nil {
		t.Fatal("NaN was written")
	}
	add(t, j, "b", 1, 1)
	if got := read(t, filepath.Join(dir, "events")); strings.Contains(got, "a.3") {
		t.Error("half a batch was written")
	}
	if err := j.Close(); err != nil { // as when the end could not be cut off
		t.Fatal(err)
	}
	add(t, j, "c", 1, 1)
	if _, past := open(t, dir, 10); past != "c.1" {
		t.Errorf("there are %s", past)
	}
	if got := read(t, filepath.Join(dir, "events.1")); !strings.Contains(got, "a.2") {
		t.Error("what was there is gone")
	}
}
