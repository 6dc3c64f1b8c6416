package pull

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/internal/exchange"
)

// carriers are the ways to carry a DAG from one host to another. The address
// is that of the host from, as to sees it.
var carriers = []struct {
	name string
	copy func(b *testing.B, from, to *node, src blockstore.Blockstore, root cid.Cid, size int64)
}{
	{"pull", func(b *testing.B, from, to *node, src blockstore.Blockstore, root cid.Cid, size int64) {
		for _, n := range []*node{from, to} {
			p, err := New(n.h.Libp2p(), n.bs, Options{})
			if err != nil {
				b.Fatal(err)
			}
			running(b, p.Run)
			n.p = p
		}
		b.StartTimer()
		if err := to.p.Fetch(within(b, time.Minute), root, FetchOptions{Providers: []peer.ID{from.h.ID()}}); err != nil {
			b.Fatal(err)
		}
	}},
	{"bitswap", func(b *testing.B, from, to *node, src blockstore.Blockstore, root cid.Cid, size int64) {
		var es []*exchange.Exchange
		for _, n := range []*node{from, to} {
			e, err := exchange.New(n.h.Libp2p(), n.bs, exchange.Options{})
			if err != nil {
				b.Fatal(err)
			}
			running(b, e.Run)
			es = append(es, e)
		}
		b.StartTimer()
		if err := es[1].Fetch(within(b, time.Minute), root, FetchOptions{Providers: []peer.ID{from.h.ID()}}); err != nil {
			b.Fatal(err)
		}
	}},
	{"stream", func(b *testing.B, from, to *node, src blockstore.Blockstore, root cid.Cid, size int64) {
		b.StartTimer()
		rawCopy(b.Context(), b, from.h.Libp2p(), to.h.Libp2p(), size)
	}},
}

// between copies a DAG over a connection that goes through the proxy, if it is
// not nil, with each carrier, and a file over plain TCP.
func between(b *testing.B, size int, proxy func(b *testing.B, to string) string) {
	bs, root, total := dagOf(b, 1, size)
	for _, c := range carriers {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(total)
			for range b.N {
				b.StopTimer()
				from := &node{h: newHost(b, nil, "/ip4/127.0.0.1/tcp/0"), bs: bs}
				to := &node{h: newHost(b, nil, "/ip4/127.0.0.1/tcp/0"), bs: memory()}
				addr := from.h.Addrs()[0]
				port := strings.Split(addr, "/")[4]
				through := proxy(b, net.JoinHostPort("127.0.0.1", port))
				if err := to.h.Connect(b.Context(), strings.Replace(addr, port, through, 1)); err != nil {
					b.Fatal(err)
				}
				c.copy(b, from, to, bs, root, total)
				b.StopTimer()
				from.h.Close()
				to.h.Close()
				b.StartTimer()
			}
		})
	}
	b.Run("tcp", func(b *testing.B) {
		b.SetBytes(total)
		l := listen(b, func(c net.Conn) {
			buf := make([]byte, 64<<10)
			for left := total; left > 0; left -= int64(len(buf)) {
				if _, err := c.Write(buf[:min(left, int64(len(buf)))]); err != nil {
					return
				}
			}
		})
		through := proxy(b, l)
		for range b.N {
			c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", through))
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, c); err != nil || n != total {
				b.Fatal(n, err)
			}
			c.Close()
		}
	})
}

// listen serves connections on loopback and returns the address.
func listen(b *testing.B, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err)
	}
	return port
}

func BenchmarkLoopback(b *testing.B) {
	between(b, 128*mib, func(_ *testing.B, to string) string { return portOf(to) })
}

// 100 Mbit/s, 100 ms there and back.
func BenchmarkLine(b *testing.B) {
	between(b, 64*mib, func(b *testing.B, to string) string {
		return portOf(listen(b, func(c net.Conn) {
			d, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer d.Close()
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go delayed(ctx, cancel, d, c)
			delayed(ctx, cancel, c, d)
		}))
	})
}

// delayed copies at 100 Mbit/s and 50 ms later, with a queue of 100 ms.
func delayed(ctx context.Context, cancel func(), to io.WriteCloser, from io.ReadCloser) {
	const (
		rate  = 100e6 / 8
		delay = 50 * time.Millisecond
		step  = 8 << 10
	)
	type piece struct {
		b   []byte
		due time.Time
	}
	queue := make(chan piece, int(rate*(2*delay+50*time.Millisecond).Seconds())/step)
	go func() {
		defer close(queue)
		var free time.Time
		for {
			b := make([]byte, step)
			n, err := from.Read(b)
			if n > 0 {
				if now := time.Now(); free.Before(now) {
					free = now
				}
				free = free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
				select {
				case queue <- piece{b[:n], free.Add(delay)}:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.b); err != nil {
			break
		}
	}
	cancel()
	to.Close()
	from.Close()
}

// Many leaves that a peer has: what a choice costs.
func BenchmarkRarest(b *testing.B) {
	for _, n := range []int{1 << 10, 1 << 14, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := &fetch{}
			s := newSource("p")
			s.has = newBitset(n)
			for i := range n {
				s.has.set(i)
				q := &piece{leaf: i, size: mib, todo: -1, holder: 2}
				f.addTodo(q)
			}
			for b.Loop() {
				if f.rarest(s) == nil {
					b.Fatal("nothing to ask")
				}
			}
		})
	}
}
