package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestOrders: a run is paused, is so after a restart, goes on with another
// number of rounds, and is stopped; who joined and did no work has no say.
func TestOrders(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	cfg := testConfig(t.TempDir())
	cfg.Threads = 1
	a := startDaemon(t, cfg)
	m, data := importedBy(t, a)
	r, err := a.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, data, `
rounds = 1000
period = "20s"
eval_samples = 4
lora.rank = 2
inner.max_steps = 2
inner.batch_samples = 2
inner.sequence_tokens = 96
`)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(what string, ok func(api.Run) bool) api.Run {
		t.Helper()
		return apitest.Await(t, a, r.ID, what, ok).Run
	}
	order := func(q api.OrderRequest) error {
		q.Run = r.ID
		_, err := a.Order(t.Context(), q)
		return err
	}
	wait("a round has trained", func(r api.Run) bool { return r.TrainedRounds >= 1 })
	if err := order(api.OrderRequest{Action: api.OrderPause, Note: "thunderstorm"}); err != nil {
		t.Fatal(err)
	}
	paused := wait("it is paused", func(r api.Run) bool { return r.State == api.RunPaused })
	if want := "the run is paused by its launcher: thunderstorm"; paused.Why != want || paused.Course == nil || !paused.Course.Paused {
		t.Errorf("why %q, course %+v; want %q", paused.Why, paused.Course, want)
	}
	wantCode(t, order(api.OrderRequest{Action: api.OrderPause}), api.CodeConflict, "it is paused")
	wantCode(t, order(api.OrderRequest{Action: api.OrderSet, Rounds: 1}), api.CodeUsage, "are trained already")
	wantCode(t, order(api.OrderRequest{Action: "dance"}), api.CodeUsage, "must be pause, resume, stop or set")
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	a = startDaemon(t, cfg)
	again := wait("it is paused after a restart", func(r api.Run) bool { return r.State == api.RunPaused })
	if again.TrainedRounds != paused.TrainedRounds {
		t.Errorf("%d rounds are trained, %d when it was paused", again.TrainedRounds, paused.TrainedRounds)
	}
	if err := order(api.OrderRequest{Action: api.OrderSet, Rounds: 500, Rate: 0.25}); err != nil {
		t.Fatal(err)
	}
	wait("it is amended", func(r api.Run) bool { return r.MaxRounds == 500 && r.Course.Rate == 0.25 && r.Course.Paused })
	if err := order(api.OrderRequest{Action: api.OrderResume}); err != nil {
		t.Fatal(err)
	}
	wait("it trains again", func(r api.Run) bool { return r.TrainedRounds > paused.TrainedRounds })
	if err := order(api.OrderRequest{Action: api.OrderStop}); err != nil {
		t.Fatal(err)
	}
	over := wait("it is over", func(r api.Run) bool { return r.Final })
	if want := "the run was stopped by its launcher"; over.Why != want || over.TrainedRounds >= 500 {
		t.Errorf("why %q after %d rounds, want %q", over.Why, over.TrainedRounds, want)
	}
	wantCode(t, order(api.OrderRequest{Action: api.OrderPause}), api.CodeConflict, "it is over")
	round, err := a.Round(t.Context(), r.ID, over.Round)
	if err != nil || len(round.Orders) != 1 || round.Orders[0].Action != "stop" || round.Orders[0].Peer != over.Launcher {
		t.Errorf("orders of the last round: %+v, %v", round.Orders, err)
	}
}

// TestSeveralRuns: a node trains in two runs at once, pauses one of them, and
// ends both.
func TestSeveralRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	cfg := testConfig(t.TempDir())
	a := startDaemon(t, cfg)
	m, data := importedBy(t, a)
	var ids []string
	for i := range 2 {
		r, err := a.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", TOML: runText(m, data, fmt.Sprintf(`
rounds = 1000
seed = %d
period = "20s"
eval_samples = 4
lora.rank = 2
inner.max_steps = 2
inner.batch_samples = 2
inner.sequence_tokens = 96
`, i+1))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	wait := func(what string, ok func(first, second api.Run) bool) (first, second api.Run) {
		t.Helper()
		for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			p, err := a.Run(t.Context(), ids[0])
			if err != nil {
				t.Fatal(err)
			}
			q, err := a.Run(t.Context(), ids[1])
			if err != nil {
				t.Fatal(err)
			}
			if ok(p.Run, q.Run) {
				return p.Run, q.Run
			}
			if time.Now().After(deadline) {
				t.Fatalf("waiting until %s: %+v and %+v", what, p.Run, q.Run)
			}
		}
	}
	wait("both have trained", func(p, q api.Run) bool { return p.TrainedRounds >= 2 && q.TrainedRounds >= 2 })
	if _, err := a.Order(t.Context(), api.OrderRequest{Run: ids[0], Action: api.OrderPause}); err != nil {
		t.Fatal(err)
	}
	p, q := wait("the first is paused", func(p, _ api.Run) bool { return p.State == api.RunPaused })
	wait("the second trains on", func(_, now api.Run) bool { return now.TrainedRounds >= q.TrainedRounds+2 })
	for _, id := range ids {
		if _, err := a.Order(t.Context(), api.OrderRequest{Run: id, Action: api.OrderStop}); err != nil {
			t.Fatal(err)
		}
	}
	end, _ := wait("both are over", func(p, q api.Run) bool { return p.Final && q.Final })
	if end.TrainedRounds != p.TrainedRounds {
		t.Errorf("the paused run trained %d rounds, %d before", end.TrainedRounds, p.TrainedRounds)
	}
}
