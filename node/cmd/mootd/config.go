package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/config"
)

func newConfig(s *settings) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Show the configuration", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(&cobra.Command{
		Use: "show", Short: "Print what is in effect, as a configuration file",
		Long: "Prints the configuration that mootd would start with: defaults, file, environment\nand flags together. The output can be used as a configuration file.",
		Example: `  mootd config show
  mootd config show --threads 2 > mootd.toml
  mootd --config mootd.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			return runConfigShow(cmd.OutOrStdout(), s.file, cfg)
		},
	})
	return c
}

func runConfigShow(w io.Writer, file string, cfg *config.Config) error {
	if file == "" {
		file = config.DefaultPath()
	}
	from := "# " + file + " is not there\n"
	if _, err := os.Stat(file); err == nil {
		from = "# with " + file + "\n"
	}
	b, err := cfg.Encode()
	if err != nil {
		return err
	}
	_, err = w.Write(append([]byte(from), b...))
	return err
}
