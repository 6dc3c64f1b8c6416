package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newVersion() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  mootd version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(cmd.OutOrStdout(), api.ThisVersion(), asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

func runVersion(w io.Writer, v api.Version, asJSON bool) error {
	if asJSON {
		b, err := api.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(append(b, '\n'))
		return err
	}
	commit := ""
	if v.Commit != "" {
		commit = " " + v.Commit
	}
	_, err := fmt.Fprintf(w, "mootd %s%s %s %s/%s\n", v.Version, commit, v.Go, v.OS, v.Arch)
	return err
}
