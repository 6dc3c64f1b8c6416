package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Limits of a request, on both sides.
const (
	requestTimeout     = 30 * time.Second // when the asker's context has no deadline
	readTimeout        = 10 * time.Second // for the request to arrive
	handleTimeout      = time.Minute      // for the handler, and again for the response to leave
	maxRequestsPerPeer = 16               // handled at once
	maxRequests        = 128              // handled at once, of all peers
	maxStrangers       = 96               // of those, of peers on which no run depends
	maxErrorText       = 512
)

const (
	statusOK    = 0
	statusError = 1
	statusBusy  = 2
)

// ErrBusy is the answer of a peer that handles as many requests as it can.
var ErrBusy = errors.New("peer is busy")

// RemoteError is what a peer answered instead of a result. Its text is the
// peer's and proves nothing.
type RemoteError struct{ Text string }

func (e *RemoteError) Error() string { return fmt.Sprintf("peer answered %q", e.Text) }

// A Handler answers a request. Its error is told to the asker, so it must not
// say more than the asker may know. It is called concurrently.
type Handler func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

// Handle answers requests of the protocol proto, of at most maxReq bytes, with
// fn, until the host is closed. A peer may have 16 requests handled at once, and
// of large answers there may be so many on their way; others are answered with
// [ErrBusy].
func (h *Host) Handle(proto string, maxReq int, fn Handler) {
	h.host.SetStreamHandler(protocol.ID(proto), func(s network.Stream) {
		if err := h.serve(s, maxReq, fn); err != nil {
			_ = s.Reset()
			h.log.Debug("request was not answered", "protocol", proto, "peer", s.Conn().RemotePeer(), "err", err)
			return
		}
		_ = s.Close()
	})
}

func (h *Host) serve(s network.Stream, maxReq int, fn Handler) error {
	from := s.Conn().RemotePeer()
	if err := s.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		return err
	}
	preferred := h.Preferred(from)
	if !h.serving.enter(from, preferred) {
		if err := writeResponse(s, statusBusy, nil); err != nil {
			return err
		}
		// The asker reads when it has written, so let it.
		_, err := io.CopyN(io.Discard, s, int64(maxReq)+binary.MaxVarintLen64)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	defer h.serving.leave(from, preferred)

	r := bufio.NewReader(s)
	req, err := readFrame(r, maxReq)
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("read request: more than one")
	}
	ctx, cancel := context.WithTimeout(h.ctx, handleTimeout)
	defer cancel()
	resp, err := fn(ctx, from, req)
	if err != nil {
		text := err.Error()
		return writeResponse(s, statusError, []byte(text[:min(len(text), maxErrorText)]))
	}
	if !h.answers.enter(from, preferred, len(resp)) {
		return writeResponse(s, statusBusy, nil)
	}
	defer h.answers.leave(from, preferred, len(resp))
	return writeResponse(s, statusOK, resp)
}

func writeResponse(s network.Stream, status byte, body []byte) error {
	head := binary.AppendUvarint([]byte{status}, uint64(len(body)))
	if err := writePieces(s, head); err != nil {
		return err
	}
	return writePieces(s, body)
}

// Request sends req to a peer, dialling it if needed, and returns its answer
// of at most maxResp bytes. It takes 30 seconds at most, or as long as the
// deadline of ctx allows. The answer can be an error that is [ErrBusy] or a
// [*RemoteError].
func (h *Host) Request(ctx context.Context, to peer.ID, proto string, req []byte, maxResp int) ([]byte, error) {
	resp, err := h.request(ctx, to, proto, req, maxResp)
	if err != nil {
		return nil, fmt.Errorf("request %s from %s: %w", proto, short(to), err)
	}
	return resp, nil
}

func (h *Host) request(ctx context.Context, to peer.ID, proto string, req []byte, maxResp int) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	s, err := h.host.NewStream(network.WithAllowLimitedConn(ctx, proto), to, protocol.ID(proto))
	if err != nil {
		return nil, oneLine(VersionError(h.host, to, protocol.ID(proto), err))
	}
	defer s.Close()
	// Covers cancellation and the deadline alike, in the reads and the writes.
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()

	resp, err := exchangeFrames(s, req, maxResp)
	if err == nil || errors.Is(err, ErrBusy) {
		return resp, err
	}
	if remote := new(RemoteError); errors.As(err, &remote) {
		return nil, err
	}
	_ = s.Reset()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, err
}

func exchangeFrames(s network.Stream, req []byte, maxResp int) ([]byte, error) {
	if _, err := s.Write(append(binary.AppendUvarint(nil, uint64(len(req))), req...)); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	if err := s.CloseWrite(); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	return readResponse(bufio.NewReader(s), maxResp)
}

func readResponse(r *bufio.Reader, maxResp int) ([]byte, error) {
	status, err := r.ReadByte()
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	if status != statusOK {
		maxResp = maxErrorText
	}
	body, err := readFrame(r, maxResp)
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	switch status {
	case statusOK:
		return body, nil
	case statusBusy:
		return nil, ErrBusy
	case statusError:
		return nil, &RemoteError{Text: strings.ToValidUTF8(string(body), "?")}
	}
	return nil, fmt.Errorf("receive: status %d is unknown", status)
}

// readFrame reads a length and that many bytes. Memory grows with what has
// arrived, not with what was announced.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	n, err := readUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > uint64(limit) {
		return nil, fmt.Errorf("%d bytes, at most %d", n, limit)
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return b.Bytes(), nil
}

var errVarint = errors.New("not a shortest varint of at most 63 bits")

// readUvarint accepts one form of each number, so that what decodes encodes
// back to the same bytes.
func readUvarint(r io.ByteReader) (uint64, error) {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				return 0, errVarint
			}
			return n, nil
		}
	}
	return 0, errVarint
}

// admission counts requests that are being handled.
type admission struct {
	mu        sync.Mutex
	all       int             // guarded by mu
	strangers int             // guarded by mu
	from      map[peer.ID]int // guarded by mu; no zero entries
}

func (a *admission) enter(p peer.ID, preferred bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all >= maxRequests || a.from[p] >= maxRequestsPerPeer || !preferred && a.strangers >= maxStrangers {
		return false
	}
	if !preferred {
		a.strangers++
	}
	if a.from == nil {
		a.from = make(map[peer.ID]int)
	}
	a.all++
	a.from[p]++
	return true
}

func (a *admission) leave(p peer.ID, preferred bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all--
	if !preferred {
		a.strangers--
	}
	if a.from[p]--; a.from[p] == 0 {
		delete(a.from, p)
	}
}

// short is how a peer appears in errors.
func short(p peer.ID) string {
	s := p.String()
	if len(s) <= 10 {
		return s
	}
	return s[len(s)-8:]
}
