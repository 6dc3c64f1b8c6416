package runner

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/moot-net/moot/node/internal/round"
	"github.com/moot-net/moot/proto/msg"
)

// syncProtocol answers with the records of a run that follow the newest one
// which both sides know. The bytes are specified in proto/README.md.
const syncProtocol = "/moot/sync/1"

// branchProtocol answers with the records of a branch that the answerer knows
// and left. The request has the branch's head for a locator, all else is as with
// syncProtocol.
const branchProtocol = "/moot/branch/1"

// proofProtocol answers with a proof that the answerer's last certified record is
// of the run's chain, for who knows the record that the request has for a
// locator.
const proofProtocol = "/moot/proof/2"

// beforeProtocol answers with the records before one of the answerer's chain,
// newest first.
const beforeProtocol = "/moot/before/1"

const (
	maxLocator      = 64      // record CIDs in a request
	maxSyncRequest  = 8 << 10 // bytes
	maxSyncResponse = 4 << 20 // bytes
	maxSyncRecords  = 512     // records in a response
	maxCIDBytes     = 128
)

// syncRequest asks for the records after the first CID of Locator that the
// other side has in its chain. Locator lists records of the asker's chain,
// newest first, and ends with the genesis record.
type syncRequest struct {
	Run     cid.Cid
	Locator []cid.Cid
}

// beforeRequest asks for the records before one, Most at most.
type beforeRequest struct {
	Run, Record cid.Cid
	Most        uint64
}

func (r beforeRequest) encode() []byte {
	b := appendBytes(appendBytes(nil, r.Run.Bytes()), r.Record.Bytes())
	return binary.AppendUvarint(b, r.Most)
}

func decodeBeforeRequest(b []byte) (r beforeRequest, err error) {
	for _, c := range []*cid.Cid{&r.Run, &r.Record} {
		var item []byte
		if item, b, err = takeBytes(b, maxCIDBytes); err != nil {
			return beforeRequest{}, err
		}
		if *c, err = cid.Cast(item); err != nil {
			return beforeRequest{}, fmt.Errorf("%w: not a CID", errSyncFrame)
		}
	}
	n, k := binary.Uvarint(b)
	if k <= 0 || k != len(b) || k != len(binary.AppendUvarint(nil, n)) {
		return beforeRequest{}, fmt.Errorf("%w: bad number of records", errSyncFrame)
	}
	r.Most = n
	return r, nil
}

// syncItem is a record and, if the sender has it, its certificate.
type syncItem = round.Item

var errSyncFrame = errors.New("malformed sync frame")

func (r syncRequest) encode() []byte {
	b := appendBytes(nil, r.Run.Bytes())
	for _, c := range r.Locator {
		b = appendBytes(b, c.Bytes())
	}
	return b
}

func decodeSyncRequest(b []byte) (syncRequest, error) {
	var r syncRequest
	for first := true; len(b) > 0; first = false {
		var item []byte
		var err error
		if item, b, err = takeBytes(b, maxCIDBytes); err != nil {
			return syncRequest{}, err
		}
		_, c, err := cid.CidFromBytes(item)
		if err != nil || len(c.Bytes()) != len(item) {
			return syncRequest{}, fmt.Errorf("%w: not a CID", errSyncFrame)
		}
		if first {
			r.Run = c
			continue
		}
		if len(r.Locator) == maxLocator {
			return syncRequest{}, fmt.Errorf("%w: more than %d records in the locator", errSyncFrame, maxLocator)
		}
		r.Locator = append(r.Locator, c)
	}
	if !r.Run.Defined() {
		return syncRequest{}, fmt.Errorf("%w: no run", errSyncFrame)
	}
	return r, nil
}

func encodeSyncItems(items []syncItem) []byte {
	n := 0
	for _, it := range items {
		n += len(it.Record) + len(it.Certificate) + 2*binary.MaxVarintLen32
	}
	b := make([]byte, 0, n)
	for _, it := range items {
		b = appendBytes(appendBytes(b, it.Record), it.Certificate)
	}
	return b
}

func decodeSyncItems(b []byte) ([]syncItem, error) {
	var items []syncItem
	for len(b) > 0 {
		if len(items) == maxSyncRecords {
			return nil, fmt.Errorf("%w: more than %d records", errSyncFrame, maxSyncRecords)
		}
		var it syncItem
		var err error
		if it.Record, b, err = takeBytes(b, msg.MaxRecordBytes); err != nil {
			return nil, err
		}
		if it.Certificate, b, err = takeBytes(b, msg.MaxRecordBytes); err != nil {
			return nil, err
		}
		if len(it.Record) == 0 {
			return nil, fmt.Errorf("%w: empty record", errSyncFrame)
		}
		items = append(items, it)
	}
	return items, nil
}

// appendBytes appends item with its length in front, as an unsigned varint.
func appendBytes(b, item []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(item))), item...)
}

// takeBytes splits off what appendBytes wrote. Lengths that are not in their
// shortest form are refused, so that there is one encoding of everything.
func takeBytes(b []byte, limit int) (item, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	switch {
	case k <= 0, k != len(binary.AppendUvarint(nil, n)):
		return nil, nil, fmt.Errorf("%w: bad length", errSyncFrame)
	case n > uint64(limit):
		return nil, nil, fmt.Errorf("%w: item of %d bytes, at most %d", errSyncFrame, n, limit)
	case n > uint64(len(b)-k):
		return nil, nil, fmt.Errorf("%w: cut off", errSyncFrame)
	}
	return b[k : k+int(n)], b[k+int(n):], nil
}
