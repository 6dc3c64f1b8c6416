package runner

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moot-net/moot/node/internal/replay"
	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

var liveCells = flag.Int("cells", 0, "how many nodes train in cells, over real hosts on loopback; 0: the test is skipped")

// TestRunInCells trains with so many nodes in one process that rounds are done in
// cells, with audits: real hosts, streams, trainers, stores and ledgers. They end
// with one head, and the run can be computed again from what one of them has.
func TestRunInCells(t *testing.T) {
	n := *liveCells
	if n == 0 {
		t.Skip("some minutes: go test ./node/internal/runner -run RunInCells -v -timeout 60m -args -cells 52")
	}
	if round.Cells(n) == 0 {
		t.Fatalf("%d nodes make no cells", n)
	}
	const rounds = 5
	first := newNode(t, 500)
	man := launch(t, first, func(m *run.Manifest) {
		m.Seats, m.MinPeers, m.MaxRounds = uint32(n+8), msg.MaxSeats, rounds
		m.PeriodMillis, m.Inner.MaxSteps, m.Inner.BatchSamples = 60_000, 2, 2
		m.Trust = run.Trust{Auditors: 3, AuditSamples: 4, Probation: 1, Judgement: run.NewestJudgement}
	})
	nodes := []*testNode{first}
	for i := 1; i < n; i++ {
		// Each knows two of those that came before.
		nodes = append(nodes, newNode(t, 500+i, nodes[i-1].addr(), nodes[i/2].addr()))
	}
	idle := rss(t)
	var runners []*Runner
	for _, x := range nodes {
		r, _ := x.takePart(t, man)
		runners = append(runners, r)
	}
	began := time.Now()
	most, told := 0, uint64(0)
	for end := began.Add(50 * time.Minute); ; time.Sleep(time.Second) {
		final := 0
		for _, r := range runners {
			if r.Summary().Final {
				final++
			}
		}
		most = max(most, rss(t))
		if s := runners[0].Summary(); s.Round != told {
			told = s.Round
			t.Logf("after %v: round %d, %s; %d MB", time.Since(began).Round(time.Second), s.Round, s.Why, most/1e6)
		}
		if final == n {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d nodes are at the end; the first is at round %d", final, n, runners[0].Summary().Round)
		}
	}
	took := time.Since(began)
	sameEnd(t, runners...)
	inCells, audited, seats := 0, 0, 0
	last := runners[n-1]
	for i := msg.Round(1); ; i++ {
		k, _, ok := last.ledger.At(i)
		if !ok {
			break
		}
		r := k.Record
		seats = max(seats, len(r.Seats))
		if round.Cells(len(r.Seats)) == 0 || len(r.Contributions) == 0 {
			continue
		}
		inCells++
		parent, _, _ := last.ledger.At(i - 1)
		gave := last.rules.Shares(parent.Record, r)
		if k.Certificate == nil || len(gave) < len(r.Seats)*9/10 {
			t.Errorf("round %d: certified %v, %d of %d seats contributed", i, k.Certificate != nil, len(gave), len(r.Seats))
		}
		if round.Cells(len(parent.Record.Seats)) > 0 {
			audited += len(r.Judgements)
			for _, j := range r.Judgements {
				if j.Verdict == msg.Damaging {
					t.Errorf("round %d: an honest delta is called damaging: %+v", i, j)
				}
			}
		}
	}
	if inCells < 3 || audited == 0 {
		t.Errorf("%d rounds were done in cells, want 3 or more; %d deltas of cells were audited", inCells, audited)
	}
	got, err := replay.Run(t.Context(), replay.Options{Manifest: man, Chain: chain{l: last.ledger}, Store: last.hub.o.Store})
	if head := last.ledger.Head(); err != nil || got.Head != head.ID || got.State != head.Record.State {
		t.Errorf("replay: %+v, %v; the head is %s", got, err, head.ID)
	}
	t.Logf("%d nodes, %d seats: %d rounds in cells, %d audited deltas of cells, %v; %d MB a node at most, %d before the run",
		n, seats, inCells, audited, took.Round(time.Second), most/n/1e6, idle/n/1e6)
}

// rss is the memory of this process, in bytes; 0 where it cannot be told.
func rss(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
