package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/moot-net/moot/node/api"
)

const (
	cellsName = "cells"
	// oneCell is up to how many seats there are no cells.
	oneCell = 48
	// cellRounds are trained; after cellsBefore of them a tenth of the peers is killed.
	cellRounds  = 5
	cellsBefore = 2
	// startAtOnce is how many daemons start at the same time.
	startAtOnce = 4
	// maxResident is how much memory a daemon may have.
	maxResident = 500e6
)

// cells runs so many daemons that rounds are done in cells.
var cells = scenario{
	cellsName, "more than fifty peers, whose rounds are done in cells; a tenth of them is killed in the middle", false, runCells,
}

const cellsRunFile = `name = "cells"
period = "%s"
rounds = %d
seats = %d
min_peers = %d
codec_bits = 2
eval_samples = 30
[lora]
rank = 8
[inner]
learning_rate = 4e-3
min_steps = 1
max_steps = 2
batch_samples = 4
sequence_tokens = 96
[trust]
retrace = 0
outsiders = 0
[licence]
model = "cc0-1.0"
data = "cc0-1.0"
`

func runCells(ctx context.Context, s *swarm, r *result) error {
	if s.peers <= oneCell {
		return fmt.Errorf("%d peers make no cells, --peers must be above %d", s.peers, oneCell)
	}
	// It begins with as many as one cell has; the others come a round later.
	s.runFile = fmt.Sprintf(cellsRunFile, s.period, cellRounds, s.peers+s.peers/8, oneCell)
	if err := s.begin(ctx, s.peers, cellRounds, nil); err != nil {
		return err
	}
	began := time.Now()
	m := s.meter(ctx)
	defer m.stop()
	if err := s.until(ctx, s.nodes[1], cellsBefore); err != nil {
		return err
	}
	s.say("%d rounds were trained %.0f s after all had joined", cellsBefore, time.Since(began).Seconds())
	doomed := s.rng.Perm(s.peers - 1)[:s.peers/10]
	for i, k := range doomed {
		n := s.nodes[k+1]
		s.begun(n)
		n.kill()
		if i%2 == 1 {
			continue // for good
		}
		if err := n.start(ctx); err != nil {
			return err
		}
		s.over(n)
	}
	s.say("%d peers were killed, and half of them started again", len(doomed))
	live := s.live()
	state, err := s.agree(ctx, live)
	if err != nil {
		return err
	}
	s.say("the run has ended, all %d live peers have the same head", len(live))
	s.watch()
	s.watched.Wait()
	m.stop()
	rounds, err := live[0].client().AllRounds(ctx, s.run)
	if err != nil {
		return err
	}
	s.note(rounds)
	countCells(r, rounds)
	s.countRounds(r, rounds, expectation{stall: 12})
	r.is("peers", float64(s.peers))
	r.is("killed", float64(len(doomed)))
	r.is("load_per_core", s.load())
	m.tell(ctx, r, len(rounds))
	for _, n := range s.live() { // all at once: each takes a while
		if err := n.signal(syscall.SIGINT); err != nil {
			return err
		}
	}
	for _, n := range s.nodes {
		if err := n.stop(); err != nil {
			return err
		}
	}
	out, err := exec.CommandContext(ctx, s.mootd, "replay", s.run, "--from", "genesis", "--data-dir", s.dir, "--json").Output()
	var a api.Replay
	if jerr := json.Unmarshal(out, &a); jerr != nil {
		return fmt.Errorf("replay: %w: %s", err, out)
	}
	same := 0.0
	if a.OK && a.StateCID == state {
		same = 1
	}
	r.atLeast("replay_equal", same, 1)
	return nil
}

// countCells adds figures of rounds that were done in cells.
func countCells(r *result, rounds []api.Round) {
	n, least, took := 0, 1.0, 0.0
	for i, x := range rounds {
		if x.Seats <= oneCell || len(x.Contributions) == 0 || i == 0 {
			continue
		}
		n++
		gave := make(map[string]bool)
		for _, c := range x.Contributions {
			gave[c.Peer] = true
		}
		least = min(least, float64(len(gave))/float64(x.Seats))
		took += x.Decided.Sub(rounds[i-1].Decided).Seconds()
	}
	r.atLeast("rounds_in_cells", float64(n), 3)
	r.is("least_part_that_gave", least)
	r.is("seconds_a_round", took/float64(max(n, 1)))
}

// meter notes the most memory that each daemon of a swarm had.
type meter struct {
	s    *swarm
	stop func()

	mu   sync.Mutex
	most map[*node]int64 // guarded by mu
}

func (s *swarm) meter(ctx context.Context) *meter {
	ctx, cancel := context.WithCancel(ctx)
	m := &meter{s: s, most: make(map[*node]int64)}
	var wg sync.WaitGroup
	m.stop = func() { cancel(); wg.Wait() }
	wg.Go(func() {
		for sleep(ctx, 2*time.Second) == nil {
			for _, n := range s.nodes {
				if rss, _, err := n.usage(); err == nil {
					m.mu.Lock()
					m.most[n] = max(m.most[n], rss)
					m.mu.Unlock()
				}
			}
		}
	})
	return m
}

// tell adds what was measured, and what went over the lines of the nodes.
func (m *meter) tell(ctx context.Context, r *result, rounds int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []int64
	for _, v := range m.most {
		list = append(list, v)
	}
	slices.Sort(list)
	if len(list) > 0 {
		r.is("resident_mb_median", float64(list[len(list)/2])/1e6)
		r.atMost("resident_mb_most", float64(list[len(list)-1])/1e6, maxResident/1e6)
	}
	var sent []float64
	for _, n := range m.s.nodes {
		if b, err := n.host.sent(ctx); err == nil {
			sent = append(sent, float64(b))
		}
	}
	slices.Sort(sent)
	if len(sent) > 0 {
		r.is("sent_mb_median", sent[len(sent)/2]/1e6)
		r.is("sent_mb_a_round_median", sent[len(sent)/2]/1e6/float64(max(rounds, 1)))
		r.is("sent_mb_most", sent[len(sent)-1]/1e6)
	}
}

// sent is how many bytes the host has sent.
func (h *host) sent(ctx context.Context) (uint64, error) {
	out, err := exec.CommandContext(ctx, "ip", "-j", "-s", "-n", h.name, "link", "show", "dev", "wan").Output()
	if err != nil {
		return 0, err
	}
	var links []struct {
		Stats struct {
			TX struct {
				Bytes uint64 `json:"bytes"`
			} `json:"tx"`
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("what %s sent cannot be told: %w", h.name, err)
	}
	return links[0].Stats.TX.Bytes, nil
}

// startAll starts nodes, some at a time.
func startAll(ctx context.Context, nodes []*node) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(startAtOnce)
	for _, n := range nodes {
		g.Go(func() error { return n.start(gctx) })
	}
	return g.Wait()
}
