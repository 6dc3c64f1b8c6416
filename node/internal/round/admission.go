package round

import (
	"slices"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Credentials are what a run may ask for before it gives a seat.
type Credentials struct {
	Invite, Proof []byte
	Nonce         uint64
}

// Show replaces what Self shows with requests for a seat. Where it waits for one,
// it asks again with that.
type Show struct{ Credentials Credentials }

func (Show) event() {}

func (m *Machine) show(c Credentials) {
	m.cfg.Credentials = c
	if m.wish != nil && !m.wish.Message.(*msg.JoinRequest).Leave {
		m.wish = nil
	}
}

// Admits reports whether a request can have an effect in a round: it is not void by
// then, the run lets the peer in, and it took the trouble that the run asks for.
// Everybody may leave. Round 0 asks whether it can in any round.
func (ru *Rules) Admits(j *msg.JoinRequest, round msg.Round) bool {
	switch {
	case !j.Run.Equals(ru.run), (j.Until > 0) != ru.manifest.DatedRequests, j.Until < round && j.Until > 0:
		return false
	case j.Leave:
		return true
	case j.Work() < int(ru.manifest.Admission.WorkBits):
		return false
	}
	return ru.Welcomes(j, round)
}

// Welcomes reports whether the run lets the peer of a request in, whatever
// trouble it took.
func (ru *Rules) Welcomes(j *msg.JoinRequest, round msg.Round) bool {
	a := &ru.manifest.Admission
	switch {
	case !j.Run.Equals(ru.run):
		return false
	case j.Peer == ru.manifest.Launcher || a.Mode == run.AdmissionOpen:
		return true
	case a.Mode == run.AdmissionList:
		_, ok := slices.BinarySearchFunc(a.Allowed, j.Peer, comparePeers)
		return ok
	}
	return j.Invited(ru.manifest.Launcher, round)
}
