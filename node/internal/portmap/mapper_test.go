package portmap

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"
)

// fakeRouter opens ports, each one higher than was asked for if others has it.
type fakeRouter struct {
	mu     sync.Mutex // of all
	addr   string
	open   map[port]uint16
	others map[uint16]bool
	asked  int
	off    bool
	refuse string // a protocol
}

var (
	errOff     = errors.New("it is off")
	errRefused = errors.New("not that protocol")
)

func (r *fakeRouter) String() string { return "a router" }

func (r *fakeRouter) External(context.Context) (netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		return netip.Addr{}, errOff
	}
	return netip.ParseAddr(r.addr)
}

func (r *fakeRouter) Open(_ context.Context, p port, wanted uint16, life time.Duration) (uint16, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off {
		return 0, errOff
	}
	if p.protocol == r.refuse {
		return 0, errRefused
	}
	if life < renewTime {
		return 0, errors.New("it closes before it is renewed")
	}
	r.asked++
	for r.others[wanted] {
		wanted++
	}
	r.open[p] = wanted
	return wanted, nil
}

func (r *fakeRouter) Close(_ context.Context, p port, external uint16) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off || r.open[p] != external {
		return errOff
	}
	delete(r.open, p)
	return nil
}

// seen is what is open, and how often that was asked for.
func (r *fakeRouter) seen() (open map[port]uint16, asked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.open), r.asked
}

// turn turns it on or off; then it has forgotten all.
func (r *fakeRouter) turn(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = !on
	clear(r.open)
}

// listening is a network that listens.
type listening struct {
	network.Network
	mu    sync.Mutex
	addrs []multiaddr.Multiaddr // guarded by mu
	tell  network.Notifiee
}

func (l *listening) ListenAddresses() []multiaddr.Multiaddr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.addrs
}

func (l *listening) change(to []multiaddr.Multiaddr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addrs = to
}

func (l *listening) Notify(n network.Notifiee) { l.tell = n }

func addrs(texts ...string) (out []multiaddr.Multiaddr) {
	for _, s := range texts {
		out = append(out, multiaddr.StringCast(s))
	}
	return out
}

var usual = addrs("/ip4/0.0.0.0/tcp/4717", "/ip4/0.0.0.0/udp/4717/quic-v1", "/ip4/127.0.0.1/tcp/9", "/ip6/::/tcp/4718")

// withMapper runs a mapper of a router in virtual time; find may be changed by body.
func withMapper(t *testing.T, r *fakeRouter, body func(t *testing.T, m *Mapper, l *listening, said *strings.Builder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var said strings.Builder
		m := New(slog.New(slog.NewTextHandler(&said, nil)))
		r.open = make(map[port]uint16)
		m.find = func(context.Context) ([]gateway, error) {
			if _, err := r.External(context.Background()); err != nil {
				return nil, err
			}
			return []gateway{r}, nil
		}
		l := &listening{addrs: usual}
		m.Manage(l)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		synctest.Wait()
		body(t, m, l, &said)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// pass lets time pass, and what begins at its end be done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func mapped(m *Mapper, a string) string {
	out := m.GetMapping(multiaddr.StringCast(a))
	if out == nil {
		return ""
	}
	return out.String()
}

// The ports that are listened on are opened, kept open, and closed when they are
// listened on no more, or the mapper ends.
func TestMapper(t *testing.T) {
	r := &fakeRouter{addr: "5.0.0.1", others: map[uint16]bool{4717: true}}
	withMapper(t, r, func(t *testing.T, m *Mapper, l *listening, _ *strings.Builder) {
		for a, want := range map[string]string{
			"/ip4/0.0.0.0/tcp/4717":             "/ip4/5.0.0.1/tcp/4718",
			"/ip4/192.168.1.5/udp/4717/quic-v1": "/ip4/5.0.0.1/udp/4718/quic-v1",
			"/ip4/0.0.0.0/tcp/4718":             "",
			"/ip4/127.0.0.1/tcp/4717":           "",
			"/ip6/::/tcp/4717":                  "",
			"/dns4/x/tcp/4717":                  "",
		} {
			if got := mapped(m, a); got != want {
				t.Errorf("GetMapping(%s) = %q, want %q", a, got, want)
			}
		}
		open, before := r.seen()
		if !m.HasDiscoveredNAT() || len(open) != 2 {
			t.Errorf("%v is open", open)
		}
		pass(lifetime)
		if _, now := r.seen(); (now-before)/2 < 3 {
			t.Errorf("renewed %d times in %v", (now-before)/2, lifetime)
		}
		// What others know stays as it is, though the port of choice is free again.
		r.mu.Lock()
		delete(r.others, 4717)
		r.mu.Unlock()
		pass(renewTime)
		if got := mapped(m, "/ip4/0.0.0.0/tcp/4717"); got != "/ip4/5.0.0.1/tcp/4718" {
			t.Errorf("it moved to %s", got)
		}
		l.change(usual[:1])
		l.tell.ListenClose(nil, nil)
		synctest.Wait()
		open, _ = r.seen()
		if ps := slices.Collect(maps.Keys(open)); !slices.Equal(ps, []port{{"tcp", 4717}}) {
			t.Errorf("%v are open, TCP alone is listened on", ps)
		}
	})
	if open, _ := r.seen(); len(open) != 0 {
		t.Errorf("%v is open when the mapper has ended", open)
	}
}

// A router that is turned on later, or off and on again, opens the ports then; why
// none does is told once.
func TestMapperTriesAgain(t *testing.T) {
	r := &fakeRouter{addr: "5.0.0.1", off: true}
	withMapper(t, r, func(t *testing.T, m *Mapper, _ *listening, said *strings.Builder) {
		pass(maxRetry)
		if n := strings.Count(said.String(), "no router opens ports"); n != 1 || !strings.Contains(said.String(), errOff.Error()) {
			t.Errorf("it said %d times why: %s", n, said)
		}
		r.turn(true)
		pass(maxRetry)
		if open, _ := r.seen(); len(open) != 2 || mapped(m, "/ip4/0.0.0.0/tcp/4717") == "" {
			t.Errorf("%v is open", open)
		}
		r.turn(false)
		pass(renewTime)
		if got := mapped(m, "/ip4/0.0.0.0/tcp/4717"); got != "" || m.HasDiscoveredNAT() {
			t.Errorf("%s leads to a router that is off", got)
		}
		r.turn(true)
		pass(2 * firstRetry)
		if open, _ := r.seen(); len(open) != 2 {
			t.Errorf("%v is open", open)
		}
	})
}

// What a router opens is used, renewed and closed though it refuses the other port,
// or refuses later what it had opened; this is said.
func TestMapperRefused(t *testing.T) {
	const tcp, udp = "/ip4/0.0.0.0/tcp/4717", "/ip4/0.0.0.0/udp/4717/quic-v1"
	for _, refuse := range []string{"tcp", "udp"} {
		r := &fakeRouter{addr: "5.0.0.1", refuse: refuse}
		withMapper(t, r, func(t *testing.T, m *Mapper, _ *listening, said *strings.Builder) {
			check := func(refused string) {
				t.Helper()
				open, _ := r.seen()
				got := map[string]bool{"tcp": mapped(m, tcp) != "", "udp": mapped(m, udp) != ""}
				for protocol := range got {
					_, there := open[port{protocol, 4717}]
					if want := protocol != refused; got[protocol] != want || there != want {
						t.Errorf("%s: it leads here: %v, it is open: %v, want %v", protocol, got[protocol], there, want)
					}
				}
			}
			change := func(to string) {
				r.mu.Lock()
				r.refuse = to
				r.mu.Unlock()
				pass(renewTime)
			}
			check(refuse)
			pass(lifetime)
			if n := strings.Count(said.String(), errRefused.Error()); n != 1 || strings.Contains(said.String(), "invalid") {
				t.Errorf("it said %d times why: %s", n, said)
			}
			change("")
			check("")
			change(refuse)
			check(refuse)
		})
		if open, _ := r.seen(); len(open) != 0 {
			t.Errorf("%v is open when the mapper has ended", open)
		}
	}
}

// A router behind another one opens nothing to the internet, and this is said.
func TestMapperBehindAnother(t *testing.T) {
	for _, addr := range []string{"192.168.0.7", "10.1.2.3", "100.64.0.1", "0.0.0.0"} {
		r := &fakeRouter{addr: addr}
		withMapper(t, r, func(t *testing.T, m *Mapper, _ *listening, said *strings.Builder) {
			open, _ := r.seen()
			if got := mapped(m, "/ip4/0.0.0.0/tcp/4717"); got != "" || len(open) != 0 {
				t.Errorf("%s: %q, %v is open", addr, got, open)
			}
			if !strings.Contains(said.String(), "has the address "+addr+" itself") {
				t.Errorf("it said %s", said)
			}
		})
	}
}
