package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
)

func newConfigPreset(s *settings) *cobra.Command {
	var only bool
	c := &cobra.Command{
		Use: "preset [NAME]", Short: "Set how hard this machine works: quiet, balanced or all", Args: someArgs(0, 1),
		Long: `Writes the settings of a preset into the configuration file and prints each of them.
A preset is nothing but these numbers: what you change afterwards stays changed.
Without a name it prints all presets side by side, for the processors of this
machine, and changes nothing.`,
		Example: `  mootd config preset
  mootd config preset balanced --print
  mootd config preset quiet`,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			var names []string
			for _, p := range config.Presets(0) {
				names = append(names, p.Name)
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return printPresets(cmd.OutOrStdout(), cfg)
			}
			p, err := config.FindPreset(args[0])
			if err != nil {
				return api.Errorf(api.CodeUsage, "%w", err)
			}
			return runPreset(cmd, s, cfg, p, only)
		},
	}
	c.Flags().BoolVar(&only, "print", false, "print what would be set, and change nothing")
	return c
}

func printPresets(w io.Writer, cfg *config.Loaded) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	presets := config.Presets(0)
	fmt.Fprint(t, "setting\tnow")
	for _, p := range presets {
		fmt.Fprintf(t, "\t%s", p.Name)
	}
	for i, set := range presets[0].Sets {
		now, err := cfg.Get(set.Key)
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "\n%s\t%s", set.Key, strings.Join(now, " "))
		for _, p := range presets {
			fmt.Fprintf(t, "\t%s", p.Sets[i].Values[0])
		}
	}
	fmt.Fprintln(t)
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range presets {
		fmt.Fprintf(w, "%s: %s\n", p.Name, p.About)
	}
	return nil
}

func runPreset(cmd *cobra.Command, s *settings, cfg *config.Loaded, p config.Preset, only bool) error {
	if !only {
		if err := config.Edit(cfg.File, p.Sets...); err != nil {
			return api.Errorf(api.CodeConfig, "%w", err).WithHint("nothing was changed")
		}
	}
	after, err := s.load(cmd)
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var later []string
	for _, set := range p.Sets {
		now, err := cfg.Get(set.Key)
		if err != nil {
			return err
		}
		note := ""
		if o := after.Origin(set.Key); !only && o.Kind != "file" {
			note = fmt.Sprintf("\t%s is stronger", o)
		}
		fmt.Fprintf(t, "%s\t%s\t-> %s%s\n", set.Key, strings.Join(now, " "), set.Values[0], note)
		if !config.Live(set.Key) && now[0] != set.Values[0] {
			later = append(later, set.Key)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	errOut := cmd.ErrOrStderr()
	switch {
	case only:
		fmt.Fprintf(errOut, "mootd: nothing was changed; without --print this is written to %s\n", cfg.File)
	case len(later) > 0 && running(cmd.Context(), cfg.DataDir):
		fmt.Fprintf(errOut, "mootd: written to %s; the daemon that is running takes %s when it starts again\n", cfg.File, strings.Join(later, ", "))
	default:
		fmt.Fprintf(errOut, "mootd: written to %s\n", cfg.File)
	}
	return nil
}
