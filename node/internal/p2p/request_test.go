package p2p

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const echo = "/moot/echo/1"

func pair(t *testing.T) (server, client *Host) {
	t.Helper()
	server, client = newHost(t, Options{}), newHost(t, Options{})
	waitFor(t, "a connection", func() bool { return client.Connect(t.Context(), server.Addrs()[0]) == nil })
	return server, client
}

func TestRequest(t *testing.T) {
	t.Parallel()
	server, client := pair(t)
	server.Handle(echo, 1<<20, func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
		if from != client.ID() {
			t.Errorf("request is from %s, want %s", from, client.ID())
		}
		if string(req) == "fail" {
			return nil, errors.New(strings.Repeat("no ", 1000))
		}
		return req, nil
	})
	for _, n := range []int{0, 1, 1 << 20} {
		req := bytes.Repeat([]byte{7}, n)
		resp, err := client.Request(t.Context(), server.ID(), echo, req, n)
		if err != nil || !bytes.Equal(resp, req) {
			t.Errorf("echo of %d bytes: %d bytes, %v", n, len(resp), err)
		}
	}
	if _, err := client.Request(t.Context(), server.ID(), echo, make([]byte, 1<<20+1), 1<<21); err == nil {
		t.Error("a request above the limit was answered")
	}
	if _, err := client.Request(t.Context(), server.ID(), echo, make([]byte, 100), 99); err == nil || !strings.Contains(err.Error(), "at most 99") {
		t.Errorf("response above the limit: %v", err)
	}
	_, err := client.Request(t.Context(), server.ID(), echo, []byte("fail"), 10)
	if remote := new(RemoteError); !errors.As(err, &remote) || !strings.HasPrefix(remote.Text, "no no") || len(remote.Text) > maxErrorText {
		t.Errorf("error of the handler: %v", err)
	}
	if _, err := client.Request(t.Context(), server.ID(), "/moot/nothing/1", nil, 1); err == nil {
		t.Error("a protocol that nobody speaks was answered")
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	server, client := pair(t)
	entered, hold := make(chan struct{}), make(chan struct{})
	server.Handle(echo, 1, func(context.Context, peer.ID, []byte) ([]byte, error) {
		close(entered)
		<-hold
		return nil, nil
	})
	defer close(hold)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	begun := time.Now()
	if _, err := client.Request(ctx, server.ID(), echo, nil, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Request() = %v, want context.Canceled", err)
	}
	if time.Since(begun) > requestTimeout {
		t.Error("it waited for the peer")
	}
}

func TestBusyPeerSaysSo(t *testing.T) {
	t.Parallel()
	server, client := pair(t)
	var entered sync.WaitGroup
	entered.Add(maxRequestsPerPeer)
	hold := make(chan struct{})
	server.Handle(echo, 1<<20, func(context.Context, peer.ID, []byte) ([]byte, error) {
		entered.Done()
		<-hold
		return nil, nil
	})
	var wg sync.WaitGroup
	for range maxRequestsPerPeer {
		wg.Go(func() {
			if _, err := client.Request(t.Context(), server.ID(), echo, nil, 1); err != nil {
				t.Errorf("a request within the limit: %v", err)
			}
		})
	}
	entered.Wait()
	for _, n := range []int{0, 1 << 20} {
		if _, err := client.Request(t.Context(), server.ID(), echo, make([]byte, n), 1); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many, of %d bytes: %v, want ErrBusy", n, err)
		}
	}
	close(hold)
	wg.Wait()
	waitFor(t, "the requests to be over", func() bool {
		server.serving.mu.Lock()
		defer server.serving.mu.Unlock()
		return server.serving.all == 0 && len(server.serving.from) == 0
	})
}

// A frame that announces much and brings little costs little.
func TestFrameIsNotTrusted(t *testing.T) {
	b := append(binary.AppendUvarint(nil, 1<<40), 1, 2, 3)
	if _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), 1<<20); err == nil {
		t.Error("a length above the limit was read")
	}
	allocs := testing.AllocsPerRun(10, func() {
		b := append(binary.AppendUvarint(nil, 1<<30), 1, 2, 3)
		if _, err := readFrame(bufio.NewReader(bytes.NewReader(b)), 1<<30); err == nil {
			t.Error("a frame that is cut off was read")
		}
	})
	if allocs > 20 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte{0, 2, 'h', 'i'})
	f.Add([]byte{1, 2, 'n', 'o'})
	f.Add([]byte{2, 0})
	f.Add([]byte{0, 0x80, 0})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readResponse(bufio.NewReader(bytes.NewReader(b)), 64)
		if err != nil {
			return
		}
		again := appendFrame([]byte{statusOK}, body)
		if !bytes.HasPrefix(b, again) {
			t.Errorf("% x decodes to % x, which encodes to % x", b, body, again)
		}
	})
}

func FuzzPeersRequest(f *testing.F) {
	f.Add(peersRequest{member: true, name: "run", record: []byte{1, 2}}.encode())
	f.Add(peersRequest{name: strings.Repeat("x", maxName)}.encode())
	f.Add([]byte{2, 1, 'a', 0})
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := decodePeersRequest(b)
		if err != nil {
			return
		}
		if len(q.name) == 0 || len(q.name) > maxName || len(q.record) > maxRecord {
			t.Errorf("accepted %d bytes of name, %d of record", len(q.name), len(q.record))
		}
		if again := q.encode(); !bytes.Equal(again, b) {
			t.Errorf("% x encodes to % x", b, again)
		}
	})
}

func FuzzPeersAnswer(f *testing.F) {
	f.Add(peersAnswer{member: true, records: [][]byte{{1, 2, 3}, {}}}.encode())
	f.Add(peersAnswer{records: make([][]byte, maxPeerRecords+1)}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodePeersAnswer(b)
		if err != nil {
			return
		}
		if len(a.records) > maxPeerRecords {
			t.Errorf("accepted %d records", len(a.records))
		}
		if again := a.encode(); !bytes.Equal(again, b) {
			t.Errorf("% x encodes to % x", b, again)
		}
	})
}
