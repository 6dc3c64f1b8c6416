package msg

import (
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
)

// TestValidate breaks one rule at a time.
func TestValidate(t *testing.T) {
	_, id := testKey(t, 1)
	_, other := testKey(t, 2)
	commit := func(f func(*Commit)) Message { m := sampleCommit(id); f(m); return m }
	have := func(f func(*Have)) Message { m := sampleHave(id); f(m); return m }
	order := func(f func(*Order)) Message { m := sampleOrder(id); f(m); return m }
	vote := func(f func(*Vote)) Message { m := sampleVote(id); f(m); return m }
	status := func(f func(*Status)) Message { m := sampleStatus(id); f(m); return m }
	proposal := func(f func(*Proposal)) Message { m := sampleProposal(t, id); f(m); return m }
	tests := []struct {
		m    Message
		want string
	}{
		{commit(func(m *Commit) { m.Run = cid.Undef }), "commit: run is b, must be a CIDv1"},
		{commit(func(m *Commit) { m.Run = testFolder("run") }), "commit: run is"},
		{commit(func(m *Commit) { m.Round = 0 }), "commit: round is 0, must be at least 1"},
		{commit(func(m *Commit) { m.Round = MaxRound + 1 }), "commit: round is 4294967297, must be at most 4294967296"},
		{commit(func(m *Commit) { m.Head = cid.Undef }), "commit: head is"},
		{commit(func(m *Commit) { m.Peer = "" }), `commit: peer is "", must be the peer ID of an Ed25519 key`},
		{commit(func(m *Commit) { m.Peer = id[:37] }), "commit: peer is"},
		{commit(func(m *Commit) { m.Peer = "\x12\x20" + id[6:] }), "commit: peer is"},
		{commit(func(m *Commit) { m.Delta = cid.Undef }), "commit: delta is"},
		{commit(func(m *Commit) { m.DeltaBytes = 0 }), "commit: delta bytes is 0, must be at least 1"},
		{commit(func(m *Commit) { m.DeltaBytes = MaxDeltaBytes + 1 }), "commit: delta bytes is 269484033, must be at most 269484032"},
		{commit(func(m *Commit) { m.CodecBits = 3 }), "commit: codec bits are 3, must be 1, 2, 4 or 8"},
		{commit(func(m *Commit) { m.Tokens = 0 }), "commit: tokens is 0, must be at least 1"},
		{commit(func(m *Commit) { m.Tokens = MaxTokens + 1 }), "commit: tokens is 1099511627777, must be at most"},
		{commit(func(m *Commit) { m.Steps = 0 }), "commit: steps is 0, must be at least 1"},
		{commit(func(m *Commit) { m.Steps = MaxSteps + 1 }), "commit: steps is"},
		{commit(func(m *Commit) { m.Norm = MaxNorm + 1 }), "commit: norm is"},
		{commit(func(m *Commit) { m.LossMicro = MaxLossMicro + 1 }), "commit: loss is"},
		{have(func(m *Have) { m.LossMicro = MaxLossMicro + 1 }), "have: loss is 1099511627777"},
		{have(func(m *Have) { m.Run = cid.Undef }), "have: run is"},
		{have(func(m *Have) { m.Round = 0 }), "have: round is 0"},
		{have(func(m *Have) { m.Head = cid.Undef }), "have: head is"},
		{have(func(m *Have) { m.Peer = "x" }), "have: peer is"},
		{have(func(m *Have) { m.Entries = slices.Repeat(m.Entries, 25) }), "have: entries are 50, must be at most 48"},
		{have(func(m *Have) { m.Entries[1].Seat = 48 }), "have: seat is 48, must be at most 47"},
		{have(func(m *Have) { m.Entries[1].Seat = 0 }), "have: seat 0 is out of order"},
		{have(func(m *Have) { slices.Reverse(m.Entries) }), "have: seat 0 is out of order"},
		{have(func(m *Have) { m.Entries[0].Commit = testFolder("x") }), "have: commit is"},
		{have(func(m *Have) { m.Entries[0].Reason = haveEnd }), "have: reason is 16, must be below 16"},
		{have(func(m *Have) { m.Merges = slices.Repeat([]Merge{sampleMerge()}, 3) }), "have: merges are 3, must be at most 2"},
		{have(func(m *Have) { m.Merges = slices.Repeat([]Merge{sampleMerge()}, 2) }), "is out of order"},
		{have(func(m *Have) { m.Merges = []Merge{{}} }), "have: merge: fork is"},
		{have(func(m *Have) { e := sampleMerge(); e.WeightQ16 = 0; m.Merges = []Merge{e} }), "have: merge: weight is 0"},
		{have(func(m *Have) { m.Audits = make([]Audit, 17) }), "have: audits are 17, must be at most 16"},
		{have(func(m *Have) { m.Audits = []Audit{{1024, 0}} }), "have: audit: seat is 1024, must be at most 1023"},
		{have(func(m *Have) { m.Audits = []Audit{{1, 0}, {1, 0}} }), "have: audit: seat 1 is out of order"},
		{have(func(m *Have) { m.Audits = []Audit{{1, -MaxGainNano - 1}} }), "have: gain is -1125899906842625"},
		{have(func(m *Have) { m.Reports = []byte{1, 0} }), "have: reports have 2 bytes"},
		{have(func(m *Have) { m.Reports = []byte{1, 1, 1, 1, 1} }), "have: reports have 5 bytes"},
		{&Report{Run: testCID("run"), Round: 3, Head: testCID("head"), Peer: id}, "report: nothing was measured"},
		{&Report{Run: testCID("run"), Round: 3, Head: testCID("head"), Peer: id, Audits: make([]Audit, 9)}, "report: audits are 9, must be at most 8"},
		{have(func(m *Have) { m.Retraces = make([]Retrace, 5) }), "have: retraces are 5, must be at most 4"},
		{have(func(m *Have) { m.Retraces = []Retrace{{48, 0}} }), "have: retrace: seat is 48, must be at most 47"},
		{have(func(m *Have) { m.Retraces = []Retrace{{1, 0}, {1, 0}} }), "have: retrace: seat 1 is out of order"},
		{have(func(m *Have) { m.Retraces = []Retrace{{1, MaxErrorPPM + 1}} }), "have: retrace: error is 1000000001"},
		{have(func(m *Have) { m.Joins = slices.Repeat(m.Joins, 33) }), "have: joins are 66, must be at most 64"},
		{have(func(m *Have) { slices.Reverse(m.Joins) }), "is out of order"},
		{have(func(m *Have) { m.Joins[1] = m.Joins[0] }), "is out of order"},
		{have(func(m *Have) { m.Joins[0] = cid.Undef }), "have: join is"},
		{have(func(m *Have) { m.Orders = slices.Repeat([]cid.Cid{testCID("order")}, 65) }), "have: orders are 65, must be at most 64"},
		{have(func(m *Have) { m.Orders = slices.Repeat([]cid.Cid{testCID("order")}, 2) }), "is out of order"},
		{have(func(m *Have) { m.Orders = []cid.Cid{testFolder("order")} }), "have: order is"},
		{order(func(m *Order) { m.Run = cid.Undef }), "order: run is"},
		{order(func(m *Order) { m.Peer = "" }), "order: peer is"},
		{order(func(m *Order) { m.Seq = 0 }), "order: seq is 0, must be at least 1"},
		{order(func(m *Order) { m.Seq = MaxSeq + 1 }), "order: seq is"},
		{order(func(m *Order) { m.Action = 0 }), "order: action is 0, must be at least 1"},
		{order(func(m *Order) { m.Action = actionEnd }), "order: action is 5, must be at most 4"},
		{order(func(m *Order) { m.Action = ActionPause }), "order: pause sets something: true, must be false"},
		{order(func(m *Order) { m.MaxRounds, m.MaxTokens, m.RatePermille = 0, 0, 0 }), "order: set sets something: false"},
		{order(func(m *Order) { m.MaxRounds = MaxRunRounds + 1 }), "order: max rounds is"},
		{order(func(m *Order) { m.MaxTokens = MaxRunTokens + 1 }), "order: max tokens is"},
		{order(func(m *Order) { m.RatePermille = MaxRatePermille + 1 }), "order: rate is"},
		{order(func(m *Order) { m.Note = "\x1b[2J" }), "must be printable"},
		{order(func(m *Order) { m.Note = strings.Repeat("x", 257) }), "order: note has 257 bytes"},
		{&JoinRequest{Peer: id}, "join: run is"},
		{&JoinRequest{Run: testCID("run")}, "join: peer is"},
		{&JoinRequest{Run: testCID("run"), Peer: id, Until: MaxRound + 1}, "join: until is"},
		{vote(func(m *Vote) { m.Run = cid.Undef }), "vote: run is"},
		{vote(func(m *Vote) { m.Round = 0 }), "vote: round is 0"},
		{vote(func(m *Vote) { m.Head = cid.Undef }), "vote: head is"},
		{vote(func(m *Vote) { m.Attempt = 4 }), "vote: attempt is 4, must be at most 3"},
		{vote(func(m *Vote) { m.Record = cid.Undef }), "vote: record is"},
		{vote(func(m *Vote) { m.Peer = "" }), "vote: peer is"},
		{status(func(m *Status) { m.Run = cid.Undef }), "status: run is"},
		{status(func(m *Status) { m.Peer = "" }), "status: peer is"},
		{status(func(m *Status) { m.Head = cid.Undef }), "status: head is"},
		{status(func(m *Status) { m.Round = MaxRound + 1 }), "status: round is"},
		{status(func(m *Status) { m.Certified = MaxRound + 1 }), "status: certified is"},
		{status(func(m *Status) { m.Tokens = MaxRunTokens + 1 }), "status: tokens is"},
		{status(func(m *Status) { m.Phase = phaseEnd }), "status: phase is 7, must be below 7"},
		{status(func(m *Status) { m.TokensPerSecMilli = 1 << 63 }), "status: tokens per second is"},
		{status(func(m *Status) { m.Agent = strings.Repeat("x", 65) }), "status: agent has 65 bytes, must have at most 64"},
		{status(func(m *Status) { m.Agent = "\x1b[31m" }), "must be printable"},
		{status(func(m *Status) { m.Device = "\xff" }), "must be UTF-8"},
		{proposal(func(m *Proposal) { m.Run = cid.Undef }), "proposal: run is"},
		{proposal(func(m *Proposal) { m.Run = testCID("other") }), "proposal: record is of run"},
		{proposal(func(m *Proposal) { m.Round = 8 }), "proposal: record is of round 7, must be of 8"},
		{proposal(func(m *Proposal) { m.Round = 0 }), "proposal: round is 0"},
		{proposal(func(m *Proposal) { m.Attempt = 0 }), "proposal: record is of attempt 1, must be at most 0"},
		{proposal(func(m *Proposal) { m.Attempt = 4 }), "proposal: attempt is 4"},
		{proposal(func(m *Proposal) { m.Peer = "" }), "proposal: peer is"},
		{proposal(func(m *Proposal) { m.Record = nil }), "proposal: record: "},
		{proposal(func(m *Proposal) { m.Record = m.Record[1:] }), "proposal: record: "},
		{proposal(func(m *Proposal) { m.Record = make([]byte, MaxRecordBytes+1) }), "has 326657 bytes, must have at most 326656"},
	}
	for _, tt := range tests {
		if err := tt.m.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate() = %v, want %q", err, tt.want)
		}
	}
	for _, m := range samples(t, other) {
		if err := m.Validate(); err != nil {
			t.Errorf("a sound %s: %v", m.kind().name(), err)
		}
	}
}

// TestValidateRecord breaks one rule at a time.
func TestValidateRecord(t *testing.T) {
	_, stranger := testKey(t, 9)
	record := func(f func(*Record)) *Record { r := sampleRecord(t); f(r); return r }
	genesis := func(f func(*Record)) *Record { r := sampleGenesis(t); f(r); return r }
	tests := []struct {
		r    *Record
		want string
	}{
		{record(func(r *Record) { r.Version = 2 }), "record: version is 2, must be 1"},
		{record(func(r *Record) { r.Run = cid.Undef }), "record: run is"},
		{record(func(r *Record) { r.Round = MaxRound + 1 }), "record: round is"},
		{record(func(r *Record) { r.Parent = cid.Undef }), "record: parent is"},
		{record(func(r *Record) { r.ParentCertificate.Record = testCID("x") }), "must be for the parent"},
		{record(func(r *Record) { r.ParentCertificate.Record = cid.Undef }), "record: certificate: record is"},
		{record(func(r *Record) { r.ParentCertificate.Votes = nil }), "record: certificate: votes are 0, must be at least 1"},
		{record(func(r *Record) { r.ParentCertificate.Votes = slices.Repeat(r.Haves, 25) }), "votes are 50, must be at most 48"},
		{record(func(r *Record) { r.Round, r.TrainedRounds = 1, 0 }), "record: "},
		{record(func(r *Record) { r.Attempt = 4 }), "record: attempt is 4"},
		{record(func(r *Record) { r.Proposer = "" }), "record: proposer is"},
		{record(func(r *Record) { r.Proposer = stranger }), "has no seat"},
		{record(func(r *Record) { r.Seats = nil }), "record: seats are 0"},
		{record(func(r *Record) { r.Seats = slices.Repeat(r.Seats, 513) }), "record: seats are 1026, must be at most 1024"},
		{record(func(r *Record) { slices.Reverse(r.Seats) }), "is out of order"},
		{record(func(r *Record) { r.Seats[1] = r.Seats[0] }), "is out of order"},
		{record(func(r *Record) { r.Seats[0].Peer = "" }), "record: seats is"},
		{record(func(r *Record) { r.Seats[0].Since = 0 }), "record: seats: since is 0, must be at least 1"},
		{record(func(r *Record) { r.Seats[0].Since = 8 }), "record: seats: since is 8, must be at most 7"},
		{record(func(r *Record) { r.Seats[0].Missed = 2 }), "record: seats: missed is 2, must be at most 1"},
		{record(func(r *Record) { r.Haves = nil }), "record: haves are 0"},
		{record(func(r *Record) { r.Haves = slices.Repeat(r.Haves, 2) }), "record: haves are 4, must be at most 2"},
		{record(func(r *Record) { r.Haves[0] = nil }), "record: haves hold an envelope of 0 bytes"},
		{record(func(r *Record) { r.Haves[0] = make([]byte, MaxMessageBytes+1) }), "haves hold an envelope of 16385 bytes"},
		{record(func(r *Record) { r.Commits = nil }), "record: commits are 0, must be as many as contributions, 1"},
		{record(func(r *Record) { r.Commits = slices.Repeat(r.Commits, 3) }), "record: commits are 3, must be at most 2"},
		{record(func(r *Record) { r.Joins = slices.Repeat(r.Joins, 65) }), "record: joins are 65, must be at most 64"},
		{record(func(r *Record) { r.Contributions[0].Seat = 2 }), "record: contributions: seat is 2, must be at most 1"},
		{record(func(r *Record) { r.Contributions[0].Commit = cid.Undef }), "record: contributions: commit is"},
		{record(func(r *Record) { r.Contributions[0].Delta = cid.Undef }), "record: contributions: delta is"},
		{record(func(r *Record) { r.Contributions[0].Tokens = 0 }), "record: contributions: tokens is 0"},
		{record(func(r *Record) { r.Contributions[0].Weight = MaxTokens + 1 }), "record: contributions: weight is"},
		{record(func(r *Record) { r.Contributions[0].ClipQ16 = 65537 }), "record: contributions: clip is 65537, must be at most 65536"},
		{record(func(r *Record) {
			r.Contributions, r.Commits = slices.Repeat(r.Contributions, 2), slices.Repeat(r.Commits, 2)
		}), "record: contributions: seat 0 is out of order"},
		{record(func(r *Record) { r.Refused[0].Seat = 2 }), "record: refused: seat is 2"},
		{record(func(r *Record) { r.Refused[0].Commit = cid.Undef }), "record: refused: commit is"},
		{record(func(r *Record) { r.Refused[0].Reason = Held }), "record: refused: reason is 0, must be 1 to 15"},
		{record(func(r *Record) { r.Refused[0].Reason = haveEnd }), "record: refused: reason is 16"},
		{record(func(r *Record) { r.Contributions[0].Reason = BadNorm }), "record: contributions: reason is 8"},
		{record(func(r *Record) { r.Contributions[0].Reason = RolledBack }), "record: contributions: reason is 37"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Seat: 1024, Measured: 1}} }), "record: judgements: seat is 1024"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Measured: 1}, {Measured: 1}} }), "record: judgements: seat 0 is out of order"},
		{record(func(r *Record) { r.Judgements = []Judgement{{}} }), "record: judgements: seat 0 has no audits"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Measured: 1, ErrorPPM: 1}} }), "record: judgements: seat 0 has an error without a retrace"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Retraced: 1, ErrorPPM: MaxErrorPPM + 1}} }), "record: judgements: error is 1000000001"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Measured: 1, WorthQ16: 65537}} }), "record: judgements: worth is 65537"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Measured: 1, Verdict: 4}} }), "record: judgements: verdict is 4"},
		{record(func(r *Record) { r.Judgements = []Judgement{{Measured: 1, TakenBack: true}} }), "record: judgements: seat 0 is taken back without a verdict"},
		{record(func(r *Record) { r.Trend = &Trend{LossMicro: MaxLossMicro + 1} }), "record: trend: loss is 1099511627777"},
		{record(func(r *Record) { r.Trend = &Trend{BestMicro: 1} }), "record: trend: a best loss without a state"},
		{record(func(r *Record) { r.Trend = &Trend{BestState: r.State} }), "or a state without a loss"},
		{record(func(r *Record) { r.Trend = &Trend{Back: true} }), "record: trend: goes back to no state"},
		{record(func(r *Record) { r.Trend = &Trend{BestRound: 7} }), "record: trend: best round is 7, must be at most 6"},
		{record(func(r *Record) { r.Skips = []cid.Cid{r.Parent} }), "record: skips are 1, must be 2"},
		{record(func(r *Record) { r.Skips = []cid.Cid{r.Parent, testFolder("x")} }), "record: skips is"},
		{record(func(r *Record) { r.Standings = []Standing{{Peer: "x"}} }), "record: standings is"},
		{record(func(r *Record) { r.Standings = []Standing{{Peer: r.Proposer}, {Peer: r.Proposer}} }), "is out of order"},
		{record(func(r *Record) { r.Standings = []Standing{{Peer: r.NextSeats[0].Peer, Kept: 1}} }), "has a seat, and one is kept for it"},
		{record(func(r *Record) { r.Standings = []Standing{{Peer: r.Proposer, Until: 1}} }), "record: standings: reason is 0 with a ban until 1"},
		{record(func(r *Record) { e := sampleMerge(); e.Tokens = 0; r.Merge = &e }), "record: merge: tokens is 0"},
		{genesis(func(r *Record) { e := sampleMerge(); r.Merge = &e }), "genesis has seats"},
		{record(func(r *Record) { r.Proofs = make([]Proof, 5) }), "record: proofs are 5"},
		{record(func(r *Record) { r.Orders = [][]byte{{1}} }), "record: orders without a course"},
		{record(func(r *Record) { r.Orders = slices.Repeat([][]byte{{1}}, 65) }), "record: orders are 65, must be at most 64"},
		{record(func(r *Record) { r.Course = &Course{} }), "record: course: seq is 0, must be at least 1"},
		{record(func(r *Record) { r.Course = &Course{Seq: 1, MaxRounds: MaxRunRounds + 1} }), "record: course: max rounds is"},
		{record(func(r *Record) { r.Course = &Course{Seq: 1, MaxTokens: MaxRunTokens + 1} }), "record: course: max tokens is"},
		{record(func(r *Record) { r.Course = &Course{Seq: 1, RatePermille: MaxRatePermille + 1} }), "record: course: rate is"},
		{genesis(func(r *Record) { r.Course = &Course{Seq: 1} }), "genesis has seats"},
		{record(func(r *Record) { r.Proofs = make([]Proof, 1) }), "record: proofs hold an envelope of 0 bytes"},
		{record(func(r *Record) { r.Refused = slices.Repeat(r.Refused, 2) }), "is out of order"},
		{record(func(r *Record) { r.State = cid.Undef }), "record: state is"},
		{record(func(r *Record) { slices.Reverse(r.NextSeats) }), "record: next seats:"},
		{record(func(r *Record) { r.NextSeats[0].Since = 9 }), "record: next seats: since is 9, must be at most 8"},
		{record(func(r *Record) { r.Tokens = MaxRunTokens + 1 }), "record: tokens is"},
		{record(func(r *Record) { r.TrainedRounds = 8 }), "record: trained rounds is 8, must be at most 7"},
		{genesis(func(r *Record) { r.Parent = testCID("x") }), "genesis has a parent"},
		{genesis(func(r *Record) { r.ParentCertificate = &Certificate{} }), "genesis has a parent"},
		{genesis(func(r *Record) { r.Attempt = 1 }), "genesis has a proposer"},
		{genesis(func(r *Record) { r.Proposer = r.NextSeats[0].Peer }), "genesis has a proposer"},
		{genesis(func(r *Record) { r.Seats = r.NextSeats }), "genesis has seats"},
		{genesis(func(r *Record) { r.Haves = [][]byte{{1}} }), "genesis has seats, messages"},
		{record(func(r *Record) { r.NextSeats = nil }), "record: next seats are 0, must be at least 1"},
		{genesis(func(r *Record) {
			r.NextSeats = sampleRecord(t).Seats
			r.NextSeats[0].Since, r.NextSeats[1].Since = 1, 1
		}), "genesis gives 2 seats, must give 1"},
		{genesis(func(r *Record) { r.NextSeats[0].Since = 2 }), "next seats: since is 2, must be at most 1"},
		{genesis(func(r *Record) { r.Tokens = 1 }), "genesis has tokens"},
		{genesis(func(r *Record) { r.TrainedRounds = 1 }), "trained rounds is 1, must be at most 0"},
		{genesis(func(r *Record) { r.Final = true }), "is final"},
	}
	for _, tt := range tests {
		if err := tt.r.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate() = %v, want %q", err, tt.want)
		}
		if _, err := tt.r.Encode(); err == nil {
			t.Errorf("a record that is not valid (%s) is encoded", tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	seen := make(map[string]bool)
	for r := Held; r <= reasonEnd; r++ {
		if r >= haveEnd && r < Fresh {
			continue // no reasons
		}
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("reason %d is called %q", uint32(r), s)
		}
		seen[r.String()] = true
	}
	if Equivocation.String() != "equivocation" || Reason(200).String() != "reason-200" {
		t.Error(Equivocation, Reason(200))
	}
	if PhaseDone.String() != "done" || Phase(200).String() != "phase-200" {
		t.Error(PhaseDone, Phase(200))
	}
}
