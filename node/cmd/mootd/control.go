package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
)

func newPause(s *settings) *cobra.Command {
	var (
		length time.Duration
		until  string
		note   string
		device string
		asJSON bool
	)
	c := &cobra.Command{
		Use: "pause", Short: "Stop working for others, now", Args: noArgs,
		Long: `Stops the step that is under way and begins no other. The steps before it are
saved, and the memory that training takes is given back. Other nodes go on; this one
comes back into its runs when it is resumed. A pause outlives a restart of the daemon.
That of a device counts as long as the node computes on that one.`,
		Example: `  mootd pause
  mootd pause --for 2h
  mootd pause --until 18:00 --note "film"
  mootd pause --device cpu`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req := api.ControlRequest{Action: api.ControlPause, Note: note, Device: device}
			switch {
			case cmd.Flags().Changed("for") && length < time.Second:
				return api.Errorf(api.CodeUsage, "--for is %v, must be at least 1s", length)
			case until != "":
				t, err := parseUntil(until, time.Now())
				if err != nil {
					return err
				}
				req.Until = &t
			}
			req.ForSeconds = int64(length / time.Second)
			return control(cmd, s, req, asJSON)
		},
	}
	c.Flags().DurationVar(&length, "for", 0, "resume after this `time`, such as 90m or 2h")
	c.Flags().StringVar(&until, "until", "", "resume at this `time` of day, 18:00, or date, 2026-12-24T18:00:00+01:00")
	c.Flags().StringVar(&note, "note", "", "`text` that is shown as the reason")
	c.Flags().StringVar(&device, "device", "", "pause this `device` alone: cpu, or cuda:0")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.MarkFlagsMutuallyExclusive("for", "until")
	return c
}

// parseUntil reads a time of day, the next of which is meant, or a date.
func parseUntil(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil {
		return t, api.Errorf(api.CodeUsage, "--until is %q, must be a time of day such as 18:00, or a date such as 2026-12-24T18:00:00+01:00", s)
	}
	at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
	if !at.After(now) {
		at = time.Date(now.Year(), now.Month(), now.Day()+1, t.Hour(), t.Minute(), 0, 0, now.Location())
	}
	return at, nil
}

func newResume(s *settings) *cobra.Command {
	var (
		device string
		asJSON bool
	)
	c := &cobra.Command{
		Use: "resume", Short: "Work for others again", Args: noArgs, Example: "  mootd resume\n  mootd resume --device cuda:0",
		Long: "Ends every pause and a finish, or with --device the pause of that device.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return control(cmd, s, api.ControlRequest{Action: api.ControlResume, Device: device}, asJSON)
		},
	}
	c.Flags().StringVar(&device, "device", "", "end the pause of this `device` alone")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func newFinish(s *settings) *cobra.Command {
	var (
		then   string
		asJSON bool
	)
	c := &cobra.Command{
		Use: "finish", Short: "Finish this round's work, and take no more", Args: noArgs,
		Long: `Lets the work of the round that is under way end and be published, and begins no
other. The daemon goes on serving what it holds, or with --then exit it ends when
the round is decided.`,
		Example: "  mootd finish\n  mootd finish --then exit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if then != "idle" && then != "exit" {
				return api.Errorf(api.CodeUsage, "--then is %q, must be idle or exit", then)
			}
			return control(cmd, s, api.ControlRequest{Action: api.ControlFinish, Exit: then == "exit"}, asJSON)
		},
	}
	c.Flags().StringVar(&then, "then", "idle", "`what` comes afterwards: idle or exit")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func newStatus(s *settings) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Say what the node does, and why it does not train", Args: noArgs, Example: "  mootd status\n  mootd status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(cmd, s, asJSON, func(ctx context.Context, c *client.Client) (api.Status, error) { return c.Status(ctx) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func control(cmd *cobra.Command, s *settings, req api.ControlRequest, asJSON bool) error {
	return ask(cmd, s, asJSON, func(ctx context.Context, c *client.Client) (api.Status, error) { return c.Control(ctx, req) })
}

// ask asks the running daemon and prints what it does.
func ask(cmd *cobra.Command, s *settings, asJSON bool, fn func(context.Context, *client.Client) (api.Status, error)) error {
	cfg, err := s.load(cmd)
	if err != nil {
		return err
	}
	c, err := client.Open(cfg.DataDir)
	if err != nil {
		return err
	}
	defer c.Close()
	v, err := fn(cmd.Context(), c)
	if err != nil {
		return err
	}
	if !asJSON {
		printStatus(cmd.OutOrStdout(), v, time.Now())
		return nil
	}
	return writeJSON(cmd.OutOrStdout(), v)
}

func writeJSON(w io.Writer, v any) error {
	b, err := api.Marshal(v)
	if err != nil {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

func printStatus(w io.Writer, v api.Status, now time.Time) {
	// Names of runs and notes come from others.
	clean := func(s string) string {
		return strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '?'
			}
			return r
		}, s)
	}
	fmt.Fprintf(w, "state    %s\n", v.State)
	if v.Why != "" {
		fmt.Fprintf(w, "why      %s\n", clean(v.Why))
	}
	if v.Until != nil {
		fmt.Fprintf(w, "until    %s (in %s)\n", v.Until.Local().Format("Mon 15:04"), inTime(v.Until.Sub(now)))
	}
	if v.Do != "" {
		fmt.Fprintf(w, "do       %s\n", clean(v.Do))
	}
	if v.ConfigError != "" {
		fmt.Fprintf(w, "config   as before, for the file is wrong: %s\n", clean(v.ConfigError))
	}
	if len(v.RestartNeeded) > 0 {
		fmt.Fprintf(w, "config   takes effect at the next start: %s\n", clean(strings.Join(v.RestartNeeded, ", ")))
	}
	if v.ClockError != "" {
		fmt.Fprintf(w, "clock    %s; let the system set it by NTP\n", clean(v.ClockError))
	}
	for _, key := range slices.Sorted(maps.Keys(v.Blind)) {
		fmt.Fprintf(w, "blind    %s has no effect: %s\n", clean(key), clean(v.Blind[key]))
	}
	fmt.Fprintf(w, "device   %s\nruns     %d\npeers    %d\n", clean(v.Device), v.Runs, v.Peers)
	fmt.Fprintf(w, "traffic  %.1f MB in, %.1f MB out\n", float64(v.Traffic.PulledBytes)/1e6, float64(v.Traffic.SentBytes)/1e6)
}

// inTime is a time for people: to the minute, or to the second if that is near.
func inTime(d time.Duration) time.Duration {
	if d < 2*time.Minute {
		return d.Round(time.Second)
	}
	return d.Round(time.Minute)
}
