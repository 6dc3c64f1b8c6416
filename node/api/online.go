package api

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// OnlineSample is who was in a run at a time, as one node heard.
type OnlineSample struct {
	Time time.Time `json:"time"`
	// Online are the peers that were heard of, with the node itself; Working
	// those of them that trained, exchanged or voted.
	Online  int `json:"online"`
	Working int `json:"working"`
	// Seats are those of the round under way.
	Seats int `json:"seats"`
}

// Online is who was in a run, oldest first; a sample stands until the next one.
// There is none from when the node did not run.
type Online struct {
	Run     string         `json:"run"`
	Samples []OnlineSample `json:"samples"`
}

// MaxOnline bounds an answer; of more samples the highest of each stretch are
// told.
const MaxOnline = 2000

func (s *Server) online(ctx context.Context, r *http.Request) (Online, error) {
	id, err := s.run(ctx, r.PathValue("id"))
	if err != nil {
		return Online{}, err
	}
	v, err := s.backend.Online(ctx, id)
	v.Samples = list(v.Samples)
	return v, err
}

// PresetAnswer is a run file to begin with.
type PresetAnswer struct {
	Preset  string   `json:"preset"`
	Presets []string `json:"presets"` // that there are
	TOML    string   `json:"toml"`
}

// preset fills in a preset, as "moot run init" does.
func (s *Server) preset(_ context.Context, r *http.Request) (PresetAnswer, error) {
	q := r.URL.Query()
	v := RunFileValues{Name: q.Get("name"), Model: q.Get("model"), Data: q.Get("dataset")}
	for name, text := range map[string]string{"name": v.Name, "model": v.Model, "dataset": v.Data} {
		if len(text) > 256 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }) {
			return PresetAnswer{}, Errorf(CodeUsage, "%s is %s, must be a line of at most 256 bytes", name, clip(text))
		}
	}
	name := r.PathValue("name")
	b, err := RunFile(name, v)
	if err != nil {
		return PresetAnswer{}, err
	}
	return PresetAnswer{Preset: name, Presets: Presets(), TOML: string(b)}, nil
}
