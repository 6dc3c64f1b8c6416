package msg

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// fromWire decodes the payload of a message. What it returns is not validated.
func fromWire(k kind, b []byte) (Message, error) {
	switch k {
	case kindCommit:
		return convert(k, b, &wirev1.Commit{}, commitFromWire)
	case kindHave:
		return convert(k, b, &wirev1.Have{}, haveFromWire)
	case kindJoin:
		return convert(k, b, &wirev1.JoinRequest{}, joinFromWire)
	case kindProposal:
		return convert(k, b, &wirev1.Proposal{}, proposalFromWire)
	case kindVote:
		return convert(k, b, &wirev1.Vote{}, voteFromWire)
	case kindStatus:
		return convert(k, b, &wirev1.Status{}, statusFromWire)
	case kindReport:
		return convert(k, b, &wirev1.Report{}, reportFromWire)
	case kindPledge:
		return convert(k, b, &wirev1.Pledge{}, pledgeFromWire)
	case kindInvite:
		return convert(k, b, &wirev1.Invite{}, inviteFromWire)
	case kindCell:
		return convert(k, b, &wirev1.CellResult{}, cellResultFromWire)
	case kindOrder:
		return convert(k, b, &wirev1.Order{}, orderFromWire)
	}
	panic("bug: no message has the type " + string(k))
}

func convert[W proto.Message, M Message](k kind, b []byte, w W, from func(W) (M, error)) (Message, error) {
	if err := proto.Unmarshal(b, w); err != nil {
		return nil, &InvalidError{k.name(), err.Error()}
	}
	m, err := from(w)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.name(), err)
	}
	return m, nil
}

// cidReader turns bytes into CIDs and keeps the first error.
type cidReader struct{ err error }

// read accepts what IsFileCID accepts, and no bytes at all for cid.Undef.
func (r *cidReader) read(b []byte) cid.Cid {
	if len(b) == 0 {
		return cid.Undef
	}
	c, err := cid.Cast(b)
	if err == nil && !IsFileCID(c) {
		err = fmt.Errorf("%v is not a CIDv1 of sha2-256, raw or dag-pb", c)
	}
	if err != nil && r.err == nil {
		r.err = &InvalidError{"CID", err.Error()}
	}
	return c
}

func (m *Commit) toWire() proto.Message {
	return &wirev1.Commit{
		Run:        m.Run.Bytes(),
		Round:      uint64(m.Round),
		Head:       m.Head.Bytes(),
		Peer:       []byte(m.Peer),
		Delta:      m.Delta.Bytes(),
		DeltaBytes: m.DeltaBytes,
		CodecBits:  m.CodecBits,
		Tokens:     m.Tokens,
		Steps:      m.Steps,
		Norm:       m.Norm,
		LossMicro:  m.LossMicro,
		Trace:      m.Trace.Bytes(),
	}
}

func commitFromWire(w *wirev1.Commit) (*Commit, error) {
	var r cidReader
	return &Commit{
		Run:        r.read(w.Run),
		Round:      Round(w.Round),
		Head:       r.read(w.Head),
		Peer:       peer.ID(w.Peer),
		Delta:      r.read(w.Delta),
		DeltaBytes: w.DeltaBytes,
		CodecBits:  w.CodecBits,
		Tokens:     w.Tokens,
		Steps:      w.Steps,
		Norm:       w.Norm,
		LossMicro:  w.LossMicro,
		Trace:      r.read(w.Trace),
	}, r.err
}

func (m *Have) toWire() proto.Message {
	w := &wirev1.Have{
		Run:   m.Run.Bytes(),
		Round: uint64(m.Round),
		Head:  m.Head.Bytes(),
		Peer:  []byte(m.Peer),
		Cell:  m.Cell,
	}
	for _, e := range m.Entries {
		w.Entries = append(w.Entries, &wirev1.HaveEntry{Seat: e.Seat, Commit: e.Commit.Bytes(), Reason: uint32(e.Reason)})
	}
	for _, j := range m.Joins {
		w.Joins = append(w.Joins, j.Bytes())
	}
	w.LossMicro, w.Reports = m.LossMicro, m.Reports
	w.KappaPpm, w.ArrivalMillis = m.KappaPPM, m.ArrivalMillis
	for _, a := range m.Audits {
		w.Audits = append(w.Audits, &wirev1.Audit{Seat: a.Seat, GainNano: a.GainNano})
	}
	for _, e := range m.Merges {
		w.Merges = append(w.Merges, e.toWire())
	}
	for _, e := range m.Retraces {
		w.Retraces = append(w.Retraces, &wirev1.Retrace{Seat: e.Seat, ErrorPpm: e.ErrorPPM})
	}
	for _, o := range m.Orders {
		w.Orders = append(w.Orders, o.Bytes())
	}
	return w
}

func haveFromWire(w *wirev1.Have) (*Have, error) {
	var r cidReader
	m := &Have{
		Run:   r.read(w.Run),
		Round: Round(w.Round),
		Head:  r.read(w.Head),
		Peer:  peer.ID(w.Peer),
		Cell:  w.Cell,
	}
	for _, e := range w.Entries {
		m.Entries = append(m.Entries, HaveEntry{Seat: e.Seat, Commit: r.read(e.Commit), Reason: Reason(e.Reason)})
	}
	for _, j := range w.Joins {
		m.Joins = append(m.Joins, r.read(j))
	}
	m.LossMicro, m.Reports = w.LossMicro, w.Reports
	m.KappaPPM, m.ArrivalMillis = w.KappaPpm, w.ArrivalMillis
	for _, a := range w.Audits {
		m.Audits = append(m.Audits, Audit{Seat: a.Seat, GainNano: a.GainNano})
	}
	for _, e := range w.Merges {
		m.Merges = append(m.Merges, mergeFromWire(&r, e))
	}
	for _, e := range w.Retraces {
		m.Retraces = append(m.Retraces, Retrace{Seat: e.Seat, ErrorPPM: e.ErrorPpm})
	}
	for _, o := range w.Orders {
		m.Orders = append(m.Orders, r.read(o))
	}
	return m, r.err
}

func (m *Report) toWire() proto.Message {
	w := &wirev1.Report{Run: m.Run.Bytes(), Round: uint64(m.Round), Head: m.Head.Bytes(), Peer: []byte(m.Peer)}
	for _, a := range m.Audits {
		w.Audits = append(w.Audits, &wirev1.Audit{Seat: a.Seat, GainNano: a.GainNano})
	}
	for _, e := range m.Retraces {
		w.Retraces = append(w.Retraces, &wirev1.Retrace{Seat: e.Seat, ErrorPpm: e.ErrorPPM})
	}
	return w
}

func reportFromWire(w *wirev1.Report) (*Report, error) {
	var r cidReader
	m := &Report{Run: r.read(w.Run), Round: Round(w.Round), Head: r.read(w.Head), Peer: peer.ID(w.Peer)}
	for _, a := range w.Audits {
		m.Audits = append(m.Audits, Audit{Seat: a.Seat, GainNano: a.GainNano})
	}
	for _, e := range w.Retraces {
		m.Retraces = append(m.Retraces, Retrace{Seat: e.Seat, ErrorPPM: e.ErrorPpm})
	}
	return m, r.err
}

func (m *JoinRequest) toWire() proto.Message {
	return &wirev1.JoinRequest{
		Run: m.Run.Bytes(), Peer: []byte(m.Peer), Seq: m.Seq, Leave: m.Leave, Invite: m.Invite, Proof: m.Proof, Nonce: m.Nonce, Until: uint64(m.Until),
	}
}

func joinFromWire(w *wirev1.JoinRequest) (*JoinRequest, error) {
	var r cidReader
	return &JoinRequest{
		Run: r.read(w.Run), Peer: peer.ID(w.Peer), Seq: w.Seq, Leave: w.Leave, Invite: w.Invite, Proof: w.Proof, Nonce: w.Nonce, Until: Round(w.Until),
	}, r.err
}

func (m *Order) toWire() proto.Message {
	return &wirev1.Order{
		Run: m.Run.Bytes(), Peer: []byte(m.Peer), Seq: m.Seq, Action: uint32(m.Action),
		MaxRounds: m.MaxRounds, MaxTokens: m.MaxTokens, RatePermille: m.RatePermille, Note: m.Note,
	}
}

func orderFromWire(w *wirev1.Order) (*Order, error) {
	var r cidReader
	return &Order{
		Run: r.read(w.Run), Peer: peer.ID(w.Peer), Seq: w.Seq, Action: Action(w.Action),
		MaxRounds: w.MaxRounds, MaxTokens: w.MaxTokens, RatePermille: w.RatePermille, Note: w.Note,
	}, r.err
}

func (m *Invite) toWire() proto.Message {
	return &wirev1.Invite{Run: m.Run.Bytes(), Peer: []byte(m.Peer), Key: m.Key, Until: uint64(m.Until)}
}

func inviteFromWire(w *wirev1.Invite) (*Invite, error) {
	var r cidReader
	return &Invite{Run: r.read(w.Run), Peer: peer.ID(w.Peer), Key: w.Key, Until: Round(w.Until)}, r.err
}

func (m *Proposal) toWire() proto.Message {
	return &wirev1.Proposal{
		Run:     m.Run.Bytes(),
		Round:   uint64(m.Round),
		Attempt: m.Attempt,
		Peer:    []byte(m.Peer),
		Record:  m.Record,
		Pledge:  m.Pledge,
	}
}

func proposalFromWire(w *wirev1.Proposal) (*Proposal, error) {
	var r cidReader
	return &Proposal{
		Run:     r.read(w.Run),
		Round:   Round(w.Round),
		Attempt: w.Attempt,
		Peer:    peer.ID(w.Peer),
		Record:  w.Record,
		Pledge:  w.Pledge,
	}, r.err
}

func (m *Pledge) toWire() proto.Message {
	return &wirev1.Pledge{
		Run: m.Run.Bytes(), Round: uint64(m.Round), Head: m.Head.Bytes(), Attempt: m.Attempt, Record: m.Record.Bytes(), Peer: []byte(m.Peer), Cell: m.Cell,
	}
}

func pledgeFromWire(w *wirev1.Pledge) (*Pledge, error) {
	var r cidReader
	return &Pledge{
		Run: r.read(w.Run), Round: Round(w.Round), Head: r.read(w.Head), Attempt: w.Attempt, Record: r.read(w.Record), Peer: peer.ID(w.Peer), Cell: w.Cell,
	}, r.err
}

func (m *Vote) toWire() proto.Message {
	return &wirev1.Vote{
		Run:     m.Run.Bytes(),
		Round:   uint64(m.Round),
		Head:    m.Head.Bytes(),
		Attempt: m.Attempt,
		Record:  m.Record.Bytes(),
		Peer:    []byte(m.Peer),
		Cell:    m.Cell,
	}
}

func voteFromWire(w *wirev1.Vote) (*Vote, error) {
	var r cidReader
	return &Vote{
		Run:     r.read(w.Run),
		Round:   Round(w.Round),
		Head:    r.read(w.Head),
		Attempt: w.Attempt,
		Record:  r.read(w.Record),
		Peer:    peer.ID(w.Peer),
		Cell:    w.Cell,
	}, r.err
}

func (m *Status) toWire() proto.Message {
	return &wirev1.Status{
		Run:               m.Run.Bytes(),
		Peer:              []byte(m.Peer),
		Seq:               m.Seq,
		Head:              m.Head.Bytes(),
		Round:             uint64(m.Round),
		Certified:         m.Certified,
		Tokens:            m.Tokens,
		Phase:             uint32(m.Phase),
		TokensPerSecMilli: m.TokensPerSecMilli,
		Agent:             m.Agent,
		Device:            m.Device,
		Lost:              m.Lost.Bytes(),
	}
}

func statusFromWire(w *wirev1.Status) (*Status, error) {
	var r cidReader
	return &Status{
		Run:               r.read(w.Run),
		Peer:              peer.ID(w.Peer),
		Seq:               w.Seq,
		Head:              r.read(w.Head),
		Round:             Round(w.Round),
		Certified:         w.Certified,
		Tokens:            w.Tokens,
		Phase:             Phase(w.Phase),
		TokensPerSecMilli: w.TokensPerSecMilli,
		Agent:             w.Agent,
		Device:            w.Device,
		Lost:              r.read(w.Lost),
	}, r.err
}

func (r *Record) toWire() *wirev1.Record {
	w := &wirev1.Record{
		Version:       r.Version,
		Run:           r.Run.Bytes(),
		Round:         uint64(r.Round),
		Parent:        r.Parent.Bytes(),
		Attempt:       r.Attempt,
		Proposer:      []byte(r.Proposer),
		Seats:         seatsToWire(r.Seats),
		Haves:         r.Haves,
		Commits:       r.Commits,
		Joins:         r.Joins,
		State:         r.State.Bytes(),
		NextSeats:     seatsToWire(r.NextSeats),
		Tokens:        r.Tokens,
		TrainedRounds: r.TrainedRounds,
		Final:         r.Final,
		Cell:          r.Cell,
		CodecBits:     r.CodecBits,
		Calm:          r.Calm,
	}
	w.Reports = r.Reports
	if r.ParentCertificate != nil {
		w.ParentCertificate = r.ParentCertificate.toWire()
	}
	for _, c := range r.Contributions {
		w.Contributions = append(w.Contributions, &wirev1.Contribution{
			Seat:    c.Seat,
			Commit:  c.Commit.Bytes(),
			Delta:   c.Delta.Bytes(),
			Tokens:  c.Tokens,
			Weight:  c.Weight,
			ClipQ16: c.ClipQ16,
			Reason:  uint32(c.Reason),
		})
	}
	for _, f := range r.Refused {
		w.Refused = append(w.Refused, &wirev1.Refusal{Seat: f.Seat, Commit: f.Commit.Bytes(), Reason: uint32(f.Reason)})
	}
	judgements := r.Judgements
	if len(r.Seats) > MaxSeats {
		w.CellJudgements, judgements = rowsOf(judgements), nil
	}
	for _, j := range judgements {
		w.Judgements = append(w.Judgements, &wirev1.Judgement{
			Seat: j.Seat, Measured: j.Measured, GainNano: j.GainNano, WorthQ16: j.WorthQ16, Verdict: uint32(j.Verdict),
			TakenBack: j.TakenBack, Retraced: j.Retraced, ErrorPpm: j.ErrorPPM,
		})
	}
	w.AuditCounts, w.AuditSeats, w.AuditGainsMicro = columnsOf(r.CellAudits)
	list := r.Standings
	if len(r.NextSeats) > MaxSeats {
		w.SeatStandings, list = seatStandings(r.Standings, r.NextSeats)
	}
	for _, s := range list {
		w.Standings = append(w.Standings, &wirev1.Standing{
			Peer: []byte(s.Peer), Owed: s.Owed, StrikesQ8: s.StrikesQ8, Until: uint64(s.Until), Reason: uint32(s.Reason),
			Pace: s.Pace, LackQ16: s.LackQ16, Work: s.Work, Kept: uint64(s.Kept),
		})
	}
	if r.Tempo != nil {
		w.Tempo = r.Tempo.toWire()
	}
	if r.Trend != nil {
		w.Trend = r.Trend.toWire()
	}
	for _, id := range r.Skips {
		w.Skips = append(w.Skips, id.Bytes())
	}
	if r.Merge != nil {
		w.Merge = r.Merge.toWire()
	}
	for _, p := range r.Proofs {
		w.Proofs = append(w.Proofs, &wirev1.Proof{First: p.First, Second: p.Second})
	}
	w.Orders = r.Orders
	if c := r.Course; c != nil {
		w.Course = &wirev1.Course{
			Seq: c.Seq, Paused: c.Paused, Stopped: c.Stopped, MaxRounds: c.MaxRounds, MaxTokens: c.MaxTokens, RatePermille: c.RatePermille,
		}
	}
	return w
}

func recordFromWire(w *wirev1.Record) (*Record, error) {
	var r cidReader
	m := &Record{
		Version:       w.Version,
		Run:           r.read(w.Run),
		Round:         Round(w.Round),
		Parent:        r.read(w.Parent),
		Attempt:       w.Attempt,
		Proposer:      peer.ID(w.Proposer),
		Seats:         seatsFromWire(w.Seats),
		Haves:         w.Haves,
		Commits:       w.Commits,
		Joins:         w.Joins,
		State:         r.read(w.State),
		NextSeats:     seatsFromWire(w.NextSeats),
		Tokens:        w.Tokens,
		TrainedRounds: w.TrainedRounds,
		Final:         w.Final,
		Cell:          w.Cell,
		CodecBits:     w.CodecBits,
		Calm:          w.Calm,
	}
	m.Reports = w.Reports
	if w.ParentCertificate != nil {
		c, err := certificateFromWire(w.ParentCertificate)
		if err != nil {
			return nil, err
		}
		m.ParentCertificate = c
	}
	for _, c := range w.Contributions {
		m.Contributions = append(m.Contributions, Contribution{
			Seat:    c.Seat,
			Commit:  r.read(c.Commit),
			Delta:   r.read(c.Delta),
			Tokens:  c.Tokens,
			Weight:  c.Weight,
			ClipQ16: c.ClipQ16,
			Reason:  Reason(c.Reason),
		})
	}
	for _, f := range w.Refused {
		m.Refused = append(m.Refused, Refusal{Seat: f.Seat, Commit: r.read(f.Commit), Reason: Reason(f.Reason)})
	}
	for _, j := range w.Judgements {
		m.Judgements = append(m.Judgements, Judgement{
			Seat: j.Seat, Measured: j.Measured, GainNano: j.GainNano, WorthQ16: j.WorthQ16, Verdict: Verdict(j.Verdict),
			TakenBack: j.TakenBack, Retraced: j.Retraced, ErrorPPM: j.ErrorPpm,
		})
	}
	if len(w.CellJudgements) > 0 {
		list, err := judgementsFrom(w.CellJudgements)
		if err != nil || len(m.Seats) <= MaxSeats || len(m.Judgements) > 0 {
			return nil, &InvalidError{"record", "judgements are not as those of a round with cells"}
		}
		m.Judgements = list
	}
	for _, s := range w.Standings {
		m.Standings = append(m.Standings, Standing{
			Peer: peer.ID(s.Peer), Owed: s.Owed, StrikesQ8: s.StrikesQ8, Until: Round(s.Until), Reason: Reason(s.Reason),
			Pace: s.Pace, LackQ16: s.LackQ16, Work: s.Work, Kept: Round(s.Kept),
		})
	}
	if w.Tempo != nil {
		m.Tempo = tempoFromWire(w.Tempo)
	}
	var err error
	if m.Standings, err = standingsFrom(w.SeatStandings, m.Standings, m.NextSeats); err != nil {
		return nil, err
	}
	if m.CellAudits, err = cellAuditsFrom(w.AuditCounts, w.AuditSeats, w.AuditGainsMicro); err != nil {
		return nil, err
	}
	if w.Trend != nil {
		m.Trend = trendFromWire(&r, w.Trend)
	}
	for _, b := range w.Skips {
		m.Skips = append(m.Skips, r.read(b))
	}
	if w.Merge != nil {
		e := mergeFromWire(&r, w.Merge)
		m.Merge = &e
	}
	for _, p := range w.Proofs {
		m.Proofs = append(m.Proofs, Proof{First: p.First, Second: p.Second})
	}
	m.Orders = w.Orders
	if c := w.Course; c != nil {
		m.Course = &Course{
			Seq: c.Seq, Paused: c.Paused, Stopped: c.Stopped, MaxRounds: c.MaxRounds, MaxTokens: c.MaxTokens, RatePermille: c.RatePermille,
		}
	}
	return m, r.err
}

func seatsToWire(seats []Seat) []*wirev1.Seat {
	var w []*wirev1.Seat
	for _, s := range seats {
		w = append(w, &wirev1.Seat{Peer: []byte(s.Peer), Since: uint64(s.Since), Missed: s.Missed, Fresh: s.Fresh, Trainee: s.Trainee})
	}
	return w
}

func seatsFromWire(w []*wirev1.Seat) []Seat {
	var seats []Seat
	for _, s := range w {
		seats = append(seats, Seat{Peer: peer.ID(s.Peer), Since: Round(s.Since), Missed: s.Missed, Fresh: s.Fresh, Trainee: s.Trainee})
	}
	return seats
}

func (m *Certificate) toWire() *wirev1.Certificate {
	return &wirev1.Certificate{Record: m.Record.Bytes(), Votes: m.Votes}
}

func certificateFromWire(w *wirev1.Certificate) (*Certificate, error) {
	var r cidReader
	return &Certificate{Record: r.read(w.Record), Votes: w.Votes}, r.err
}
