package run

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

func (m *Manifest) toWire() *wirev1.Manifest {
	w := &wirev1.Manifest{
		Version:      m.Version,
		Name:         m.Name,
		Model:        m.Model.Bytes(),
		Dataset:      m.Dataset.Bytes(),
		ModelBytes:   m.ModelBytes,
		DatasetBytes: m.DatasetBytes,
		Lora:         &wirev1.LoRA{Rank: m.LoRA.Rank, Alpha: m.LoRA.Alpha, Targets: m.LoRA.Targets, Rslora: m.LoRA.RSLoRA},
		GenesisSeed:  m.GenesisSeed,
		Inner: &wirev1.Inner{
			LearningRateNano: m.Inner.LearningRateNano,
			Beta1Ppm:         m.Inner.Beta1PPM,
			Beta2Ppm:         m.Inner.Beta2PPM,
			EpsilonPico:      m.Inner.EpsilonPico,
			WeightDecayPpm:   m.Inner.WeightDecayPPM,
			ClipMilli:        m.Inner.ClipMilli,
			WarmupSteps:      m.Inner.WarmupSteps,
			MinSteps:         m.Inner.MinSteps,
			MaxSteps:         m.Inner.MaxSteps,
			BatchSamples:     m.Inner.BatchSamples,
			MaxTokens:        m.Inner.MaxTokens,
			Optimizer:        wirev1.Optimizer(m.Inner.Optimizer),
			MomentumPpm:      m.Inner.MomentumPPM,
			LoraPlusMilli:    m.Inner.LoRAPlusMilli,
			DecayRounds:      m.Inner.DecayRounds,
			Unpacked:         m.Inner.Unpacked,
			OverLong:         wirev1.OverLong(m.Inner.OverLong),
			StartSteps:       m.Inner.StartSteps,
			OverlapSteps:     m.Inner.OverlapSteps,
		},
		Outer:        &wirev1.Outer{LearningRateQ16: m.Outer.LearningRateQ16, MomentumQ16: m.Outer.MomentumQ16},
		CodecBits:    m.CodecBits,
		PeriodMillis: m.PeriodMillis,
		Seats:        m.Seats,
		MinPeers:     m.MinPeers,
		MaxRounds:    m.MaxRounds,
		MaxTokens:    m.MaxTokens,
		Schedule:     wirev1.Schedule(m.Schedule),
		EvalSamples:  m.EvalSamples,
		Licences: &wirev1.Licences{
			Model: m.Licences.Model, Data: m.Licences.Data, Use: uint32(m.Licences.Use), ModelSource: m.Licences.ModelSource, DataSource: m.Licences.DataSource,
		},
		Launcher:     []byte(m.Launcher),
		Created:      m.Created,
		Template:     m.Template,
		Mode:         wirev1.Mode(m.Mode),
		RotateRounds: m.RotateRounds,
		KeepRounds:   m.KeepRounds,
		MinCodecBits: m.MinCodecBits,
		SkipLinks:    m.SkipLinks,
		Pledges:      m.Pledges,

		DatedRequests:  m.DatedRequests,
		FollowArrivals: m.FollowArrivals,
		EvalPeers:      m.EvalPeers,
	}
	if t := m.Trust; t != (Trust{}) {
		w.Trust = &wirev1.Trust{Auditors: t.Auditors, AuditSamples: t.AuditSamples, Probation: t.Probation, TakeBack: t.TakeBack, RetracePpm: t.RetracePPM, Outsiders: t.Outsiders, Judgement: t.Judgement}
	}
	if t := m.Stop; t != (Stop{}) {
		w.Stop = &wirev1.Stop{Patience: t.Patience, MinImprovementPpm: t.MinImprovementPPM, TargetMicro: t.TargetMicro}
	}
	if t := m.Rollback; t != (Rollback{}) {
		w.Rollback = &wirev1.Rollback{Rounds: t.Rounds, WorsePpm: t.WorsePPM}
	}
	if a := &m.Admission; a.Mode != 0 || len(a.Allowed) > 0 || a.WorkBits > 0 {
		w.Admission = &wirev1.Admission{Mode: uint32(a.Mode), WorkBits: a.WorkBits}
		for _, id := range a.Allowed {
			w.Admission.Allowed = append(w.Admission.Allowed, []byte(id))
		}
	}
	for _, a := range m.LoRA.Alphas {
		w.Lora.Alphas = append(w.Lora.Alphas, &wirev1.Alpha{Module: a.Module, Alpha: a.Alpha})
	}
	for _, t := range m.Tensors {
		w.Tensors = append(w.Tensors, &wirev1.Tensor{Name: t.Name, Rows: t.Rows, Cols: t.Cols})
	}
	return w
}

func fromWire(w *wirev1.Manifest) (*Manifest, error) {
	model, err := readCID("model", w.Model)
	if err != nil {
		return nil, err
	}
	dataset, err := readCID("data", w.Dataset)
	if err != nil {
		return nil, err
	}
	m := &Manifest{
		Version:      w.Version,
		Name:         w.Name,
		Model:        model,
		Dataset:      dataset,
		ModelBytes:   w.ModelBytes,
		DatasetBytes: w.DatasetBytes,
		LoRA: LoRA{
			Rank: w.Lora.GetRank(), Alpha: w.Lora.GetAlpha(), Targets: w.Lora.GetTargets(), RSLoRA: w.Lora.GetRslora(),
		},
		GenesisSeed: w.GenesisSeed,
		Inner: Inner{
			LearningRateNano: w.Inner.GetLearningRateNano(),
			Beta1PPM:         w.Inner.GetBeta1Ppm(),
			Beta2PPM:         w.Inner.GetBeta2Ppm(),
			EpsilonPico:      w.Inner.GetEpsilonPico(),
			WeightDecayPPM:   w.Inner.GetWeightDecayPpm(),
			ClipMilli:        w.Inner.GetClipMilli(),
			WarmupSteps:      w.Inner.GetWarmupSteps(),
			MinSteps:         w.Inner.GetMinSteps(),
			MaxSteps:         w.Inner.GetMaxSteps(),
			BatchSamples:     w.Inner.GetBatchSamples(),
			MaxTokens:        w.Inner.GetMaxTokens(),
			Optimizer:        Optimizer(w.Inner.GetOptimizer()),
			MomentumPPM:      w.Inner.GetMomentumPpm(),
			LoRAPlusMilli:    w.Inner.GetLoraPlusMilli(),
			DecayRounds:      w.Inner.GetDecayRounds(),
			Unpacked:         w.Inner.GetUnpacked(),
			OverLong:         OverLong(w.Inner.GetOverLong()),
			StartSteps:       w.Inner.GetStartSteps(),
			OverlapSteps:     w.Inner.GetOverlapSteps(),
		},
		Outer:        Outer{LearningRateQ16: w.Outer.GetLearningRateQ16(), MomentumQ16: w.Outer.GetMomentumQ16()},
		CodecBits:    w.CodecBits,
		PeriodMillis: w.PeriodMillis,
		Seats:        w.Seats,
		MinPeers:     w.MinPeers,
		MaxRounds:    w.MaxRounds,
		MaxTokens:    w.MaxTokens,
		Schedule:     Schedule(w.Schedule),
		EvalSamples:  w.EvalSamples,
		Licences: Licences{
			Model: w.Licences.GetModel(), Data: w.Licences.GetData(), Use: Use(w.Licences.GetUse()),
			ModelSource: w.Licences.GetModelSource(), DataSource: w.Licences.GetDataSource(),
		},
		Launcher:     peer.ID(w.Launcher),
		Created:      w.Created,
		Template:     w.Template,
		Mode:         Mode(w.Mode),
		RotateRounds: w.RotateRounds,
		KeepRounds:   w.KeepRounds,
		MinCodecBits: w.MinCodecBits,
		SkipLinks:    w.SkipLinks,
		Pledges:      w.Pledges,

		DatedRequests:  w.DatedRequests,
		FollowArrivals: w.FollowArrivals,
		EvalPeers:      w.EvalPeers,
	}
	if t := w.Trust; t != nil {
		m.Trust = Trust{Auditors: t.Auditors, AuditSamples: t.AuditSamples, Probation: t.Probation, TakeBack: t.TakeBack, RetracePPM: t.RetracePpm, Outsiders: t.Outsiders, Judgement: t.Judgement}
	}
	if t := w.Stop; t != nil {
		m.Stop = Stop{Patience: t.Patience, MinImprovementPPM: t.MinImprovementPpm, TargetMicro: t.TargetMicro}
	}
	if t := w.Rollback; t != nil {
		m.Rollback = Rollback{Rounds: t.Rounds, WorsePPM: t.WorsePpm}
	}
	if a := w.Admission; a != nil {
		m.Admission = Admission{Mode: AdmissionMode(a.Mode), WorkBits: a.WorkBits}
		for _, id := range a.Allowed {
			m.Admission.Allowed = append(m.Admission.Allowed, peer.ID(id))
		}
	}
	for _, a := range w.Lora.GetAlphas() {
		m.LoRA.Alphas = append(m.LoRA.Alphas, ModuleAlpha{Module: a.GetModule(), Alpha: a.GetAlpha()})
	}
	for _, t := range w.Tensors {
		m.Tensors = append(m.Tensors, Tensor{Name: t.Name, Rows: t.Rows, Cols: t.Cols})
	}
	return m, nil
}

func readCID(field string, b []byte) (cid.Cid, error) {
	id, err := cid.Cast(b)
	if err != nil {
		return cid.Undef, fmt.Errorf("%s: %w", field, err)
	}
	return id, nil
}
