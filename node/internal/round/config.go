package round

import (
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// Link is a record in a chain.
type Link struct {
	ID          cid.Cid
	Record      *msg.Record
	Certificate *msg.Certificate // nil: provisional, or genesis
	// Certified counts the records with a certificate from genesis to this
	// one.
	Certified uint64
}

// Chain gives access to the records from genesis to the head. It reflects an
// Adopt or a Certify as soon as that was carried out; a Certify of a record
// counts in Certified of all that follow.
type Chain interface {
	// Link finds a record of the chain by its CID.
	Link(id cid.Cid) (Link, bool)
	// Head is the last record.
	Head() Link
}

// Config is what a Machine is made from.
type Config struct {
	Manifest *run.Manifest
	Run      cid.Cid
	Self     peer.ID
	// Sign seals a message with Self's key. It is deterministic.
	Sign func(msg.Message) (msg.Signed, error)
	// Chain has at least the genesis record.
	Chain Chain
	// At finds a record of the chain by its round, if it is there; nil: only the last
	// ones are looked at. From them it is known which requests for seats took effect.
	At func(msg.Round) (Link, bool)
	// Own are the messages that Self stored, in any order: those for the head
	// are sent again instead of made anew, and the sequence number of join
	// requests goes on.
	Own []msg.Signed
	// Spent are heads for which Self signed what it does not have any more. It
	// signs nothing for them again.
	Spent []cid.Cid
	// Evidence is what was told by Evidence effects before, in pairs.
	Evidence [][2]msg.Signed
	// Credentials are shown with requests for a seat.
	Credentials Credentials
	// Timing overrides DefaultTiming.
	Timing Timing
	// Shared, if not nil, is that of several machines of one goroutine that follow
	// one run, in a simulation.
	Shared *Shared
}

// Shared is what several machines would compute alike: the zero value is ready.
type Shared struct {
	verified map[cid.Cid]*verified // by record
}

// maxShared is how many records are remembered: more than are proposed for a
// round, in all cells.
const maxShared = 256

// verifyProposed is verify for a record that was proposed.
func (m *Machine) verifyProposed(h *height, id cid.Cid, r *msg.Record) (*verified, error) {
	s := m.cfg.Shared
	if s == nil {
		return m.rules.verify(h.before, h.parent, r, m.open)
	}
	if v := s.verified[id]; v != nil {
		return v, nil
	}
	v, err := m.rules.verify(h.before, h.parent, r, m.open)
	if err == nil {
		if s.verified == nil || len(s.verified) >= maxShared {
			s.verified = make(map[cid.Cid]*verified)
		}
		s.verified[id] = v
	}
	return v, err
}

// Timing says when messages are sent. No rule depends on it.
type Timing struct {
	// Train is when training stops, since the round began.
	Train time.Duration
	// Deadline is when a have is given, since the round began.
	Deadline time.Duration
	// Grace is how long the first proposer waits for more haves than it needs.
	Grace time.Duration
	// Attempt is the time for one proposal to get its votes.
	Attempt time.Duration
	// Settle is how long proposals of the fallback are collected.
	Settle time.Duration
	// Repeat is when an own message is published again.
	Repeat time.Duration
	// Status is the time between two heartbeats.
	Status time.Duration
}

// DefaultTiming follows from the round period: training takes 0.8 of it. At ten
// minutes, a proposal and its votes may each be 30 seconds on their way, some of
// them twice.
func DefaultTiming(period time.Duration) Timing {
	part := func(div int64, least, most time.Duration) time.Duration {
		return min(max(period/time.Duration(div), least), most)
	}
	return Timing{
		Train:    period * 8 / 10,
		Deadline: period,
		Grace:    part(20, 200*time.Millisecond, 10*time.Second),
		Attempt:  part(5, time.Second, 70*time.Second),
		Settle:   part(5, time.Second, 45*time.Second),
		Repeat:   part(8, 500*time.Millisecond, 15*time.Second),
		Status:   part(4, time.Second, 30*time.Second),
	}
}

// View is what people are shown.
type View struct {
	Head      Link
	Round     msg.Round // that is under way: the head's plus one
	Phase     msg.Phase
	Seat      int // index of Self's seat in that round, -1: none
	Seats     []msg.Seat
	Began     time.Time
	Attempt   uint32
	Commits   int // seen for this round
	Held      int // of them with a delta that is here and valid
	Haves     int
	WantsSeat bool
	Orders    []Pending // that have not taken effect
	// Members are the newest heartbeats, by peer.
	Members []Member
}

// Member is a peer's last heartbeat and when it came.
type Member struct {
	Status *msg.Status
	Seen   time.Time
	// Silent is when it will have been silent for so long that it seems to be
	// gone.
	Silent time.Time
}
