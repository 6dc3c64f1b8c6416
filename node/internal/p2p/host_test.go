package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

var loopback = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}

func newKey(t testing.TB) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newHost makes a host on loopback that closes with the test.
func newHost(t *testing.T, o Options) *Host {
	t.Helper()
	if o.Key == nil {
		o.Key = newKey(t)
	}
	if o.Listen == nil {
		o.Listen = loopback
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// start runs h until the test or the returned function ends it.
func start(t *testing.T, h *Host) (stop func()) {
	t.Helper()
	return background(t, h.Run)
}

func background(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run() = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited three minutes for: %s", what)
		}
	}
}

// safeLog is a log that a test can read while it is written.
type safeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *safeLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Each host knows only the address of the one before it.
func TestChainOfBootstrapAddressesFindsAll(t *testing.T) {
	t.Parallel()
	const n = 6
	hosts := make([]*Host, n)
	for i := range hosts {
		o := Options{}
		if i > 0 {
			o.Bootstrap = hosts[i-1].Addrs()[:1]
		}
		hosts[i] = newHost(t, o)
		start(t, hosts[i])
		background(t, func(ctx context.Context) error { return hosts[i].Rendezvous(ctx, "run") })
	}
	for i, h := range hosts {
		waitFor(t, fmt.Sprintf("host %d to have %d members", i, n-1), func() bool { return len(h.Members("run")) == n-1 })
	}
}

// A node that is in no run still tells the others of each other.
func TestBystanderIntroducesPeers(t *testing.T) {
	t.Parallel()
	bystander := newHost(t, Options{})
	start(t, bystander)
	var hosts []*Host
	for range 3 {
		h := newHost(t, Options{Bootstrap: bystander.Addrs()[:1]})
		start(t, h)
		background(t, func(ctx context.Context) error { return h.Rendezvous(ctx, "run") })
		hosts = append(hosts, h)
	}
	for i, h := range hosts {
		waitFor(t, fmt.Sprintf("host %d to meet the others", i), func() bool { return len(h.Members("run")) == 2 })
		for _, m := range h.Members("run") {
			if m == bystander.ID() {
				t.Errorf("host %d thinks the bystander is in the run", i)
			}
		}
	}
}

func TestMemberComesBack(t *testing.T) {
	t.Parallel()
	a := newHost(t, Options{})
	start(t, a)
	background(t, func(ctx context.Context) error { return a.Rendezvous(ctx, "run") })
	key := newKey(t)
	b := newHost(t, Options{Key: key, Bootstrap: a.Addrs()[:1], Listen: []string{"/ip4/" + ownLoopback(2) + "/tcp/0"}})
	stopB := start(t, b)
	stopMeet := background(t, func(ctx context.Context) error { return b.Rendezvous(ctx, "run") })
	waitFor(t, "a to know b", func() bool { return len(a.Members("run")) == 1 })
	addr := strings.TrimSuffix(b.Addrs()[0], "/p2p/"+b.ID().String())
	stopMeet()
	stopB()
	waitFor(t, "a to lose b", func() bool { return len(a.Members("run")) == 0 })
	// At its old address, and without knowing a's: a comes to it.
	newHost(t, Options{Key: key, Listen: []string{addr}})
	waitFor(t, "a to find b again", func() bool { return len(a.Members("run")) == 1 })
}

func TestRendezvousName(t *testing.T) {
	h := newHost(t, Options{})
	for _, name := range []string{"", strings.Repeat("x", 129)} {
		if err := h.Rendezvous(t.Context(), name); err == nil {
			t.Errorf("Rendezvous with a name of %d bytes gave no error", len(name))
		}
	}
}

func TestNodesOnOneMachineFindEachOther(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run", "moot")
	var hosts []*Host
	for range 4 {
		h := newHost(t, Options{LocalDiscovery: true, LocalFolder: dir})
		start(t, h)
		hosts = append(hosts, h)
	}
	for i, h := range hosts {
		waitFor(t, fmt.Sprintf("host %d to find the others", i), func() bool { return len(h.Peers()) == 3 })
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v (%v), want 0700", info.Mode(), err)
	}
}

func TestLocalDiscoveryCanBeOff(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "moot")
	on := newHost(t, Options{LocalDiscovery: true, LocalFolder: dir})
	off := newHost(t, Options{LocalDiscovery: false, LocalFolder: dir})
	start(t, on)
	start(t, off)
	waitFor(t, "the file of the node that tells", func() bool {
		_, err := os.Stat(filepath.Join(dir, on.ID().String()+localSuffix))
		return err == nil
	})
	if _, err := os.Stat(filepath.Join(dir, off.ID().String()+localSuffix)); err == nil {
		t.Error("a node with local discovery off left its address")
	}
}

// ownLoopback is an address of this machine of which, on Linux, no other test gets
// the ports: one that is closed stays free.
func ownLoopback(n int) string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.9.9.%d", n)
}

func TestDeadBootstrapPeer(t *testing.T) {
	t.Parallel()
	ip := ownLoopback(1)
	// A port that nobody listens on now.
	l, err := net.Listen("tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	key := newKey(t)
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("/ip4/%s/tcp/%d", ip, port)
	log := new(safeLog)
	h := newHost(t, Options{Bootstrap: []string{listen + "/p2p/" + id.String()}, Log: log.logger()})
	start(t, h)
	waitFor(t, "a warning", func() bool { return strings.Contains(log.String(), "bootstrap peer was not reached") })
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 1 {
		t.Errorf("want one line, got:\n%s", log)
	}
	// Who was faster to dial it, the DHT say, was refused, and then it is not dialled again at once.
	if !strings.Contains(lines[0], "connection refused") && !strings.Contains(lines[0], "dial backoff") {
		t.Errorf("the warning does not say why:\n%s", lines[0])
	}
	for _, want := range []string{listen, "level=WARN"} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("the warning does not say %q:\n%s", want, lines[0])
		}
	}
	// It comes up later.
	b := newHost(t, Options{Key: key, Listen: []string{listen}})
	waitFor(t, "the connection", func() bool { return h.connected(b.ID()) })
}

// TestBootstrapWait: who has no peer at all does not wait for a minute, whatever
// luck the random half brings.
func TestBootstrapWait(t *testing.T) {
	longest := time.Duration(0)
	for range 200 {
		if d := bootstrapWait(20, true); d > bootstrapAlone {
			t.Fatalf("alone it waits for %v, at most %v are meant", d, bootstrapAlone)
		}
		longest = max(longest, bootstrapWait(20, false))
	}
	if longest <= maxRedial/2 {
		t.Errorf("with other peers it waits for %v at most, want more than %v", longest, maxRedial/2)
	}
}

func TestPeersOfTheLastTime(t *testing.T) {
	t.Parallel()
	cache := filepath.Join(t.TempDir(), "peers.json")
	a := newHost(t, Options{})
	start(t, a)
	key := newKey(t)
	b := newHost(t, Options{Key: key, PeerCache: cache, Bootstrap: a.Addrs()[:1]})
	stop := start(t, b)
	waitFor(t, "b to remember a", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.seen[a.ID()] != nil
	})
	stop()
	waitFor(t, "a to lose b", func() bool { return !a.connected(b.ID()) })
	b = newHost(t, Options{Key: key, PeerCache: cache})
	start(t, b)
	waitFor(t, "b to come back", func() bool { return a.connected(b.ID()) })
}

func TestBadPeerCacheIsNoFailure(t *testing.T) {
	t.Parallel()
	cache := filepath.Join(t.TempDir(), "peers.json")
	if err := os.WriteFile(cache, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := new(safeLog)
	h := newHost(t, Options{PeerCache: cache, Log: log.logger()})
	stop := start(t, h)
	waitFor(t, "a warning", func() bool { return strings.Contains(log.String(), "peer cache was not read") })
	stop()
	if m, err := readCache(cache, time.Now()); err != nil || len(m) != 0 {
		t.Errorf("after the end the cache reads %v, %v; want none, nil", m, err)
	}
}

func TestPeersTellsOfConnections(t *testing.T) {
	t.Parallel()
	a := newHost(t, Options{Agent: "moot/a\x1b[31m"})
	b := newHost(t, Options{Agent: "moot/b"})
	start(t, a)
	start(t, b)
	waitFor(t, "a connection", func() bool { return b.Connect(t.Context(), a.Addrs()[0]) == nil })
	var p Peer
	waitFor(t, "agent and latency", func() bool {
		ps := b.Peers()
		if len(ps) != 1 {
			return false
		}
		p = ps[0]
		if p.Latency == 0 {
			_, _ = b.Ping(t.Context(), a.ID()) // asked again if it is lost
			return false
		}
		return p.Agent != ""
	})
	if p.ID != a.ID() || p.Agent != "moot/a[31m" || p.Inbound || p.Where != Loopback || p.Addr == "" || len(p.Addrs) == 0 {
		t.Errorf("Peers() = %+v", p)
	}
	waitFor(t, "a to see b", func() bool { ps := a.Peers(); return len(ps) == 1 && ps[0].Inbound })
}

func TestBlockedPeerStaysAway(t *testing.T) {
	t.Parallel()
	a, b := newHost(t, Options{}), newHost(t, Options{})
	waitFor(t, "a connection", func() bool { return b.Connect(t.Context(), a.Addrs()[0]) == nil })
	a.Block(b.ID(), "test", time.Hour)
	waitFor(t, "the connection to end", func() bool { return !a.connected(b.ID()) && !b.connected(a.ID()) })
	if err := a.Connect(t.Context(), b.Addrs()[0]); err == nil {
		t.Error("a dialled a peer that it blocked")
	}
	// The dial may seem to work until the other side has closed.
	_ = b.Connect(t.Context(), a.Addrs()[0])
	waitFor(t, "b to be refused", func() bool { return !b.connected(a.ID()) })
	if a.connected(b.ID()) {
		t.Error("a accepted a peer that it blocked")
	}
}

func TestProviders(t *testing.T) {
	t.Parallel()
	a := newHost(t, Options{})
	start(t, a)
	var hosts []*Host
	for range 2 {
		h := newHost(t, Options{Bootstrap: a.Addrs()[:1]})
		start(t, h)
		hosts = append(hosts, h)
	}
	c := cid.MustParse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
	if err := hosts[0].Provide(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the provider to be found with its addresses", func() bool {
		ais, err := hosts[1].FindProviders(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return len(ais) == 1 && ais[0].ID == hosts[0].ID()
	})
}

func TestTakenPort(t *testing.T) {
	t.Parallel()
	for _, addr := range loopback {
		a := newHost(t, Options{Listen: []string{addr}})
		taken := strings.TrimSuffix(a.Addrs()[0], "/p2p/"+a.ID().String())
		if h, err := New(Options{Key: newKey(t), Listen: []string{taken}}); err == nil {
			h.Close()
			t.Errorf("a second host listens on %s", taken)
		} else if !strings.Contains(err.Error(), taken) {
			t.Errorf("the error does not name %s: %v", taken, err)
		}
		b := newHost(t, Options{Listen: []string{taken}, AnyPort: true})
		if err := b.Connect(t.Context(), a.Addrs()[0]); err != nil {
			t.Errorf("with AnyPort: %v", err)
		}
	}
}

func TestOptions(t *testing.T) {
	k := newKey(t)
	for name, o := range map[string]Options{
		"no key":                    {},
		"bad listen address":        {Key: k, Listen: []string{"127.0.0.1:1"}},
		"bootstrap without id":      {Key: k, Bootstrap: []string{"/ip4/127.0.0.1/tcp/1"}},
		"bootstrap without address": {Key: k, Bootstrap: []string{"/p2p/12D3KooWGC6TvWhfagpX6wvJHWYvKpmMPMmyBjjaMxtQEjLpQ3Uu"}},
	} {
		if h, err := New(o); err == nil {
			h.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// Behind one address there are a household, or many customers of one carrier.
func TestManyConnectionsFromOneAddress(t *testing.T) {
	rm, err := newResourceManager()
	if err != nil {
		t.Fatal(err)
	}
	defer rm.Close()
	open := func(addr string, n int) (opened int) {
		for range n {
			s, err := rm.OpenConnection(network.DirInbound, true, multiaddr.StringCast(addr))
			if err != nil {
				return opened
			}
			defer s.Done()
			opened++
		}
		return opened
	}
	for addr, want := range map[string][2]int{
		"/ip4/198.51.100.7/tcp/4717": {32, maxConnsPerIPv4},
		"/ip6/2001:db9::7/tcp/4717":  {32, maxConnsPerIPv6},
		"/ip4/192.168.1.7/tcp/4717":  {32, 1 << 20},
		"/ip4/127.0.0.1/tcp/4717":    {32, 1 << 20},
	} {
		if n := open(addr, 2*maxConnsPerIPv4); n < want[0] || n > want[1] {
			t.Errorf("%d connections from %s, want %d to %d", n, addr, want[0], want[1])
		}
	}
}

func TestDialOrder(t *testing.T) {
	var addrs []multiaddr.Multiaddr
	for _, s := range []string{
		"/ip4/8.8.8.8/udp/1/quic-v1", "/ip4/8.8.8.8/tcp/1",
		"/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/192.168.1.2/tcp/1", "/ip4/127.0.0.1/tcp/1",
	} {
		addrs = append(addrs, multiaddr.StringCast(s))
	}
	delays := make(map[string]time.Duration)
	for _, d := range rankDials(addrs) {
		delays[d.Addr.String()] = d.Delay
	}
	if len(delays) != len(addrs) {
		t.Fatalf("%d addresses became %d", len(addrs), len(delays))
	}
	if delays["/ip4/192.168.1.2/tcp/1"] != 0 || delays["/ip4/127.0.0.1/tcp/1"] != 0 {
		t.Errorf("local TCP waits: %v", delays)
	}
	if delays["/ip4/192.168.1.2/udp/1/quic-v1"] == 0 || delays["/ip4/8.8.8.8/udp/1/quic-v1"] <= delays["/ip4/192.168.1.2/udp/1/quic-v1"] {
		t.Errorf("QUIC on the LAN comes after TCP there, and the internet last: %v", delays)
	}
	for _, d := range rankDials(addrs[:1]) {
		if d.Delay != 0 {
			t.Errorf("the only address waits %v", d.Delay)
		}
	}
}

func TestDialBook(t *testing.T) {
	var b dialBook
	p := peer.ID("p")
	if first, ok := b.begin(p); !first || !ok {
		t.Fatal("a new peer was not dialled")
	}
	if _, ok := b.begin(p); ok {
		t.Error("a peer was dialled twice at once")
	}
	b.end(p, false)
	if _, ok := b.begin(p); ok {
		t.Error("a peer was dialled again at once after a failure")
	}
	for i := range 2 * maxDialBook {
		q := peer.ID(fmt.Sprint(i))
		b.begin(q)
		b.end(q, false)
	}
	if len(b.peers) > maxDialBook {
		t.Errorf("%d peers are remembered, at most %d", len(b.peers), maxDialBook)
	}
	for n, d := 0, backoff(0); n < 100; n, d = n+1, backoff(n) {
		if d < minRedial/2 || d > maxRedial {
			t.Fatalf("backoff after %d failures is %v", n, d)
		}
	}
}

func TestGaterForgets(t *testing.T) {
	g := newGater()
	now := time.Unix(1e9, 0)
	g.now = func() time.Time { return now }
	g.block("p", time.Minute)
	g.block("p", time.Second) // the longer one holds
	now = now.Add(59 * time.Second)
	if !g.isBlocked("p") {
		t.Error("not blocked within the minute")
	}
	now = now.Add(2 * time.Second)
	if g.isBlocked("p") {
		t.Error("blocked after the minute")
	}
	for i := range maxBlocked + 10 {
		g.block(peer.ID(fmt.Sprint(i)), time.Hour+time.Duration(i)*time.Second)
	}
	if len(g.blocked) != maxBlocked || g.isBlocked("0") || !g.isBlocked(peer.ID(fmt.Sprint(maxBlocked+9))) {
		t.Error("a full list must drop the ban that ends first")
	}
}

func TestMeetingsAreBounded(t *testing.T) {
	h := newHost(t, Options{})
	for i := range 2 * maxMeetings {
		q := peersRequest{member: true, name: fmt.Sprint("run", i)}
		for j := range 3 * maxMembers {
			if i > 0 && j > 0 {
				break
			}
			h.answerPeers(peer.ID(fmt.Sprint(j)), q, nil)
		}
		if i == 0 && len(h.meetings["run0"].members) > maxMembers {
			t.Fatalf("%d members of one run", len(h.meetings["run0"].members))
		}
		if i == 0 && len(h.meetings["run0"].dropped) > 0 {
			t.Fatal("members are remembered that were forgotten, of a run that this node is not in")
		}
	}
	if len(h.meetings) > maxMeetings {
		t.Errorf("%d runs are remembered", len(h.meetings))
	}
}

// Who was a member of a run that this node leaves is not kept connected for it, also
// if it was forgotten a moment ago.
func TestLeaveLetsGo(t *testing.T) {
	h := newHost(t, Options{})
	m, err := h.enter("run")
	if err != nil {
		t.Fatal(err)
	}
	list := []peer.ID{"forgotten", "known"}
	for _, p := range list {
		h.host.ConnManager().Protect(p, "run run")
	}
	m.add("known", nil, nil, time.Now())
	m.dropped = append(m.dropped, "forgotten")
	h.leave("run", m)
	for _, p := range list {
		if h.host.ConnManager().IsProtected(p, "run run") {
			t.Errorf("%q is protected", string(p))
		}
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	h := newHost(t, Options{})
	id, err := peer.IDFromPrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	err = h.Connect(t.Context(), "/ip4/127.0.0.1/tcp/1/p2p/"+id.String())
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "/ip4/127.0.0.1/tcp/1") {
		t.Errorf("Connect() = %v", err)
	}
	if err := oneLine(errors.New("a\n  b")); err.Error() != "a b" {
		t.Errorf("oneLine = %q", err)
	}
}
