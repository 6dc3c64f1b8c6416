package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moot-net/moot/node/api"
)

const soakName = "soak"

// Limits of a soak.
const (
	// leakLimit is how much a node's memory may have grown, and what it may
	// leave on the disk that nobody asked for.
	leakLimit = 64 << 20
	// obeyWithin is how soon a node does what its user says.
	obeyWithin = 2 * time.Second
	// settleTime is what is left for the swarm to come together in the end.
	settleTime = 20 * time.Second
)

// soak disturbs one node of a swarm until a time.
type soak struct {
	*swarm
	victim, eye *node

	wrong  []string // states that were not as they should be
	counts map[string]int
	pauses []span // of the victim, in which it must not train

	mu      sync.Mutex
	samples map[*node][]usage // guarded by mu; of nodes that nobody disturbs
}

type span struct{ from, to time.Time }

type usage struct {
	rss int64
	fds int
}

// soakUntil is the scenario that disturbs one node until a time.
func soakUntil(end time.Time) func(context.Context, *swarm, *result) error {
	return func(ctx context.Context, s *swarm, r *result) error {
		const forever = 100_000 // rounds
		if err := s.begin(ctx, 4, forever, nil); err != nil {
			return err
		}
		k := &soak{swarm: s, victim: s.nodes[2], eye: s.nodes[1], counts: make(map[string]int), samples: make(map[*node][]usage)}
		return k.story(ctx, r, end)
	}
}

func (k *soak) story(ctx context.Context, r *result, end time.Time) error {
	if err := k.until(ctx, k.eye, 2); err != nil {
		return err
	}
	mctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { k.measure(mctx) })
	defer wg.Wait()
	defer cancel()
	for time.Until(end) > settleTime {
		if err := k.disturb(ctx); err != nil {
			return err
		}
	}
	cancel()
	wg.Wait()
	at, err := k.heads(ctx)
	if err != nil {
		return err
	}
	last := at[0].round
	for _, p := range at {
		last = max(last, p.round)
	}
	common, err := k.oneHead(ctx, last)
	if err != nil {
		return err
	}
	k.say("all are at one head, in round %d", common)
	expect := usual
	expect.back = 8 // a fault may follow on another
	rounds, err := k.check(ctx, r, expect, common, "")
	if err != nil {
		return err
	}
	return k.judge(r, rounds)
}

// disturb does one thing to the victim and lets it work again.
func (k *soak) disturb(ctx context.Context) error {
	n := k.victim
	acts := []struct {
		name string
		act  func(context.Context) error
	}{
		{"pause", k.pause},
		{"paused_restart", k.pausedRestart},
		{"kill", func(ctx context.Context) error { n.kill(); return k.restart(ctx, 4*time.Second) }},
		{"restart", func(ctx context.Context) error {
			if err := n.stop(); err != nil {
				return err
			}
			return k.restart(ctx, 4*time.Second)
		}},
		{"sleep", func(ctx context.Context) error {
			if err := n.signal(syscall.SIGSTOP); err != nil {
				return err
			}
			if err := sleep(ctx, k.between(time.Second, 12*time.Second)); err != nil {
				return err
			}
			return n.signal(syscall.SIGCONT)
		}},
	}
	x := acts[k.rng.IntN(len(acts))]
	k.counts[x.name]++
	k.say("%s: %s", n.name, x.name)
	k.begun(n)
	if err := x.act(ctx); err != nil {
		return err
	}
	k.over(n)
	if k.rng.IntN(2) == 0 {
		return sleep(ctx, k.between(time.Second, 8*time.Second))
	}
	return k.works(ctx)
}

func (k *soak) restart(ctx context.Context, most time.Duration) error {
	if err := sleep(ctx, k.between(0, most)); err != nil {
		return err
	}
	return k.victim.start(ctx)
}

// pause pauses the victim, and resumes it.
func (k *soak) pause(ctx context.Context) error {
	return k.paused(ctx, func() error { return sleep(ctx, k.between(time.Second, 12*time.Second)) })
}

// pausedRestart ends the victim while it is paused, which it is afterwards.
func (k *soak) pausedRestart(ctx context.Context) error {
	return k.paused(ctx, func() error {
		if k.rng.IntN(2) == 0 {
			k.victim.kill()
		} else if err := k.victim.stop(); err != nil {
			return err
		}
		if err := k.restart(ctx, 2*time.Second); err != nil {
			return err
		}
		if err := k.expect(ctx, "paused after a restart", func(s api.NodeState) bool { return s == api.NodePaused }); err != nil {
			return err
		}
		return sleep(ctx, k.between(time.Second, 5*time.Second))
	})
}

func (k *soak) paused(ctx context.Context, meanwhile func() error) error {
	if _, err := k.victim.client().Control(ctx, api.ControlRequest{Action: api.ControlPause}); err != nil {
		return fmt.Errorf("pause %s: %w", k.victim.name, err)
	}
	isPaused := func(s api.NodeState) bool { return s == api.NodePaused }
	if err := k.expect(ctx, "paused", isPaused); err != nil {
		return err
	}
	from := time.Now()
	if err := meanwhile(); err != nil {
		return err
	}
	if err := k.expect(ctx, "still paused", isPaused); err != nil {
		return err
	}
	k.pauses = append(k.pauses, span{from, time.Now()})
	if _, err := k.victim.client().Control(ctx, api.ControlRequest{Action: api.ControlResume}); err != nil {
		return fmt.Errorf("resume %s: %w", k.victim.name, err)
	}
	return k.expect(ctx, "resumed", func(s api.NodeState) bool { return s != api.NodePaused })
}

// expect wants the victim to be in a state soon. If it is not, that is noted.
func (k *soak) expect(ctx context.Context, what string, ok func(api.NodeState) bool) error {
	var last api.Status
	for since := time.Now(); time.Since(since) < obeyWithin; {
		s, err := k.victim.client().Status(ctx)
		if err != nil {
			return fmt.Errorf("ask %s: %w\n%s", k.victim.name, err, k.victim.tail())
		}
		if last = s; ok(s.State) {
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	k.note("%s should be %s, and is %s: %s", k.victim.name, what, last.State, last.Why)
	return nil
}

func (k *soak) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	k.say("WRONG: %s", text)
	k.wrong = append(k.wrong, text)
}

// backWithin is how long the victim may take until its work counts again: far
// longer than a round, for the machine may be busy.
const backWithin = 90 * time.Second

// works wants the work of the victim in a round soon.
func (k *soak) works(ctx context.Context) error {
	d, err := k.eye.client().Run(ctx, k.run)
	if err != nil {
		return err
	}
	for since := time.Now(); time.Since(since) < backWithin; {
		page, err := k.eye.client().Rounds(ctx, k.run, d.Round+1, 0)
		if err != nil {
			return err
		}
		if len(credits(page.Rounds, k.victim.peer)) > 0 {
			return nil
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
	k.note("%s has no part in rounds after %d", k.victim.name, d.Round)
	return nil
}

// measure looks at the nodes that nobody disturbs, until ctx is done.
func (k *soak) measure(ctx context.Context) {
	nodes := slices.Clone(k.nodes)
	for sleep(ctx, 2*time.Second) == nil {
		for _, n := range nodes {
			if n == k.victim {
				continue
			}
			if rss, fds, err := n.usage(); err == nil {
				k.mu.Lock()
				k.samples[n] = append(k.samples[n], usage{rss, fds})
				k.mu.Unlock()
			}
		}
	}
}

// judge adds what a soak is about.
func (k *soak) judge(r *result, rounds []api.Round) error {
	for name, n := range k.counts {
		r.is("times_"+name, float64(n))
	}
	steps, err := stepsOf(k.victim.logPath())
	if err != nil {
		return err
	}
	again := redone(steps)
	r.is("redone_steps", float64(again))
	r.atMost("lost_steps", r.Figures["lost_steps"]+float64(again), usual.lost*r.Figures["steps"])
	for _, x := range steps {
		for _, p := range k.pauses {
			// The step under way may end.
			if x.at.After(p.from.Add(obeyWithin)) && x.at.Before(p.to) {
				k.note("step %d of round %d was taken in a pause", x.n, x.round)
			}
		}
	}
	r.atMost("wrong_states", float64(len(k.wrong)), 0)
	r.Wrong = k.wrong
	memory, files := k.growth()
	disk, err := leftBehind(k.dir)
	if err != nil {
		return err
	}
	r.is("leaked_memory_bytes", float64(memory))
	r.is("leaked_disk_bytes", float64(disk))
	r.atMost("leaked_files", float64(files), 64)
	r.atMost("leaked_bytes", float64(memory+disk), leakLimit)
	if n := len(rounds); n > 0 {
		r.is("seconds_per_round", rounds[n-1].Decided.Sub(rounds[0].Decided).Seconds()/float64(n))
	}
	return nil
}

// redone counts the steps that were taken more than once.
func redone(steps []step) (n int) {
	seen := make(map[[2]uint64]bool)
	for _, x := range steps {
		key := [2]uint64{x.round, x.n}
		if seen[key] {
			n++
		}
		seen[key] = true
	}
	return n
}

// growth is by how much the memory and the open files of a node have grown at
// most: the median of the last fifth beside that of the second. In the first it
// still warms up.
func (k *soak) growth() (memory int64, files int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.samples {
		fifth := len(l) / 5
		if fifth == 0 {
			continue
		}
		early, late := middle(l[fifth:2*fifth]), middle(l[len(l)-fifth:])
		memory, files = max(memory, late.rss-early.rss), max(files, late.fds-early.fds)
	}
	return memory, files
}

// middle is the median of each.
func middle(l []usage) (m usage) {
	rss, fds := make([]int64, len(l)), make([]int, len(l))
	for i, u := range l {
		rss[i], fds[i] = u.rss, u.fds
	}
	slices.Sort(rss)
	slices.Sort(fds)
	return usage{rss[len(rss)/2], fds[len(fds)/2]}
}

// leftBehind is how many bytes of files that are only there for a moment the
// nodes, which have ended, have left.
func leftBehind(dir string) (bytes int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !strings.HasSuffix(path, ".tmp") && !strings.Contains(path, ".partial") && filepath.Base(filepath.Dir(path)) != "tmp" {
			return nil
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}
