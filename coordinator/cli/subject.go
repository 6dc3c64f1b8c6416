package cli

import (
	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

// subjectFlags name what generates or is evaluated.
type subjectFlags struct {
	api.Subject
	round uint64
}

func (s *subjectFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.Model, "model", "", "`ID or folder` of the base model (with --run not needed)")
	f.StringVar(&s.Adapter, "adapter", "", "`folder` of an adapter (PEFT)")
	f.StringVar(&s.Run, "run", "", "take the adapter of the run with this `ID`")
	f.Uint64Var(&s.round, "round", 0, "take it as it was after this round `number` (default: the last)")
	f.StringVar(&s.Device, "device", "", "what computes: cpu, cuda:N for a GPU, or auto\n(default auto: what trains, if there is room)")
	cmd.MarkFlagsMutuallyExclusive("adapter", "run")
	cmd.MarkFlagsMutuallyExclusive("adapter", "round")
	cmd.MarkFlagsOneRequired("model", "run")
}

// subject returns what the flags of cmd name.
func (s *subjectFlags) subject(cmd *cobra.Command) (q api.Subject, err error) {
	q = s.Subject
	if cmd.Flags().Changed("round") {
		q.Round = &s.round
	}
	if q.Model, err = folderOrID(q.Model); err != nil {
		return q, err
	}
	if q.Adapter != "" {
		q.Adapter, err = absolute(q.Adapter)
	}
	return q, err
}
