package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moot-net/moot/node/api"
)

// orders is a run whose launcher changes its course, and dies while it is paused.
func orders(ctx context.Context, s *swarm, r *result) error {
	const rounds = 12
	if err := s.begin(ctx, 4, rounds, nil); err != nil {
		return err
	}
	launcher := s.nodes[0]
	if err := s.until(ctx, launcher, 2); err != nil {
		return err
	}
	slowest := time.Duration(0)
	order := func(req api.OrderRequest, done func(api.Run) bool) error {
		began := time.Now()
		if _, err := launcher.client().Order(ctx, req); err != nil {
			return fmt.Errorf("order %s: %w", req.Action, err)
		}
		if err := s.all(ctx, done); err != nil {
			return fmt.Errorf("wait until the order %s took effect: %w", req.Action, err)
		}
		slowest = max(slowest, time.Since(began))
		s.say("%s took effect for all %.1f s later", req.Action, time.Since(began).Seconds())
		return nil
	}
	req := api.OrderRequest{Run: s.run, Action: api.OrderPause, Note: "new data on Monday"}
	if err := order(req, func(d api.Run) bool { return d.State == api.RunPaused && strings.Contains(d.Why, req.Note) }); err != nil {
		return err
	}
	d, err := launcher.client().Run(ctx, s.run)
	if err != nil {
		return err
	}
	before := d.TrainedRounds

	s.begun(launcher)
	launcher.kill()
	s.say("the launcher is dead")
	n, err := s.addNode(ctx, s.nodes[2].addr())
	if err == nil {
		err = n.start(ctx)
	}
	if err == nil {
		err = s.join(ctx, n)
	}
	if err == nil {
		err = sleep(ctx, s.period/2)
	}
	if err == nil {
		err = launcher.start(ctx)
	}
	if err != nil {
		return err
	}
	s.over(launcher)
	paused := func(d api.Run) bool { return d.State == api.RunPaused && d.TrainedRounds == before }
	if err := s.all(ctx, paused); err != nil {
		return fmt.Errorf("wait until all are paused again: %w", err)
	}
	s.say("it is there again, and all are paused, %s as well, which joined meanwhile", n.name)

	if err := order(api.OrderRequest{Run: s.run, Action: api.OrderResume}, func(d api.Run) bool { return d.TrainedRounds > before }); err != nil {
		return err
	}
	if err := order(api.OrderRequest{Run: s.run, Action: api.OrderSet, Rounds: 1000}, func(d api.Run) bool { return d.MaxRounds == 1000 }); err != nil {
		return err
	}
	if err := order(api.OrderRequest{Run: s.run, Action: api.OrderSet, Rate: 0.5}, func(d api.Run) bool { return d.Course != nil && d.Course.Rate == 0.5 }); err != nil {
		return err
	}
	if err := s.until(ctx, launcher, rounds+2); err != nil {
		return err
	}
	if err := order(api.OrderRequest{Run: s.run, Action: api.OrderStop}, func(d api.Run) bool { return d.Final }); err != nil {
		return err
	}
	r.atMost("order_periods", slowest.Seconds()/s.period.Seconds(), 4)
	expect := usual
	expect.stall = 8 // a round of a paused run takes six
	list, err := s.finish(ctx, r, expect)
	if err != nil {
		return err
	}
	r.atLeast("newcomers_rounds", float64(len(credits(list, n.peer))), 1)
	return nil
}

// all waits until a run is so for all nodes that live.
func (s *swarm) all(ctx context.Context, is func(api.Run) bool) error {
	var last api.Run
	err := s.await(ctx, s.patience(), func(ctx context.Context) (string, bool, error) {
		heads := ""
		for _, n := range s.live() {
			d, err := n.client().Run(ctx, s.run)
			if err != nil {
				return heads, false, err
			}
			if heads += d.Head; !is(d.Run) {
				last = d.Run
				return heads, false, nil
			}
		}
		return heads, true, nil
	})
	if err != nil {
		return fmt.Errorf("%w: one is in round %d (%s, %s)", err, last.Round, last.State, last.Why)
	}
	return nil
}

// badPull is a newcomer on a slow line to whom all happens while it pulls the model.
func badPull(ctx context.Context, s *swarm, r *result) error {
	const kills, rounds, diskBytes = 3, 120, 160 << 20 // the run takes 120 MB at most
	if err := s.begin(ctx, 4, rounds, nil); err != nil {
		return err
	}
	if err := s.until(ctx, s.nodes[0], 2); err != nil {
		return err
	}
	n, err := s.addNode(ctx, s.nodes[1].addr())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("disk", n.dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", diskBytes)); err != nil {
		return err
	}
	if err := n.host.speed(ctx, "1500kbit"); err != nil {
		return err
	}
	if err := n.start(ctx); err != nil {
		return err
	}
	s.begun(n)
	joined := make(chan error, 1)
	c := n.client()
	go func() {
		_, err := c.Join(ctx, api.JoinRequest{Run: s.run}, quiet)
		joined <- err // the daemon will be killed meanwhile
	}()
	for i := range kills {
		if err := s.pulling(ctx, n); err != nil {
			return err
		}
		if err := sleep(ctx, s.between(0, 3*time.Second)); err != nil {
			return err
		}
		n.kill()
		s.say("%s was killed while it pulled, %d", n.name, i+1)
		if i == 0 {
			s.say("joining ended with its daemon: %v", <-joined)
		}
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	if err := s.pulling(ctx, n); err != nil {
		return err
	}
	ballast := filepath.Join(n.dir, "ballast")
	if err := fill(ballast); err != nil {
		return err
	}
	s.say("its disk is full")
	full := "the disk of " + n.dir + " is full"
	err = s.await(ctx, s.patience(), func(ctx context.Context) (string, bool, error) {
		d, err := n.client().Run(ctx, s.run)
		return d.Why, err == nil && d.State == api.RunFailed && d.Why == full, err
	})
	if err != nil {
		return fmt.Errorf("wait for %q: %w", full, err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := n.host.speed(ctx, fmt.Sprintf("%dmbit", mbit)); err != nil {
		return err
	}
	s.say("there is room again, and its line is as fast as those of others")
	err = s.await(ctx, s.patience(), func(ctx context.Context) (string, bool, error) {
		d, err := n.client().Run(ctx, s.run)
		if err != nil || d.Round == 0 {
			return string(d.State) + d.Why, false, err
		}
		rounds, err := n.client().Rounds(ctx, s.run, max(d.Round, 5)-4, 0)
		return d.Head, err == nil && len(credits(rounds.Rounds, n.peer)) > 0, err
	})
	if err != nil {
		return fmt.Errorf("wait until %s has a part: %w\n%s", n.name, err, n.tail())
	}
	s.over(n)
	s.say("it has a part")
	if _, err := s.nodes[0].client().Order(ctx, api.OrderRequest{Run: s.run, Action: api.OrderStop}); err != nil {
		return err
	}
	expect := usual
	expect.cost = 0 // what it trained while its line was slow
	_, err = s.finish(ctx, r, expect)
	return err
}

// pulling waits until a node pulls the model of its run.
func (s *swarm) pulling(ctx context.Context, n *node) error {
	err := s.await(ctx, s.patience(), func(ctx context.Context) (string, bool, error) {
		d, err := n.client().Run(ctx, s.run)
		if err == nil && !d.Joined {
			return "", false, fmt.Errorf("it is not in the run:\n%s", n.tail())
		}
		if err == nil && d.Round > 0 {
			return "", false, fmt.Errorf("it has all, and is in round %d", d.Round)
		}
		return d.Why, err == nil && strings.HasPrefix(d.Why, "the model is being pulled"), nil // it is not there at once
	})
	if err != nil {
		return fmt.Errorf("wait until %s pulls the model: %w", n.name, err)
	}
	return nil
}

// speed sets the speed of a host's line in both directions.
func (h *host) speed(ctx context.Context, rate string) error {
	if err := do(ctx, "tc qdisc change dev %s root tbf rate %s burst 64kb latency 400ms", h.link, rate); err != nil {
		return err
	}
	return do(ctx, "tc -n %s qdisc change dev wan root tbf rate %s burst 64kb latency 400ms", h.name, rate)
}
