package msg

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestPledge: a proposal's pledge is a message of its peer for its very record,
// and of no other.
func TestPledge(t *testing.T) {
	priv, id := testKey(t, 1)
	m := samplePledged(t, id)
	s := mustSeal(t, priv, m)
	opened, _, err := OpenAs[*Proposal](s.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	p, err := opened.Pledged()
	if err != nil {
		t.Fatal(err)
	}
	want := Pledge{Run: m.Run, Round: m.Round, Head: testCID("head"), Attempt: m.Attempt, Record: RawCID(m.Record), Peer: id}
	if got := p.Message.(*Pledge); *got != want || p.From != id {
		t.Errorf("the pledge is %+v of %v, want %+v", got, p.From, want)
	}
	if again := mustSeal(t, priv, &want); !bytes.Equal(again.Envelope, p.Envelope) {
		t.Error("the envelope of the pledge is not the one that was signed")
	}
	plain := sampleProposal(t, id)
	if m.Equal(plain) {
		t.Error("a pledge makes no difference")
	}
	for name, change := range map[string]func(*Proposal){
		"of another attempt":  func(m *Proposal) { m.Attempt = 3 },
		"of another peer":     func(m *Proposal) { _, m.Peer = testKey(t, 2) },
		"with a changed bit":  func(m *Proposal) { m.Pledge[9] ^= 1 },
		"that is too short":   func(m *Proposal) { m.Pledge = m.Pledge[:63] },
		"for another record":  func(m *Proposal) { m.Record = otherRecord(t) },
		"that is a vote's":    func(m *Proposal) { m.Pledge = voteSignature(t, m) },
		"of another run":      func(m *Proposal) { m.Run = testCID("other") },
		"with one byte extra": func(m *Proposal) { m.Pledge = append(m.Pledge, 0) },
	} {
		m := samplePledged(t, id)
		change(m)
		key := priv
		if m.Peer != id {
			key, _ = testKey(t, 2)
		}
		_, err := Open(sealAny(t, key, string(kindProposal), string(kindProposal), payloadOf(t, m)))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), "pledge") && name != "of another run" {
			t.Errorf("a pledge %s: Open() = %v, want an *InvalidError of it", name, err)
		}
	}
}

func otherRecord(t *testing.T) []byte {
	r := sampleRecord(t)
	r.Tokens++
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func voteSignature(t *testing.T, m *Proposal) []byte {
	priv, id := testKey(t, 1)
	b, err := signatureOf(mustSeal(t, priv, &Vote{Run: m.Run, Round: m.Round, Head: testCID("head"), Attempt: m.Attempt, Record: RawCID(m.Record), Peer: id}))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
