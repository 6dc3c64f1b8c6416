package msg

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Action is what an order wants of a run.
type Action uint32

// The actions. Their numbers are on the wire and never change.
const (
	_            Action = iota
	ActionPause         // no round trains until there is another order
	ActionResume        // rounds train again
	ActionStop          // the next record is the last one
	ActionSet           // the limits and the rate change
	actionEnd
)

var actionNames = [actionEnd]string{"none", "pause", "resume", "stop", "set"}

// String returns the name of the action as it is printed and put into JSON.
func (a Action) String() string {
	if a < actionEnd {
		return actionNames[a]
	}
	return fmt.Sprintf("action-%d", uint32(a))
}

// Order changes the course of a run. It takes effect when it is the launcher's,
// or when peers with two thirds of the audited work give the same one.
type Order struct {
	Run  cid.Cid
	Peer peer.ID
	Seq  uint64 // above that of the last order that took effect
	// Action is what it wants.
	Action Action
	// With ActionSet what is not 0 replaces what the manifest or an earlier
	// order says: when the run is over, and by how many thousandths the
	// learning rate is multiplied.
	MaxRounds    uint64 `json:",omitzero"`
	MaxTokens    uint64 `json:",omitzero"`
	RatePermille uint32 `json:",omitzero"`
	Note         string `json:",omitzero"` // why, for people; printable
}

// Course is what orders have made of a run. The zero Course is that of the
// manifest.
type Course struct {
	Seq          uint64 // of the last order that took effect
	Paused       bool
	Stopped      bool
	MaxRounds    uint64 // 0: the manifest's
	MaxTokens    uint64 // 0: the manifest's
	RatePermille uint32 // 0: 1000
}

// Same reports whether two orders want the same, whoever gives them and why.
func (m *Order) Same(o *Order) bool {
	return m.Run.Equals(o.Run) && m.Seq == o.Seq && m.Action == o.Action &&
		m.MaxRounds == o.MaxRounds && m.MaxTokens == o.MaxTokens && m.RatePermille == o.RatePermille
}

// After returns the course of a run after an order.
func (c Course) After(m *Order) Course {
	c.Seq = m.Seq
	switch m.Action {
	case ActionPause:
		c.Paused = true
	case ActionResume:
		c.Paused = false
	case ActionStop:
		c.Stopped = true
	case ActionSet:
		if m.MaxRounds != 0 {
			c.MaxRounds = m.MaxRounds
		}
		if m.MaxTokens != 0 {
			c.MaxTokens = m.MaxTokens
		}
		if m.RatePermille != 0 {
			c.RatePermille = m.RatePermille
		}
	}
	return c
}

// Validate implements Message.
func (m *Order) Validate() error {
	c := check("order")
	c.rawCID("run", m.Run)
	c.peer("peer", m.Peer)
	c.between("seq", m.Seq, 1, MaxSeq)
	c.between("action", uint64(m.Action), 1, uint64(actionEnd-1))
	c.between("max rounds", m.MaxRounds, 0, MaxRunRounds)
	c.between("max tokens", m.MaxTokens, 0, MaxRunTokens)
	c.between("rate", uint64(m.RatePermille), 0, MaxRatePermille)
	sets := m.MaxRounds != 0 || m.MaxTokens != 0 || m.RatePermille != 0
	c.that(sets == (m.Action == ActionSet), "%v sets something: %v, must be %v", m.Action, sets, m.Action == ActionSet)
	c.text("note", m.Note, MaxNoteBytes)
	return c.result()
}

func (c *checker) course(m Course) {
	c.between("course: seq", m.Seq, 1, MaxSeq)
	c.between("course: max rounds", m.MaxRounds, 0, MaxRunRounds)
	c.between("course: max tokens", m.MaxTokens, 0, MaxRunTokens)
	c.between("course: rate", uint64(m.RatePermille), 0, MaxRatePermille)
}

// Signer implements Message.
func (m *Order) Signer() peer.ID { return m.Peer }

// RunID implements Message.
func (m *Order) RunID() cid.Cid { return m.Run }

func (m *Order) kind() kind { return kindOrder }
