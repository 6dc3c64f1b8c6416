package msg

import (
	"bytes"
	"fmt"

	"github.com/libp2p/go-libp2p/core/crypto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const signatureBytes = 64

// Envelope fields.
const (
	fieldKey, fieldType, fieldPayload, fieldSignature = 1, 2, 3, 5
)

// signatureOf returns what is left of an envelope when all else in it follows from
// the message.
func signatureOf(s Signed) ([]byte, error) {
	for b := s.Envelope; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			break
		}
		value, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			break
		}
		if number == fieldSignature {
			return bytes.Clone(value), nil
		}
		b = b[n+m:]
	}
	return nil, fmt.Errorf("message of %v: the envelope has no signature", s.From)
}

// envelopeWith is the envelope of a message with this signature; whether it is one,
// Open says.
func envelopeWith(signature []byte, m Message) ([]byte, error) {
	name := m.kind().name()
	key, err := m.Signer().ExtractPublicKey()
	if err != nil {
		return nil, &InvalidError{name, err.Error()}
	}
	k, err := crypto.PublicKeyToProto(key)
	if err != nil {
		return nil, &InvalidError{name, err.Error()}
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(k)
	if err != nil {
		return nil, &InvalidError{name, err.Error()}
	}
	payload, err := marshal(m.toWire())
	if err != nil {
		return nil, err
	}
	var b []byte
	for _, f := range []struct {
		number protowire.Number
		value  []byte
	}{{fieldKey, encoded}, {fieldType, []byte(m.kind())}, {fieldPayload, payload}, {fieldSignature, signature}} {
		b = protowire.AppendTag(b, f.number, protowire.BytesType)
		b = protowire.AppendBytes(b, f.value)
	}
	return b, nil
}
