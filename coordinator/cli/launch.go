package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newLaunch(e *env) *cobra.Command {
	var model, data string
	cmd := &cobra.Command{
		Use:   "launch FILE",
		Short: "Begin a run, as a run file describes it",
		Long: `Reads a run file (TOML), makes the run's immutable manifest of it, publishes that
and joins the run. From then on the run needs nobody in particular: it goes on
when this node is gone.`,
		Example: `  moot launch run.toml
  moot launch run.toml --model last --data last`,
		Args: needs(false, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLaunch(cmd.Context(), e, args[0], model, data)
		},
	}
	cmd.Flags().StringVar(&model, "model", "", "`ID` of the base model, instead of the file's")
	cmd.Flags().StringVar(&data, "data", "", "`ID` of the data set, instead of the file's")
	return cmd
}

// maxRunFileBytes bounds what is read of a run file; the daemon takes less.
const maxRunFileBytes = 256 << 10

func runLaunch(ctx context.Context, e *env, file, model, data string) error {
	text, err := readRunFile(file)
	if err != nil {
		return err
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	r, err := c.Launch(ctx, api.LaunchRequest{Name: file, TOML: text, Model: model, Dataset: data}, e.board.progress(""))
	if err != nil {
		return err
	}
	status, err := c.Status(ctx)
	if err != nil {
		status = api.Status{} // the run is launched; only how to find this node is not known
	}
	return e.answer(r, func(p *page) {
		runFields(p, r)
		if needsInvitation(text) {
			p.line("\nThose that are invited join with what \"moot invite %s\" prints:\n  moot join %s%s \\\n    --invite INVITATION", api.ShortID(r.ID), r.ID, peerFlag(status.Addrs))
			return
		}
		p.line("\nOthers join with:\n  moot join %s%s", r.ID, peerFlag(status.Addrs))
	})
}

// needsInvitation reports whether a run is for invited peers, of a run file that
// the daemon took.
func needsInvitation(text string) bool {
	var f struct {
		Admission struct {
			Mode string `toml:"mode"`
		} `toml:"admission"`
	}
	return toml.Unmarshal([]byte(text), &f) == nil && f.Admission.Mode == "invite"
}

func readRunFile(file string) (string, error) {
	f, err := os.Open(file)
	var b []byte
	if err == nil {
		defer f.Close()
		b, err = io.ReadAll(io.LimitReader(f, maxRunFileBytes+1))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", api.Errorf(api.CodeNotFound, "read run file: %w", err).WithHint("give the path of a run file such as run.toml")
	case err != nil:
		return "", api.Errorf(api.CodeConfig, "read run file: %w", err)
	case len(b) > maxRunFileBytes:
		return "", api.Errorf(api.CodeConfig, "read run file: %s has more than %d bytes", file, maxRunFileBytes)
	}
	return string(b), nil
}

// peerFlag names an address under which others may find this node: one that
// is not loopback, if there is any.
func peerFlag(addrs []string) string {
	if len(addrs) == 0 {
		return ""
	}
	best := addrs[0]
	for _, a := range addrs {
		if !strings.HasPrefix(a, "/ip4/127.") && !strings.HasPrefix(a, "/ip6/::1/") {
			best = a
			break
		}
	}
	return " \\\n    --peer " + plain.Clean(best)
}

// runFields prints what launch, join, leave and show have in common.
func runFields(p *page, r api.Run) {
	p.field("run", "%s", r.ID)
	p.field("name", "%s", r.Name)
	p.field("state", "%s", r.State)
	p.field("why", "%s", r.Why)
	p.field("round", "%d, %d of %d trained, %d certified", r.Round, r.TrainedRounds, r.MaxRounds, r.CertifiedRounds)
	p.field("seats", "%d of %d", r.Seats, r.MaxSeats)
	p.field("guarantee", "%s", r.Guarantee.Text)
	p.field("model", "%s", r.Model)
	p.field("data", "%s", r.Dataset)
}
