package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/moot-net/moot/node/internal/cpu"
	"github.com/moot-net/moot/node/internal/lora"
	"github.com/moot-net/moot/node/internal/train"
)

// workerCommand makes the program do one thing in a process of its own, whose
// memory is then that of what it measures.
const workerCommand = "worker"

func runWorker(args []string) error {
	var v any
	var err error
	switch {
	case len(args) == 2 && args[0] == "sgemm":
		threads, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return multiplyOnDemand(threads, os.Stdin, os.Stdout)
	case len(args) == 5 && args[0] == "train":
		var threads, steps int
		var precision cpu.Precision
		if threads, err = strconv.Atoi(args[2]); err == nil {
			if steps, err = strconv.Atoi(args[3]); err == nil {
				if precision, err = cpu.ParsePrecision(args[4]); err == nil {
					v, err = ownTraining(args[1], threads, steps, precision)
				}
			}
		}
	case len(args) == 4 && args[0] == "model" && models[args[2]] != nil:
		v, err = true, makeModel(args[1], args[2], args[3])
	default:
		err = fmt.Errorf("%s %q: not what this program starts", workerCommand, args)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(v)
}

// ownTraining trains on random tokens, as peer_torch.py does.
func ownTraining(dir string, threads, steps int, precision cpu.Precision) (training, error) {
	t, err := train.Open(train.Options{
		ModelDir: dir, Threads: threads, Precision: precision, Adam: train.Adam{WeightDecay: 0.01},
		Spec: lora.Spec{Rank: rank, Alpha: 2 * rank, Targets: []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}},
	})
	if err != nil {
		return training{}, err
	}
	defer func() { _ = t.Close() }()
	r := rand.New(rand.NewPCG(5, 6))
	batches := make([][]train.Sample, 4)
	for i := range batches {
		for range batchSize {
			ids := make([]int32, seqLen)
			for j := range ids {
				ids[j] = int32(r.IntN(t.Model().Config().Vocab))
			}
			batches[i] = append(batches[i], train.Sample{IDs: ids, Labels: ids})
		}
	}
	var out training
	var took []float64
	used := 0.0
	for i := range steps + 1 { // the first one warms up
		start, before := time.Now(), processorSeconds()
		sum, tokens, err := t.Step(context.Background(), batches[i%len(batches)], 1e-3)
		if err != nil {
			return training{}, err
		}
		out.Loss[1] = sum / float64(tokens)
		if i == 0 {
			out.Loss[0] = out.Loss[1]
			continue
		}
		took = append(took, time.Since(start).Seconds())
		used += processorSeconds() - before
	}
	out.StepS = [3]float64{slices.Min(took), median(took), slices.Max(took)}
	out.CPUsPerStep = used / float64(steps)
	out.PeakRSSMB = float64(peakBytes()) / (1 << 20)
	return out, nil
}
