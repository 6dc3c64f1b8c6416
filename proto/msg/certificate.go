package msg

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"google.golang.org/protobuf/proto"

	wirev1 "github.com/moot-net/moot/proto/wire/v1"
)

// Certificate is the proof that a quorum voted for a record. Whether the votes
// are a quorum depends on the seats, and is not checked here.
type Certificate struct {
	Record cid.Cid
	Votes  [][]byte // envelopes of the votes, sorted by seat
}

// Voters are the peers whose keys are in the votes. The signatures are not
// checked: it is for certificates that were, or will be.
func (m *Certificate) Voters() []peer.ID {
	var list []peer.ID
	for _, v := range m.Votes {
		e, err := record.UnmarshalEnvelope(v)
		if err != nil {
			continue
		}
		if id, err := peer.IDFromPublicKey(e.PublicKey); err == nil {
			list = append(list, id)
		}
	}
	return list
}

// Validate reports the first rule of form that m breaks. The error is an
// *InvalidError.
func (m *Certificate) Validate() error {
	c := check("certificate")
	c.rawCID("record", m.Record)
	c.that(len(m.Votes) > 0, "votes are 0, must be at least 1")
	c.envelopes("votes", m.Votes, MaxSeats)
	return c.result()
}

// Encode validates m and returns its canonical bytes.
func (m *Certificate) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	b, err := marshal(m.toWire())
	if err != nil {
		return nil, err
	}
	if len(b) > MaxRecordBytes {
		return nil, tooLarge("certificate", len(b), MaxRecordBytes)
	}
	return b, nil
}

// DecodeCertificate decodes and validates a certificate. It refuses bytes that
// Encode would not have written. It does not open the votes.
func DecodeCertificate(b []byte) (*Certificate, error) {
	if len(b) > MaxRecordBytes {
		return nil, tooLarge("certificate", len(b), MaxRecordBytes)
	}
	var w wirev1.Certificate
	if err := proto.Unmarshal(b, &w); err != nil {
		return nil, &InvalidError{"certificate", err.Error()}
	}
	m, err := certificateFromWire(&w)
	if err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if err := canonical("certificate", b, m.toWire()); err != nil {
		return nil, err
	}
	return m, nil
}
