package api

// Replay is a run that was computed again from a data folder.
type Replay struct {
	Run string `json:"run"`
	// OK says that every record follows from the one before it. Else Error
	// says what does not, and the figures are those of the records before.
	OK    bool   `json:"ok"`
	Error *Error `json:"error,omitempty"`

	From          uint64 `json:"from"`   // round whose state was the beginning; 0: genesis
	Rounds        int    `json:"rounds"` // records after genesis
	Folded        int    `json:"folded"` // of them, states that were computed
	Certified     int    `json:"certified"`
	Contributions int    `json:"contributions"`
	Refused       int    `json:"refused"`
	Tokens        uint64 `json:"tokens"`
	Final         bool   `json:"final"`
	Head          string `json:"head"`
	StateCID      string `json:"state_cid"` // after the head, as computed

	Seconds float64 `json:"seconds"`
}
