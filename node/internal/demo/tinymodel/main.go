// Command tinymodel makes the base model and the instruction data of the demo,
// and with -simulate shows what the demo's run learns from them.
// scripts/tinymodel/README.md says what is made, how, and why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/moot-net/moot/node/internal/demo"
	"github.com/moot-net/moot/node/internal/demo/swarm"
	"github.com/moot-net/moot/proto/fold"
	"github.com/moot-net/moot/shard"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "tinymodel: %v\n", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var (
		out      = flag.String("out", filepath.FromSlash("node/internal/demo/assets"), "folder of the assets")
		steps    = flag.Int("steps", pretraining.steps, "steps of pretraining")
		simulate = flag.Bool("simulate", false, "make nothing: train and measure an adapter on the assets in out")
		peers    = flag.Int("peers", 3, "with -simulate: peers in every round")
		inner    = flag.Int("inner", 12, "with -simulate: inner steps of a peer and round, give or take a third")
		churn    = flag.Bool("churn", false, "with -simulate: five peers as in the demo instead, two of which go after round 2")
	)
	flag.Parse()
	if *simulate {
		members := swarm.Even(*peers, *inner)
		if *churn {
			members = swarm.Churn(*inner)
		}
		return simulateRun(ctx, os.Stdout, *out, members)
	}
	return build(ctx, os.Stdout, *out, *steps)
}

// build makes all assets but run.toml, which people write.
func build(ctx context.Context, log io.Writer, out string, steps int) error {
	w := newWorld()
	if err := writeData(out, w); err != nil {
		return err
	}
	dir := filepath.Join(out, "model")
	tok, err := writeTokenizer(dir, w)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pretrain(ctx, log, dir, w, tok, steps); err != nil {
		return err
	}
	fmt.Fprintf(log, "pretraining took %s with %d threads\n", time.Since(began).Round(time.Second), runtime.NumCPU())
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(card), 0o644)
}

// simulateRun trains the run of the assets in out with members, and tells how
// it goes.
func simulateRun(ctx context.Context, log io.Writer, out string, members []swarm.Peer) (err error) {
	dir, err := os.MkdirTemp("", "tinymodel")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	data := demo.Data(out)
	s, err := swarm.New(ctx, swarm.Options{
		Dir: dir, ModelDir: filepath.Join(out, "model"), RunFile: filepath.Join(out, "run.toml"),
		Data: shard.DatasetOptions{
			Files: data.Files, EvalFile: data.EvalFile, Seed: data.Seed, Shuffle: data.Shuffle,
			ShardBytes: data.ShardBytes, Licence: data.Licence, Source: data.Source, Template: data.Template,
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	report := func(what string, state *fold.State) error {
		e, err := s.Evaluate(ctx, state)
		if err != nil {
			return err
		}
		fmt.Fprintf(log, "%s: loss %.4f, %d of %d answers right\n", what, e.Loss, e.Correct, len(e.Answers))
		for i, wrong := 0, 0; i < len(e.Answers) && wrong < 3; i++ {
			if a := e.Answers[i]; a.Got != a.Output {
				fmt.Fprintf(log, "  %q %q: %q, not %q\n", a.Instruction, a.Input, a.Got, a.Output)
				wrong++
			}
		}
		return nil
	}
	if err := report("base", nil); err != nil {
		return err
	}
	began, stepsDone := time.Now(), 0
	state, err := s.Run(ctx, members, func(r swarm.Round, state *fold.State) error {
		stepsDone += r.Steps
		fmt.Fprintf(log, "round %d: %d contributions, %d steps, training loss %.4f\n", r.Number, r.Contributions, r.Steps, r.TrainLoss)
		if r.Number%3 == 0 && r.Number < s.Rounds() {
			return report(fmt.Sprintf("after round %d", r.Number), state)
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	fmt.Fprintf(log, "%d steps took %s\n", stepsDone, took.Round(time.Millisecond))
	return report("adapter", state)
}
