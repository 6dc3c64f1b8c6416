package api

import (
	"context"
	"net/http"
	"time"
)

// TodayRun is what a node contributed to a run today.
type TodayRun struct {
	Run  string `json:"run"`
	Name string `json:"name"`
	// Rounds were decided, to Contributions of which it contributed Tokens.
	Rounds        int    `json:"rounds"`
	Contributions int    `json:"contributions"`
	Tokens        uint64 `json:"tokens"`
	// NoWeight are contributions that count for nothing, and Refused deltas that
	// were refused, by reason; Verdicts are those on its deltas.
	NoWeight map[string]int `json:"no_weight,omitempty"`
	Refused  map[string]int `json:"refused,omitempty"`
	Verdicts map[string]int `json:"verdicts,omitempty"`
	// Partly says that more rounds were decided than are looked at, or than were
	// counted so far; ask again.
	Partly bool `json:"partly,omitempty"`
}

// Today is what a node contributed since midnight of its machine's clock.
type Today struct {
	Since  time.Time  `json:"since"`
	Tokens uint64     `json:"tokens"`
	Runs   []TodayRun `json:"runs"` // in which rounds were decided
}

func (s *Server) today(ctx context.Context, _ *http.Request) (Today, error) {
	v, err := s.backend.Today(ctx)
	v.Runs = list(v.Runs)
	return v, err
}

// WorkPreset is a choice of settings with a name: nothing but their numbers.
type WorkPreset struct {
	Name string `json:"name"`
	// About says whom it is for.
	About    string          `json:"about"`
	Settings []PresetSetting `json:"settings"`
}

// PresetSetting is a setting of a WorkPreset.
type PresetSetting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Live  bool   `json:"live"` // takes effect while the daemon runs
}

// WorkPresets are how hard a machine may work, the least first. All have the
// same keys.
type WorkPresets struct {
	Processors int          `json:"processors"` // of the machine
	Presets    []WorkPreset `json:"presets"`
}

func (s *Server) workPresets(ctx context.Context, _ *http.Request) (WorkPresets, error) {
	return s.backend.WorkPresets(ctx)
}
