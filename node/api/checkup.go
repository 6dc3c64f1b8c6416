package api

import (
	"bytes"
	"context"
	"net/http"
)

// CheckLevel is how a check ended.
type CheckLevel string

// The levels.
const (
	CheckOK   CheckLevel = "ok"
	CheckWarn CheckLevel = "warn" // the node works, but not as well as it could
	CheckFail CheckLevel = "fail" // the node does not work
)

// Check is one thing that was looked at.
type Check struct {
	Name  string     `json:"name"`
	Level CheckLevel `json:"level"`
	Text  string     `json:"text"`          // what was found
	Fix   string     `json:"fix,omitempty"` // what to do; there unless it is ok
}

// Checkup is what "mootd doctor" finds. Fields are only ever added.
type Checkup struct {
	Version Version `json:"version"`
	// Daemon tells that a daemon answered.
	Daemon bool    `json:"daemon"`
	OK     bool    `json:"ok"` // nothing failed
	Checks []Check `json:"checks"`
}

// Failed are the names of what failed.
func (c Checkup) Failed() (names []string) {
	for _, x := range c.Checks {
		if x.Level == CheckFail {
			names = append(names, x.Name)
		}
	}
	return names
}

// CheckupRequest says what is looked at.
type CheckupRequest struct {
	// Speed measures how fast disk and processor are, too, for which 32 MiB are
	// written.
	Speed bool `json:"speed,omitempty"`
}

func (s *Server) checkup(ctx context.Context, _ *http.Request) (Checkup, error) {
	v, err := s.backend.Checkup(ctx, CheckupRequest{})
	v.Checks = list(v.Checks)
	return v, err
}

// ReportFile is what a report for somebody who helps is called.
const ReportFile = "moot-report.zip"

// report sends what somebody who helps needs to see. It is a POST, which the
// token for reading does not allow: what is secret is taken out, but a log is
// not for everybody who may look.
func (s *Server) report(w http.ResponseWriter, r *http.Request) {
	release, err := slot(s.streams, "operations")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	var b bytes.Buffer
	if err := s.backend.Report(r.Context(), &b); err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/zip")
	w.Header().Set("Content-Disposition", `attachment; filename="`+ReportFile+`"`)
	if _, err := b.WriteTo(&deadlined{w}); err != nil && r.Context().Err() == nil {
		panic(http.ErrAbortHandler) // so that the asker sees a cut
	}
}
