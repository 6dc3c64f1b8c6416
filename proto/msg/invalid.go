package msg

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// InvalidError says which rule of form a message or record breaks.
type InvalidError struct {
	Object string // "commit", "record", …
	Rule   string // "codec bits are 3, must be 1, 2, 4 or 8"
}

func (e *InvalidError) Error() string { return e.Object + ": " + e.Rule }

// checker keeps the first broken rule of an object.
type checker struct {
	object string
	err    *InvalidError
}

func check(object string) *checker { return &checker{object: object} }

func (c *checker) result() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

func (c *checker) that(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = &InvalidError{Object: c.object, Rule: fmt.Sprintf(format, args...)}
	}
}

func (c *checker) between(field string, v, lo, hi uint64) {
	c.that(v >= lo, "%s is %d, must be at least %d", field, v, lo)
	c.that(v <= hi, "%s is %d, must be at most %d", field, v, hi)
}

// rawCID holds for what is identified by the hash of its bytes.
func (c *checker) rawCID(field string, id cid.Cid) {
	c.that(IsRawCID(id), "%s is %v, must be a CIDv1, raw, sha2-256", field, id)
}

// fileCID holds for what is kept as a UnixFS file.
func (c *checker) fileCID(field string, id cid.Cid) {
	c.that(IsFileCID(id),
		"%s is %v, must be a CIDv1, raw or dag-pb, sha2-256", field, id)
}

// IsRawCID reports whether id is a CIDv1 of raw bytes and their sha2-256: a
// run, a record or an envelope.
func IsRawCID(id cid.Cid) bool { return isCID(id, cid.Raw) }

// IsFileCID reports whether id can be that of a UnixFS file or folder: a CIDv1
// of sha2-256, raw or dag-pb.
func IsFileCID(id cid.Cid) bool { return isCID(id, cid.Raw) || isCID(id, cid.DagProtobuf) }

// isCID does not use the accessors of cid.Cid, which accept more than one
// spelling of the same CID.
func isCID(id cid.Cid, codec byte) bool {
	s := id.KeyString()
	return len(s) == 4+32 && s[0] == 1 && s[1] == codec && s[2] == multihash.SHA2_256 && s[3] == 32
}

// peerPrefix is what the peer ID of an Ed25519 key starts with: an identity
// multihash of 36 bytes, a protobuf of key type 1 and 32 bytes.
const peerPrefix = "\x00\x24\x08\x01\x12\x20"

// IsPeer reports whether id is the peer ID of an Ed25519 key. No other peer can
// take part in a run.
func IsPeer(id peer.ID) bool {
	return len(id) == len(peerPrefix)+32 && string(id[:len(peerPrefix)]) == peerPrefix
}

func (c *checker) peer(field string, id peer.ID) {
	c.that(IsPeer(id), "%s is %q, must be the peer ID of an Ed25519 key", field, string(id))
}

func (c *checker) round(r Round) { c.between("round", uint64(r), 1, MaxRound) }

func (c *checker) attempt(a uint32) { c.between("attempt", uint64(a), 0, MaxAttempt) }

func (c *checker) gain(v int64) {
	c.that(v >= -MaxGainNano && v <= MaxGainNano, "gain is %d, must be within %d", v, int64(MaxGainNano))
}

// text holds for words that other people's terminals will show.
func (c *checker) text(field, s string, maxBytes int) {
	c.that(len(s) <= maxBytes, "%s has %d bytes, must have at most %d", field, len(s), maxBytes)
	c.that(utf8.ValidString(s), "%s is %q, must be UTF-8", field, s)
	for _, r := range s {
		c.that(unicode.IsPrint(r), "%s is %q, must be printable", field, s)
	}
}

func (c *checker) envelopes(field string, list [][]byte, maxCount int) {
	c.that(len(list) <= maxCount, "%s are %d, must be at most %d", field, len(list), maxCount)
	for _, e := range list {
		c.that(len(e) > 0 && len(e) <= MaxMessageBytes,
			"%s hold an envelope of %d bytes, must be 1 to %d", field, len(e), MaxMessageBytes)
	}
}

func compareCIDs(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) }
