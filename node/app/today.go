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

	// todayFor bounds how long one question counts; the next goes on.
	todayFor = 500 * time.Millisecond
)

// daily counts what this node contributed today.
type daily struct {
	mu   sync.Mutex
	runs map[string]*counted // guarded by mu; by ID
}

// counted are the rounds of a run that are counted once and for all.
type counted struct {
	since time.Time
	// until it is found, the first round since then is looked for before this one;
	// 0 once it is
	before uint64
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
	kept, until := map[string]*counted{}, now.Add(todayFor)
	if n.daily.runs == nil {
		n.daily.runs = kept
	}
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
			n.daily.runs[r.ID] = c // also when it is not counted to the end
		}
		kept[r.ID] = c
		sum, err := c.count(ctx, p, n.endpoint.Peer, t.Since, r.Round, until)
		if err != nil {
			return t, fmt.Errorf("count what was contributed to run %s: %w", r.ID, err)
		}
		if sum.Rounds > 0 || sum.Partly {
			sum.Run, sum.Name = r.ID, r.Name
			t.Runs = append(t.Runs, sum)
			t.Tokens += sum.Tokens
		}
	}
	n.daily.runs = kept
	return t, nil
}

// count counts the rounds from a time until the last one, of many as many as
// until allows.
func (c *counted) count(ctx context.Context, p participant, me string, since time.Time, last uint64, until time.Time) (api.TodayRun, error) {
	same := c.since.Equal(since) && max(c.round+1, c.before) <= last+1
	if same && c.record != "" {
		l, err := p.Rounds(c.round, 1)
		if err != nil {
			return api.TodayRun{}, err
		}
		same = len(l) == 1 && l[0].Record == c.record
	}
	if !same {
		*c = counted{since: since, before: last + 1}
	}
	if c.before > 0 {
		found, partly, err := c.find(ctx, p, last, until)
		if err != nil || !found {
			return api.TodayRun{Partly: true}, err
		}
		c.round, c.before, c.sum.Partly = c.before-1, 0, partly
	}
	sum := copyToday(c.sum)
	for from := c.round + 1; from <= last; {
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		if over(ctx, until) {
			sum.Partly = true
			return sum, nil
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

// find looks for the first round that was decided since the time, as far back as
// is looked. Until it is found it goes on from before.
func (c *counted) find(ctx context.Context, p participant, last uint64, until time.Time) (found, partly bool, err error) {
	for c.before > 1 && last+1-c.before < todayRounds {
		if over(ctx, until) {
			return false, false, ctx.Err()
		}
		from := uint64(1)
		if c.before > todayPage {
			from = c.before - todayPage
		}
		l, err := p.Rounds(from, todayPage)
		if err != nil {
			return false, false, err
		}
		for i := len(l) - 1; i >= 0; i-- {
			r := &l[i]
			if r.Round >= c.before {
				continue
			}
			if !r.Decided.IsZero() && r.Decided.Before(c.since) {
				c.before = r.Round + 1
				return true, false, nil
			}
		}
		c.before = from
	}
	return true, c.before > 1, nil
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
