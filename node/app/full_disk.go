package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/run"
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

// hasRoom reports whether a run whose disk was full could go on, and how much is
// free. One that was not begun needs what it takes beyond what is here already,
// since it would be refused with less; what can be removed for it is room too.
func (r *runs) hasRoom(ctx context.Context, m *member, s *stay) (free int64, ok bool) {
	free, err := r.free(r.dir)
	if err != nil {
		return 0, true // going on will show
	}
	if p := r.view(m).runner; s.manifest == nil || p != nil && p.Summary().Round > 0 {
		return free, free >= enoughRoom
	}
	enough, err := r.enoughFor(ctx, s.manifest, free)
	return free, err != nil || enough
}

// enoughFor reports whether so much free is enough for a run that was not begun.
func (r *runs) enoughFor(ctx context.Context, m *run.Manifest, free int64) (bool, error) {
	l, err := m.Layout()
	if err != nil {
		return false, err
	}
	parts, pulled, err := r.node.diskParts(ctx, m, l)
	if err != nil {
		return false, err
	}
	if pulled == 0 && free < enoughRoom { // nothing is removed for what is not pulled
		return false, nil
	}
	need := int64(0)
	for _, p := range parts {
		need += p.Bytes
	}
	have, _, err := r.node.availableOf(ctx, free, true)
	return have >= max(need, enoughRoom), err
}
