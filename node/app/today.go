package app

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
)

const (
	todayPage    = 64     // rounds that are read at once
	todayRounds  = 20_000 // of a run that are looked at
	todaySettled = 32     // the last rounds may still change: they are counted each time
)

// daily counts what this node contributed today.
type daily struct {
	mu   sync.Mutex
	runs map[string]*counted // guarded by mu; by ID
}

// counted are the rounds of a run that are counted once and for all.
type counted struct {
	since  time.Time
	round  uint64 // the last of them, 0: none
	record string // its record; where that is another now, all is counted again
	sum    api.TodayRun
}

// Today implements api.Backend.
func (n *node) Today(ctx context.Context) (api.Today, error) {
	now := time.Now()
	t := api.Today{Since: time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())}
	n.daily.mu.Lock()
	defer n.daily.mu.Unlock()
	kept := map[string]*counted{}
	for _, r := range n.runs.list() {
		if !r.Joined {
			continue
		}
		p, err := n.runs.opened(r.ID)
		if err != nil {
			continue // its manifest is not here yet
		}
		c := n.daily.runs[r.ID]
		if c == nil {
			c = new(counted)
		}
		kept[r.ID] = c
		sum, err := c.count(ctx, p, n.endpoint.Peer, t.Since, r.Round)
		if err != nil {
			return t, fmt.Errorf("count what was contributed to run %s: %w", r.ID, err)
		}
		if sum.Rounds > 0 {
			sum.Run, sum.Name = r.ID, r.Name
			t.Runs = append(t.Runs, sum)
			t.Tokens += sum.Tokens
		}
	}
	n.daily.runs = kept
	return t, nil
}

// count counts the rounds from a time until the last one.
func (c *counted) count(ctx context.Context, p participant, me string, since time.Time, last uint64) (api.TodayRun, error) {
	same := c.since.Equal(since) && c.round <= last
	if same && c.record != "" {
		l, err := p.Rounds(c.round, 1)
		if err != nil {
			return api.TodayRun{}, err
		}
		same = len(l) == 1 && l[0].Record == c.record
	}
	if !same {
		first, partly, err := firstSince(ctx, p, since, last)
		if err != nil {
			return api.TodayRun{}, err
		}
		*c = counted{since: since, round: first - 1, sum: api.TodayRun{Partly: partly}}
	}
	sum := copyToday(c.sum)
	for from := c.round + 1; from <= last; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		l, err := p.Rounds(from, todayPage)
		if err != nil || len(l) == 0 {
			return sum, err
		}
		for i := range l {
			r := &l[i]
			addToday(&sum, r, me, since)
			if r.Round+todaySettled <= last {
				c.round, c.record, c.sum = r.Round, r.Record, copyToday(sum)
			}
		}
		from = l[len(l)-1].Round + 1
	}
	return sum, nil
}

// firstSince is the first round that was decided after a time, as far back as
// is looked.
func firstSince(ctx context.Context, p participant, since time.Time, last uint64) (first uint64, partly bool, err error) {
	first = last + 1
	for first > 1 && last+1-first < todayRounds {
		if err := ctx.Err(); err != nil {
			return first, false, err
		}
		from := uint64(1)
		if first > todayPage {
			from = first - todayPage
		}
		l, err := p.Rounds(from, todayPage)
		if err != nil {
			return first, false, err
		}
		for i := len(l) - 1; i >= 0; i-- {
			r := &l[i]
			if r.Round >= first {
				continue
			}
			if !r.Decided.IsZero() && r.Decided.Before(since) {
				return r.Round + 1, false, nil
			}
		}
		first = from
	}
	return first, first > 1, nil
}

// addToday counts a round, if it was decided after a time: of some that came
// late that is not known.
func addToday(sum *api.TodayRun, r *api.Round, me string, since time.Time) {
	if r.Decided.Before(since) {
		return
	}
	more := func(m *map[string]int, key string) {
		if *m == nil {
			*m = map[string]int{}
		}
		(*m)[key]++
	}
	sum.Rounds++
	for _, c := range r.Contributions {
		if c.Peer != me {
			continue
		}
		sum.Contributions++
		sum.Tokens += c.Tokens
		if c.Reason != "" {
			more(&sum.NoWeight, c.Reason)
		}
	}
	for _, x := range r.Refused {
		if x.Peer == me {
			more(&sum.Refused, x.Reason)
		}
	}
	for _, j := range r.Judged {
		if j.Peer == me {
			more(&sum.Verdicts, j.Verdict)
		}
	}
}

func copyToday(t api.TodayRun) api.TodayRun {
	t.NoWeight, t.Refused, t.Verdicts = maps.Clone(t.NoWeight), maps.Clone(t.Refused), maps.Clone(t.Verdicts)
	return t
}
