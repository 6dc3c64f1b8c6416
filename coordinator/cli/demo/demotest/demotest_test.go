package demotest

import (
	"encoding/json"
	"net"
	"testing"
	"time"
)

// peer is a daemon as the world sees it.
type peer struct {
	t   *testing.T
	in  *json.Decoder
	out *json.Encoder
}

func meet(t *testing.T, addr, name string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	p := &peer{t: t, in: json.NewDecoder(c), out: json.NewEncoder(c)}
	p.tell(up{Peer: name})
	return p
}

func (p *peer) tell(u up) {
	p.t.Helper()
	if err := p.out.Encode(u); err != nil {
		p.t.Fatal(err)
	}
}

// next returns the next thing that is not about who is there.
func (p *peer) next() down {
	p.t.Helper()
	for {
		var x down
		if err := p.in.Decode(&x); err != nil {
			p.t.Fatal(err)
		}
		if x.Peers == nil {
			return x
		}
	}
}

// TestSecondRun: a world whose daemons of an earlier demo have not hung up yet
// begins a run anew, before the launch is answered; nobody gets rounds of the old
// one, nor do the old daemons count.
func TestSecondRun(t *testing.T) {
	addr, stop, err := NewWorld(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	launch := func(rounds uint64, names ...string) (all []*peer) {
		for _, n := range names {
			all = append(all, meet(t, addr, n))
		}
		all[0].tell(up{Join: "run", Rounds: rounds})
		if x := all[0].next(); !x.Launched || x.Run != "run" {
			t.Fatalf("a launch was answered with %+v", x)
		}
		return all
	}
	join := func(all []*peer) {
		for _, p := range all {
			p.tell(up{Join: "run"})
		}
	}
	old := launch(8, "a", "b", "c", "d")
	join(old[1:])
	for n := uint64(1); n <= 3; n++ { // two rounds train, then two have to die
		if x := old[3].next(); x.Round == nil || x.Round.Round != n {
			t.Fatalf("round %d of the first run is %+v", n, x)
		}
	}
	again := launch(7, "e", "f", "g", "h")
	join(again[1:])
	x := again[3].next()
	if x.Round == nil || x.Round.Round != 1 || x.Round.TrainedRounds != 0 || len(x.Round.Joined) != 3 {
		t.Errorf("the second run begins with %+v, want round 1, in which three peers join", x.Round)
	}
}
