package sim

import (
	"time"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// follow measures what a peer without a seat pulls and passes on beside those that
// have one, in a run of 65,536 parameters that move about as far in a round as
// those of an adapter do, and reckons with ten million.
func follow(t *trial, seats int) error {
	const many, most = 1e7, 32
	m := wideManifest()
	m.Seats, m.MinPeers = uint32(seats), 4
	if round.Cells(seats) == 0 { // with cells there are none
		m.Trust.Outsiders = 2
	}
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	task := newQuickTask(layout, t.Seed)
	const small = 0.01 // 30 steps of AdamW at 2e-4 move a parameter by a few thousandths
	for i := range task.target {
		task.target[i] *= small
	}
	task.noise = small
	w, err := newWorld(t.ctx, worldOptions{seed: t.Seed, nodes: seats + t.long(most, most/2), net: wide(), manifest: m, task: task})
	if err != nil {
		return err
	}
	followers := w.nodes[seats:]
	for _, n := range followers {
		n.wants = false
	}
	w.start(w.nodes...)
	ready := func() bool {
		h := w.nodes[0].chain.Head().Record
		return len(h.NextSeats) == seats && h.TrainedRounds >= 3 && w.oneHead()
	}
	if ok, err := w.runUntil(4*time.Hour, ready); err != nil || !ok {
		return cause(err, "not all seats were taken, or not all follow, after 4 hours")
	}
	before := make([]traffic, len(followers))
	for i, n := range followers {
		before[i] = n.traffic
	}
	from := w.highest()
	rounds := msg.Round(t.long(8, 3))
	if ok, err := t.makeRounds(w, rounds, 4*time.Duration(rounds)*w.period()); err != nil || !ok {
		return cause(err, "only %d rounds were made", w.lowest()-from)
	}
	var down, up, control float64
	for i, n := range followers {
		d := n.traffic.minus(before[i])
		down += float64(d.bulkDown)
		up += float64(d.bulkUp)
		control += float64(d.controlUp+d.controlDown) / 2
	}
	per := float64(len(followers)) * float64(w.lowest()-from)
	scaled := down / per / float64(layout.Params()) * many / 1e6
	t.figure("pulled_bytes_a_parameter", down/per/float64(layout.Params()))
	t.figure("passed_on_bytes_a_parameter", up/per/float64(layout.Params()))
	t.figure("control_mb", control/per/1e6)
	t.atMost("follower_mb_at_10m", scaled+control/per/1e6, 25)
	t.safety(w)
	return nil
}
