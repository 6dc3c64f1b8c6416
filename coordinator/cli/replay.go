package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/plain"
)

// replayFlags are the flags of a replay.
type replayFlags struct {
	from, data, mootd string
}

func newReplay(e *env) *cobra.Command {
	var o replayFlags
	cmd := &cobra.Command{
		Use:   "replay ID",
		Short: "Compute a run again from a data folder, and compare",
		Long: `Computes every state of a run again, from its manifest and from the records and
deltas in a node's data folder, and compares states, weights and certificates with
what the records say. It needs no network and takes nobody's word: who trusts the
program and the manifest need trust no peer. The daemon of the folder must not be
running. ID may be the beginning of a run's ID, or "last".

The folder may also be one with the data folders of several nodes, as a demo
leaves it: then the records are those that are certified furthest, deltas may be
in any of the folders, and a node whose last record is another is named.

The exit code is 14 when a record does not follow from the one before, and 6 when
a delta is not in the folder.`,
		Example: `  moot replay last
  moot replay last --from genesis --data ./demo --json`,
		Args: needs(false, "ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return runReplay(cmd.Context(), e, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "genesis", "begin with the state after this `round`, or with genesis")
	f.StringVar(&o.data, "data", "", "data `folder` of a node to replay in, or a folder of such\n(default: that of --data-dir)")
	f.StringVar(&o.mootd, "mootd", "", "`path` of the daemon's program (default: beside moot, or found on PATH)")
	return cmd
}

// runReplay lets the daemon's program do the work: the command line itself
// knows nothing of a run's bytes.
func runReplay(ctx context.Context, e *env, id string, o replayFlags) error {
	mootd, err := findMootd(o.mootd)
	if err != nil {
		return err
	}
	dir := o.data
	for _, d := range []string{e.dataDir, os.Getenv("MOOT_DATA_DIR"), client.DefaultDataDir()} {
		if dir == "" {
			dir = d
		}
	}
	if dir, err = absolute(dir); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mootd, "replay", id, "--from", o.from, "--data-dir", dir, "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return api.AsError(ctx.Err())
	}
	var r struct {
		api.Replay
		Run *string `json:"run"` // an error object has none
	}
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || (r.Run == nil && r.Error == nil) {
		if runErr == nil {
			runErr = errors.New("its answer is not one")
		}
		return api.Errorf(api.CodeInternal, "%s replay: %w: %s", mootd, runErr, clip(plain.Clean(stderr.String()), 500))
	}
	if r.Run == nil {
		return r.Error
	}
	r.Replay.Run = *r.Run
	if err := e.answer(r.Replay, func(p *page) { replaySummary(p, r.Replay) }); err != nil {
		return err
	}
	if r.Error == nil {
		return nil
	}
	if e.json {
		return reported{r.Error}
	}
	return r.Error
}

func replaySummary(p *page, r api.Replay) {
	p.line("run          %s", plain.Clean(r.Run))
	p.line("rounds       %s checked, %s states computed, from %s", plain.Group(int64(r.Rounds)), plain.Group(int64(r.Folded)), fromWhat(r.From))
	p.line("certified    %s of %s", plain.Group(int64(r.Certified)), plain.Group(int64(r.Rounds)))
	p.line("deltas       %s included, %s refused", plain.Group(int64(r.Contributions)), plain.Group(int64(r.Refused)))
	p.line("tokens       %s", plain.Group(r.Tokens))
	p.line("head         %s", plain.Clean(r.Head))
	p.line("state        %s", plain.Clean(r.StateCID))
	if len(r.Folders) > 0 {
		agree := 0
		for _, f := range r.Folders {
			if f.Agrees {
				agree++
			}
		}
		p.line("folders      %d of %d have no other record", agree, len(r.Folders))
		for _, f := range r.Folders {
			if !f.Agrees {
				p.line("             %s ends with another one, of round %s: %s", plain.Clean(f.Dir), plain.Group(f.Round), plain.Clean(f.Head))
			}
		}
	}
	if r.OK {
		p.line("verdict      every record follows from the one before")
	} else {
		p.line("verdict      the next record was not confirmed")
	}
}

func fromWhat(n uint64) string {
	if n == 0 {
		return "genesis"
	}
	return "the state after round " + plain.Group(n)
}
