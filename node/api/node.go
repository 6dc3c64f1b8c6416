package api

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// Setting is one key of the node's configuration.
type Setting struct {
	Key string `json:"key"` // as in the file: "work.duty_percent"
	// Values are those in effect; a key that is no list has one. Next, if not
	// null, are those that take effect at the next start.
	Values  []string `json:"values"`
	Next    []string `json:"next,omitempty"`
	Default []string `json:"default"`
	List    bool     `json:"list"`
	// Origin is default, file, environment or flag; Where is the line, the
	// variable or the flag.
	Origin string `json:"origin"`
	Where  string `json:"where,omitempty"`
	Live   bool   `json:"live"` // takes effect while the daemon runs
}

// Settings is the node's configuration.
type Settings struct {
	File string `json:"file"` // empty: it follows none, and nothing can be set
	// Error is why the file, as it is now, is not used.
	Error    string    `json:"error,omitempty"`
	Settings []Setting `json:"settings"`
}

// SettingsRequest changes the configuration file. A key with no values goes
// back to its default.
type SettingsRequest struct {
	Set map[string][]string `json:"set"`
}

const (
	maxSettings     = 100
	maxSettingBytes = 16 << 10 // of all values of a key
)

func (q *SettingsRequest) check() error {
	if len(q.Set) == 0 || len(q.Set) > maxSettings {
		return Errorf(CodeUsage, "set has %d keys, must have 1 to %d", len(q.Set), maxSettings)
	}
	for key, values := range q.Set {
		n := 0
		for _, v := range values {
			n += len(v) + 1
		}
		if n > maxSettingBytes {
			return Errorf(CodeUsage, "set: %s has %d bytes, at most %d", clip(key), n, maxSettingBytes)
		}
	}
	return nil
}

func (s *Server) changeSettings(ctx context.Context, req SettingsRequest) (Settings, error) {
	if err := req.check(); err != nil {
		return Settings{}, err
	}
	v, err := s.backend.ChangeSettings(ctx, req)
	v.Settings = list(v.Settings)
	return v, err
}

func (s *Server) settings(ctx context.Context, _ *http.Request) (Settings, error) {
	v, err := s.backend.Settings(ctx)
	v.Settings = list(v.Settings)
	return v, err
}

// LogEntry is a line of the daemon's log.
type LogEntry struct {
	N         uint64    `json:"n"` // counts up from 1 since the daemon started
	Time      time.Time `json:"time"`
	Level     string    `json:"level"` // debug, info, warn or error
	Component string    `json:"component,omitempty"`
	Message   string    `json:"message"`
	Attrs     string    `json:"attrs,omitempty"` // key=value, with spaces between
}

// Logs are the newest lines of the log that are kept in memory, oldest first.
type Logs struct {
	Entries []LogEntry `json:"entries"`
	// Last is the number of the newest line; ask for what comes after it.
	Last uint64 `json:"last"`
	// Lost says that lines after what was asked for are not kept any more.
	Lost bool `json:"lost,omitempty"`
}

// LogsRequest says which lines.
type LogsRequest struct {
	After uint64 // only newer ones
	Limit int    // the newest so many
	Level string // at least this one
}

// MaxLogs bounds the lines of an answer.
const MaxLogs = 1000

// LogLevels are the levels, the least important first.
var LogLevels = []string{"debug", "info", "warn", "error"}

func (s *Server) logs(ctx context.Context, r *http.Request) (Logs, error) {
	q := r.URL.Query()
	given := q.Get("after")
	if given == "0" {
		given = ""
	}
	after, err := number("after", given, 0, 1<<53)
	if err != nil {
		return Logs{}, err
	}
	limit, err := number("limit", q.Get("limit"), 200, MaxLogs)
	if err != nil {
		return Logs{}, err
	}
	level := q.Get("level")
	switch level {
	case "":
		level = LogLevels[0]
	case "debug", "info", "warn", "error":
	default:
		return Logs{}, Errorf(CodeUsage, "level is %s, must be %s", clip(level), strings.Join(LogLevels, ", "))
	}
	v, err := s.backend.Logs(ctx, LogsRequest{after, int(limit), level})
	v.Entries = list(v.Entries)
	return v, err
}

// TrafficCount is content that a node moved.
type TrafficCount struct {
	Scope      string `json:"scope"`     // internet, or lan with this machine
	Direction  string `json:"direction"` // in or out
	Use        string `json:"use"`       // seeding: models and data; training: deltas and states
	StartBytes uint64 `json:"start_bytes"`
	MonthBytes uint64 `json:"month_bytes"` // in this calendar month, UTC
}

// Network is how a node is connected.
type Network struct {
	Peer         string   `json:"peer"`
	Addrs        []string `json:"addrs"`
	Reachability string   `json:"reachability"`
	// Relays says that it carries requests of peers that cannot reach each
	// other, if it can be reached itself.
	Relays  bool           `json:"relays"`
	Traffic []TrafficCount `json:"traffic"`
	// The limits; 0: none.
	UploadMbit   float64 `json:"upload_mbit"`
	DownloadMbit float64 `json:"download_mbit"`
	QuotaBytes   uint64  `json:"quota_bytes"` // of a month, both directions
	UsedBytes    uint64  `json:"used_bytes"`  // of it
	Peers        []Peer  `json:"peers"`
}

func (s *Server) network(ctx context.Context, _ *http.Request) (Network, error) {
	v, err := s.backend.Network(ctx)
	v.Addrs, v.Traffic, v.Peers = list(v.Addrs), list(v.Traffic), list(v.Peers)
	return v, err
}

// CoverageShard is how often the rows of a shard, or of some in a row, were
// drawn.
type CoverageShard struct {
	First int    `json:"first"` // shard, counted from 0
	Last  int    `json:"last"`
	Rows  uint64 `json:"rows"`
	Seen  uint64 `json:"seen"`  // rows that were drawn at least once
	Draws uint64 `json:"draws"` // how often rows were drawn, in all
}

// CoverageSpan are shards that are told together.
type CoverageSpan struct {
	First int    `json:"first"` // counted from 0
	Last  int    `json:"last"`
	Rows  uint64 `json:"rows"`
}

// CoveragePass is what was drawn while as many rows were drawn as the data set
// has, or several times as many.
type CoveragePass struct {
	First     uint64 `json:"first"` // pass, counted from 1
	Last      uint64 `json:"last"`
	FromRound uint64 `json:"from_round"`
	ToRound   uint64 `json:"to_round"`
	// Draws is how often rows of each column's shards were drawn; Lost the same for
	// deltas that were refused, or counted for nothing.
	Draws []uint64 `json:"draws"`
	Lost  []uint64 `json:"lost"`
}

// CoverageGrid is what was drawn by shard and pass.
type CoverageGrid struct {
	Shards []CoverageSpan `json:"shards"` // the columns
	Passes []CoveragePass `json:"passes"` // oldest first
}

// Coverage is which of a run's training rows the contributions that count were
// trained on.
// The draw of a peer follows from the head and its ID; that it kept to it is
// its word, and a row that is too long is counted where another was drawn.
type Coverage struct {
	Run    string          `json:"run"`
	Round  uint64          `json:"round"` // up to which
	Rows   uint64          `json:"rows"`
	Seen   uint64          `json:"seen"`
	Draws  uint64          `json:"draws"`
	Passes []uint64        `json:"passes"` // rows that were drawn 0, 1, 2 … times, the last: so often or more
	Shards []CoverageShard `json:"shards"`
	// ShardCount is how many shards there are, ShardsSeen of how many a row was drawn.
	ShardCount int `json:"shard_count"`
	ShardsSeen int `json:"shards_seen"`
	// Lost is how often rows were drawn for deltas that were refused, of which the
	// fewest steps are counted that a delta has, or that counted for nothing.
	Lost uint64       `json:"lost"`
	Grid CoverageGrid `json:"grid"`
	// EvalRows are held out; Leaks of them are trained on too, null while that is not
	// known.
	EvalRows uint64  `json:"eval_rows"`
	Leaks    *uint64 `json:"leaks"`
}

// MaxCoverageShards bounds an answer; more shards are told together.
const MaxCoverageShards = 500

// The bounds of a grid: beyond, shards and passes are told together.
const (
	MaxGridShards = 96
	MaxGridPasses = 32
)

func (s *Server) coverage(ctx context.Context, r *http.Request) (Coverage, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Coverage{}, err
	}
	v, err := s.backend.Coverage(ctx, id)
	v.Passes, v.Shards, v.Grid.Shards, v.Grid.Passes = list(v.Passes), list(v.Shards), list(v.Grid.Shards), list(v.Grid.Passes)
	return v, err
}
