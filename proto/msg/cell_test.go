package msg

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// TestCellVotes: the envelope of a vote follows from the summary, the peer and
// the signature alone.
func TestCellVotes(t *testing.T) {
	priv, id := testKey(t, 1)
	sum := &sampleResult(t, id).Summary
	vote := mustSeal(t, priv, sum.Vote(id))
	v, err := CellVoteOf(vote, 2)
	if err != nil {
		t.Fatal(err)
	}
	e, err := sum.Envelope(id, v.Signature)
	if err != nil {
		t.Fatal(err)
	}
	if v.Seat != 2 || !bytes.Equal(e, vote.Envelope) {
		t.Error("the envelope is not that of the vote")
	}
	if m, s, err := OpenAs[*Vote](e); err != nil || s.From != id || m.Cell != 2 || !m.Record.Equals(sum.CID()) {
		t.Errorf("the vote is %+v of %v, %v", m, s.From, err)
	}
	other := *sum
	other.Weight++
	if e, err = other.Envelope(id, v.Signature); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(e); err == nil {
		t.Error("the signature is good for another summary")
	}
}

func TestValidateCells(t *testing.T) {
	_, id := testKey(t, 1)
	for _, tt := range []struct {
		name   string
		change func(*CellResult)
		want   string
	}{
		{"no cell", func(m *CellResult) { m.Summary.Cell = 0 }, "cell is 0"},
		{"cell 33", func(m *CellResult) { m.Summary.Cell = 33 }, "cell is 33"},
		{"no weight", func(m *CellResult) { m.Summary.Weight = 0 }, "weight is 0"},
		{"no tokens", func(m *CellResult) { m.Summary.Tokens = 0 }, "tokens is 0"},
		{"nobody present", func(m *CellResult) { m.Summary.Present = nil }, "present has 0 bytes"},
		{"too many seats", func(m *CellResult) { m.Summary.Present = make([]byte, 7) }, "present has 7 bytes"},
		{"included and absent", func(m *CellResult) { m.Summary.Included = []byte{0b010} }, "included has a seat"},
		{"of two lengths", func(m *CellResult) { m.Summary.Included = []byte{0, 0} }, "included has 2 bytes"},
		{"no votes", func(m *CellResult) { m.Votes = nil }, "votes are 0"},
		{"votes out of order", func(m *CellResult) { slices.Reverse(m.Votes) }, "out of order"},
		{"tokens of more", func(m *CellResult) { m.Summary.TokensEach = []uint64{1, 2} }, "tokens of 2 seats"},
		{"tokens of none", func(m *CellResult) { m.Summary.TokensEach = []uint64{0} }, "tokens of a seat is 0"},
		{"audits out of order", func(m *CellResult) { m.Summary.Audits = []CellAudit{{1, 2, 0}, {1, 2, 0}} }, "out of order"},
		{"an audit of seat 1024", func(m *CellResult) { m.Summary.Audits = []CellAudit{{1, 1024, 0}} }, "seat is 1024"},
		{"too many audits", func(m *CellResult) {
			for i := range uint32(MaxAudits + 1) {
				m.Summary.Audits = append(m.Summary.Audits, CellAudit{1, i, 0})
			}
		}, "more than 16"},
		{"a short signature", func(m *CellResult) { m.Votes[0].Signature = m.Votes[0].Signature[1:] }, "63 bytes"},
	} {
		m := sampleResult(t, id)
		tt.change(m)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Validate() = %v, want %q", tt.name, err, tt.want)
		}
	}
	v := sampleVote(id)
	v.Cell, v.Attempt = 1, 1
	if err := v.Validate(); err == nil {
		t.Error("a vote in a cell has an attempt")
	}
}

// sampleCodec has another codec in its next round than in its own.
func sampleCodec(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	r.CodecBits, r.Calm = 4, 3
	return r
}

// sampleCellRecord is what a cell came to.
func sampleCellRecord(t testing.TB) *Record {
	t.Helper()
	r := sampleRecord(t)
	r.Cell, r.ParentCertificate, r.Joins, r.Final, r.TrainedRounds = 2, nil, nil, false, 0
	return r
}

// auditedCellRecord is that in a run with audits.
func auditedCellRecord(t testing.TB) *Record {
	t.Helper()
	r := sampleCellRecord(t)
	r.CellAudits = []CellAudit{{1, 3, -2}, {1, 4, 70}}
	return r
}

// TestStandingNumbers: each field of a standing, and of a judgement that a round
// with cells can have, is in its row on the wire.
func TestStandingNumbers(t *testing.T) {
	if n := reflect.TypeFor[Standing]().NumField() - 2; n != standingNumbers { // Peer, Kept
		t.Errorf("a standing has %d fields that a seat can have, its row has %d numbers", n, standingNumbers)
	}
	if n := reflect.TypeFor[Judgement]().NumField(); n != judgementNumbers+3 { // TakenBack, Retraced, ErrorPPM
		t.Errorf("a judgement has %d fields", n)
	}
	r := sampleWide(t)
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
	for name, other := range respellings(t, b) {
		if _, err := DecodeRecord(other); err == nil {
			t.Errorf("%s: DecodeRecord() accepts it", name)
		}
	}
}

// TestHostileRows: rows that are not as Encode writes them are refused.
func TestHostileRows(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*wirev1.Record)
	}{
		{"a number less", func(w *wirev1.Record) { w.SeatStandings = w.SeatStandings[1:] }},
		{"no rows of zeros", func(w *wirev1.Record) { w.SeatStandings = make([]uint64, len(w.SeatStandings)) }},
		{"owed beyond 32 bits", func(w *wirev1.Record) { w.SeatStandings[0] = 1 << 40 }},
		{"a seat's standing among the others", func(w *wirev1.Record) {
			w.Standings = append(w.Standings, &wirev1.Standing{Peer: w.NextSeats[1].Peer, Owed: 1})
		}},
		{"a seat that is kept for who has one", func(w *wirev1.Record) {
			w.Standings = append(w.Standings, &wirev1.Standing{Peer: w.NextSeats[2].Peer, Kept: 9})
		}},
		{"a judgement cut", func(w *wirev1.Record) { w.CellJudgements = w.CellJudgements[1:] }},
		{"a seat below zero", func(w *wirev1.Record) { w.CellJudgements[0] = -1 }},
		{"judgements in both forms", func(w *wirev1.Record) { w.Judgements = []*wirev1.Judgement{{Seat: 1, Measured: 1}} }},
	} {
		w := sampleWide(t).toWire()
		tt.change(w)
		b, err := marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRecord(b); err == nil {
			t.Errorf("%s: DecodeRecord() accepts it", tt.name)
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*Record)
		want   string
	}{
		{"parts of a unit", func(r *Record) { r.Judgements[0].GainNano++ }, "parts of 1e-6 nats"},
		{"a retrace", func(r *Record) { r.Judgements[0].Retraced = 1 }, "a retrace"},
		{"audits of no cell", func(r *Record) { r.CellAudits = []CellAudit{{0, 1, 2}} }, "a record that is of none"},
	} {
		r := sampleWide(t)
		tt.change(r)
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Validate() = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestCellAuditOf: what a cell tells is rounded down, also below zero.
func TestCellAuditOf(t *testing.T) {
	for nano, want := range map[int64]int64{0: 0, 999: 0, 1000: 1, -1: -1, -1000: -1, -1001: -2, -MaxGainNano: -MaxGainNano / 1000, MaxGainNano: MaxGainNano / 1000} {
		if got := CellAuditOf(3, Audit{Seat: 7, GainNano: nano}); got != (CellAudit{3, 7, want}) {
			t.Errorf("CellAuditOf(%d) = %+v, want %d", nano, got, want)
		}
	}
}

func TestValidateCodec(t *testing.T) {
	for _, tt := range []struct {
		change func(*Record)
		want   string
	}{
		{func(r *Record) { r.CodecBits = 3 }, "codec bits are 3"},
		{func(r *Record) { r.Calm = 16 }, "calm is 16"},
		{func(r *Record) { r.CodecBits = 0 }, "calm is 3 without a codec"},
		{func(r *Record) { r.Cell = 33 }, "cell is 33"},
	} {
		r := sampleCodec(t)
		tt.change(r)
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Validate() = %v, want %q", err, tt.want)
		}
	}
}
