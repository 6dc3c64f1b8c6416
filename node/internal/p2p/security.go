package p2p

import (
	"context"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	tptu "github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// gatherBytes holds what a frame of 64 KiB of yamux becomes: TLS puts it into
// records of 16 KiB.
const gatherBytes = 66 << 10

// gatheringTLS is libp2p's TLS, which gives the records of one write to the
// kernel together: a call for each costs a fifth of all that sending takes.
type gatheringTLS struct{ *libp2ptls.Transport }

func newTLS(id protocol.ID, key crypto.PrivKey, muxers []tptu.StreamMuxer) (*gatheringTLS, error) {
	t, err := libp2ptls.New(id, key, muxers)
	if err != nil {
		return nil, err
	}
	return &gatheringTLS{t}, nil
}

// SecureInbound implements sec.SecureTransport.
func (t *gatheringTLS) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	g := &gatherer{Conn: insecure}
	c, err := t.Transport.SecureInbound(ctx, g, p)
	if err != nil {
		return nil, err
	}
	return &gatheringConn{c, g}, nil
}

// SecureOutbound implements sec.SecureTransport.
func (t *gatheringTLS) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	g := &gatherer{Conn: insecure}
	c, err := t.Transport.SecureOutbound(ctx, g, p)
	if err != nil {
		return nil, err
	}
	return &gatheringConn{c, g}, nil
}

// gatherer is the connection below TLS.
type gatherer struct {
	net.Conn

	mu   sync.Mutex // held while records go on, so that they stay in order
	held int        // guarded by mu: writes above TLS that are under way
	buf  *[]byte    // guarded by mu: records that wait; nil if none
	err  error      // guarded by mu: of a write that was told too early that all is well
}

var gathered = sync.Pool{New: func() any { b := make([]byte, 0, gatherBytes); return &b }}

// Write implements net.Conn.
func (g *gatherer) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if g.held == 0 {
		return g.Conn.Write(b)
	}
	if g.buf != nil && len(*g.buf)+len(b) > gatherBytes {
		if err := g.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > gatherBytes {
		return g.Conn.Write(b)
	}
	if g.buf == nil {
		g.buf = gathered.Get().(*[]byte)
	}
	*g.buf = append(*g.buf, b...)
	return len(b), nil
}

// flush is called with g.mu held.
func (g *gatherer) flush() error {
	if g.buf == nil {
		return g.err
	}
	if _, err := g.Conn.Write(*g.buf); err != nil && g.err == nil {
		g.err = err
	}
	*g.buf = (*g.buf)[:0]
	gathered.Put(g.buf)
	g.buf = nil
	return g.err
}

func (g *gatherer) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held++
}

func (g *gatherer) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held--
	return g.flush()
}

// gatheringConn is the connection above TLS.
type gatheringConn struct {
	sec.SecureConn
	below *gatherer
}

// Write implements net.Conn.
func (c *gatheringConn) Write(b []byte) (int, error) {
	c.below.hold()
	n, err := c.SecureConn.Write(b)
	if ferr := c.below.release(); err == nil && ferr != nil {
		return 0, ferr
	}
	return n, err
}
