package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scenario is a story with a run in it.
type scenario struct {
	name   string
	about  string
	skewed bool // needs the daemon with a clock that can be set
	run    func(ctx context.Context, s *swarm, r *result) error
}

var scenarios = []scenario{
	{"kill9", "five peers, one of which is killed (SIGKILL) and started again, six times", false, kill9},
	{"sigstop", "a laptop sleeps (SIGSTOP) for 20 s, then the launcher does", false, sigstop},
	{"partition-60-40", "three of five peers and the others do not hear each other for six periods", false, partition},
	{"flap", "the lines of two of five peers come and go for 40 s", false, flap},
	{"disk-full", "the disk of a peer is full for 20 s", false, diskFull},
	{"clock-skew", "a clock is 10 min ahead and one 10 min behind, and one is set back in the middle", true, clockSkew},
	{"launcher-gone", "the launcher, which is the only bootstrap, dies; two newcomers know one volunteer", false, launcherGone},
	{"orders", "the launcher pauses, resumes, extends, amends and stops the run, and dies while it is paused; one joins meanwhile", false, orders},
	{"bad-pull", "a newcomer on a slow line is killed three times while it pulls the model, and then its disk is full", false, badPull},
}

func kill9(ctx context.Context, s *swarm, r *result) error {
	if err := s.begin(ctx, 5, 24, nil); err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[0], 2); err != nil {
		return err
	}
	for range 6 {
		n := s.nodes[s.rng.IntN(len(s.nodes))]
		s.begun(n)
		n.kill()
		away := s.between(0, 12*time.Second)
		s.say("%s was killed, for %.1f s", n.name, away.Seconds())
		if err := sleep(ctx, away); err != nil {
			return err
		}
		if err := n.start(ctx); err != nil {
			return err
		}
		s.over(n)
		if err := sleep(ctx, s.between(time.Second, 5*time.Second)); err != nil {
			return err
		}
	}
	_, err := s.finish(ctx, r, usual)
	return err
}

func sigstop(ctx context.Context, s *swarm, r *result) error {
	if err := s.begin(ctx, 5, 24, nil); err != nil {
		return err
	}
	var late time.Duration
	for i, n := range []*node{s.nodes[2], s.nodes[0]} {
		if err := s.until(ctx, s.nodes[1], uint64(2+8*i)); err != nil {
			return err
		}
		s.begun(n)
		if err := n.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		s.say("%s sleeps", n.name)
		if err := sleep(ctx, 20*time.Second); err != nil {
			return err
		}
		if err := n.signal(syscall.SIGCONT); err != nil {
			return err
		}
		s.over(n)
		s.say("%s is awake", n.name)
		woken := time.Now()
		at, err := s.heads(ctx)
		if err != nil {
			return err
		}
		others := at[1].round
		if err := s.await(ctx, roundTimeout, func(ctx context.Context) (string, bool, error) {
			d, err := n.client().Run(ctx, s.run)
			return fmt.Sprintf("in round %d of %d", d.Round, others), err == nil && d.Round >= others, err
		}); err != nil {
			return fmt.Errorf("wait for %s, which slept: %w", n.name, err)
		}
		late = max(late, time.Since(woken))
	}
	r.atMost("periods_until_awake", late.Seconds()/s.period.Seconds(), 1)
	_, err := s.finish(ctx, r, usual)
	return err
}

func partition(ctx context.Context, s *swarm, r *result) error {
	if err := s.begin(ctx, 5, 64, nil); err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[0], 3); err != nil {
		return err
	}
	few := s.nodes[3:]
	for _, n := range s.nodes {
		s.begun(n)
	}
	for _, n := range few {
		if err := n.host.plug(ctx, otherHalf); err != nil {
			return err
		}
	}
	s.say("%s and %s are cut off from the others", few[0].name, few[1].name)
	if err := sleep(ctx, 6*s.period); err != nil {
		return err
	}
	apart, err := s.heads(ctx)
	if err != nil {
		return err
	}
	for _, n := range few {
		if err := n.host.plug(ctx, mainHalf); err != nil {
			return err
		}
	}
	healed := time.Now()
	s.say("all hear each other again, in round %d and %d", apart[0].round, apart[4].round)
	together, err := s.oneHead(ctx, max(apart[0].round, apart[4].round))
	if err != nil {
		return err
	}
	for _, n := range s.nodes {
		s.over(n)
	}
	r.is("seconds_until_one_head", time.Since(healed).Seconds())
	r.atMost("rounds_until_one_head", float64(together-max(apart[0].round, apart[4].round)), 3)
	expect := usual
	expect.parted, expect.cost = true, 0 // what the few trained comes back as one contribution
	rounds, err := s.finish(ctx, r, expect)
	if err != nil {
		return err
	}
	tokens := uint64(0)
	for _, x := range rounds {
		if x.Merged != nil {
			tokens += x.Merged.Tokens
		}
	}
	// Whether it comes back is for its loss to say; that it is measured is not.
	measured := 0
	for _, n := range s.nodes {
		log, err := os.ReadFile(n.logPath())
		if err != nil {
			return err
		}
		measured += strings.Count(string(log), "branch that lost was measured")
	}
	r.atLeast("branch_measured", float64(measured), 1)
	r.is("merged_tokens", float64(tokens))
	return nil
}

// place is where a node is in the run.
type place struct {
	round uint64
	head  string
}

// heads asks all nodes where they are.
func (s *swarm) heads(ctx context.Context) ([]place, error) {
	list := make([]place, len(s.nodes))
	for i, n := range s.nodes {
		d, err := n.client().Run(ctx, s.run)
		if err != nil {
			return nil, err
		}
		list[i] = place{d.Round, d.Head}
	}
	return list, nil
}

// oneHead waits until all nodes have the same record of a round after the given
// one, and returns that round.
func (s *swarm) oneHead(ctx context.Context, after uint64) (round uint64, err error) {
	err = s.await(ctx, roundTimeout, func(ctx context.Context) (string, bool, error) {
		at, err := s.heads(ctx)
		if err != nil {
			return "", false, err
		}
		low := at[0].round
		for _, p := range at {
			low = min(low, p.round)
		}
		if low <= after {
			return fmt.Sprint(at), false, nil
		}
		records := make(map[string]bool)
		for _, n := range s.nodes {
			x, err := n.client().Round(ctx, s.run, low)
			if err != nil {
				return "", false, err
			}
			records[x.Record] = true
		}
		round = low
		return fmt.Sprint(at), len(records) == 1, nil
	})
	if err != nil {
		return 0, fmt.Errorf("wait for one head after round %d: %w", after, err)
	}
	return round, nil
}

func flap(ctx context.Context, s *swarm, r *result) error {
	if err := s.begin(ctx, 5, 30, nil); err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[0], 2); err != nil {
		return err
	}
	flapping := []*node{s.nodes[2], s.nodes[4]}
	for _, n := range flapping {
		s.begun(n)
	}
	s.say("the lines of %s and %s come and go", flapping[0].name, flapping[1].name)
	times := 0
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); times++ {
		n := flapping[times%2]
		if err := n.host.line(ctx, false); err != nil {
			return err
		}
		if err := sleep(ctx, s.between(300*time.Millisecond, 2500*time.Millisecond)); err != nil {
			return err
		}
		if err := n.host.line(ctx, true); err != nil {
			return err
		}
		if err := sleep(ctx, s.between(300*time.Millisecond, 1500*time.Millisecond)); err != nil {
			return err
		}
	}
	for _, n := range flapping {
		s.over(n)
	}
	r.is("times_down", float64(times))
	expect := usual
	expect.cost = 4 * maxSteps // it lasts for a dozen rounds, but the line works in between
	_, err := s.finish(ctx, r, expect)
	return err
}

func diskFull(ctx context.Context, s *swarm, r *result) error {
	const victim, diskBytes = 3, 48 << 20
	err := s.begin(ctx, 5, 30, func(i int, n *node) error {
		if i != victim {
			return nil
		}
		if err := os.MkdirAll(n.dir, 0o700); err != nil {
			return err
		}
		return unix.Mount("disk", n.dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes))
	})
	if err != nil {
		return err
	}
	n := s.nodes[victim]
	if err := s.until(ctx, s.nodes[0], 3); err != nil {
		return err
	}
	s.begun(n)
	ballast := filepath.Join(n.dir, "ballast")
	if err := fill(ballast); err != nil {
		return err
	}
	s.say("the disk of %s is full", n.name)
	if err := sleep(ctx, 20*time.Second); err != nil {
		return err
	}
	// It may have given up, but it must have said why.
	named := 0.0
	log, err := os.ReadFile(n.logPath())
	if err == nil && strings.Contains(string(log), "no space left") {
		named = 1
	}
	r.atLeast("reason_named", named, 1)
	survived := 1.0
	if err := os.Remove(ballast); err != nil {
		return err
	}
	s.say("there is room on it again")
	if !n.alive() {
		survived = 0
		n.kill()
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	s.over(n)
	r.atLeast("daemon_survived", survived, 1)
	_, err = s.finish(ctx, r, usual)
	return err
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

func clockSkew(ctx context.Context, s *swarm, r *result) error {
	skews := []time.Duration{0, 10 * time.Minute, 0, -10 * time.Minute, 0}
	err := s.begin(ctx, len(skews), 20, func(i int, n *node) error {
		n.setClock(s.skewed, skews[i])
		return nil
	})
	if err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[0], 8); err != nil {
		return err
	}
	// A clock that was right is set back while the daemon is away.
	n := s.nodes[2]
	s.begun(n)
	n.kill()
	n.setClock(s.skewed, -time.Hour)
	if err := n.start(ctx); err != nil {
		return err
	}
	s.over(n)
	s.say("the clock of %s was set back by an hour", n.name)
	_, err = s.finish(ctx, r, usual)
	return err
}

func launcherGone(ctx context.Context, s *swarm, r *result) error {
	if err := s.begin(ctx, 4, 10, nil); err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[1], 2); err != nil {
		return err
	}
	s.begun(s.nodes[0])
	s.nodes[0].kill()
	s.say("the launcher, which was the only bootstrap, is dead")
	joined := 0
	for range 2 {
		n, err := s.addNode(ctx, s.nodes[2].addr())
		if err == nil {
			err = n.start(ctx)
		}
		if err == nil {
			err = s.join(ctx, n)
		}
		if err != nil {
			return err
		}
		s.say("%s joined, which knows %s alone", n.name, s.nodes[2].name)
		joined++
	}
	r.atLeast("newcomers_joined", float64(joined), 2)
	rounds, err := s.finish(ctx, r, usual)
	if err != nil {
		return err
	}
	least := len(rounds)
	for _, n := range s.nodes[4:] {
		least = min(least, len(credits(rounds, n.peer)))
	}
	r.atLeast("newcomers_rounds", float64(least), 1)
	return nil
}
