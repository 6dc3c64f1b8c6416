package app

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/moot-net/moot/node/api"
)

// TestDigest: each round is read once, but for the last ones, which may change; of
// a long run a part is told at first; another branch is read anew.
func TestDigest(t *testing.T) {
	round := func(n uint64, branch string) api.Round {
		loss := 1 / float64(n)
		return api.Round{
			Round: n, Parent: recordCID(n-1, branch), Record: recordCID(n, branch), TrainLoss: &loss, Tokens: 10 * n,
			Contributions: []api.Contribution{{Peer: "a", Tokens: 6, Weight: 6, Clip: 1}, {Peer: "b", Tokens: 4, Weight: 4, Clip: 0.5}},
			Refused:       []api.Refusal{{Peer: "c", Reason: "timeout"}},
		}
	}
	p := &chain{}
	for n := uint64(1); n <= 230; n++ {
		p.rounds = append(p.rounds, round(n, "x"))
	}
	far := time.Now().Add(time.Hour)
	read := func(d *digest, until time.Time) (*api.Digest, uint64) {
		t.Helper()
		sum, head, err := d.read(t.Context(), p, "b", until)
		if err != nil {
			t.Fatal(err)
		}
		return sum, head
	}
	d := new(digest)
	sum, head := read(d, time.Now()) // as much as a page
	if last, _ := sum.Last(); last != digestPage || head != 230 {
		t.Errorf("at first rounds up to %d of %d are told, want %d of 230", last, head, digestPage)
	}
	sum, _ = read(d, far)
	if last, _ := sum.Last(); last != 230 {
		t.Errorf("then up to %d, want 230", last)
	}
	v := sum.Peers()
	if v.Entered != 460 || v.Refused != 230 || v.Known != 3 || v.Peers[0].Peer != "a" || v.Peers[0].Tokens != 6*230 || v.Peers[1].Clipped != 230 || v.Peers[2].Reasons["timeout"] != 230 {
		t.Errorf("%+v", v)
	}
	if s := sum.Series(1000); len(s.Points) != 230 || s.Points[9].OwnTokens != 4 || s.Points[9].RoundTokens != 10 {
		t.Errorf("%d points, the tenth %+v", len(s.Points), s.Points[9])
	}

	// The last rounds change, and one comes.
	p.told = 0
	p.rounds[225].Contributions[0].Weight = 0
	p.rounds = append(p.rounds, round(231, "x"))
	sum, _ = read(d, far)
	if p.told > 2*settledAfter {
		t.Errorf("%d rounds were read again", p.told)
	}
	if v := sum.Peers(); v.Peers[0].Weight != 6*230 || v.Peers[0].Rounds != 231 {
		t.Errorf("after a change: %+v", v.Peers[0])
	}
	whole, _ := read(new(digest), far)
	if diff := cmp.Diff(whole, sum, cmp.AllowUnexported(api.Digest{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("round by round it is another (-at once +step by step):\n%s", diff)
	}

	// Another branch.
	for i := range p.rounds {
		p.rounds[i] = round(uint64(i+1), "y")
	}
	sum, _ = read(d, far)
	if _, record := sum.Last(); record != recordCID(231, "y") || sum.Peers().Entered != 462 {
		t.Errorf("on another branch: %+v", sum.Peers())
	}
}
