package dataset

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/moot-net/moot/node/internal/train"
	"github.com/moot-net/moot/shard"
)

// TestMain makes the draws of rapid the same in every run, unless told
// otherwise (-rapid.seed).
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func seed(n uint64) (s [32]byte) {
	binary.LittleEndian.PutUint64(s[:], n)
	return s
}

// source makes a Source of rows with no BOS, the template None and samples of
// at most 40 tokens.
func source(t testing.TB, d *shard.Dataset) *Source {
	t.Helper()
	return NewSource(d, newEncoder(t, byteTokenizer(t, "", ""), None, 40))
}

func batch(t testing.TB, s *Source, seed [32]byte, position uint64, n int) []string {
	t.Helper()
	samples, err := s.Batch(t.Context(), seed, position, n)
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != n {
		t.Fatalf("a batch of %d has %d samples", n, len(samples))
	}
	return texts(samples)
}

func texts(samples []train.Sample) []string {
	list := make([]string, len(samples))
	for i, s := range samples {
		b := make([]byte, len(s.IDs)-1)
		for j := range b {
			b[j] = byte(s.IDs[j])
		}
		list[i] = string(b)
	}
	return list
}

// withLong puts rows that do not fit between others.
func withLong(rows []shard.Row, long int) []shard.Row {
	var list []shard.Row
	for i, r := range rows {
		if i < long {
			list = append(list, shard.Row{Instruction: fmt.Sprint(i, strings.Repeat(" long", 20)), Output: "x"})
		}
		list = append(list, r)
	}
	return list
}

func TestBatchPasses(t *testing.T) {
	d := importRows(t, withLong(numbered(60), 7), nil, 500)
	if n := len(d.TrainShards()); n < 5 {
		t.Fatalf("%d shards, the test wants several", n)
	}
	s := source(t, d)
	var want []string
	for _, r := range numbered(60) {
		want = append(want, r.Instruction+r.Output)
	}
	slices.Sort(want)
	var passes [][]string
	for pass := range uint64(3) {
		got := batch(t, s, seed(1), 60*pass, 60)
		passes = append(passes, slices.Clone(got))
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pass %d has other rows (-want +got):\n%s", pass, diff)
		}
	}
	if slices.Equal(passes[0], passes[1]) || slices.Equal(passes[1], passes[2]) {
		t.Error("two passes have the same order")
	}
	if slices.Equal(passes[0], batch(t, s, seed(2), 0, 60)) {
		t.Error("two seeds give the same order")
	}
	if training, heldOut := s.Dropped(); training != 7 || heldOut != 0 {
		t.Errorf("%d and %d rows dropped, want 7 and 0", training, heldOut)
	}
}

// Samples depend on seed and position, not on how they were drawn before.
func TestBatchLaw(t *testing.T) {
	d := importRows(t, withLong(numbered(40), 5), nil, 400)
	all := batch(t, source(t, d), seed(3), 0, 300)
	rapid.Check(t, func(rt *rapid.T) {
		s := source(t, d)
		for range rapid.IntRange(1, 6).Draw(rt, "batches") {
			at := rapid.IntRange(0, 250).Draw(rt, "position")
			n := rapid.IntRange(1, 50).Draw(rt, "n")
			if got := batch(t, s, seed(3), uint64(at), n); !slices.Equal(got, all[at:at+n]) {
				rt.Fatalf("position %d of %d samples: %q, want %q", at, n, got, all[at:at+n])
			}
		}
	})
}

// A batch of a Source whose cache holds one shard is the same.
func TestBatchSmallCache(t *testing.T) {
	d := importRows(t, numbered(40), nil, 400)
	want := batch(t, source(t, d), seed(4), 0, 200)
	s := source(t, d)
	s.cacheTokens = 1
	if diff := cmp.Diff(want, batch(t, s, seed(4), 0, 200)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(s.cache) != 1 {
		t.Errorf("%d shards are cached", len(s.cache))
	}
	if training, _ := s.Dropped(); training != 0 {
		t.Errorf("%d rows dropped", training)
	}
}

// The order is part of what makes a round repeatable: it must not change with
// a version of Go.
func TestShuffledVector(t *testing.T) {
	want := []int{5, 7, 9, 0, 4, 8, 11, 3, 6, 1, 2, 10}
	if got := shuffled(seed(5), 1, 2, 12); !slices.Equal(got, want) {
		t.Errorf("shuffled = %v, want %v", got, want)
	}
	seen := make([]bool, 1000)
	for _, i := range shuffled(seed(5), 0, allShards, 1000) {
		if seen[i] {
			t.Fatalf("%d is there twice", i)
		}
		seen[i] = true
	}
}

// Every position is as likely for every row.
func TestShuffledUniform(t *testing.T) {
	const n, draws = 5, 20000
	var count [n][n]int
	for pass := range uint64(draws) {
		for i, v := range shuffled(seed(6), pass, 0, n) {
			count[i][v]++
		}
	}
	for i := range n {
		for v := range n {
			if c := count[i][v]; c < draws/n*9/10 || c > draws/n*11/10 {
				t.Errorf("%d is at place %d in %d of %d draws", v, i, c, draws)
			}
		}
	}
}

func TestBatchRefuses(t *testing.T) {
	var long []shard.Row
	for i := range 20 {
		long = append(long, shard.Row{Instruction: fmt.Sprint(i, strings.Repeat(" long", 20)), Output: "x"})
	}
	s := source(t, importRows(t, long, nil, 300))
	for range 2 {
		if _, err := s.Batch(t.Context(), seed(1), 5, 2); err == nil || !strings.Contains(err.Error(), "no row") {
			t.Errorf("rows that are all too long gave %v", err)
		}
	}
	if training, _ := s.Dropped(); training != 20 {
		t.Errorf("%d rows dropped, want 20", training)
	}
	if _, err := s.Batch(t.Context(), seed(1), 0, 0); err == nil {
		t.Error("a batch of no samples gave no error")
	}
}

func TestHeldOut(t *testing.T) {
	rows := numbered(30)
	held := withLong(rows[20:], 3)
	s := source(t, importRows(t, rows[:20], held, 300))
	for _, n := range []int{4, 30, 4, 0} {
		samples, err := s.HeldOut(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, r := range rows[20:][:min(n, 10)] {
			want = append(want, r.Instruction+r.Output)
		}
		if diff := cmp.Diff(want, texts(samples), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("HeldOut(%d) (-want +got):\n%s", n, diff)
		}
		got, err := s.HeldOutRows(t.Context(), n)
		if diff := cmp.Diff(held[:min(n, len(held))], got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("HeldOutRows(%d): %v (-want +got):\n%s", n, err, diff)
		}
	}
	if training, heldOut := s.Dropped(); training != 0 || heldOut != 3 {
		t.Errorf("%d and %d rows dropped, want 0 and 3", training, heldOut)
	}
	none := source(t, importRows(t, rows, nil, 300))
	if samples, err := none.HeldOut(t.Context(), 5); len(samples) > 0 || err != nil {
		t.Errorf("without held-out rows HeldOut gave %v, %v", samples, err)
	}
}

// A shard that is not local yet is asked for again.
func TestBatchIncomplete(t *testing.T) {
	store := openStore(t)
	d := importInto(t, store, numbered(60), nil, 500)
	want := batch(t, source(t, d), seed(7), 0, 60)
	missing := d.TrainShards()[1]
	block, err := store.Get(t.Context(), missing)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.DeleteBlock(t.Context(), missing); err != nil {
		t.Fatal(err)
	}
	s := source(t, d)
	if _, err := s.Batch(t.Context(), seed(7), 0, 60); !errors.Is(err, shard.ErrIncomplete) {
		t.Errorf("without a shard Batch gave %v", err)
	}
	if err := store.Put(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, batch(t, s, seed(7), 0, 60)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
