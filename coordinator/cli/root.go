package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "moot",
		Short: "Fine-tune a language model together with other people's machines",
		Long: `moot is the remote control of mootd, the daemon that trains, shares and serves.
It fine-tunes language models with LoRA, on the machines of volunteers.

Without a daemon, "moot demo" shows everything on this machine.

Answers are on stdout, all else is on stderr. With --json an answer is one JSON
object. The exit code says what went wrong: 2 usage, 3 run file, 4 no daemon,
5 token, 6 not found, 7 conflict, 10 memory, 11 disk, 13 network, 14 integrity,
15 version, 16 refused, 17 data or model, 18 test not passed, 75 try again,
130 interrupted, 1 anything else.`,
		Example: `  moot demo
  moot join bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy
  moot watch last`,
		Args:              cobra.ArbitraryArgs,
		RunE:              noun,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDescriptions: false},
	}
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVar(&e.dataDir, "data-dir", "", "data `folder` of the daemon (default: MOOT_DATA_DIR, or the user's)")
	root.PersistentFlags().BoolVar(&e.json, "json", false, "print one JSON object")

	group := func(use, short string, verbs ...*cobra.Command) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: noun}
		c.AddCommand(verbs...)
		return c
	}
	root.AddCommand(
		group("model", "Import and list base models", newModelImport(e), newModelList(e)),
		group("data", "Look into, check, import and list data sets", newDataPreview(e), newDataCheck(e), newDataImport(e), newDataList(e)),
		group("cache", "List, prune and pin what the node holds", newCacheList(e), newCachePrune(e), newCachePin(e, true), newCachePin(e, false)),
		group("shard", "Carry models as files, and verify what is stored", newShardExport(e), newShardImport(e), newShardPull(e), newShardVerify(e)),
		group("run", "Describe and plan runs, list them, show their rounds and change their course", newRunInit(e), newRunPlan(e), newRunClone(e), newRunList(e), newRunShow(e),
			newRunPause(e), newRunResume(e), newRunExtend(e), newRunAmend(e), newRunStop(e), newRunSnapshot(e)),
		group("peer", "List peers", newPeerList(e)),
		group("adapter", "Export what was trained, and verify exports", newAdapterExport(e), newAdapterVerify(e)),
		newLaunch(e), newJoin(e), newInvite(e), newLeave(e), newWatch(e), newStatus(e), newDashboard(e), newStop(e),
		newGenerate(e), newEvaluate(e), newJudge(e), newReplay(e), newSim(e), newVersion(e), newDemo(e),
	)
	return root
}

// noun runs when no verb was found.
func noun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 && !cmd.HasParent() {
		return cmd.Help()
	}
	var verbs []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			verbs = append(verbs, c.Name())
		}
	}
	if len(args) == 0 {
		return api.Errorf(api.CodeUsage, "%q needs one of: %s", cmd.CommandPath(), strings.Join(verbs, ", ")).
			WithHint("see %q", cmd.CommandPath()+" --help")
	}
	err := api.Errorf(api.CodeUsage, "%q has no command %q", cmd.CommandPath(), args[0])
	if !cmd.HasParent() {
		var elsewhere []string
		for _, group := range cmd.Commands() {
			for _, c := range group.Commands() {
				if c.Name() == args[0] {
					elsewhere = append(elsewhere, fmt.Sprintf("%q", c.CommandPath()))
				}
			}
		}
		if len(elsewhere) > 0 {
			return err.WithHint("did you mean %s?", strings.Join(elsewhere, " or "))
		}
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return err.WithHint("did you mean %q?", cmd.CommandPath()+" "+near[0])
	}
	return err.WithHint("see %q", cmd.CommandPath()+" --help")
}

// flagNamed finds the flag in an error of a value.
var flagNamed = regexp.MustCompile(`for "(?:-., )?--([a-z0-9-]+)" flag`)

// flagError words what is wrong with a flag.
func flagError(cmd *cobra.Command, err error) error {
	hint := cmd.CommandPath() + " --help"
	var bad interface{ GetValue() string } // *pflag.InvalidValueError
	if named := flagNamed.FindStringSubmatch(err.Error()); named != nil && errors.As(err, &bad) {
		what := map[string]string{
			"int": "a whole number", "uint64": "a whole number, and not below 0", "float64": "a number", "bool": "true or false",
			"duration": "a time such as 30s or 2h",
		}
		if f := cmd.Flag(named[1]); f != nil && what[f.Value.Type()] != "" {
			return api.Errorf(api.CodeUsage, "--%s is %q, must be %s", f.Name, bad.GetValue(), what[f.Value.Type()]).WithHint("see %q", hint)
		}
	}
	return api.Errorf(api.CodeUsage, "%w", err).WithHint("see %q", hint)
}

// needs checks the arguments of a command by the names they have in its usage:
// exactly these, or at least these if more is true.
func needs(more bool, names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := "usage: " + cmd.UseLine()
		if len(args) < len(names) {
			return api.Errorf(api.CodeUsage, "%s is missing", names[len(args)]).WithHint("%s", hint)
		}
		if len(args) > len(names) && !more {
			return api.Errorf(api.CodeUsage, "%q is one argument too many", args[len(names)]).WithHint("%s", hint)
		}
		for i, a := range args {
			if strings.TrimSpace(a) == "" {
				return api.Errorf(api.CodeUsage, "%s is empty", names[min(i, len(names)-1)]).WithHint("%s", hint)
			}
		}
		return nil
	}
}
