package p2p

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
)

// countedConn counts writes, and fails after some bytes.
type countedConn struct {
	net.Conn
	mu     sync.Mutex
	writes int
	bytes  int
	limit  int // 0: none
}

var errLine = errors.New("the line is cut")

func (c *countedConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit > 0 && c.bytes+len(b) > c.limit {
		return 0, errLine
	}
	c.writes++
	c.bytes += len(b)
	return c.Conn.Write(b)
}

// tlsPair is two ends of a connection.
func tlsPair(t *testing.T) (a, b sec.SecureConn, below *countedConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	transport := func() (*gatheringTLS, peer.ID) {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := peer.IDFromPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := newTLS("/tls/1.0.0", key, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tr, id
	}
	ta, _ := transport()
	tb, idb := transport()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			b, err = tb.SecureInbound(t.Context(), c, "")
		}
		if err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	below = &countedConn{Conn: c}
	if a, err = ta.SecureOutbound(t.Context(), below, idb); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b, below
}

// What is written comes, whatever its size, and with one call to the kernel for
// what a frame is.
func TestGatheredWrites(t *testing.T) {
	a, b, below := tlsPair(t)
	deadline := time.Now().Add(time.Minute)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	var want []byte
	for _, n := range []int{1, 12, 1000, 16 << 10, 64 << 10, 200 << 10, 1 << 20, 5} {
		part := make([]byte, n)
		_, _ = rand.Read(part) // never fails
		want = append(want, part...)
	}
	var wg sync.WaitGroup
	got := make([]byte, len(want))
	wg.Go(func() {
		if _, err := io.ReadFull(b, got); err != nil {
			t.Error(err)
		}
	})
	at := 0
	for _, n := range []int{1, 12, 1000, 16 << 10, 64 << 10, 200 << 10, 1 << 20, 5} {
		if k, err := a.Write(want[at : at+n]); err != nil || k != n {
			t.Fatalf("Write of %d bytes = %d, %v", n, k, err)
		}
		at += n
	}
	wg.Wait()
	if !bytes.Equal(got, want) {
		t.Error("other bytes came")
	}
	before := below.writes
	const frames = 20
	wg.Go(func() {
		if _, err := io.CopyN(io.Discard, b, frames*(64<<10)); err != nil {
			t.Error(err)
		}
	})
	for range frames {
		if _, err := a.Write(make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if n := below.writes - before; n != frames {
		t.Errorf("%d frames took %d writes", frames, n)
	}
}

// A line that breaks is an error of the write that it broke under, and of all that follow.
func TestGatheredWriteFails(t *testing.T) {
	a, _, below := tlsPair(t)
	below.mu.Lock()
	below.limit = below.bytes + 100<<10
	below.mu.Unlock()
	if _, err := a.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := a.Write(make([]byte, 64<<10)); !errors.Is(err, errLine) {
			t.Errorf("Write = %v, want %v", err, errLine)
		}
	}
	if _, err := a.Write([]byte{1}); !errors.Is(err, errLine) {
		t.Errorf("short Write = %v, want %v", err, errLine)
	}
}
