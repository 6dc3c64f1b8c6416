package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EventType says what happened.
type EventType string

// The types of events.
const (
	EventNode      EventType = "node.state"    // State changed
	EventRunState  EventType = "run.state"     // State of a run changed
	EventPhase     EventType = "round.phase"   // Phase of the round N changed
	EventCommit    EventType = "round.commit"  // a commit for round N of Peer is held, Tokens and Loss as claimed
	EventRound     EventType = "round.done"    // Round was decided
	EventEval      EventType = "eval.done"     // Loss of round N was measured on held-out rows
	EventJoined    EventType = "peer.joined"   // Peer got a seat
	EventLeft      EventType = "peer.left"     // Peer lost its seat
	EventPull      EventType = "pull.progress" // Progress of what is being pulled
	EventAlert     EventType = "alert"         // Text needs a person
	EventGap       EventType = "gap"           // events were lost here; ask for Status and Rounds again
	EventStreamEnd EventType = "bye"           // the daemon stops
	EventPing      EventType = "ping"          // nothing happened; the stream lives
)

// Event is something that happened on a node. Fields that do not belong to its
// type are empty.
type Event struct {
	// Cursor names the event within this daemon; see EventLog. Empty for
	// EventGap and EventStreamEnd.
	Cursor   Cursor    `json:"id,omitzero"`
	Type     EventType `json:"type"`
	Time     time.Time `json:"time"`
	Run      string    `json:"run,omitempty"`
	N        uint64    `json:"n,omitempty"` // number of a round
	Peer     string    `json:"peer,omitempty"`
	State    string    `json:"state,omitempty"`
	Phase    string    `json:"phase,omitempty"`
	Why      string    `json:"why,omitempty"`
	Tokens   uint64    `json:"tokens,omitempty"`
	Loss     *float64  `json:"loss,omitempty"`
	Round    *Round    `json:"round,omitempty"`
	Progress *Progress `json:"progress,omitempty"`
	Text     string    `json:"text,omitempty"`
}

// Cursor is a place in the events of a daemon: in which epoch, of which there is
// a new one when numbers could be lost, and which event of it. Both outlive the
// daemon. The zero Cursor is before all events. It is written as EPOCH.N.
type Cursor struct {
	Epoch string
	N     uint64
}

// ParseCursor reads what String wrote; "" and "0" are the zero Cursor.
func ParseCursor(s string) (Cursor, error) {
	if s == "" || s == "0" {
		return Cursor{}, nil
	}
	epoch, n, ok := strings.Cut(s, ".")
	v, err := strconv.ParseUint(n, 10, 64)
	if !ok || err != nil || epoch == "" || len(epoch) > 32 {
		return Cursor{}, fmt.Errorf("%.40q is not the id of an event", s)
	}
	return Cursor{epoch, v}, nil
}

// String writes c as EPOCH.N, or 0.
func (c Cursor) String() string {
	if c == (Cursor{}) {
		return "0"
	}
	return c.Epoch + "." + strconv.FormatUint(c.N, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (c Cursor) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Cursor) UnmarshalText(b []byte) error {
	v, err := ParseCursor(string(b))
	*c = v
	return err
}
