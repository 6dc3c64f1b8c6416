package api

import "context"

// VerifyAdapterRequest names an adapter or a merged model on disk.
type VerifyAdapterRequest struct {
	// Path is the absolute path of a folder, or of a GGUF file.
	Path string `json:"path"`
	// Model is the base model, as in Subject. Default: the one that an export's
	// origin file or the adapter's own settings name.
	Model string `json:"model,omitempty"`
	// Run, at Round or its head, or Snapshot is what it must be equal to. Default:
	// the record that an export's origin file names, if its run is known here.
	Run      string  `json:"run,omitempty"`
	Round    *uint64 `json:"round,omitempty"`
	Snapshot string  `json:"snapshot,omitempty"`
}

// AdapterCheck is what was found. Fields are only ever added.
type AdapterCheck struct {
	Path   string `json:"path"`
	Format string `json:"format"` // as in ExportRequest
	// Run, Round, Head and State say where it is from, as its origin file does.
	Run        string `json:"run,omitempty"`
	Round      uint64 `json:"round,omitempty"`
	Head       string `json:"head,omitempty"`
	State      string `json:"state,omitempty"`
	Model      string `json:"model,omitempty"` // the base model that it was tested with
	Layers     int    `json:"layers,omitempty"`
	Parameters int64  `json:"parameters,omitempty"`
	// Test is null when nothing was computed.
	Test *ExportTest `json:"test"`
	OK   bool        `json:"ok"` // no check failed
	// Checks are files, base, tensors, run and effect, each with what was found.
	Checks []Check `json:"checks"`
}

func (s *Server) fillVerifyAdapter(ctx context.Context, q *VerifyAdapterRequest) (err error) {
	if err := checkPath("path", q.Path); err != nil {
		return err
	}
	switch {
	case q.Run != "" && q.Snapshot != "":
		return Errorf(CodeUsage, "run and snapshot are both given; one of them is what it must be equal to")
	case q.Round != nil && q.Run == "":
		return Errorf(CodeUsage, "round is given without run")
	}
	if q.Run != "" {
		if q.Run, err = s.run(ctx, q.Run); err != nil {
			return err
		}
	}
	if q.Model != "" {
		err = s.namedModel(ctx, &q.Model)
	}
	return err
}

func (s *Server) verifyAdapter(ctx context.Context, req VerifyAdapterRequest, progress ProgressFunc) (AdapterCheck, error) {
	v, err := s.backend.VerifyAdapter(ctx, req, progress)
	v.Checks = list(v.Checks)
	return v, err
}
