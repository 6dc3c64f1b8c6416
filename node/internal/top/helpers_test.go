package top

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

const (
	self  = "12D3KooWSelf1111111111111111111111111111111111111111"
	peerA = "12D3KooWAaaa1111111111111111111111111111111111111111"
	peerB = "12D3KooWBbbb1111111111111111111111111111111111111111"
	runID = "bafkreirun1111111111111111111111111111111111111111111111111"
	other = "bafkreioth1111111111111111111111111111111111111111111111111"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// daemon is a Source that says what it is told to.
type daemon struct {
	mu sync.Mutex
	// guarded by mu
	gone   bool
	status api.Status
	runs   map[string]api.RunDetail
	rounds map[string][]api.Round
	peers  []api.Peer
	asked  []api.ControlRequest
	pages  []uint64 // first rounds of the pages that were asked for
	events chan api.Event
	closed int
}

var errGone = api.Errorf(api.CodeDaemon, "no daemon is running")

// newDaemon is in two runs; in the one that trains it has a seat with two others.
func newDaemon() *daemon {
	d := &daemon{events: make(chan api.Event, 16)}
	d.status = api.Status{
		Version: "1.2.3", Peer: self, Started: noon.Add(-134 * time.Minute), State: api.NodeTraining, Device: "cpu (2 threads, avx2, f32)",
		Peers: 2, Runs: 2, Reachability: "public", Traffic: api.Traffic{PulledBytes: 1234567890, SentBytes: 7654321},
		Devices: []api.Device{{Name: "RTX 3060", Celsius: new(71), UtilPercent: new(87), UsedBytes: new(int64(6.1e9)), TotalBytes: new(int64(8e9)), Watts: new(143)}},
	}
	train, eval := 2.3456, 2.5
	detail := api.RunDetail{
		Run: api.Run{
			ID: runID, Name: "songs", State: api.RunTraining, Phase: "exchange", Joined: true, Why: "this round's work is done; 2 of 3 deltas are here",
			Round: 3, MaxRounds: 40, Tokens: 123456, Seats: 3, MaxSeats: 32, TrainLoss: &train, EvalLoss: &eval, TokensPerSecond: 812.3,
		},
		NextSeats: []api.Seat{{Peer: self}, {Peer: peerA}, {Peer: peerB}},
		Members: []api.Member{
			{Peer: peerA, Phase: "exchange", Round: 3, TokensPerSecond: 400, Device: "cpu (8 threads)"},
			{Peer: peerB, Phase: "train", Round: 3, TokensPerSecond: 2000, Device: "cuda:0 (RTX 4090)"},
		},
	}
	d.runs = map[string]api.RunDetail{
		runID: detail,
		other: {Run: api.Run{ID: other, Name: "poems", State: api.RunFinal, Phase: "done", Joined: true}},
	}
	d.rounds = map[string][]api.Round{runID: {round(1, "r1", 3), round(2, "r2", 2.75), round(3, "r3", 2.5)}}
	d.peers = []api.Peer{
		{ID: peerA, Where: "lan", RTTMillis: 0.6, Agent: "moot/1.2.3"}, {ID: peerB, Where: "internet", RTTMillis: 41},
	}
	return d
}

// round is a decided round to which this node gave 100 tokens; in round 2 they
// came too late.
func round(n uint64, record string, eval float64) api.Round {
	r := api.Round{Round: n, Record: record, EvalLoss: &eval, TrainLoss: new(eval - 0.1)}
	if n == 2 {
		r.Refused = []api.Refusal{{Peer: self, Reason: "timeout"}, {Peer: peerB, Reason: "bad-norm"}}
		return r
	}
	r.Contributions = []api.Contribution{{Peer: self, Tokens: 100, Weight: 100}, {Peer: peerA, Tokens: 900, Weight: 900}}
	return r
}

func (d *daemon) set(fn func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fn()
}

func (d *daemon) up() error {
	if d.gone {
		return errGone
	}
	return nil
}

func (d *daemon) Status(context.Context) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status, d.up()
}

func (d *daemon) Runs(context.Context) (api.Runs, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := []api.Run{}
	for _, id := range []string{other, runID} {
		if r, ok := d.runs[id]; ok {
			l = append(l, r.Run)
		}
	}
	return api.Runs{Runs: l}, d.up()
}

func (d *daemon) Run(_ context.Context, id string) (api.RunDetail, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.runs[id]
	r.Rounds = d.rounds[id]
	return r, d.up()
}

func (d *daemon) Rounds(_ context.Context, id string, from uint64, limit int) (api.Rounds, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pages = append(d.pages, from)
	l := []api.Round{}
	for _, r := range d.rounds[id] {
		if r.Round >= from && len(l) < limit {
			l = append(l, r)
		}
	}
	return api.Rounds{Rounds: l}, d.up()
}

func (d *daemon) Peers(context.Context) (api.Peers, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return api.Peers{Peers: slices.Clone(d.peers)}, d.up()
}

func (d *daemon) Control(_ context.Context, req api.ControlRequest) (api.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, req)
	switch req.Action {
	case api.ControlPause:
		d.status.State, d.status.Why, d.status.Reason, d.status.Do = api.NodePaused, "it was paused", "paused", `go on with "mootd resume"`
	case api.ControlResume:
		d.status.State, d.status.Why, d.status.Reason, d.status.Do = api.NodeTraining, "", "", ""
	}
	return d.status, d.up()
}

func (d *daemon) Watch(ctx context.Context, o client.WatchOptions, emit func(api.Event) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-d.events:
			if !ok {
				return errors.New("the stream has ended")
			}
			if e.Type == api.EventStreamEnd {
				o.OnDown(errGone)
				continue
			}
			if err := emit(e); err != nil {
				return err
			}
		}
	}
}

func (d *daemon) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed++
}
