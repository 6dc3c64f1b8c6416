package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/moot-net/moot/node/api"
)

// figure is what was measured, and what it must not leave.
type figure struct {
	name            string
	value           float64
	atMost, atLeast *float64
}

// result is what a scenario came to. Its form is that of "moot sim".
type result struct {
	Scenario string             `json:"scenario"`
	Seed     uint64             `json:"seed"`
	Pass     bool               `json:"pass"`
	Skipped  string             `json:"skipped,omitempty"` // why it was not run
	Figures  map[string]float64 `json:"figures"`
	Limits   map[string]limit   `json:"limits"`
	Missed   []string           `json:"missed,omitempty"` // figures that left their limits
	Wrong    []string           `json:"wrong,omitempty"`  // states that a node should not have been in
	Error    string             `json:"error,omitempty"`
	WallS    float64            `json:"wall_s"`
}

type limit struct {
	AtMost  *float64 `json:"at_most,omitempty"`
	AtLeast *float64 `json:"at_least,omitempty"`
}

// add notes a figure, with its limits if it has any.
func (r *result) add(f figure) {
	r.Figures[f.name] = f.value
	if f.atMost == nil && f.atLeast == nil {
		return
	}
	r.Limits[f.name] = limit{f.atMost, f.atLeast}
	// Written so that what is no number is outside.
	inside := (f.atMost == nil || f.value <= *f.atMost) && (f.atLeast == nil || f.value >= *f.atLeast)
	if !inside {
		r.Missed = append(r.Missed, f.name)
	}
}

func (r *result) is(name string, value float64) { r.add(figure{name: name, value: value}) }
func (r *result) atMost(name string, value, most float64) {
	r.add(figure{name: name, value: value, atMost: &most})
}

func (r *result) atLeast(name string, value, least float64) {
	r.add(figure{name: name, value: value, atLeast: &least})
}

// show writes the result for people.
func (r *result) show(w io.Writer) {
	for _, name := range slices.Sorted(maps.Keys(r.Figures)) {
		fmt.Fprintf(w, "  %-24s %10.4g", name, r.Figures[name])
		if l := r.Limits[name]; l.AtMost != nil {
			fmt.Fprintf(w, "  at most %.4g", *l.AtMost)
		} else if l.AtLeast != nil {
			fmt.Fprintf(w, "  at least %.4g", *l.AtLeast)
		}
		if slices.Contains(r.Missed, name) {
			fmt.Fprint(w, "  MISSED")
		}
		fmt.Fprintln(w)
	}
	if r.Error != "" {
		fmt.Fprintf(w, "  error: %s\n", r.Error)
	}
}

// finish waits for the end of the run on all nodes that live, and checks what
// holds after any fault.
func (s *swarm) finish(ctx context.Context, r *result, expect expectation) ([]api.Round, error) {
	live := s.live()
	state, err := s.agree(ctx, live)
	if err != nil {
		return nil, err
	}
	s.say("the run has ended, all %d live peers have the same head", len(live))
	return s.check(ctx, r, expect, 0, state)
}

// check checks what holds after any fault, of the rounds up to the given one or
// of all (0), and ends the nodes. state, if it is known, is that of the last
// record.
func (s *swarm) check(ctx context.Context, r *result, expect expectation, upTo uint64, state string) ([]api.Round, error) {
	live := s.live()
	s.watch()
	s.watched.Wait()
	// When a round was decided, those say whose clocks are right.
	slices.SortStableFunc(live, func(a, b *node) int { return cmp.Compare(a.skew.Abs(), b.skew.Abs()) })
	var rounds []api.Round
	for _, n := range live {
		all, err := n.client().AllRounds(ctx, s.run)
		if err != nil {
			return nil, fmt.Errorf("read the rounds of %s: %w", n.name, err)
		}
		s.note(all)
		if upTo > 0 {
			all = all[:min(len(all), int(upTo))]
		}
		if rounds != nil && len(rounds) != len(all) {
			return nil, fmt.Errorf("%s has %d rounds, others %d", n.name, len(all), len(rounds))
		}
		if n.skew == 0 {
			rounds = earliest(rounds, all)
		}
	}
	c := live[0].client()
	d, err := c.Run(ctx, s.run)
	if err != nil {
		return nil, err
	}
	e, err := c.Evaluate(ctx, api.EvaluateRequest{Subject: api.Subject{Run: s.run}, Dataset: d.Dataset, MaxRows: evalRows, LossOnly: true}, quiet)
	if err != nil {
		return nil, err
	}
	r.is("peers", float64(len(live)))
	r.is("base_loss", s.base)
	r.atMost("loss", e.Loss, s.base*expect.learned)
	r.is("load_per_core", s.load())
	s.countRounds(r, rounds, expect)
	for _, n := range s.nodes {
		if err := n.stop(); err != nil {
			return nil, err
		}
	}
	if err := s.replay(ctx, r, state); err != nil {
		return nil, err
	}
	return rounds, s.countSteps(r, rounds, expect)
}

// load is how many processes wanted each core, on the average since the swarm
// began: with more than one, some of what is late is not late by a fault.
func (s *swarm) load() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loads / float64(max(1, s.looks)) / float64(runtime.NumCPU())
}

// loadNow is the load average of the last minute.
func loadNow() (load float64) {
	b, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, _ = fmt.Sscan(string(b), &load) // 0 where it is not told
	}
	return load
}

// earliest is what two nodes knew of the rounds that both have, with the times
// at which the first of them decided. A node that slept decides all that it
// missed when it is awake.
func earliest(a, b []api.Round) []api.Round {
	if a == nil {
		return b
	}
	a = slices.Clone(a)
	for i := range min(len(a), len(b)) {
		if at := b[i].Decided; !at.IsZero() && (a[i].Decided.IsZero() || at.Before(a[i].Decided)) {
			a[i].Decided = b[i].Decided
		}
	}
	return a
}

// expectation is what a scenario may cost.
type expectation struct {
	learned float64 // the loss in the end is at most this part of the base model's
	stall   float64 // the longest round takes at most so many periods
	back    float64 // a node contributes again so many rounds after its fault
	cost    float64 // a fault costs its node at most so many steps; 0: any number
	// lost is the part of the steps of undisturbed nodes that may be in no
	// record: on a busy machine a commit may be late.
	lost float64
	// parted says that there were swarms that did not know of each other, and
	// went on: rounds of one number may have certificates in each, after the
	// one without in which they parted. Two on one record are never right.
	parted bool
}

// usual is what most scenarios may cost.
var usual = expectation{learned: 0.75, stall: 4, back: 5, cost: 2 * maxSteps, lost: 0.05}

// agree waits until nodes have the same final record, and returns its state.
func (s *swarm) agree(ctx context.Context, nodes []*node) (state string, err error) {
	var say string
	err = s.await(ctx, s.patience(), func(ctx context.Context) (string, bool, error) {
		say = ""
		heads, final := make(map[string]bool), 0
		for _, n := range nodes {
			c := n.client()
			if c == nil || !n.alive() {
				return "", false, fmt.Errorf("%s does not run:\n%s", n.name, n.tail())
			}
			d, err := c.Run(ctx, s.run)
			if err != nil {
				return "", false, err
			}
			say += fmt.Sprintf("\n%s: %s, %s, round %d, head %s, %s", n.name, d.State, d.Phase, d.Round, d.Head, d.Why)
			heads[d.Head] = true
			state = d.StateCID
			if d.Final {
				final++
			}
		}
		return say, final == len(nodes) && len(heads) == 1, nil
	})
	if err != nil {
		return "", fmt.Errorf("wait for one final head: %w%s", err, say)
	}
	return state, nil
}

// countRounds adds figures of the rounds that were decided.
func (s *swarm) countRounds(r *result, rounds []api.Round, expect expectation) {
	certified, longest, merged := 0, time.Duration(0), 0
	for i, x := range rounds {
		if x.Certified {
			certified++
		}
		if x.Merged != nil {
			merged++
		}
		if x.TrainedRounds > 0 && i > 0 {
			longest = max(longest, x.Decided.Sub(rounds[i-1].Decided))
		}
	}
	s.mu.Lock()
	forks, heights := 0, make(map[uint64]int)
	for on, records := range s.seen {
		heights[on.round]++
		if len(records) > 1 {
			forks++
		}
	}
	twice := 0
	for _, n := range heights {
		if n > 1 {
			twice++
		}
	}
	s.mu.Unlock()
	last := rounds[len(rounds)-1]
	r.is("rounds", float64(last.Round))
	r.is("trained_rounds", float64(last.TrainedRounds))
	r.atLeast("certified_rounds", float64(certified), 1)
	r.is("merges", float64(merged))
	r.atMost("certified_forks", float64(forks), 0)
	if expect.parted {
		r.is("certified_twice", float64(twice))
	} else {
		r.atMost("certified_twice", float64(twice), 0)
	}
	r.atMost("longest_round_periods", longest.Seconds()/s.period.Seconds(), expect.stall)
}

// replay computes the run again, from all folders and from each.
func (s *swarm) replay(ctx context.Context, r *result, state string) error {
	one := func(dir string) (api.Replay, error) {
		out, err := exec.CommandContext(ctx, s.mootd, "replay", s.run, "--data-dir", dir, "--json").Output()
		var a struct {
			api.Replay
			Run string `json:"run"`
		}
		if jerr := json.Unmarshal(out, &a); jerr != nil {
			return a.Replay, fmt.Errorf("replay in %s: %w: %s", dir, err, out)
		}
		return a.Replay, nil
	}
	all, err := one(s.dir)
	if err != nil {
		return err
	}
	if !all.OK {
		return fmt.Errorf("replay: %w", all.Error)
	}
	same := 0.0
	if state == "" || all.StateCID == state { // that each state follows, was computed
		same = 1
	}
	r.atLeast("replay_equal", same, 1)
	whole, wrong := 0, 0
	for _, f := range all.Folders {
		a, err := one(f.Dir)
		switch {
		case err != nil:
			return err
		case a.OK && f.Agrees:
			whole++
		case a.OK || a.Error == nil || a.Error.Code != api.CodeNotFound: // what a node missed it may lack
			wrong++
			s.say("replay in %s: %v, agrees %v", f.Dir, a.Error, f.Agrees)
		}
	}
	r.is("replay_whole_folders", float64(whole))
	r.atMost("replay_wrong_folders", float64(wrong), 0)
	return nil
}

// step is an inner step that a node took.
type step struct {
	at    time.Time
	round uint64
	n     uint64
}

// stepsOf reads from a node's log what steps it took.
func stepsOf(path string) ([]step, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []step
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	skew := time.Duration(0)
	for in.Scan() {
		if text, ok := strings.CutPrefix(in.Text(), startMark); ok {
			if skew, err = time.ParseDuration(text); err != nil {
				return nil, err
			}
		}
		if !strings.Contains(in.Text(), "inner step was taken") {
			continue
		}
		var line struct {
			Time  time.Time `json:"time"`
			Msg   string    `json:"msg"`
			Round uint64    `json:"round"`
			Step  uint64    `json:"step"`
		}
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			continue // a line that a kill cut
		}
		list = append(list, step{line.Time.Add(-skew), line.Round, line.Step})
	}
	return list, in.Err()
}

// countSteps compares what was trained with what is in the records.
func (s *swarm) countSteps(r *result, rounds []api.Round, expect expectation) error {
	taken, inFault, lost := 0, 0, 0
	back := 0.0
	for _, n := range s.nodes {
		steps, err := stepsOf(n.logPath())
		if err != nil {
			return err
		}
		last := rounds[len(rounds)-1].Round
		steps = slices.DeleteFunc(steps, func(x step) bool { return x.round > last })
		t, f, l := account(steps, credits(rounds, n.peer), s.faultsOf(n), 2*s.period)
		taken, inFault, lost = taken+t, inFault+f, lost+l
		faults := s.faultsOf(n)
		for i, f := range faults {
			until := time.Time{}
			if i+1 < len(faults) {
				until = faults[i+1].from
			}
			back = max(back, float64(roundsUntilBack(rounds, n.peer, f, until)))
		}
	}
	r.is("steps", float64(taken))
	if expect.cost > 0 {
		r.atMost("fault_steps", float64(inFault), expect.cost*float64(len(s.faults)))
	} else {
		r.is("fault_steps", float64(inFault))
	}
	r.atMost("lost_steps", float64(lost), expect.lost*float64(taken))
	r.atMost("rounds_until_back", back, expect.back)
	return nil
}

func (s *swarm) faultsOf(n *node) (list []fault) {
	for _, f := range s.faults {
		if f.node == n {
			list = append(list, f)
		}
	}
	return list
}

// credits are the steps of a peer in the records, by round.
func credits(rounds []api.Round, peer string) map[uint64]uint64 {
	m := make(map[uint64]uint64)
	for _, r := range rounds {
		for _, c := range r.Contributions {
			if c.Peer == peer {
				m[r.Round] = c.Steps
			}
		}
	}
	return m
}

// account counts the steps that were taken, and those of them that are in no
// record: because of a fault, and without. A step that was taken twice counts
// once as lost. For so long before and after a fault, the work of a round is
// lost with it: what was trained before, and for the head of before afterwards.
func account(steps []step, credit map[uint64]uint64, faults []fault, around time.Duration) (taken, inFault, lost int) {
	done := make(map[[2]uint64]bool)
	for _, x := range steps {
		taken++
		key := [2]uint64{x.round, x.n}
		if !done[key] && x.n <= credit[x.round] {
			done[key] = true
			continue
		}
		hit := false
		for _, f := range faults {
			hit = hit || x.at.After(f.from.Add(-around)) && (f.to.IsZero() || x.at.Before(f.to.Add(around)))
		}
		if hit {
			inFault++
		} else {
			lost++
		}
	}
	return taken, inFault, lost
}

// roundsUntilBack counts the rounds that were decided after a fault until the
// peer's work was in one again. It is 0 when that cannot be told: the fault did
// not end before the run, or the next one, at until, came before it could be
// back.
func roundsUntilBack(rounds []api.Round, peer string, f fault, until time.Time) int {
	if f.to.IsZero() {
		return 0
	}
	n := 0
	for _, r := range rounds {
		if !r.Decided.After(f.to) || len(r.Contributions) == 0 {
			continue
		}
		if !until.IsZero() && r.Decided.After(until) {
			return 0
		}
		n++
		for _, c := range r.Contributions {
			if c.Peer == peer {
				return n
			}
		}
	}
	return n
}
