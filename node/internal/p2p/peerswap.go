package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	peersProtocol   = "/moot/peers/1"
	maxName         = 128
	maxPeerRecords  = 32
	maxPeersRequest = maxName + maxRecord + 16
	maxPeersAnswer  = maxPeerRecords*(maxRecord+4) + 1
	peersTimeout    = 10 * time.Second
	flagMember      = 1
)

// peersRequest asks for peers of a run; see the package comment.
type peersRequest struct {
	member bool
	name   string
	record []byte
}

func (q peersRequest) encode() []byte {
	b := []byte{flags(q.member)}
	b = appendFrame(b, []byte(q.name))
	return appendFrame(b, q.record)
}

func decodePeersRequest(b []byte) (peersRequest, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	var q peersRequest
	var err error
	if q.member, err = readFlags(r); err != nil {
		return q, err
	}
	name, err := readFrame(r, maxName)
	if err != nil {
		return q, fmt.Errorf("name: %w", err)
	}
	if len(name) == 0 {
		return q, errors.New("name: empty")
	}
	q.name = string(name)
	if q.record, err = readFrame(r, maxRecord); err != nil {
		return q, fmt.Errorf("record: %w", err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return q, errors.New("bytes after the record")
	}
	return q, nil
}

// peersAnswer has signed peer records, not checked yet.
type peersAnswer struct {
	member  bool
	records [][]byte
}

func (a peersAnswer) encode() []byte {
	b := []byte{flags(a.member)}
	for _, r := range a.records {
		b = appendFrame(b, r)
	}
	return b
}

func decodePeersAnswer(b []byte) (peersAnswer, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	var a peersAnswer
	var err error
	if a.member, err = readFlags(r); err != nil {
		return a, err
	}
	for {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return a, nil
		}
		if len(a.records) == maxPeerRecords {
			return a, fmt.Errorf("more than %d records", maxPeerRecords)
		}
		rec, err := readFrame(r, maxRecord)
		if err != nil {
			return a, fmt.Errorf("record: %w", err)
		}
		a.records = append(a.records, rec)
	}
}

func flags(member bool) byte {
	if member {
		return flagMember
	}
	return 0
}

func readFlags(r io.ByteReader) (member bool, err error) {
	f, err := r.ReadByte()
	if err != nil {
		return false, fmt.Errorf("flags: %w", err)
	}
	if f&^flagMember != 0 {
		return false, fmt.Errorf("flags: %#x is unknown", f)
	}
	return f == flagMember, nil
}

func appendFrame(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// handlePeers answers others. Any node does so for any run: it tells whom
// else it was asked by.
func (h *Host) handlePeers() {
	h.Handle(peersProtocol, maxPeersRequest, func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		q, err := decodePeersRequest(req)
		if err != nil {
			return nil, err
		}
		var rec *peer.PeerRecord
		if len(q.record) > 0 {
			if rec, err = openRecord(q.record); err != nil {
				return nil, err
			}
			if rec.PeerID != from {
				return nil, errors.New("record is of another peer")
			}
		}
		return h.answerPeers(from, q, rec).encode(), nil
	})
}

func (h *Host) answerPeers(from peer.ID, q peersRequest, rec *peer.PeerRecord) peersAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	m := h.meetings[q.name]
	if m == nil {
		if !q.member || !h.makeRoom() {
			return peersAnswer{}
		}
		m = newMeeting()
		h.meetings[q.name] = m
	}
	m.asked = now
	a := peersAnswer{member: m.joined > 0}
	for p, mem := range m.members {
		if p != from && len(mem.record) > 0 && now.Sub(mem.seen) < memberTTL {
			a.records = append(a.records, mem.record)
		}
	}
	rand.Shuffle(len(a.records), func(i, j int) { a.records[i], a.records[j] = a.records[j], a.records[i] })
	a.records = a.records[:min(len(a.records), maxPeerRecords)]
	if q.member {
		m.add(from, rec, q.record, now)
	}
	return a
}

// askPeers asks one peer for others of a run, and returns those that are not
// connected.
func (h *Host) askPeers(ctx context.Context, p peer.ID, name string) ([]peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, peersTimeout)
	defer cancel()
	q := peersRequest{member: true, name: name, record: h.ownRecord()}
	b, err := h.Request(ctx, p, peersProtocol, q.encode(), maxPeersAnswer)
	if err != nil {
		return nil, err
	}
	a, err := decodePeersAnswer(b)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if a.member {
		h.mu.Lock()
		if m := h.meetings[name]; m != nil {
			m.add(p, nil, nil, time.Now())
		}
		h.mu.Unlock()
	}
	var others []peer.AddrInfo
	for _, r := range a.records {
		rec, err := openRecord(r)
		if err != nil {
			return others, err // an honest peer passes on only what it checked
		}
		if rec.PeerID != h.ID() && !h.connected(rec.PeerID) && !h.Blocked(rec.PeerID) {
			others = append(others, peer.AddrInfo{ID: rec.PeerID, Addrs: rec.Addrs})
		}
	}
	return others, nil
}
