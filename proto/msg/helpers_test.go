package msg

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"
)

// testKey is the key of the i-th peer: the seed is 32 times the byte i.
func testKey(t testing.TB, i int) (crypto.PrivKey, peer.ID) {
	t.Helper()
	priv, _, err := crypto.GenerateEd25519Key(bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return priv, id
}

// testCID names something by a word.
func testCID(word string) cid.Cid { return RawCID([]byte(word)) }

func testFolder(word string) cid.Cid {
	return cid.NewCidV1(cid.DagProtobuf, testCID(word).Hash())
}

func mustSeal(t testing.TB, priv crypto.PrivKey, m Message) Signed {
	t.Helper()
	s, err := Seal(priv, m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealAny signs whatever bytes it is given.
func sealAny(t testing.TB, priv crypto.PrivKey, domain, payloadType string, payload []byte) []byte {
	t.Helper()
	e, err := record.Seal(anyRecord{domain, payloadType, payload}, priv)
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type anyRecord struct {
	domain, payloadType string
	payload             []byte
}

func (r anyRecord) Domain() string                 { return r.domain }
func (r anyRecord) Codec() []byte                  { return []byte(r.payloadType) }
func (r anyRecord) MarshalRecord() ([]byte, error) { return r.payload, nil }
func (r anyRecord) UnmarshalRecord([]byte) error   { return nil }

func payloadOf(t testing.TB, m Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m.toWire())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sampleCommit(from peer.ID) *Commit {
	return &Commit{
		Run: testCID("run"), Round: 7, Head: testCID("head"), Peer: from, Delta: testFolder("delta"),
		DeltaBytes: 2_500_000, CodecBits: 2, Tokens: 123456, Steps: 30, Norm: 987654321, LossMicro: 1_234_567,
	}
}

func sampleHave(from peer.ID) *Have {
	joins := []cid.Cid{testCID("join 1"), testCID("join 2")}
	slices.SortFunc(joins, compareCIDs)
	return &Have{
		Run: testCID("run"), Round: 7, Head: testCID("head"), Peer: from,
		Entries: []HaveEntry{{0, testCID("commit 0"), Held}, {2, testCID("commit 2"), BadNorm}},
		Joins:   joins,
	}
}

func sampleVote(from peer.ID) *Vote {
	return &Vote{Run: testCID("run"), Round: 7, Head: testCID("head"), Attempt: 1, Record: testCID("record"), Peer: from}
}

func sampleJoin(from peer.ID) *JoinRequest {
	return &JoinRequest{Run: testCID("run"), Peer: from, Seq: 3}
}

func sampleStatus(from peer.ID) *Status {
	return &Status{
		Run: testCID("run"), Peer: from, Seq: 99, Head: testCID("head"), Round: 7, Certified: 6, Tokens: 1_000_000,
		Phase: PhaseTrain, TokensPerSecMilli: 1_500_250, Agent: "mootd/0.1", Device: "cpu, 2 threads",
	}
}

// sampleRecord has two seats of peers 1 and 2 and a third that joins.
func sampleRecord(t testing.TB) *Record {
	t.Helper()
	priv1, a := testKey(t, 1)
	priv2, b := testKey(t, 2)
	priv3, c := testKey(t, 3)
	seats := sortSeats(Seat{Peer: a, Since: 1}, Seat{Peer: b, Since: 3, Missed: 1})
	if seats[0].Peer != a {
		priv1, priv2, a, b = priv2, priv1, b, a
	}
	head := testCID("head")
	commit := sampleCommit(a)
	sealed := mustSeal(t, priv1, commit)
	vote := mustSeal(t, priv2, &Vote{Run: testCID("run"), Round: 6, Head: testCID("grandparent"), Record: head, Peer: b})
	return &Record{
		Version:           RecordVersion,
		Run:               testCID("run"),
		Round:             7,
		Parent:            head,
		ParentCertificate: &Certificate{Record: head, Votes: [][]byte{vote.Envelope}},
		Attempt:           1,
		Proposer:          b,
		Seats:             seats,
		Haves:             [][]byte{mustSeal(t, priv1, sampleHave(a)).Envelope, mustSeal(t, priv2, sampleHave(b)).Envelope},
		Commits:           [][]byte{sealed.Envelope},
		Joins:             [][]byte{mustSeal(t, priv3, sampleJoin(c)).Envelope},
		Contributions:     []Contribution{{0, sealed.CID, commit.Delta, commit.Tokens, commit.Tokens, 65536, Held}},
		Refused:           []Refusal{{1, testCID("commit 1"), NotHeld}},
		State:             testFolder("state"),
		NextSeats:         sortSeats(Seat{Peer: a, Since: 1}, Seat{Peer: b, Since: 3}, Seat{Peer: c, Since: 8, Fresh: true}),
		Tokens:            5_000_000,
		TrainedRounds:     6,
	}
}

func invitedJoin(t testing.TB, from peer.ID) *JoinRequest {
	ticket := sampleTicket(t)
	return &JoinRequest{Run: testCID("run"), Peer: from, Seq: 4, Invite: ticket.Invite, Proof: ticket.Prove(testCID("run"), from), Nonce: 77}
}

func sampleMerge() Merge {
	return Merge{testCID("fork"), testCID("first"), testCID("lost"), testFolder("lost state"), testFolder("base state"), 123_456, 20_000}
}

func sampleOrder(from peer.ID) *Order {
	return &Order{
		Run: testCID("run"), Peer: from, Seq: 12, Action: ActionSet, MaxRounds: 200, MaxTokens: 1 << 40, RatePermille: 500,
		Note: "it learns still",
	}
}

// sampleOrdered is a record with an order.
func sampleOrdered(t testing.TB) *Record {
	t.Helper()
	priv, id := testKey(t, 1)
	r, o := sampleRecord(t), sampleOrder(id)
	course := Course{Paused: true}.After(o)
	r.Orders, r.Course = [][]byte{mustSeal(t, priv, o).Envelope}, &course
	return r
}

// sampleTrend is a record that goes back to an earlier state, in a run with skip
// links.
func sampleTrend(t testing.TB) *Record {
	r := sampleRecord(t)
	r.Commits, r.Contributions = nil, nil
	r.Refused = append([]Refusal{{0, testCID("commit 0"), RolledBack}}, r.Refused...)
	r.Trend = &Trend{
		LossMicro: 1_100_000, BestMicro: 1_000_000, BestState: testFolder("best"), BestRound: 4, MarkMicro: 1_000_500, Stale: 2, Back: true,
	}
	r.Skips = []cid.Cid{testCID("round 6"), testCID("round 4")}
	return r
}

// sampleHealed is a record that takes a contribution of the round before back.
func sampleHealed(t testing.TB) *Record {
	r := sampleJudged(t)
	r.Judgements[0].TakenBack = true
	return r
}

// sampleJudged is a record with audits, standings and a proof.
func sampleJudged(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	r.Contributions[0].Reason = Harmful
	merge := sampleMerge()
	r.Merge = &merge
	r.Judgements = []Judgement{
		{Measured: 2, GainNano: -250_000, Verdict: Damaging}, {Seat: 1, Measured: 3, GainNano: 1_500_000, WorthQ16: 60_000, Verdict: Useful},
	}
	r.NextSeats[2].Trainee = true
	r.Standings = []Standing{
		{Peer: r.NextSeats[0].Peer, Owed: 1, StrikesQ8: 256, Pace: 1000, LackQ16: 20_000, Work: 9000},
		{Peer: r.NextSeats[2].Peer, Owed: 5, Until: 1 << 33, Reason: Banned},
	}
	vote := sampleVote(r.Seats[0].Peer)
	r.Proofs = []Proof{{[]byte{1}, []byte{2}}}
	for i := 1; i < 3; i++ {
		if priv, id := testKey(t, i); id == vote.Peer {
			r.Proofs[0].First = mustSeal(t, priv, vote).Envelope
			vote.Record = testCID("another")
			r.Proofs[0].Second = mustSeal(t, priv, vote).Envelope
		}
	}
	return r
}

// sampleTwice has the pledges of a peer that proposed two records in one attempt.
func sampleTwice(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	priv, id := testKey(t, 1)
	p := samplePledge(id)
	p.Cell = 0
	one := mustSeal(t, priv, p)
	q := *p
	q.Record = testCID("another")
	two := mustSeal(t, priv, &q)
	if compareCIDs(one.CID, two.CID) > 0 {
		one, two = two, one
	}
	r.Proofs = []Proof{{one.Envelope, two.Envelope}}
	return r
}

// sampleKept is a record of a run that keeps the seat of a peer that is away.
func sampleKept(t testing.TB) *Record {
	t.Helper()
	r := sampleJudged(t)
	_, away := testKey(t, 60)
	r.Standings = append(r.Standings, Standing{Peer: away, Pace: 900, LackQ16: 1000, Work: 12_000, Kept: 15})
	slices.SortFunc(r.Standings, func(a, b Standing) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return r
}

func sampleGenesis(t testing.TB) *Record {
	t.Helper()
	_, a := testKey(t, 1)
	return &Record{Version: RecordVersion, Run: testCID("run"), State: testFolder("state"), NextSeats: []Seat{{Peer: a, Since: 1}}}
}

func sampleProposal(t testing.TB, from peer.ID) *Proposal {
	t.Helper()
	b, err := sampleRecord(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &Proposal{Run: testCID("run"), Round: 7, Attempt: 2, Peer: from, Record: b}
}

// samples has one message of each type, from one peer.
func tracedCommit(from peer.ID) *Commit {
	c := sampleCommit(from)
	c.Trace = testFolder("trace")
	return c
}

func samples(t testing.TB, from peer.ID) []Message {
	t.Helper()
	return []Message{
		sampleCommit(from), sampleHave(from), sampleJoin(from), sampleProposal(t, from), sampleVote(from), sampleStatus(from),
		&JoinRequest{Run: testCID("run"), Peer: from, Leave: true},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Audits: []Audit{{1, -250_000}, {3, 1_500_000}}},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Merges: []Merge{sampleMerge()}},
		&Status{Run: testCID("run"), Peer: from, Seq: 1, Head: testCID("head"), Lost: testCID("lost")},
		&Invite{Run: testCID("run"), Peer: from, Key: bytes.Repeat([]byte{7}, 32), Until: 20},
		invitedJoin(t, from),
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Retraces: []Retrace{{2, 4_500}, {5, MaxErrorPPM}}},
		tracedCommit(from),
		&Report{Run: testCID("run"), Round: 3, Head: testCID("head"), Peer: from, Audits: []Audit{{0, 70}, {2, -5}}, Retraces: []Retrace{{2, 31_000}}},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Reports: []byte{0, 5}},
		sampleOrder(from),
		&Order{Run: testCID("run"), Peer: from, Seq: 1, Action: ActionPause},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Orders: []cid.Cid{testCID("order")}},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, LossMicro: 1_234_567},
		&Have{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Cell: 2, Entries: []HaveEntry{{5, testCID("commit"), Held}}},
		&Vote{Run: testCID("run"), Round: 1, Head: testCID("head"), Peer: from, Cell: 2, Record: testCID("summary")},
		sampleResult(t, from),
		sampleTimes(from),
		auditedResult(t, from),
		samplePledge(from),
		samplePledged(t, from),
		&JoinRequest{Run: testCID("run"), Peer: from, Seq: 5, Leave: true, Until: 12},
	}
}

func samplePledge(from peer.ID) *Pledge {
	return &Pledge{Run: testCID("run"), Round: 7, Head: testCID("head"), Attempt: 2, Record: testCID("record"), Peer: from, Cell: 3}
}

// samplePledged is a proposal with a pledge, of one of the first peers.
func samplePledged(t testing.TB, from peer.ID) *Proposal {
	t.Helper()
	priv, id := testKey(t, 1)
	for i := 2; id != from; i++ {
		priv, id = testKey(t, i)
	}
	m := sampleProposal(t, from)
	if err := m.Promise(func(p Message) (Signed, error) { return Seal(priv, p) }); err != nil {
		t.Fatal(err)
	}
	return m
}

// auditedResult is that of a run with audits.
func auditedResult(t testing.TB, from peer.ID) *CellResult {
	t.Helper()
	m := sampleResult(t, from)
	m.Summary.TokensEach = []uint64{5100}
	m.Summary.Audits = []CellAudit{{0, 3, 1_500}, {0, 700, -2}, {2, 3, 1_490}}
	return m
}

// sampleWide is of a round with more seats than one cell has, in a run with
// audits.
func sampleWide(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	var seats []Seat
	for i := range MaxSeats + 2 {
		_, id := testKey(t, i)
		seats = append(seats, Seat{Peer: id, Since: 2, Trainee: i%3 == 0})
	}
	r.Seats, r.NextSeats = sortSeats(slices.Clone(seats)...), sortSeats(seats...)
	r.Proposer = r.Seats[0].Peer
	_, other := testKey(t, 60)
	r.Judgements = []Judgement{
		{Seat: 4, Measured: 3, GainNano: -250_000, Verdict: Damaging},
		{Seat: 49, Measured: 2, GainNano: 1_500_000, WorthQ16: 60_000, Verdict: Useful},
	}
	r.Standings = []Standing{
		{Peer: r.NextSeats[1].Peer, Owed: 1, StrikesQ8: 256, Pace: 1000, LackQ16: 20_000, Work: 9000},
		{Peer: r.NextSeats[49].Peer, Pace: 70, Work: 71},
		{Peer: other, Owed: 5, Until: 1 << 33, Reason: Banned},
	}
	slices.SortFunc(r.Standings, func(a, b Standing) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return r
}

// sampleResult is of a cell of three seats, of which the first and the last were
// there, and the last has a delta; both are from.
func sampleResult(t testing.TB, from peer.ID) *CellResult {
	t.Helper()
	m := &CellResult{Peer: from, Summary: CellSummary{
		Run: testCID("run"), Round: 9, Head: testCID("head"), Cell: 2, Record: testCID("record"), Aggregate: testCID("mean"),
		Weight: 5000, Tokens: 5100, Present: []byte{0b101}, Included: []byte{0b100},
	}}
	for _, seat := range []uint32{0, 2} {
		m.Votes = append(m.Votes, CellVote{Seat: seat, Signature: bytes.Repeat([]byte{byte(seat + 1)}, signatureBytes)})
	}
	return m
}

func sortSeats(seats ...Seat) []Seat {
	slices.SortFunc(seats, func(a, b Seat) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	return seats
}

func word(prefix string, i int) string { return fmt.Sprintf("%s %d", prefix, i) }
