package api

import (
	"context"
	"net/http"
	"time"
)

// UsageSample is what a machine was used for at a time. What the system does
// not tell is absent.
type UsageSample struct {
	Time    time.Time `json:"time"`
	Devices []Device  `json:"devices"`
	// ProcessBytes is the memory that the daemon has, ProcessPercent how much of
	// the time of all processors it took.
	ProcessBytes   *int64   `json:"process_bytes,omitempty"`
	ProcessPercent *float64 `json:"process_percent,omitempty"`
	// MaxCelsius is the temperature above which it stops, absent where none is
	// set; DutyPercent how much of the time it may compute.
	MaxCelsius  int `json:"max_celsius,omitempty"`
	DutyPercent int `json:"duty_percent"`
}

// The spans of a Usage.
const (
	UsageHour = "hour" // a sample every five seconds, from when the daemon started
	UsageDay  = "day"  // of each minute: how busy devices were in the mean, and the highest of all else
)

// Usage is what a machine was used for, oldest first. Where two samples are
// further apart than the step, nothing is known of what is between.
type Usage struct {
	Span        string        `json:"span"`
	StepSeconds float64       `json:"step_s"`
	Samples     []UsageSample `json:"samples"`
}

// UsageRequest says which samples.
type UsageRequest struct {
	Span  string
	After time.Time // only later ones
}

func (s *Server) usage(ctx context.Context, r *http.Request) (Usage, error) {
	q := r.URL.Query()
	req := UsageRequest{Span: q.Get("span")}
	switch req.Span {
	case "":
		req.Span = UsageHour
	case UsageHour, UsageDay:
	default:
		return Usage{}, Errorf(CodeUsage, "span is %s, must be %s or %s", clip(req.Span), UsageHour, UsageDay)
	}
	if after := q.Get("after"); after != "" {
		var err error
		if req.After, err = time.Parse(time.RFC3339, after); err != nil {
			return Usage{}, Errorf(CodeUsage, "after is %s, must be a time such as 2026-01-02T03:04:05Z", clip(after))
		}
	}
	v, err := s.backend.Usage(ctx, req)
	v.Samples = list(v.Samples)
	return v, err
}
