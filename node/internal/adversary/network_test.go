package adversary

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bspb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	dhtpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	circuitpb "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/proto"
	identifypb "github.com/libp2p/go-libp2p/p2p/protocol/identify/pb"
	"google.golang.org/protobuf/proto"
)

// Our own protocols of one request, with one that is of form.
func (a *attacker) requests() map[protocol.ID][]byte {
	run, record := a.run.Bytes(), a.cid().Bytes()
	return map[protocol.ID][]byte{
		"/moot/sync/1":       frame(items(run, record)),
		"/moot/branch/1":     frame(items(run, record)),
		"/moot/proof/2":      frame(items(run, record)),
		"/moot/before/1":     frame(append(items(run, record), 10)),
		"/moot/difference/1": frame(items(run, record)),
		"/moot/cellmsg/1":    frame(a.vote()),
		"/moot/member/1":     frame(a.join()),
		"/moot/peers/1":      frame(append(append([]byte{1}, frame([]byte("run"))...), 0)),
		"/moot/presence/1":   append([]byte{1}, a.bytes(16)...),
		"/moot/shard/1":      append([]byte{1, 36}, record...),
	}
}

// garbage sends random bytes on every protocol.
func (a *attacker) garbage(ctx context.Context) {
	list := a.protocols()
	for i := 0; ctx.Err() == nil; i++ {
		n := 1 << a.rnd.IntN(17)
		if s := a.send(ctx, list[i%len(list)], a.bytes(n)); s != nil {
			_ = s.Close()
		}
	}
}

// oversize announces frames of up to 2^63 bytes, and nested ones.
func (a *attacker) oversize(ctx context.Context) {
	list := a.protocols()
	for i := 0; ctx.Err() == nil; i++ {
		size := uint64(1)<<(20+a.rnd.IntN(44)) - 1
		b := binary.AppendUvarint(nil, size)
		for range 64 { // as a field of length type, in itself
			b = append(b, 0x0a)
			b = binary.AppendUvarint(b, size)
		}
		if i%2 == 0 {
			b = append([]byte{byte(i % 5)}, b...)
		}
		if s := a.send(ctx, list[i%len(list)], append(b, a.bytes(32<<10)...)); s != nil {
			_ = s.Reset()
		}
	}
}

// truncated sends each request up to each of its bytes, and one byte wrong.
func (a *attacker) truncated(ctx context.Context) {
	for p := range a.requests() {
		if !slices.Contains(a.protocols(), p) {
			a.t.Errorf("the node does not speak %s", p)
		}
	}
	for {
		for p, b := range a.requests() {
			for i := range b {
				if ctx.Err() != nil {
					return
				}
				x := b[:i:i]
				if i%2 == 1 {
					x = append(x, b[i]^byte(1+a.rnd.IntN(255)))
					x = append(x, b[i+1:]...)
				}
				if s := a.send(ctx, p, x); s != nil {
					_ = s.Close()
				}
			}
		}
	}
}

// slow begins requests on all protocols and says a byte now and then: it takes
// all places that there are to be served.
func (a *attacker) slow(ctx context.Context) {
	list := a.protocols()
	var open []network.Stream
	defer func() {
		for _, s := range open {
			_ = s.Reset()
		}
	}()
	for i := 0; ctx.Err() == nil; i++ {
		b := []byte{0xff}
		if full := a.requests()[list[i%len(list)]]; len(full) > 2 {
			b = full[:2]
		}
		if s := a.send(ctx, list[i%len(list)], b); s != nil {
			_ = s.SetDeadline(time.Now().Add(time.Hour))
			open = append(open, s)
		}
		if len(open) > 0 && i%4 == 0 {
			_, _ = open[a.rnd.IntN(len(open))].Write([]byte{0x81})
		}
		if len(open) > 3000 {
			_ = open[0].Reset()
			open = open[1:]
		}
	}
}

// endless never ends a request, and never reads.
func (a *attacker) endless(ctx context.Context) {
	list := a.protocols()
	junk := a.bytes(1 << 20)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := i; ctx.Err() == nil; k++ {
				s := a.stream(ctx, list[k%len(list)])
				if s == nil {
					continue
				}
				for ctx.Err() == nil {
					if _, err := s.Write(junk); err != nil {
						break
					}
				}
				_ = s.Reset()
			}
		})
	}
	wg.Wait()
}

// takesNothing asks for what is there, and does not read the answers.
func (a *attacker) takesNothing(ctx context.Context) {
	run, genesis := a.run.Bytes(), a.first.Bytes()
	asks := map[protocol.ID][]byte{
		"/moot/sync/1":   frame(items(run, genesis)),
		"/moot/proof/2":  frame(items(run, genesis)),
		"/moot/before/1": frame(append(items(run, a.head(ctx).Bytes()), 0x80, 4)),
		"/moot/kad/1.0.0": frame(a.marshal(&dhtpb.Message{
			Type: dhtpb.Message_FIND_NODE, Key: a.bytes(32),
		})),
	}
	var open []network.Stream
	for ctx.Err() == nil {
		for p, b := range asks {
			if s := a.send(ctx, p, b); s != nil {
				_ = s.CloseWrite()
				open = append(open, s)
			}
		}
		if len(open) > 2000 {
			_ = open[0].Reset()
			open = open[1:]
		}
	}
	for _, s := range open {
		_ = s.Reset()
	}
}

func (a *attacker) marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		a.t.Error(err)
	}
	return b
}

// asks sends requests of form, for what is here and for what is not, as fast as
// they are answered.
func (a *attacker) asks(ctx context.Context) {
	head := a.head(ctx)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, p := range []string{"/moot/sync/1", "/moot/proof/2", "/moot/branch/1", "/moot/difference/1", "/moot/before/1"} {
					known := a.first
					if p == "/moot/before/1" || p == "/moot/difference/1" {
						known = head
					}
					b := items(a.run.Bytes(), known.Bytes())
					if p == "/moot/before/1" {
						b = append(b, 0x80, 4)
					}
					if _, err := a.h.Request(ctx, a.to.ID, p, b, 4<<20); err == nil {
						a.done.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
}

// names asks for others of runs with thousands of names.
func (a *attacker) names(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		q := append([]byte{1}, frame(fmt.Appendf(nil, "\x1b[2J%d%s", i, strings.Repeat("x", 100)))...)
		if _, err := a.h.Request(ctx, a.to.ID, "/moot/peers/1", append(q, 0), 1<<20); err == nil {
			a.done.Add(1)
		}
	}
}

// hellos asks for the time, and for signatures of the identity.
func (a *attacker) hellos(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		s := a.send(ctx, "/moot/presence/1", append([]byte{byte(1 + i%2)}, a.bytes(16)...))
		if s != nil {
			_, _ = io.Copy(io.Discard, s)
			_ = s.Reset()
		}
	}
}

const kad protocol.ID = "/moot/kad/1.0.0"

// providers tells the DHT of a million things that this peer has, with as many
// addresses as fit.
func (a *attacker) providers(ctx context.Context) {
	self := &dhtpb.Message_Peer{Id: []byte(a.id())}
	for i := range 200 {
		self.Addrs = append(self.Addrs, multiaddrs(a.t, []string{fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/4001", a.rnd.IntN(256), a.rnd.IntN(256), i)})[0].Bytes())
	}
	var s network.Stream
	for i := 0; ctx.Err() == nil; i++ {
		if s == nil {
			if s = a.stream(ctx, kad); s == nil {
				continue
			}
		}
		m := &dhtpb.Message{Type: dhtpb.Message_ADD_PROVIDER, Key: a.bytes(34), ProviderPeers: []*dhtpb.Message_Peer{self}}
		if i > 0 {
			m.ProviderPeers = []*dhtpb.Message_Peer{{Id: self.Id, Addrs: self.Addrs[:1]}}
		}
		m.Key[0], m.Key[1] = 0x12, 32
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write(frame(a.marshal(m))); err != nil {
			_ = s.Reset()
			s = nil
			continue
		}
		a.done.Add(1)
	}
}

// lookups asks the DHT for what nobody has.
func (a *attacker) lookups(ctx context.Context) {
	for ctx.Err() == nil {
		s := a.stream(ctx, kad)
		if s == nil {
			continue
		}
		for r := bufio.NewReader(s); ctx.Err() == nil; {
			m := &dhtpb.Message{Type: dhtpb.Message_GET_PROVIDERS, Key: a.bytes(34)}
			_ = s.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := s.Write(frame(a.marshal(m))); err != nil {
				break
			}
			n, err := binary.ReadUvarint(r)
			if err != nil {
				break
			}
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				break
			}
			a.done.Add(1)
		}
		_ = s.Reset()
	}
}

// identify pushes that this peer is at ten thousand addresses and speaks as many
// protocols.
func (a *attacker) identify(ctx context.Context) {
	m := &identifypb.Identify{AgentVersion: proto.String("\x1b]0;owned\a" + strings.Repeat("A", 100_000))}
	for i := range 10_000 {
		m.Protocols = append(m.Protocols, fmt.Sprintf("/x/%d", i))
		m.ListenAddrs = append(m.ListenAddrs, multiaddrs(a.t, []string{fmt.Sprintf("/ip4/10.0.%d.%d/tcp/1", i/256, i%256)})[0].Bytes())
	}
	b := frame(a.marshal(m))
	for ctx.Err() == nil {
		if s := a.send(ctx, "/ipfs/id/push/1.0.0", b); s != nil {
			_ = s.Close()
		}
	}
}

// wants sends lists of a million CIDs.
func (a *attacker) wants(ctx context.Context) {
	for ctx.Err() == nil {
		s := a.stream(ctx, bsnet.ProtocolBitswap)
		if s == nil {
			continue
		}
		for range 200 { // a million
			m := bsmsg.New(false)
			for range 5000 {
				m.AddEntry(a.cid(), 1, bspb.Message_Wantlist_Block, true)
			}
			_ = s.SetDeadline(time.Now().Add(5 * time.Second))
			if m.ToNetV1(s) != nil || ctx.Err() != nil {
				break
			}
			a.done.Add(1)
		}
		_ = s.Reset()
	}
}

// identities comes with a new key, and goes, again and again.
func (a *attacker) identities(ctx context.Context) {
	var wg sync.WaitGroup
	for range 4 {
		rnd := newRand(a.rnd)
		wg.Go(func() {
			for ctx.Err() == nil {
				h, err := newHost(newKey(rnd))
				if err != nil {
					a.t.Error(err)
					return
				}
				if a.connect(ctx, h) {
					a.done.Add(1)
					_, _ = h.Request(ctx, a.to.ID, "/moot/peers/1", append(append([]byte{1}, frame([]byte(a.run.String()))...), 0), 1<<20)
				}
				h.Close()
			}
		})
	}
	wg.Wait()
}

// relays asks for a place at a relay, and to be brought to others.
func (a *attacker) relays(ctx context.Context) {
	reserve := frame(a.marshal(&circuitpb.HopMessage{Type: circuitpb.HopMessage_RESERVE.Enum()}))
	connect := frame(a.marshal(&circuitpb.HopMessage{Type: circuitpb.HopMessage_CONNECT.Enum(), Peer: &circuitpb.Peer{Id: []byte(a.to.ID), Addrs: [][]byte{a.bytes(20)}}}))
	stop := frame(a.marshal(&circuitpb.StopMessage{Type: circuitpb.StopMessage_CONNECT.Enum(), Peer: &circuitpb.Peer{Id: []byte(idOf(newKey(a.rnd)))}}))
	for ctx.Err() == nil {
		for p, b := range map[protocol.ID][]byte{circuit.ProtoIDv2Hop: append(reserve, connect...), circuit.ProtoIDv2Stop: stop} {
			if s := a.send(ctx, p, b); s != nil {
				_ = s.CloseWrite()
				_ = s.Reset()
			}
		}
		a.done.Add(1) // the node speaks neither, as long as it is not public
	}
}

// http opens connections to the local API and is slow, sends what is too large,
// names other hosts and paths, and has no token.
func (a *attacker) http(ctx context.Context, url string) {
	host := strings.TrimPrefix(url, "http://")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var open []net.Conn
			defer func() {
				for _, c := range open {
					c.Close()
				}
			}()
			c := http.Client{Timeout: 2 * time.Second}
			defer c.CloseIdleConnections()
			for k := i; ctx.Err() == nil; k++ {
				switch k % 4 {
				case 0:
					if n, err := net.DialTimeout("tcp", host, time.Second); err == nil {
						_, _ = fmt.Fprintf(n, "POST /api/v1/runs HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000000000\r\nX: %s", host, strings.Repeat("y", 1000))
						if open = append(open, n); len(open) > 200 {
							open[0].Close()
							open = open[1:]
						}
						a.done.Add(1)
					}
				default:
					path := []string{"/api/v1/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/api/v1/runs/" + strings.Repeat("a", 5000), "/api/v1/logs?limit=99999999999999999999"}[k%4]
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+path, io.LimitReader(zeros{}, 8<<20))
					if err != nil {
						continue
					}
					req.Header.Set("Authorization", "Bearer "+strings.Repeat("0", 64))
					req.Host = "evil.example"
					resp, err := c.Do(req)
					if err != nil {
						continue
					}
					_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
					resp.Body.Close()
					if resp.StatusCode < 400 {
						a.t.Errorf("%s of %s was answered with %s", path, req.Host, resp.Status)
					}
					a.done.Add(1)
				}
			}
		})
	}
	wg.Wait()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
