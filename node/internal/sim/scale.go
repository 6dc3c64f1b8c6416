package sim

import (
	"fmt"
	"math"
	"runtime"
	"slices"
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
			Name: fmt.Sprintf("bytes-k%d", k), Quick: k < 256, // that alone takes minutes
			About: fmt.Sprintf("what %d seats send in a round, beside the formula", k),
			run:   func(t *trial) error { return bytesOf(t, k) },
		})
	}
	list = append(list, Scenario{
		Name: "follow", Quick: true,
		About: "what a peer without a seat pulls and passes on beside 32 seats, and what that comes to at ten million parameters",
		run:   func(t *trial) error { return follow(t, followedSeats) },
	}, Scenario{
		Name:  "follow-cells",
		About: "the same beside 64 seats in two cells",
		run:   func(t *trial) error { return follow(t, cellPeers) },
	})
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
	cells := round.Cells(seats)
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: seats, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed)})
	if err != nil {
		return err
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
	if cells > 0 { // those of its cell, and the means of the others
		formula = (float64(seats)/float64(cells)-1)*float64(fold.EncodedBytes(layout, int(m.CodecBits))) +
			float64(cells-1)*float64(fold.EncodedBytes(layout, fold.CellBits))
	}
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

// followed is what a run with many peers without a seat came to.
type followed struct {
	rounds, periods     float64 // made, and how long one took
	agreed, certified   int
	control, heartbeats float64 // bytes for each peer and round; of those that were only counted
	bulk                float64
	sent                map[string]float64 // control by what it was
	heap                float64            // bytes of all
	// after is when each peer adopted a certified record, since the last have
	// that it rests on; of the slowest round.
	after []time.Duration
}

// scale has many peers without a seat, which follow. The short form has fewer.
// Pictures have smaller swarms beside it.
func scale(t *trial, peers int) error {
	peers = t.long(peers, peers/8)
	traffic := Chart{
		Name: "traffic", Title: fmt.Sprintf("Traffic of a peer in a run with %d seats", followedSeats), X: "peers", Y: "MB in a round", LogX: true,
		Lines: []Line{{Name: "control"}, {Name: "payloads"}, {Name: "limit of control"}},
	}
	certificate := Chart{Name: "certificate", Title: "Time to the certified record", X: "seconds since the last have", Y: "part of the peers"}
	for _, n := range []int{max(peers/16, followedSeats), max(peers/4, followedSeats+8), peers} {
		f, w, err := t.follow(n)
		if err != nil {
			return fmt.Errorf("%d peers: %w", n, err)
		}
		for i, y := range []float64{(f.control + f.heartbeats) / 1e6, f.bulk / 1e6, controlLimit} {
			traffic.Lines[i].Points = append(traffic.Lines[i].Points, Point{float64(n), y})
		}
		certificate.Lines = append(certificate.Lines, Line{fmt.Sprintf("%d peers", n), f.parts()})
		t.say("%d peers: %.2f MB of control, certified everywhere after %.1f s", n, (f.control+f.heartbeats)/1e6, f.slowest().Seconds())
		if n == peers {
			f.figures(t, n)
			t.safety(w)
		}
	}
	t.charts = append(t.charts, traffic, certificate)
	return nil
}

const (
	followedSeats = 32
	controlLimit  = 1 // MB
)

func (f *followed) slowest() time.Duration {
	if len(f.after) == 0 {
		return math.MaxInt64
	}
	return slices.Max(f.after)
}

// parts is which part of the peers had the certified record by when.
func (f *followed) parts() []Point {
	sorted := slices.Sorted(slices.Values(f.after))
	step := max(len(sorted)/100, 1)
	var points []Point
	for i := 0; i < len(sorted); i += step {
		points = append(points, Point{sorted[i].Seconds(), float64(i+1) / float64(len(sorted))})
	}
	return append(points, Point{f.slowest().Seconds(), 1})
}

func (f *followed) figures(t *trial, peers int) {
	for kind, bytes := range f.sent {
		t.figure("control_mb_"+kind, bytes/1e6)
	}
	t.figure("peers", float64(peers))
	t.figure("rounds", f.rounds)
	t.figure("round_periods", f.periods)
	t.atMost("certified_everywhere_after_s", f.slowest().Seconds(), 60)
	t.atLeast("heights_agreed", float64(f.agreed)/f.rounds, 1)
	t.atLeast("heights_certified", float64(f.certified)/f.rounds, 1)
	t.figure("control_mb_heartbeats_of_others", f.heartbeats/1e6)
	t.atMost("control_mb", (f.control+f.heartbeats)/1e6, controlLimit)
	t.figure("bulk_bytes_a_round", f.bulk)
	t.figure("heap_mb", f.heap/1e6)
	t.atMost("heap_mb_a_node", f.heap/1e6/float64(peers), 500)
}

// follow plays some rounds with so many peers.
func (t *trial) follow(peers int) (followed, *world, error) {
	m := quickManifest()
	m.Seats, m.MinPeers = followedSeats, 4
	layout, err := m.Layout()
	if err != nil {
		return followed{}, nil, err
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	heap := memory.HeapAlloc
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: peers, net: wide(), manifest: m, task: newQuickTask(layout, t.Seed)})
	if err != nil {
		return followed{}, nil, err
	}
	w.quiet = true
	for _, n := range w.nodes[followedSeats:] {
		n.wants = false
	}
	w.start(w.nodes...)
	seated := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == followedSeats && h.TrainedRounds >= 1 && w.oneHead()
	}
	if ok, err := w.runUntil(3*time.Hour, w.onChange(seated)); err != nil || !ok {
		return followed{}, nil, cause(err, "not all seats were taken, or not all follow, after 3 hours")
	}
	f := followed{sent: make(map[string]float64)}
	w.watchAdoption(&f)
	before := make([]traffic, len(w.nodes))
	for i, n := range w.nodes {
		before[i] = n.traffic
	}
	countedBefore := w.counted
	clear(w.sent)
	from, began := w.highest(), w.now
	rounds := msg.Round(t.long(3, 1))
	if peers > 1000 {
		rounds = 1 // it has as many events as ten of a thousand peers
	}
	if ok, err := t.makeRounds(w, rounds, 4*time.Duration(rounds)*w.period()); err != nil || !ok {
		return followed{}, nil, cause(err, "only %d rounds were made", w.lowest()-from)
	}
	f.rounds = float64(w.lowest() - from)
	f.periods = (w.now - began).Seconds() / f.rounds / w.period().Seconds()
	per := f.rounds * float64(peers)
	for i, n := range w.nodes {
		d := n.traffic.minus(before[i])
		f.control += float64(d.controlUp+d.controlDown) / 2 / per
		f.bulk += float64(d.bulkDown) / per
	}
	for kind, bytes := range w.sent {
		f.sent[kind] = float64(bytes) / per
	}
	f.heartbeats = float64(w.counted-countedBefore) / per
	f.agreed, f.certified = w.agreement(from, from+msg.Round(f.rounds))
	runtime.GC()
	runtime.ReadMemStats(&memory)
	f.heap = float64(memory.HeapAlloc) - float64(heap)
	return f, w, nil
}

// watchAdoption notes when each peer has a record, since the last have that it
// rests on could be given.
func (w *world) watchAdoption(f *followed) {
	lastHave := make(map[cid.Cid]time.Duration)
	seen := make(map[cid.Cid]bool)
	w.seen.onPublish = func(_ *node, s msg.Signed) {
		if h, ok := s.Message.(*msg.Have); ok && !seen[s.CID] {
			seen[s.CID] = true
			lastHave[h.Head] = w.now
		}
	}
	reached := make(map[cid.Cid][]time.Duration)
	w.seen.onAdopt = func(_ *node, l round.Link) {
		at, ok := lastHave[l.Record.Parent]
		if !ok {
			return
		}
		list := append(reached[l.ID], w.now-at)
		reached[l.ID] = list
		if len(list) == len(w.nodes) && (f.after == nil || list[len(list)-1] > f.slowest()) {
			f.after = list
		}
	}
}
