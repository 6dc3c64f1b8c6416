package api

// SnapshotRequest asks for a run's state at one round as content with one CID,
// which anybody can pull, and export, without taking part in the run.
type SnapshotRequest struct {
	Run   string  `json:"-"` // taken from the route
	Round *uint64 `json:"round,omitempty"`
	Best  bool    `json:"best,omitempty"` // in place of Round; neither: the head
}

// Snapshot is what was made.
type Snapshot struct {
	ID    string `json:"id"` // its CID
	Run   string `json:"run"`
	Name  string `json:"name"`
	Round uint64 `json:"round"`
	Head  string `json:"head"`
	State string `json:"state"`
	// Votes are those of the record's certificate, of Quorum that it takes; 0
	// for a provisional record.
	Votes  int   `json:"votes"`
	Quorum int   `json:"quorum"`
	Bytes  int64 `json:"bytes"`
}

func (q *SnapshotRequest) check() error {
	if q.Best && q.Round != nil {
		return Errorf(CodeUsage, "best and round are both given; one of them names the state")
	}
	return nil
}
