package msg

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
)

var compareCID = cmp.Comparer(func(a, b cid.Cid) bool { return a.Equals(b) })

func TestSealOpen(t *testing.T) {
	priv, id := testKey(t, 1)
	for _, m := range samples(t, id) {
		t.Run(m.kind().name(), func(t *testing.T) {
			s := mustSeal(t, priv, m)
			got, err := Open(s.Envelope)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(s, got, compareCID); diff != "" {
				t.Errorf("opened (-sealed +opened):\n%s", diff)
			}
			if got.From != id || got.CID != RawCID(s.Envelope) || !got.Message.RunID().Equals(testCID("run")) {
				t.Errorf("from %v, CID %v", got.From, got.CID)
			}
			if again := mustSeal(t, priv, m); !bytes.Equal(again.Envelope, s.Envelope) {
				t.Error("sealing twice gives two envelopes")
			}
		})
	}
}

func TestKnown(t *testing.T) {
	priv, id := testKey(t, 1)
	commit := mustSeal(t, priv, sampleCommit(id))
	m, err := Known[*Commit](commit.Envelope)
	if diff := cmp.Diff(commit.Message, Message(m), compareCID); err != nil || diff != "" {
		t.Errorf("Known() = %v, %v (-want +got):\n%s", m, err, diff)
	}
	if _, err := Known[*Vote](commit.Envelope); err == nil || !strings.Contains(err.Error(), "commit: must be a vote") {
		t.Errorf("Known[*Vote](commit) = %v", err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "half": commit.Envelope[:len(commit.Envelope)/2]} {
		if _, err := Known[*Commit](b); err == nil {
			t.Errorf("Known(%s) is no error", name)
		}
	}
}

func TestOpenAs(t *testing.T) {
	priv, id := testKey(t, 1)
	vote := mustSeal(t, priv, sampleVote(id))
	if m, s, err := OpenAs[*Vote](vote.Envelope); err != nil || m != s.Message || m.Attempt != 1 {
		t.Errorf("OpenAs[*Vote]() = %v, %v", m, err)
	}
	if _, _, err := OpenAs[*Commit](vote.Envelope); err == nil || !strings.Contains(err.Error(), "vote: must be a commit") {
		t.Errorf("OpenAs[*Commit](vote) = %v", err)
	}
	if _, _, err := OpenAs[*Commit](nil); err == nil {
		t.Error("nothing is a commit")
	}
}

func TestSealRefuses(t *testing.T) {
	priv, id := testKey(t, 1)
	_, other := testKey(t, 2)
	if _, err := Seal(priv, sampleVote(other)); !errors.Is(err, ErrSignature) {
		t.Errorf("another's vote: %v, want ErrSignature", err)
	}
	broken := sampleVote(id)
	broken.Round = 0
	if _, err := Seal(priv, broken); err == nil || !strings.Contains(err.Error(), "vote: round is 0, must be at least 1") {
		t.Errorf("round 0: %v", err)
	}
	ecdsa, _, err := crypto.GenerateECDSAKeyPair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := peer.IDFromPrivateKey(ecdsa)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Seal(ecdsa, sampleVote(strange)); err == nil || !strings.Contains(err.Error(), "must be the peer ID of an Ed25519 key") {
		t.Errorf("ECDSA: %v", err)
	}
}

// TestOpenForgeries: nothing that was not signed by that peer as that message
// is opened.
func TestOpenForgeries(t *testing.T) {
	priv, id := testKey(t, 1)
	other, _ := testKey(t, 2)
	s := mustSeal(t, priv, sampleVote(id))
	payload := payloadOf(t, sampleVote(id))
	v, c := string(kindVote), string(kindCommit)
	ecdsa, _, err := crypto.GenerateECDSAKeyPair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, envelope := range map[string][]byte{
		"another's key":        sealAny(t, other, v, v, payload),
		"another domain":       sealAny(t, priv, c, v, payload),
		"domain of a neighbor": sealAny(t, priv, "libp2p-peer-record", v, payload),
		"last bit":             flip(s.Envelope, len(s.Envelope)-1),
		"payload":              flip(s.Envelope, bytes.Index(s.Envelope, payload)+10),
	} {
		if _, err := Open(envelope); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: Open() = %v, want ErrSignature", name, err)
		}
	}
	for name, envelope := range map[string][]byte{
		"another type":  sealAny(t, priv, c, c, payload),
		"unknown type":  sealAny(t, priv, "/moot/vote/2", "/moot/vote/2", payload),
		"ECDSA":         sealAny(t, ecdsa, v, v, payload),
		"empty":         nil,
		"noise":         bytes.Repeat([]byte{0xff}, 100),
		"too large":     make([]byte, MaxProposalBytes+1),
		"trailing":      append(slices.Clone(s.Envelope), 0),
		"unknown field": protowire.AppendVarint(protowire.AppendTag(slices.Clone(s.Envelope), 15, protowire.VarintType), 1),
	} {
		if _, err := Open(envelope); err == nil {
			t.Errorf("%s: Open() accepts it", name)
		}
	}
}

// TestOpenCaps: the cap of the type holds before the payload is decoded.
func TestOpenCaps(t *testing.T) {
	priv, _ := testKey(t, 1)
	vote := sealAny(t, priv, string(kindVote), string(kindVote), make([]byte, MaxMessageBytes))
	if _, err := Open(vote); err == nil || !strings.Contains(err.Error(), "open vote: has 16506 bytes, must have at most 16384") {
		t.Errorf("Open() = %v", err)
	}
	if _, err := Open(make([]byte, MaxProposalBytes+1)); err == nil || !strings.Contains(err.Error(), "envelope: has 327681 bytes") {
		t.Errorf("Open() = %v", err)
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}

// TestCanonical: a payload has one encoding. Every other one that a protobuf
// decoder would take for the same is refused, although it is signed.
func TestCanonical(t *testing.T) {
	priv, id := testKey(t, 1)
	for _, m := range samples(t, id) {
		k := m.kind()
		payload := payloadOf(t, m)
		for name, other := range respellings(t, payload) {
			_, err := Open(sealAny(t, priv, string(k), string(k), other))
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Errorf("%s, %s: Open() = %v, want an *InvalidError", k.name(), name, err)
			}
		}
		if _, err := Open(sealAny(t, priv, string(k), string(k), payload)); err != nil {
			t.Errorf("%s as it should be: %v", k.name(), err)
		}
	}
}

// respellings returns encodings of the same fields that are not canonical.
func respellings(t *testing.T, payload []byte) map[string][]byte {
	t.Helper()
	_, _, n := protowire.ConsumeField(payload)
	if n < 0 {
		t.Fatal(protowire.ParseError(n))
	}
	first, rest := payload[:n], payload[n:]
	return map[string][]byte{
		"an unknown field":          protowire.AppendVarint(protowire.AppendTag(slices.Clone(payload), 1000, protowire.VarintType), 1),
		"an unknown group":          append(slices.Clone(payload), 0xbb, 0x3e, 0xbc, 0x3e),
		"the first field last":      slices.Concat(rest, first),
		"the first field twice":     slices.Concat(first, payload),
		"a long tag":                slices.Concat([]byte{first[0] | 0x80, 0}, first[1:], rest),
		"a long length":             slices.Concat(first[:1], []byte{first[1] | 0x80, 0}, first[2:], rest),
		"a zero that is left out":   protowire.AppendVarint(protowire.AppendTag(slices.Clone(payload), 99, protowire.VarintType), 0),
		"cut short":                 payload[:len(payload)-1],
		"nothing":                   {},
		"a field of the wrong type": append(protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), 1), rest...),
	}
}

// TestCanonicalZero: a field with its zero value is not written, also where the
// message has that field.
func TestCanonicalZero(t *testing.T) {
	priv, id := testKey(t, 1)
	join := &JoinRequest{Run: testCID("run"), Peer: id, Seq: 1}
	payload := append(payloadOf(t, join), 0x20, 0) // leave: false
	if _, err := Open(sealAny(t, priv, string(kindJoin), string(kindJoin), payload)); err == nil || !strings.Contains(err.Error(), "join: not in the canonical encoding") {
		t.Errorf("Open() = %v", err)
	}
	// A bool of 2 is true for a decoder.
	payload = append(payloadOf(t, join), 0x20, 2)
	if _, err := Open(sealAny(t, priv, string(kindJoin), string(kindJoin), payload)); err == nil {
		t.Error("a bool of 2 is accepted")
	}
}

// TestCIDSpellings: CIDs that other decoders accept.
func TestCIDSpellings(t *testing.T) {
	priv, id := testKey(t, 1)
	digest := testCID("run").Bytes()[4:]
	for name, run := range map[string][]byte{
		"version 0":      append([]byte{0x12, 0x20}, digest...),
		"long version":   append([]byte{0x81, 0, 0x55, 0x12, 0x20}, digest...),
		"long codec":     append([]byte{1, 0xd5, 0, 0x12, 0x20}, digest...),
		"dag-cbor":       append([]byte{1, 0x71, 0x12, 0x20}, digest...),
		"dag-pb":         append([]byte{1, 0x70, 0x12, 0x20}, digest...),
		"short hash":     append([]byte{1, 0x55, 0x12, 0x1f}, digest[1:]...),
		"identity":       append([]byte{1, 0x55, 0x00, 0x20}, digest...),
		"one byte less":  testCID("run").Bytes()[:35],
		"one byte extra": append(testCID("run").Bytes(), 0),
		"none":           {},
	} {
		payload := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), run)
		payload = protowire.AppendBytes(protowire.AppendTag(payload, 2, protowire.BytesType), []byte(id))
		_, err := Open(sealAny(t, priv, string(kindJoin), string(kindJoin), payload))
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: Open() = %v, want an *InvalidError", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	priv, id := testKey(f, 1)
	for _, m := range samples(f, id) {
		f.Add(mustSeal(f, priv, m).Envelope)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Open(b)
		if err != nil {
			return
		}
		if err := s.Message.Validate(); err != nil {
			t.Errorf("opened, but %v", err)
		}
	})
}

// FuzzPayload starts behind the signature.
func FuzzPayload(f *testing.F) {
	_, id := testKey(f, 1)
	kinds := []kind{kindCommit, kindHave, kindJoin, kindProposal, kindVote, kindStatus, kindInvite, kindCell, kindOrder, kindReport, kindPledge}
	for _, m := range samples(f, id) {
		f.Add(uint8(slices.Index(kinds, m.kind())), payloadOf(f, m))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		k := kinds[int(which)%len(kinds)]
		m, err := decodePayload(k, b)
		if err != nil {
			var invalid *InvalidError
			if !errors.As(err, &invalid) {
				t.Errorf("decode %s: %v, want an *InvalidError", k.name(), err)
			}
			return
		}
		if m.kind() != k || !bytes.Equal(payloadOf(t, m), b) {
			t.Errorf("what was decoded as %s is not encoded as it was", k.name())
		}
	})
}
