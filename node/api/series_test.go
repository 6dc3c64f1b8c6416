package api_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// TestSeries: of a long run few points are told, among them whatever stands out,
// each as it was; the last rounds are all there.
func TestSeries(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	d := api.Digest{Self: "p1"}
	const rounds = 20_000
	want := map[uint64]string{777: "refused", 9_001: "best", 12_345: "worst", 15_000: "provisional", 18_000: "slow"}
	for n := uint64(1); n <= rounds; n++ {
		r := apitest.DecidedRound("x", n, false, "p1", "p2")
		train, eval := 2+random.Float64(), 2+random.Float64()
		switch want[n] {
		case "refused":
			r.Refused = []api.Refusal{{Peer: "p3", Reason: "bad-norm"}, {Peer: "p4", Reason: "bad-norm"}, {Peer: "p5", Reason: "timeout"}}
		case "best":
			eval = 1
		case "worst":
			train = 9
		case "provisional":
			r.Certified = false
		case "slow":
			r.Seconds = 900
		}
		r.TrainLoss, r.EvalLoss = &train, &eval
		d.Add(r)
	}
	for _, limit := range []int{1, 20, 100, 500, api.MaxPoints} {
		s := d.Series(limit)
		if n := len(s.Points); n > max(limit, 20) || n < min(limit, 100)/2 || s.Rounds != rounds || s.Round != rounds {
			t.Errorf("of %d rounds up to %d at most %d: %d points", s.Rounds, s.Round, limit, n)
		}
		at := map[uint64]api.RoundPoint{}
		for i, p := range s.Points {
			if i > 0 && p.Round <= s.Points[i-1].Round {
				t.Fatalf("at most %d: round %d after %d", limit, p.Round, s.Points[i-1].Round)
			}
			at[p.Round] = p
		}
		if limit < 100 {
			continue
		}
		for n, what := range want {
			if _, ok := at[n]; !ok {
				t.Errorf("at most %d: round %d, the %s one, is missing", limit, n, what)
			}
		}
		for n := uint64(rounds - 49); n <= rounds; n++ {
			if _, ok := at[n]; !ok {
				t.Fatalf("at most %d: round %d, one of the last, is missing", limit, n)
			}
		}
		if p := at[777]; fmt.Sprint(p.Refused, p.Reasons) != "3 [bad-norm timeout]" || p.OwnTokens != 1024 || p.RoundTokens != 2048 || p.Bytes != 13_000 {
			t.Errorf("round 777 is %+v", p)
		}
	}
	if s := d.Series(api.MaxPoints); *s.Points[len(s.Points)-1].TrainMean < 2.2 || *s.Points[len(s.Points)-1].TrainMean > 2.8 {
		t.Errorf("the running mean is %v", *s.Points[len(s.Points)-1].TrainMean)
	}
	// Further rounds change nothing in what they come after.
	next := func(n uint64) api.Round { return apitest.DecidedRound("x", n, false, "p1", "p2") }
	more := d.With([]api.Round{next(rounds + 1)}).With([]api.Round{next(rounds + 2)})
	more.Add(next(rounds + 3))
	if s := more.Series(100); s.Rounds != rounds+3 || s.Round != rounds+3 || s.Points[len(s.Points)-3].Round != rounds+1 || more.Peers().Round != rounds+3 {
		t.Errorf("%d rounds up to %d", s.Rounds, s.Round)
	}
	if s := d.Series(100); s.Rounds != rounds || s.Round != rounds || s.Points[len(s.Points)-1].Round != rounds {
		t.Errorf("%d rounds up to %d, after others were added elsewhere", s.Rounds, s.Round)
	}
	v := d.Peers()
	if v.Known != 5 || v.Peers[0].Rounds != rounds || v.Peers[0].Share != 0.5 || len(v.Refusals) != 3 || v.Refusals[0].Reason != "timeout" {
		t.Errorf("peers %+v", v)
	}
}

// TestRoundsOfPeer: rounds can be asked for with what is of one peer.
func TestRoundsOfPeer(t *testing.T) {
	f := apitest.New("node")
	s := newServer(f)
	get := func(query string) (v api.Rounds) {
		t.Helper()
		w := ask(t, s, "GET", "/api/v1/runs/last/rounds"+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", query, w.Code, w.Body)
		}
		return v
	}
	d := apitest.Detail("demo", f.Node.Peer)
	f.AddRun(d)
	for n := uint64(1); n <= 3; n++ {
		r := apitest.DecidedRound("demo", n, false, "p1", "p2")
		r.Refused = []api.Refusal{{Peer: "p3", Reason: "timeout"}}
		r.Judged = []api.Judged{{Peer: "p1"}, {Peer: "p2"}}
		r.Standings = []api.Standing{{Peer: "p2"}}
		f.Decide(d.ID, r)
	}
	got := get("?from=2&peer=p2")
	if len(got.Rounds) != 2 {
		t.Fatalf("%d rounds", len(got.Rounds))
	}
	r := got.Rounds[0]
	if len(r.Contributions) != 1 || r.Contributions[0].Peer != "p2" || len(r.Refused) != 0 || len(r.Judged) != 1 || r.Judged[0].Peer != "p2" || len(r.Standings) != 1 {
		t.Errorf("%+v", r)
	}
	got = get("?peer=p3&limit=1")
	if r := got.Rounds[0]; len(got.Rounds) != 1 || len(r.Contributions)+len(r.Judged)+len(r.Standings) != 0 || len(r.Refused) != 1 {
		t.Errorf("%+v", r)
	}
}
