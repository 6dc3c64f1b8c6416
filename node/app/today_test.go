package app

import (
	"context"
	"errors"
	"slices"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// rounded is a run of rounds that are decided one a minute, of which every
// third round of this node is refused and every fifth found useful.
type rounded struct {
	participant
	begin  time.Time
	rounds []api.Round
	read   int // rounds that were asked for
}

func (r *rounded) Rounds(from uint64, limit int) ([]api.Round, error) {
	i := sort.Search(len(r.rounds), func(i int) bool { return r.rounds[i].Round >= from })
	l := slices.Clone(r.rounds[i:min(i+limit, len(r.rounds))])
	r.read += len(l)
	return l, nil
}

// grow decides rounds up to n; branch tells their records from others.
func (r *rounded) grow(n int, branch string) {
	for i := len(r.rounds) + 1; i <= n; i++ {
		x := api.Round{Round: uint64(i), Record: branch + string(rune(i)), Decided: r.begin.Add(time.Duration(i) * time.Minute)}
		x.Contributions = []api.Contribution{{Peer: "other", Tokens: 1}}
		if i%3 == 0 {
			x.Refused = []api.Refusal{{Peer: "me", Reason: "timeout"}, {Peer: "other", Reason: "timeout"}}
		} else {
			x.Contributions = append(x.Contributions, api.Contribution{Peer: "me", Tokens: 10})
		}
		if i%5 == 0 {
			x.Judged = []api.Judged{{Peer: "me", Verdict: "useful"}, {Peer: "other", Verdict: "damaging"}}
		}
		r.rounds = append(r.rounds, x)
	}
}

// plainly counts without remembering anything.
func (r *rounded) plainly(since time.Time) (t api.TodayRun) {
	for i := range r.rounds {
		addToday(&t, &r.rounds[i], "me", since)
	}
	return t
}

func TestToday(t *testing.T) {
	begin := time.Date(2026, 5, 1, 20, 0, 0, 0, time.UTC)
	midnight := time.Date(2026, 5, 2, 0, 0, 0, 0, time.UTC)
	r, c := &rounded{begin: begin}, new(counted)
	check := func(since time.Time) api.TodayRun {
		t.Helper()
		got, err := c.count(t.Context(), r, "me", since, uint64(len(r.rounds)), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.plainly(since), got); diff != "" {
			t.Errorf("%d rounds since %v (-want +got):\n%s", len(r.rounds), since, diff)
		}
		return got
	}
	for _, n := range []int{0, 1, 100, 239, 240, 241, 300, 301, 500} { // round 240 is at midnight
		r.grow(n, "a")
		check(midnight)
	}
	if got := check(midnight); got.Rounds != 261 || got.Tokens != 1740 || got.Refused["timeout"] != 87 || got.Verdicts["useful"] != 53 || got.Contributions != 174 {
		t.Errorf("261 rounds since midnight: %+v", got)
	}
	// What is settled is not read again.
	r.read = 0
	check(midnight)
	if r.read > todaySettled+2 {
		t.Errorf("%d rounds were read for none that is new", r.read)
	}
	// A round that was taken back lately is.
	r.rounds[498].Contributions[1].Reason = "taken-back"
	if got := check(midnight); got.NoWeight["taken-back"] != 1 {
		t.Errorf("taken back: %+v", got)
	}
	// Another branch wins, far back.
	r.rounds = r.rounds[:400]
	r.grow(520, "b")
	r.rounds[450].Contributions = nil
	check(midnight)
	// Records that are not here yet, and those that came late, of which is not
	// known when they were decided.
	r.rounds = append(r.rounds[:250:250], r.rounds[300:]...)
	for i := range r.rounds[:30] {
		r.rounds[i].Decided = time.Time{}
	}
	*c = counted{}
	got, err := c.count(t.Context(), r, "me", begin, 520, time.Now().Add(time.Hour))
	if err != nil || cmp.Diff(r.plainly(begin), got) != "" {
		t.Errorf("with gaps %+v, %v; want %+v", got, err, r.plainly(begin))
	}
	// The next day nothing of this one is left.
	if got, err := c.count(t.Context(), r, "me", midnight.AddDate(0, 0, 1), 520, time.Now().Add(time.Hour)); err != nil || got.Rounds != 0 || got.Tokens != 0 {
		t.Errorf("the next day: %+v, %v", got, err)
	}
}

// A long run is looked at as far as there is a bound, and it is said.
func TestTodayPartly(t *testing.T) {
	r := &rounded{begin: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	r.grow(todayRounds+500, "a")
	got, err := new(counted).count(t.Context(), r, "me", r.begin, uint64(len(r.rounds)), time.Now().Add(time.Hour))
	if err != nil || !got.Partly || got.Rounds < todayRounds || got.Rounds > todayRounds+todayPage {
		t.Errorf("%d rounds, partly %v, %v", got.Rounds, got.Partly, err)
	}
}

// slow takes a second for each page.
type slow struct{ *rounded }

func (s slow) Rounds(from uint64, limit int) ([]api.Round, error) {
	time.Sleep(time.Second)
	return s.rounded.Rounds(from, limit)
}

// What one question has no time for, the next ones count, also after one that
// nobody waits for any more.
func TestTodayGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Date(2026, 5, 1, 20, 0, 0, 0, time.UTC)
		r, c := &rounded{begin: begin}, new(counted)
		r.grow(1000, "a")
		midnight := begin.Add(4 * time.Hour)
		for asked := 1; ; asked++ {
			until, limit := 2500*time.Millisecond, time.Hour
			if asked%2 == 0 {
				until, limit = limit, until
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			got, err := c.count(ctx, slow{r}, "me", midnight, 1000, time.Now().Add(until))
			cancel()
			switch {
			case asked > 30:
				t.Fatal("it is never done")
			case errors.Is(err, context.DeadlineExceeded) && asked%2 == 0:
			case err != nil:
				t.Fatal(err)
			case !got.Partly:
				if diff := cmp.Diff(r.plainly(midnight), got); diff != "" || asked < 5 {
					t.Errorf("after %d questions (-want +got):\n%s", asked, diff)
				}
				return
			}
		}
	})
}
