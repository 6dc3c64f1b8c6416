package main

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/autostart"
)

func newService(s *settings) *cobra.Command {
	c := &cobra.Command{
		Use: "service", Short: "Start the daemon when you log in", Args: noArgs, Example: "  mootd service install",
		Long: `Lets the system start mootd when you log in: by a systemd user unit, a launchd agent,
or a task of Windows' scheduler. It needs no root. A service of Windows is not used,
for there is no GPU in its session.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newServiceInstall(s), newServiceUninstall(s), newServiceStatus(s))
	return c
}

func newServiceInstall(s *settings) *cobra.Command {
	var (
		only   bool
		system string
	)
	c := &cobra.Command{
		Use: "install", Short: "Start the daemon now and at each login", Args: noArgs,
		Long: `Writes the unit of this system and starts the daemon by it. With --config or
--data-dir the daemon gets them, too; what else is to be set is taken from the
configuration file. It may be repeated, such as after an update.`,
		Example: "  mootd service install\n  mootd service install --print",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, u, err := unit(cmd, s, system)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if only {
				_, err := out.Write(u.Content)
				return err
			}
			if system != runtime.GOOS {
				return api.Errorf(api.CodeUsage, "--for %s is not this system", system).WithHint("--print shows what would be written there")
			}
			// The folder is also where the log goes.
			if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
				return api.Errorf(api.CodeConfig, "make data folder: %w", err)
			}
			if err := u.Install(cmd.Context(), autostart.Exec); err != nil {
				return api.Errorf(api.CodeInternal, "%w", err).WithHint("%s is written; start mootd from your session if this system does not know %s", u.Path, u.System)
			}
			fmt.Fprintf(out, "installed %s\n%s\n", u.Path, u.Note)
			if isNew(cfg.DataDir) {
				fmt.Fprintln(out, `nobody has agreed yet that this machine works for others: joining a run does, and "mootd --yes"`)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&only, "print", false, "print what would be written, and do nothing")
	c.Flags().StringVar(&system, "for", runtime.GOOS, "`system` to print it for: linux, darwin or windows")
	return c
}

func newServiceUninstall(s *settings) *cobra.Command {
	return &cobra.Command{
		Use: "uninstall", Short: "End the daemon, and do not start it at login", Args: noArgs, Example: "  mootd service uninstall",
		Long: "Ends the daemon that the system started, and removes the unit. The data folder\nand the configuration stay.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, u, err := unit(cmd, s, runtime.GOOS)
			if err != nil {
				return err
			}
			if err := u.Uninstall(cmd.Context(), autostart.Exec); err != nil {
				return api.Errorf(api.CodeInternal, "%w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is not there any more\n", u.Path)
			return err
		},
	}
}

func newServiceStatus(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Say whether the system starts the daemon", Args: noArgs, Example: "  mootd service status\n  mootd service status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, u, err := unit(cmd, s, runtime.GOOS)
			if err != nil {
				return err
			}
			v, err := u.Status(cmd.Context(), autostart.Exec)
			if err != nil {
				return api.Errorf(api.CodeInternal, "%w", err)
			}
			out := cmd.OutOrStdout()
			if asJSON {
				return writeJSON(out, v)
			}
			if !v.Installed {
				fmt.Fprintf(out, "not installed: %s is not there\n", v.File)
				return nil
			}
			fmt.Fprintf(out, "installed: %s\n", v.File)
			if !v.Current {
				fmt.Fprintln(out, `it is not what "mootd service install" would write now`)
			}
			for _, line := range v.Says {
				fmt.Fprintf(out, "%s: %s\n", v.System, line)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// unit is what starts this program on a system.
func unit(cmd *cobra.Command, s *settings, system string) (*config.Loaded, *autostart.Unit, error) {
	cfg, err := s.load(cmd)
	if err != nil {
		return nil, nil, err
	}
	o := autostart.Options{DataDir: cfg.DataDir, UID: os.Getuid(), ConfigHome: os.Getenv("XDG_CONFIG_HOME")}
	if o.Exe, err = os.Executable(); err != nil {
		return nil, nil, api.Errorf(api.CodeInternal, "find this program: %w", err)
	}
	if o.Home, err = os.UserHomeDir(); err != nil {
		return nil, nil, api.Errorf(api.CodeConfig, "find the home folder: %w", err)
	}
	if u, err := user.Current(); err == nil {
		o.User = u.Username
	}
	if s.file != "" {
		path, err := filepath.Abs(s.file)
		if err != nil {
			return nil, nil, api.Errorf(api.CodeConfig, "%s: %w", s.file, err)
		}
		o.Args = append(o.Args, "--config", path)
	}
	if cfg.Origin("data_dir").Kind == "flag" || cfg.Origin("data_dir").Kind == "environment" {
		o.Args = append(o.Args, "--data-dir", cfg.DataDir)
	}
	u, err := autostart.For(system, o)
	if err != nil {
		return nil, nil, api.Errorf(api.CodeUsage, "%w", err)
	}
	return cfg, u, nil
}
