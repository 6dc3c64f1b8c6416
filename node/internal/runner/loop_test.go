package runner

import (
	"slices"
	"testing"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// One peer that says it is ahead does not keep a newcomer from being ready.
func TestAhead(t *testing.T) {
	_, s1 := nodeKey(t, 1)
	_, s2 := nodeKey(t, 2)
	_, s3 := nodeKey(t, 3)
	_, x := nodeKey(t, 4)
	_, y := nodeKey(t, 5)
	seats := []msg.Seat{{Peer: s1}, {Peer: s2}, {Peer: s3}}
	at := func(n msg.Round) round.Member { return round.Member{Status: &msg.Status{Round: n}} }
	of := func(m round.Member, id string) round.Member {
		i := slices.Index([]string{"s1", "s2", "s3", "x", "y"}, id)
		m.Status.Peer = []msg.Seat{{Peer: s1}, {Peer: s2}, {Peer: s3}, {Peer: x}, {Peer: y}}[i].Peer
		return m
	}
	const now, far = 5, msg.MaxRound
	for _, tt := range []struct {
		name    string
		members []round.Member
		want    bool
	}{
		{"nobody was heard", nil, true},
		{"a seat is where we are", []round.Member{of(at(now), "s1")}, false},
		{"a stranger lies", []round.Member{of(at(now), "s1"), of(at(far), "x"), of(at(far), "y")}, false},
		{"one seat of three lies", []round.Member{of(at(now), "s1"), of(at(now), "s2"), of(at(far), "s3")}, false},
		{"two seats of three are ahead", []round.Member{of(at(now), "s1"), of(at(6), "s2"), of(at(6), "s3"), of(at(now), "x")}, true},
		{"only strangers, ahead", []round.Member{of(at(6), "x")}, true},
		{"only strangers, here", []round.Member{of(at(now), "x"), of(at(now), "y")}, false},
	} {
		v := &round.View{Round: now, Members: tt.members, Head: round.Link{Record: &msg.Record{NextSeats: seats}}}
		if got := ahead(v); got != tt.want {
			t.Errorf("%s: ahead is %v, want %v", tt.name, got, tt.want)
		}
	}
}
