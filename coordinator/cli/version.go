package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the versions of moot and of the daemon",
		Example: `  moot version`,
		Args:    needs(false),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runVersion(cmd.Context(), e) },
	}
}

// versions is the answer of version.
type versions struct {
	Moot   api.Version  `json:"moot"`
	Daemon *api.Version `json:"daemon"` // null when none answers
}

func runVersion(ctx context.Context, e *env) error {
	v := versions{Moot: api.ThisVersion()}
	c, err := e.open()
	if err == nil {
		var d api.Version
		if d, err = c.Version(ctx); err == nil {
			v.Daemon = &d
		}
	}
	if ctx.Err() != nil {
		return err
	}
	return e.answer(v, func(p *page) {
		p.field("moot", "%s", versionText(v.Moot))
		if v.Daemon != nil {
			p.field("mootd", "%s", versionText(*v.Daemon))
		} else {
			p.field("mootd", "%s", api.AsError(err).Message)
		}
	})
}

func versionText(v api.Version) string {
	s := []string{v.Version}
	if v.Commit != "" {
		s = append(s, v.Commit)
	}
	if v.Build != "" {
		s = append(s, "build "+v.Build)
	}
	return strings.Join(append(s, v.Go, v.OS+"/"+v.Arch), " ")
}
