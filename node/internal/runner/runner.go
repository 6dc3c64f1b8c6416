package runner

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/proto/run"
)

// Runner takes part in one run: it pulls what the run needs, trains, and
// drives the round.
type Runner struct{}

// Run takes part until ctx is done, and then returns nil with the step that is
// under way finished and saved. Without network or seat it goes on trying. An
// error means that this node cannot go on with the run; View says so too.
func (r *Runner) Run(ctx context.Context) error { panic("bug: not written yet") }

// Close gives the run's files back. Run must have returned, or never begun.
func (r *Runner) Close() error { panic("bug: not written yet") }

// Ready waits until manifest, model, data and state are here and a seat was
// asked for, and tells progress how far that is. It fails when ctx is done or
// Run ended.
func (r *Runner) Ready(ctx context.Context, progress api.ProgressFunc) error {
	panic("bug: not written yet")
}

// Leave tells the others that this peer gives up its seat. It takes a moment,
// and its effect comes with the next round; the caller ends Run afterwards.
func (r *Runner) Leave(ctx context.Context) { panic("bug: not written yet") }

// ID is the run's ID; Manifest its manifest, which must not be changed.
func (r *Runner) ID() cid.Cid { panic("bug: not written yet") }

// Manifest is the run's manifest. It must not be changed.
func (r *Runner) Manifest() *run.Manifest { panic("bug: not written yet") }

// Summary, Detail and Rounds may be called at any time after Open, also after
// Run has ended.
func (r *Runner) Summary() api.Run { panic("bug: not written yet") }

// Detail is Summary with all the rest.
func (r *Runner) Detail() api.RunDetail { panic("bug: not written yet") }

// Rounds lists up to limit decided rounds from round from on, in order.
func (r *Runner) Rounds(from uint64, limit int) ([]api.Round, error) { panic("bug: not written yet") }

// StateAt returns the state after a decided round, nil for the head, or after
// the record head if that is defined; and the round, the record and the CID of
// the state. The state is pulled if it is not local. What does not exist gives
// an *api.Error with E_NOTFOUND.
func (r *Runner) StateAt(ctx context.Context, round *uint64, head cid.Cid) (Snapshot, error) {
	panic("bug: not written yet")
}

// Snapshot is the state after a round.
type Snapshot struct {
	Round uint64
	Head  cid.Cid // the record
	ID    cid.Cid // of the state
	State *fold.State
}
