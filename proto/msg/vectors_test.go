package msg

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/moot-net/moot/proto/internal/vectors"
)

// messageVector has everything that is needed to make an envelope again.
type messageVector struct {
	Type     string
	KeySeed  string // of the Ed25519 key
	Peer     string
	Message  any
	Payload  string // hexadecimal; bytes within Message are base64
	Envelope string
	CID      string
}

type recordVector struct {
	Name    string
	Record  *Record
	Encoded string
	CID     string
}

func TestVectorsMessages(t *testing.T) {
	priv, id := testKey(t, 1)
	var file struct {
		Messages     []messageVector
		Records      []recordVector
		Certificates []struct{ Encoded string }
	}
	for _, m := range samples(t, id) {
		s := mustSeal(t, priv, m)
		file.Messages = append(file.Messages, messageVector{
			Type: string(m.kind()), KeySeed: hex.EncodeToString(bytes.Repeat([]byte{1}, 32)), Peer: id.String(), Message: m,
			Payload: hex.EncodeToString(payloadOf(t, m)), Envelope: hex.EncodeToString(s.Envelope), CID: s.CID.String(),
		})
	}
	for _, r := range []recordVector{
		{Name: "genesis", Record: sampleGenesis(t)},
		{Name: "round 7", Record: sampleRecord(t)},
		{Name: "round 7, audited", Record: sampleJudged(t)},
		{Name: "round 7, taken back", Record: sampleHealed(t)},
		{Name: "round 7, ordered", Record: sampleOrdered(t)},
		{Name: "round 7, goes back", Record: sampleTrend(t)},
		{Name: "round 7, another codec", Record: sampleCodec(t)},
		{Name: "round 7, of a cell", Record: sampleCellRecord(t)},
		{Name: "round 7, fewer steps", Record: sampleTempo(t)},
		{Name: "round 7, of a cell in a run with audits", Record: auditedCellRecord(t)},
		{Name: "round 7, with cells and audits", Record: sampleWide(t)},
		{Name: "round 7, of who proposed twice", Record: sampleTwice(t)},
		{Name: "round 7, with a seat that is kept", Record: sampleKept(t)},
	} {
		b, err := r.Record.Encode()
		if err != nil {
			t.Fatal(err)
		}
		r.Encoded, r.CID = hex.EncodeToString(b), RawCID(b).String()
		file.Records = append(file.Records, r)
	}
	b, err := sampleRecord(t).ParentCertificate.Encode()
	if err != nil {
		t.Fatal(err)
	}
	file.Certificates = append(file.Certificates, struct{ Encoded string }{hex.EncodeToString(b)})
	vectors.Check(t, "messages.json", file)
}
