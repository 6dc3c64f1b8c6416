package msg

import (
	"bytes"
	"slices"
	"strings"
	"testing"
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
