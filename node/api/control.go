package api

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// The actions of a ControlRequest.
const (
	ControlPause  = "pause"  // work stops at once, until Until or until it is resumed
	ControlResume = "resume" // a pause or a finish ends
	ControlFinish = "finish" // what is under way is finished and published, then nothing more
)

// ControlRequest pauses a node, or lets it go on. What was asked for last
// outlives the daemon.
type ControlRequest struct {
	Action string `json:"action"`
	// ForSeconds or Until is how long a pause lasts. Neither: until it is
	// resumed.
	ForSeconds int64      `json:"for_seconds,omitempty"`
	Until      *time.Time `json:"until,omitempty"`
	Note       string     `json:"note,omitempty"` // is shown as the reason
	// Device makes it a pause of one device, or ends that alone: cpu, cuda:0.
	// Default: all of the node, and a resume ends every pause.
	Device string `json:"device,omitempty"`
	// Exit ends the daemon after a finish.
	Exit bool `json:"exit,omitempty"`
}

// The bounds of a ControlRequest.
const (
	maxPauseSeconds = 366 * 24 * 3600
	maxNote         = 200 // bytes
)

func (q *ControlRequest) check() error {
	switch q.Action {
	case ControlPause, ControlResume, ControlFinish:
	default:
		return Errorf(CodeUsage, "action is %s, must be %s, %s or %s", clip(q.Action), ControlPause, ControlResume, ControlFinish)
	}
	switch pause := q.Action == ControlPause; {
	case !pause && (q.ForSeconds != 0 || q.Until != nil || q.Note != ""):
		return Errorf(CodeUsage, "for_seconds, until and note are of a pause")
	case q.Action == ControlFinish && q.Device != "":
		return Errorf(CodeUsage, "device is of a pause or a resume")
	case q.Device != "" && !isDevice(q.Device):
		return Errorf(CodeUsage, "device is %s, must be cpu or cuda:N", clip(q.Device))
	case q.Action != ControlFinish && q.Exit:
		return Errorf(CodeUsage, "exit is of a finish")
	case q.ForSeconds != 0 && q.Until != nil:
		return Errorf(CodeUsage, "for_seconds and until are both given")
	case q.ForSeconds < 0 || q.ForSeconds > maxPauseSeconds:
		return Errorf(CodeUsage, "for_seconds is %d, must be between 0 and %d", q.ForSeconds, maxPauseSeconds)
	case len(q.Note) > maxNote:
		return Errorf(CodeUsage, "note has %d bytes, at most %d", len(q.Note), maxNote)
	}
	return nil
}

// isDevice reports whether s is the name of a device.
func isDevice(s string) bool {
	n, ok := strings.CutPrefix(s, "cuda:")
	v, err := strconv.ParseUint(n, 10, 10)
	return s == "cpu" || ok && err == nil && strconv.FormatUint(v, 10) == n
}

func (s *Server) control(ctx context.Context, req ControlRequest) (Status, error) {
	if err := req.check(); err != nil {
		return Status{}, err
	}
	return s.backend.Control(ctx, req)
}
