package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/config"
)

func newConfig(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Show and change the configuration", Args: noArgs, Example: "  mootd config show --origin",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newConfigShow(s), newConfigGet(s), newConfigSet(s), newConfigPreset(s), newConfigValidate(s))
	return c
}

func newConfigShow(s *settings) *cobra.Command {
	var origin bool
	c := &cobra.Command{
		Use: "show", Short: "Print what is in effect, as a configuration file",
		Long: `Prints the configuration that mootd would start with: defaults, file, environment
and flags together. The output can be used as a configuration file. With --origin
each value says which of them it is from.`,
		Example: `  mootd config show
  mootd config show --origin
  mootd config show --threads 2 > mootd.toml
  mootd --config mootd.toml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.read(cmd)
			if err != nil {
				return err
			}
			if err := runConfigShow(cmd.OutOrStdout(), cfg, origin); err != nil {
				return err
			}
			_, err = s.load(cmd)
			return err
		},
	}
	c.Flags().BoolVar(&origin, "origin", false, "say where each value is from")
	return c
}

func runConfigShow(w io.Writer, cfg *config.Loaded, origin bool) error {
	var b bytes.Buffer
	if cfg.Found {
		fmt.Fprintf(&b, "# with %s\n", cfg.File)
	} else {
		fmt.Fprintf(&b, "# %s is not there\n", cfg.File)
	}
	if origin {
		for _, name := range config.Keys() {
			line, err := cfg.Line(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%-42s # %s\n", line, cfg.Origin(name))
		}
	} else {
		text, err := cfg.Encode()
		if err != nil {
			return err
		}
		b.Write(text)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// completeKey completes the name of a setting.
func completeKey(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return config.Keys(), cobra.ShellCompDirectiveNoFileComp
}

func newConfigGet(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "get KEY", Short: "Print the value of a setting", Args: someArgs(1, 1),
		Long:              "Prints the value that is in effect, without quotes; the items of a list one a line.",
		Example:           "  mootd config get work.duty_percent",
		ValidArgsFunction: completeKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			values, err := cfg.Get(args[0])
			if err != nil {
				return api.Errorf(api.CodeUsage, "%w", err)
			}
			for _, v := range values {
				fmt.Fprintln(cmd.OutOrStdout(), v)
			}
			return nil
		},
	}
}

func newConfigSet(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "set KEY VALUE...", Short: "Change a setting in the file", Args: someArgs(2, -1),
		Long: `Changes one setting in the configuration file, which is made if it is not there.
What else is in the file stays as it is, with its comments. Nothing is written
unless the configuration is valid then. Several values make a list.`,
		Example: `  mootd config set work.duty_percent 60
  mootd config set work.schedule "Mon-Fri 22:00-07:00" "Sat,Sun 00:00-24:00"
  mootd config set work.exclusive_apps cs2 eldenring.exe`,
		ValidArgsFunction: completeKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConfigSet(cmd, s, args[0], args[1:])
		},
	}
}

func runConfigSet(cmd *cobra.Command, s *settings, key string, values []string) error {
	if !slices.Contains(config.Keys(), key) {
		_, err := new(config.Config).Get(key)
		return api.Errorf(api.CodeUsage, "%w", err)
	}
	file := s.file
	if file == "" {
		file = config.DefaultPath()
	}
	if err := config.Edit(file, config.Set{Key: key, Values: values}); err != nil {
		return api.Errorf(api.CodeConfig, "%w", err).WithHint("nothing was changed")
	}
	cfg, err := s.load(cmd)
	if err != nil {
		return err
	}
	errOut := cmd.ErrOrStderr()
	switch o := cfg.Origin(key); {
	case o.Kind != "file":
		fmt.Fprintf(errOut, "mootd: %s is written, but %s is stronger\n", file, o)
	case !config.Live(key) && running(cmd.Context(), cfg.DataDir):
		fmt.Fprintf(errOut, "mootd: the daemon that is running takes %s when it starts again\n", key)
	}
	return nil
}

// running reports whether a daemon answers.
func running(ctx context.Context, dataDir string) bool {
	c, err := client.Open(dataDir)
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.Status(ctx)
	return err == nil
}

func newConfigValidate(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "validate [FILE]", Short: "Check a configuration file", Args: someArgs(0, 1),
		Long:    "Checks a configuration file, or the one that would be used, without flags and\nenvironment. Exits with code 3 if it is wrong.",
		Example: "  mootd config validate\n  mootd config validate new.toml",
		RunE: func(cmd *cobra.Command, args []string) error {
			file := s.file
			if len(args) > 0 {
				file = args[0]
			}
			cfg, err := config.Load(file, func(string) string { return "" })
			if err != nil {
				return api.Errorf(api.CodeConfig, "%w", err)
			}
			if err := cfg.Validate(); err != nil {
				return api.Errorf(api.CodeConfig, "%s: %w", cfg.File, err)
			}
			if !cfg.Found {
				fmt.Fprintf(cmd.OutOrStdout(), "%s is not there; the defaults are used\n", cfg.File)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", cfg.File)
			return nil
		},
	}
}

// someArgs wants from least to most arguments; most -1: any number.
func someArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return api.Errorf(api.CodeUsage, "%s has %d arguments, its use is %q", cmd.CommandPath(), len(args), strings.TrimSuffix(cmd.UseLine(), " [flags]")).
			WithHint("%q has examples", cmd.CommandPath()+" --help")
	}
}

func newPaths(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "paths", Short: "Print where the files are", Args: noArgs, Example: "  mootd paths\n  mootd paths --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			return runPaths(cmd.OutOrStdout(), cfg, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func runPaths(w io.Writer, cfg *config.Loaded, asJSON bool) error {
	paths := append([]app.Path{{Name: "config", Path: cfg.File}}, app.Paths(cfg.DataDir)...)
	if cfg.LogFile != "" {
		paths = append(paths, app.Path{Name: "log", Path: cfg.LogFile})
	}
	if asJSON {
		m := map[string]string{}
		for _, p := range paths {
			m[p.Name] = p.Path
		}
		return writeJSON(w, m)
	}
	for _, p := range paths {
		there := ""
		if _, err := os.Stat(p.Path); err != nil {
			there = "  (not there)"
		}
		fmt.Fprintf(w, "%-9s %s%s\n", p.Name, p.Path, there)
	}
	return nil
}
