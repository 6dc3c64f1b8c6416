package msg

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"google.golang.org/protobuf/encoding/protowire"
)

func TestRecordRoundTrip(t *testing.T) {
	provisional := sampleRecord(t)
	provisional.ParentCertificate = nil
	empty := sampleRecord(t)
	empty.Commits, empty.Contributions, empty.Refused, empty.Joins = nil, nil, nil, nil
	for name, r := range map[string]*Record{
		"sample": sampleRecord(t), "judged": sampleJudged(t), "healed": sampleHealed(t), "trend": sampleTrend(t), "tempo": sampleTempo(t), "kept": sampleKept(t), "genesis": sampleGenesis(t), "provisional parent": provisional, "nothing included": empty,
	} {
		t.Run(name, func(t *testing.T) {
			b, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := DecodeRecord(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, got, compareCID); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			if id, err := r.CID(); err != nil || id != RawCID(b) {
				t.Errorf("CID() = %v, %v", id, err)
			}
			for name, other := range respellings(t, b) {
				if _, err := DecodeRecord(other); err == nil {
					t.Errorf("%s: DecodeRecord() accepts it", name)
				}
			}
		})
	}
}

// TestRecordNested: the canonical form holds inside as well.
func TestRecordNested(t *testing.T) {
	r := sampleRecord(t)
	cert, err := r.ParentCertificate.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	plain := protowire.AppendBytes(nil, cert)
	spelled := protowire.AppendBytes(nil, append(slices.Clone(cert), 0x78, 1))
	if _, err := DecodeRecord(bytes.Replace(b, plain, spelled, 1)); err == nil {
		t.Error("an unknown field in the certificate is accepted")
	}
}

func TestCertificateRoundTrip(t *testing.T) {
	c := sampleRecord(t).ParentCertificate
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, compareCID); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	for name, other := range respellings(t, b) {
		if _, err := DecodeCertificate(other); err == nil {
			t.Errorf("%s: DecodeCertificate() accepts it", name)
		}
	}
}

// TestLargestProposal: a record of 48 seats that rests on a quorum of haves,
// with everything else at its most, and a third of the seats telling every
// witness something else, fits into a proposal.
func TestLargestProposal(t *testing.T) {
	const n, q, liars = MaxSeats, 33, 15
	var keys []crypto.PrivKey
	var seats []Seat
	for i := range n {
		priv, id := testKey(t, i)
		keys = append(keys, priv)
		seats = append(seats, Seat{Peer: id, Since: MaxRound, Missed: MaxMissed, Fresh: true})
	}
	sorted := sortSeats(slices.Clone(seats)...)
	sign := func(i int, m Message) []byte { return mustSeal(t, keys[i], m).Envelope }
	run, head := testCID("run"), testCID("head")
	r := &Record{
		Version: RecordVersion, Run: run, Round: MaxRound, Parent: head, Attempt: MaxAttempt, Proposer: sorted[0].Peer,
		ParentCertificate: &Certificate{Record: head}, Seats: sorted, NextSeats: sorted,
		State: testFolder("state"), Tokens: MaxRunTokens, TrainedRounds: MaxRound, Final: true,
		Trend: &Trend{MaxLossMicro, MaxLossMicro, testFolder("best"), MaxRound - 1, MaxLossMicro, math.MaxUint32, math.MaxUint32, true},
		Skips: slices.Repeat([]cid.Cid{head}, SkipCount(MaxRound)),
		Tempo: &Tempo{math.MaxUint32, math.MaxUint32, MaxKappaPPM, MaxLow, MaxArrivalMillis, MaxArrivalMillis, slices.Repeat([]uint64{MaxArrivalMillis}, MaxArrivals)},
	}
	var joins []cid.Cid
	for i := range MaxJoins {
		joins = append(joins, testCID(word("join", i)))
		r.Joins = append(r.Joins, sign(i%n, &JoinRequest{Run: run, Peer: seats[i%n].Peer, Seq: 1<<64 - 1, Leave: true}))
	}
	slices.SortFunc(joins, compareCIDs)
	for i := range n {
		r.ParentCertificate.Votes = append(r.ParentCertificate.Votes, sign(i, &Vote{
			Run: run, Round: MaxRound, Head: head, Attempt: MaxAttempt, Record: head, Peer: seats[i].Peer,
		}))
		commit := &Commit{
			Run: run, Round: MaxRound, Head: head, Peer: seats[i].Peer, Delta: head, DeltaBytes: MaxDeltaBytes, CodecBits: 8,
			Tokens: MaxTokens, Steps: MaxSteps, Norm: MaxNorm, LossMicro: MaxLossMicro,
			Trace: testFolder("trace"),
		}
		r.Commits = append(r.Commits, sign(i, commit))
		r.Contributions = append(r.Contributions, Contribution{uint32(i), head, head, MaxTokens, MaxTokens, 1 << 16, Banned})
		r.Judgements = append(r.Judgements, Judgement{
			Seat: uint32(i), Measured: MaxAudits, GainNano: -MaxGainNano, WorthQ16: 1 << 16, Verdict: Damaging, TakenBack: true,
			Retraced: MaxAudits, ErrorPPM: MaxErrorPPM,
		})
	}
	for w := range q {
		have := &Have{Run: run, Round: MaxRound, Head: head, Peer: seats[w].Peer, Joins: joins, LossMicro: MaxLossMicro, KappaPPM: MaxKappaPPM, ArrivalMillis: MaxArrivalMillis, Reports: bytes.Repeat([]byte{0xff}, MaxReports/8)}
		for seat := range n {
			have.Entries = append(have.Entries, HaveEntry{uint32(seat), testCID("commit"), NotFinite})
		}
		for i := range MaxAudits {
			have.Audits = append(have.Audits, Audit{uint32(i), -MaxGainNano})
		}
		for i := range MaxRetraces {
			have.Retraces = append(have.Retraces, Retrace{uint32(i), MaxErrorPPM})
		}
		for i := range MaxMerges {
			e := sampleMerge()
			e.Head, e.Tokens, e.WeightQ16 = testCID(word("lost", i)), MaxRunTokens, 1<<16
			have.Merges = append(have.Merges, e)
		}
		slices.SortFunc(have.Merges, Merge.Compare)
		r.Haves = append(r.Haves, sign(w, have))
		if len(r.Haves[w]) > MaxMessageBytes/2 {
			t.Errorf("a have has %d bytes, want at most half of what it may have", len(r.Haves[w]))
		}
	}
	for i := range MaxReports {
		report := &Report{Run: run, Round: MaxRound, Head: head, Peer: seats[i].Peer}
		for k := range MaxReportAudits {
			report.Audits = append(report.Audits, Audit{uint32(k), -MaxGainNano})
		}
		for k := range MaxRetraces {
			report.Retraces = append(report.Retraces, Retrace{uint32(k), MaxErrorPPM})
		}
		r.Reports = append(r.Reports, sign(i, report))
	}
	for i := range MaxStandings {
		_, id := testKey(t, i)
		kept := Round(2 * MaxRound)
		if slices.ContainsFunc(r.NextSeats, func(s Seat) bool { return s.Peer == id }) {
			kept = 0
		}
		r.Standings = append(r.Standings, Standing{id, MaxOwed, MaxStrikesQ8, 2 * MaxRound, Banned, MaxTokens, 1 << 16, MaxRunTokens, kept})
	}
	slices.SortFunc(r.Standings, func(a, b Standing) int { return bytes.Compare([]byte(a.Peer), []byte(b.Peer)) })
	for i := range MaxProofs {
		v := &Have{Run: run, Round: MaxRound, Head: head, Peer: seats[i].Peer, Joins: joins}
		r.Proofs = append(r.Proofs, Proof{sign(i, v), sign(i, v)})
	}
	// A liar shows each witness a commit of its own and, as a witness, names
	// a commit of its own for each seat.
	for seat := range n {
		names := liars
		if seat < liars {
			names = q
		}
		for i := range names {
			r.Refused = append(r.Refused, Refusal{uint32(seat), testCID(word("commit", i)), NotFinite})
		}
		slices.SortFunc(r.Refused[len(r.Refused)-names:], func(a, b Refusal) int { return compareCIDs(a.Commit, b.Commit) })
	}
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	envelope := sign(0, &Proposal{Run: run, Round: MaxRound, Attempt: MaxAttempt, Peer: seats[0].Peer, Record: b})
	t.Logf("%d bytes of record, %d of proposal, at most %d", len(b), len(envelope), MaxProposalBytes)
	if _, err := Open(envelope); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []*Record{sampleRecord(f), sampleJudged(f), sampleHealed(f), sampleTrend(f), sampleTempo(f), sampleKept(f), sampleGenesis(f), sampleWide(f), auditedCellRecord(f), sampleTwice(f)} {
		b, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Errorf("DecodeRecord() = %v, want an *InvalidError", err)
			}
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("what was decoded is not encoded as it was: %v", err)
		}
	})
}

func FuzzDecodeCertificate(f *testing.F) {
	b, err := sampleRecord(f).ParentCertificate.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCertificate(b)
		if err != nil {
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("what was decoded is not encoded as it was: %v", err)
		}
	})
}
