package msg

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"
)

// ErrSignature is wrapped by the error of Open for an envelope that the peer
// it names did not sign.
var ErrSignature = errors.New("not signed by the peer that the message names")

// RawCID returns the CID (version 1, raw, sha2-256) of b.
func RawCID(b []byte) cid.Cid {
	hash, err := multihash.Sum(b, multihash.SHA2_256, -1)
	if err != nil {
		panic("bug: sha2-256 is always there: " + err.Error())
	}
	return cid.NewCidV1(cid.Raw, hash)
}

// Seal validates m, encodes it and signs it with priv, which must be the
// Ed25519 key of m.Signer(). The same message and key give the same envelope.
func Seal(priv crypto.PrivKey, m Message) (Signed, error) {
	s, err := seal(priv, m)
	if err != nil {
		return Signed{}, fmt.Errorf("seal %w", err)
	}
	return s, nil
}

func seal(priv crypto.PrivKey, m Message) (Signed, error) {
	if err := m.Validate(); err != nil {
		return Signed{}, err
	}
	name := m.kind().name()
	from, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return Signed{}, fmt.Errorf("%s: %w", name, err)
	}
	if from != m.Signer() {
		return Signed{}, fmt.Errorf("%s of %v with the key of %v: %w", name, m.Signer(), from, ErrSignature)
	}
	payload, err := marshal(m.toWire())
	if err != nil {
		return Signed{}, fmt.Errorf("%s: %w", name, err)
	}
	e, err := record.Seal(&payloadRecord{kind: m.kind(), payload: payload}, priv)
	if err != nil {
		return Signed{}, fmt.Errorf("%s: %w", name, err)
	}
	envelope, err := e.Marshal()
	if err != nil {
		return Signed{}, fmt.Errorf("%s: %w", name, err)
	}
	if len(envelope) > m.kind().maxBytes() {
		return Signed{}, tooLarge(name, len(envelope), m.kind().maxBytes())
	}
	return Signed{Message: m, Envelope: envelope, CID: RawCID(envelope), From: from}, nil
}

// Open decodes an envelope and keeps it; envelope must not change. It returns
// an error unless the envelope is within the size cap of its type, canonically
// encoded, signed for its type by the peer that the message names, and the
// message passes Validate.
func Open(envelope []byte) (Signed, error) {
	s, err := open(envelope)
	if err != nil {
		return Signed{}, fmt.Errorf("open %w", err)
	}
	return s, nil
}

func open(envelope []byte) (Signed, error) {
	if len(envelope) > MaxProposalBytes {
		return Signed{}, tooLarge("envelope", len(envelope), MaxProposalBytes)
	}
	e, err := record.UnmarshalEnvelope(envelope)
	if err != nil {
		return Signed{}, &InvalidError{"envelope", err.Error()}
	}
	k := kind(e.PayloadType)
	if !k.known() {
		return Signed{}, &InvalidError{"envelope", fmt.Sprintf("payload type is %q, must be a message of this version", k)}
	}
	if len(envelope) > k.maxBytes() {
		return Signed{}, tooLarge(k.name(), len(envelope), k.maxBytes())
	}
	if again, err := e.Marshal(); err != nil || !bytes.Equal(again, envelope) {
		return Signed{}, notCanonical("envelope")
	}
	// Before the signature is checked: with other keys that can take long.
	if e.PublicKey.Type() != pb.KeyType_Ed25519 {
		return Signed{}, &InvalidError{k.name(), fmt.Sprintf("key is %v, must be Ed25519", e.PublicKey.Type())}
	}
	from, err := peer.IDFromPublicKey(e.PublicKey)
	if err != nil {
		return Signed{}, &InvalidError{k.name(), err.Error()}
	}
	if _, err := record.ConsumeTypedEnvelope(envelope, &payloadRecord{kind: k}); err != nil {
		return Signed{}, fmt.Errorf("%s of %v: %w: %w", k.name(), from, ErrSignature, err)
	}
	m, err := decodePayload(k, e.RawPayload)
	if err != nil {
		return Signed{}, err
	}
	if m.Signer() != from {
		return Signed{}, fmt.Errorf("%s of %v signed by %v: %w", k.name(), m.Signer(), from, ErrSignature)
	}
	return Signed{Message: m, Envelope: envelope, CID: RawCID(envelope), From: from}, nil
}

// decodePayload decodes and validates a message of which only the bytes are
// known.
func decodePayload(k kind, payload []byte) (Message, error) {
	m, err := fromWire(k, payload)
	if err != nil {
		return nil, err
	}
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if err := canonical(k.name(), payload, m.toWire()); err != nil {
		return nil, err
	}
	return m, nil
}

// OpenAs is Open for a caller that accepts one type of message only.
func OpenAs[M Message](envelope []byte) (M, Signed, error) {
	var none M
	s, err := Open(envelope)
	if err != nil {
		return none, Signed{}, err
	}
	m, ok := s.Message.(M)
	if !ok {
		return none, Signed{}, &InvalidError{s.Message.kind().name(), fmt.Sprintf("must be a %s", none.kind().name())}
	}
	return m, s, nil
}

// Known is OpenAs for an envelope that was opened before, as those in a record
// of the chain were: its signature is not checked again.
func Known[M Message](envelope []byte) (M, error) {
	var none M
	e, err := record.UnmarshalEnvelope(envelope)
	if err != nil {
		return none, fmt.Errorf("open %w", &InvalidError{"envelope", err.Error()})
	}
	k := kind(e.PayloadType)
	if !k.known() {
		return none, fmt.Errorf("open %w", &InvalidError{"envelope", fmt.Sprintf("payload type is %q, must be a message of this version", k)})
	}
	v, err := fromWire(k, e.RawPayload)
	if err != nil {
		return none, fmt.Errorf("open %w", err)
	}
	m, ok := v.(M)
	if !ok {
		return none, &InvalidError{k.name(), fmt.Sprintf("must be a %s", none.kind().name())}
	}
	return m, nil
}

// payloadRecord carries the bytes of a message through package record.
type payloadRecord struct {
	kind    kind
	payload []byte
}

func (p *payloadRecord) Domain() string                 { return string(p.kind) }
func (p *payloadRecord) Codec() []byte                  { return []byte(p.kind) }
func (p *payloadRecord) MarshalRecord() ([]byte, error) { return p.payload, nil }
func (p *payloadRecord) UnmarshalRecord(b []byte) error { p.payload = b; return nil }

// marshal gives the canonical encoding: fields in the order of their numbers,
// no field with its zero value, nothing else. The wire format of a protobuf
// does not promise that for every message; for ours, which have no maps and no
// unknown fields, proto/testdata holds it.
func marshal(w proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(w)
}

// canonical reports whether b is what w is encoded as.
func canonical(object string, b []byte, w proto.Message) error {
	again, err := marshal(w)
	if err != nil || !bytes.Equal(again, b) {
		return notCanonical(object)
	}
	return nil
}

func notCanonical(object string) error {
	return &InvalidError{object, "not in the canonical encoding"}
}

func tooLarge(object string, got, bound int) error {
	return &InvalidError{object, fmt.Sprintf("has %d bytes, must have at most %d", got, bound)}
}
