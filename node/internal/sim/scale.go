package sim

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

func scaleScenarios() []Scenario {
	var list []Scenario
	for _, k := range []int{8, 32, 64, 256} {
		list = append(list, Scenario{
			Name: fmt.Sprintf("bytes-k%d", k), Quick: true,
			About: fmt.Sprintf("what %d seats send in a round, beside the formula", k),
			run:   func(t *trial) error { return bytesOf(t, k) },
		})
	}
	for _, n := range []int{1000, 10000} {
		list = append(list, Scenario{
			Name: fmt.Sprintf("scale-%d", n), Quick: n == 1000,
			About: fmt.Sprintf("%d peers, 32 of them with a seat: when a round is certified, and what that costs the others", n),
			run:   func(t *trial) error { return scale(t, n) },
		})
	}
	return list
}

// wideManifest is of a run with some parameters, so that a delta has a size.
func wideManifest() *run.Manifest {
	m := baseManifest()
	m.LoRA = run.LoRA{Rank: 16, Alpha: 16, Targets: []string{"q"}}
	m.Tensors = []run.Tensor{
		{Name: "base_model.model.q.lora_A.weight", Rows: 16, Cols: 2048},
		{Name: "base_model.model.q.lora_B.weight", Rows: 2048, Cols: 16},
	}
	return m
}

// bytesOf measures a run with 65,536 parameters: the deltas are real, and what
// they weigh is compared with (K-1) times the length of one.
func bytesOf(t *trial, seats int) error {
	m := wideManifest()
	m.Seats, m.MinPeers = uint32(seats), 4
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: seats, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed)})
	if err != nil {
		t.because("a run cannot have %d seats: %v; cells and the fold in two levels are not in the protocol", seats, err)
		t.atMost("bulk_off_formula", math.NaN(), 0.08)
		t.atMost("control_mb", math.NaN(), 1)
		return nil
	}
	w.start(w.nodes...)
	ready := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == seats && h.TrainedRounds >= 2 && w.oneHead()
	}
	if ok, err := w.runUntil(8*time.Hour, ready); err != nil || !ok {
		return cause(err, "not all peers were seated after 8 hours")
	}
	before := make([]traffic, len(w.nodes))
	for i, n := range w.nodes {
		before[i] = n.traffic
	}
	clear(w.sent)
	from, began := w.highest(), w.now
	rounds := msg.Round(t.long(5, 2))
	if ok, err := t.makeRounds(w, rounds, 4*time.Duration(rounds)*w.period()); err != nil || !ok {
		return cause(err, "only %d rounds were made", w.lowest()-from)
	}
	var sum traffic
	for i, n := range w.nodes {
		d := n.traffic.minus(before[i])
		sum.controlUp += d.controlUp
		sum.controlDown += d.controlDown
		sum.bulkUp += d.bulkUp
		sum.bulkDown += d.bulkDown
	}
	per := float64(seats) * float64(w.lowest()-from)
	formula := float64(seats-1) * float64(fold.EncodedBytes(layout, int(m.CodecBits)))
	bulk := float64(sum.bulkDown) / per
	// The round that ended last is the one that was measured, with as long as
	// it took.
	control := float64(sum.controlUp+sum.controlDown) / 2 / per / 1e6
	for kind, bytes := range w.sent {
		t.figure("control_mb_"+kind, float64(bytes)/per/1e6)
	}
	t.figure("delta_bytes", float64(fold.EncodedBytes(layout, int(m.CodecBits))))
	t.figure("bulk_bytes_a_round", bulk)
	t.figure("formula_bytes_a_round", formula)
	t.figure("round_periods", (w.now-began).Seconds()/float64(rounds)/w.period().Seconds())
	t.atMost("bulk_off_formula", abs(bulk/formula-1), 0.08)
	t.atMost("control_mb", control, 1)
	t.because("control: each message comes from about %d neighbours", w.net.degree-1)
	t.safety(w)
	return nil
}

func abs(v float64) float64 { return max(v, -v) }

// scale has many peers without a seat, which follow. The short form has fewer.
func scale(t *trial, peers int) error {
	const seats = 32
	peers = t.long(peers, peers/8)
	m := quickManifest()
	m.Seats, m.MinPeers = seats, 4
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	heap := memory.HeapAlloc
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: peers, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed)})
	if err != nil {
		return err
	}
	w.quiet = true
	for _, n := range w.nodes[seats:] {
		n.wants = false
	}
	w.start(w.nodes...)
	seated := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == seats && h.TrainedRounds >= 1 && w.oneHead()
	}
	if ok, err := w.runUntil(3*time.Hour, seated); err != nil || !ok {
		return cause(err, "not all seats were taken, or not all follow, after 3 hours")
	}
	t.say("%d seats are taken", seats)
	// When a round was certified at the last peer, since the last have that it
	// rests on could be given.
	var slowest time.Duration
	lastHave := make(map[cid.Cid]time.Duration)
	w.seen.onPublish = func(_ *node, s msg.Signed) {
		if h, ok := s.Message.(*msg.Have); ok {
			if _, again := lastHave[s.CID]; !again {
				lastHave[s.CID] = w.now
				lastHave[h.Head] = w.now
			}
		}
	}
	reached := make(map[cid.Cid]int)
	w.seen.onAdopt = func(_ *node, l round.Link) {
		reached[l.ID]++
		if at, ok := lastHave[l.Record.Parent]; ok && reached[l.ID] == peers {
			slowest = max(slowest, w.now-at)
		}
	}
	before := make([]traffic, len(w.nodes))
	for i, n := range w.nodes {
		before[i] = n.traffic
	}
	countedBefore := w.counted
	clear(w.sent)
	from, began := w.highest(), w.now
	rounds := msg.Round(t.long(3, 1))
	if ok, err := t.makeRounds(w, rounds, 4*time.Duration(rounds)*w.period()); err != nil || !ok {
		return cause(err, "only %d rounds were made", w.lowest()-from)
	}
	made := float64(w.lowest() - from)
	var control, bulk float64
	for i, n := range w.nodes {
		d := n.traffic.minus(before[i])
		control += float64(d.controlUp+d.controlDown) / 2
		bulk += float64(d.bulkDown)
	}
	runtime.GC()
	runtime.ReadMemStats(&memory)
	agreed, certified := w.agreement(from, from+rounds)
	heartbeats := float64(w.counted-countedBefore) / float64(peers) / made / 1e6
	for kind, bytes := range w.sent {
		t.figure("control_mb_"+kind, float64(bytes)/float64(peers)/made/1e6)
	}
	t.figure("peers", float64(peers))
	t.figure("rounds", made)
	t.figure("round_periods", (w.now-began).Seconds()/made/w.period().Seconds())
	t.atMost("certified_everywhere_after_s", slowest.Seconds(), 60)
	t.atLeast("heights_agreed", float64(agreed)/float64(rounds), 1)
	t.atLeast("heights_certified", float64(certified)/float64(rounds), 1)
	t.figure("control_mb_heartbeats_of_others", heartbeats)
	t.atMost("control_mb", control/float64(peers)/made/1e6+heartbeats, 1)
	t.figure("bulk_bytes_a_round", bulk/float64(peers)/made)
	t.figure("heap_mb", float64(memory.HeapAlloc-heap)/1e6)
	t.atMost("heap_mb_a_node", float64(memory.HeapAlloc-heap)/1e6/float64(peers), 500)
	t.safety(w)
	return nil
}
