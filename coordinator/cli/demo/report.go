package demo

import "github.com/moot-net/moot/node/api"

// Report is what a demo showed. Fields are added, never renamed.
type Report struct {
	OK bool `json:"ok"`
	// Peers is how many daemons were started.
	Peers int `json:"peers"`
	// Rounds, LauncherKilledAfterRound and JoinedAtRound count the rounds that
	// trained. The last is the first of them in which the late peer had a seat.
	Rounds                   uint64 `json:"rounds"`
	LauncherKilledAfterRound uint64 `json:"launcher_killed_after_round"`
	JoinedAtRound            uint64 `json:"joined_at_round"`
	// Ledger has the same as numbers of records, which "moot run show" prints:
	// there, the rounds before training count too.
	Ledger LedgerRounds `json:"ledger_rounds"`
	// StateCIDs and Heads are those of the peers that live at the end.
	StateCIDs map[string]string `json:"state_cids"`
	Heads     map[string]string `json:"heads"`
	// EvalLoss and Accuracy are on held-out rows.
	EvalLoss   Pair   `json:"eval_loss"`
	Accuracy   Pair   `json:"accuracy"`
	Run        string `json:"run"`
	Model      string `json:"model"`
	Dataset    string `json:"dataset"`
	AdapterDir string `json:"adapter_dir"`
	// DataDir has the daemons' data folders, if they were kept.
	DataDir string  `json:"data_dir,omitempty"`
	Bytes   Bytes   `json:"bytes"`
	WallS   float64 `json:"wall_s"`
	// CertifiedRounds of all rounds had a quorum.
	CertifiedRounds uint64 `json:"certified_rounds"`
	// JoinerDeltas is how many deltas of the late peer are in the run.
	JoinerDeltas int      `json:"joiner_deltas"`
	Answers      []Answer `json:"answers"`
	// Error says what is missing when OK is false.
	Error *api.Error `json:"error,omitempty"`
}

// LedgerRounds are numbers of records.
type LedgerRounds struct {
	LauncherKilledAfter uint64 `json:"launcher_killed_after"`
	JoinedAt            uint64 `json:"joined_at"`
	Last                uint64 `json:"last"`
}

// Pair is a figure of the base model, without and with the adapter. null while
// it was not measured.
type Pair struct {
	Base    *float64 `json:"base"`
	Adapter *float64 `json:"adapter"`
}

// Bytes counts what was moved: all content that the nodes pulled, and the
// deltas in the rounds, once each.
type Bytes struct {
	Pulled uint64 `json:"pulled"`
	Deltas uint64 `json:"deltas"`
}

// Answer is a prompt with the answers of the base model and of the adapter.
type Answer struct {
	Prompt   api.Prompt `json:"prompt"`
	Expected string     `json:"expected"`
	Base     string     `json:"base"`
	Adapter  string     `json:"adapter"`
}
