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

	// Missing lists the deltas of the records that are in no folder, when there
	// are such.
	Missing []string `json:"missing,omitempty"`
	// Folders are those of several nodes, when the replay was in more than one.
	Folders []ReplayFolder `json:"folders,omitempty"`

	Seconds float64 `json:"seconds"`
}

// ReplayFolder is the folder of a node among several.
type ReplayFolder struct {
	Dir   string `json:"dir"`
	Round uint64 `json:"round"` // of the last record in it
	Head  string `json:"head"`
	// Agrees says that the last record is one of those that were replayed.
	Agrees bool `json:"agrees"`
}
