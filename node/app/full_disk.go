package app

import (
	"errors"
	"fmt"

	"github.com/moot-net/moot/node/api"
)

// fullDisk is why a run cannot go on just now. Which file it could not write is
// for the log.
type fullDisk struct {
	dir   string
	cause error
}

func (e *fullDisk) Error() string { return fmt.Sprintf("the disk of %s is full", e.dir) }

func (e *fullDisk) Unwrap() error { return e.cause }

// fullDisk puts the error of a run whose disk is full in words for its user;
// others stay as they are.
func (r *runs) fullDisk(err error) error {
	if !isDiskFull(err) || errors.As(err, new(*fullDisk)) {
		return err
	}
	return api.Errorf(api.CodeDisk, "%w", &fullDisk{r.node.dir, err}).
		WithHint("the run goes on by itself when there is room; \"moot cache list\" lists what the node holds")
}

// roomFor is how much has to be free before a run goes on whose disk was full:
// what the run takes, if it was not begun, since it would be refused with less.
func (r *runs) roomFor(m *member, s *stay) int64 {
	f, p := s.fit.Load(), r.view(m).runner
	if f == nil || p != nil && p.Summary().Round > 0 {
		return enoughRoom
	}
	room := int64(enoughRoom)
	for _, i := range f.Items {
		if i.Name == "disk" {
			room = max(room, i.NeedBytes+r.node.minFree.Load())
		}
	}
	return room
}
