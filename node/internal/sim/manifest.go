package sim

import (
	"github.com/moot-net/moot/proto/msg"
	"github.com/moot-net/moot/proto/run"
)

// baseManifest is what the runs of all scenarios have in common: the defaults of
// a run file, where there are any.
func baseManifest() *run.Manifest {
	return &run.Manifest{
		Version: run.ManifestVersion, Name: "simulation",
		Model: msg.RawCID([]byte("model")), Dataset: msg.RawCID([]byte("data")), ModelBytes: 1, DatasetBytes: 1,
		Inner: run.Inner{
			LearningRateNano: 1, Beta1PPM: 900_000, Beta2PPM: 950_000, EpsilonPico: 10_000, ClipMilli: 1000,
			MinSteps: 1, MaxSteps: 30, BatchSamples: 1, MaxTokens: 2,
		},
		Outer:     run.Outer{LearningRateQ16: 45875, MomentumQ16: 39322},
		CodecBits: 2, PeriodMillis: 600_000, Seats: 32, MinPeers: 1, MaxRounds: 1e6,
		Schedule: run.ScheduleConstant, EvalSamples: 1, Template: "alpaca",
		Trust: run.Trust{Auditors: 3, AuditSamples: 8, Probation: 5, Judgement: run.NewestJudgement},
	}
}
