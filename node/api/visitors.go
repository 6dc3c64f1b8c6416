package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one address may do with a Public. A page that is loaded asks for about
// thirty files and ten questions, and one that is open for little more than one thing a second.
const (
	visitorConns  = 64 // and as many event streams, of which one connection may have many
	visitorRate   = 20 // requests a second, in the mean
	visitorBurst  = 300
	keptVisitors  = 10_000
	visitorForget = time.Minute
)

// visitors bounds what single addresses take of a Public. This machine is not
// bounded: a web server in front of the page is there, and says for whom it asks.
type visitors struct {
	mu sync.Mutex
	// guarded by mu
	list  map[netip.Addr]*visitor
	rest  visitor   // all for whom there is no room
	swept time.Time // when room was last looked for
}

type visitor struct {
	conns, streams int
	limit          *rate.Limiter
	seen           time.Time
}

func newVisitors() *visitors {
	return &visitors{list: make(map[netip.Addr]*visitor), rest: visitor{limit: newVisitorLimit()}}
}

func newVisitorLimit() *rate.Limiter { return rate.NewLimiter(visitorRate, visitorBurst) }

// visitorAddr is the address by which one is known, and whether it is bounded:
// with IPv6 everybody has a whole /64.
func visitorAddr(hostPort string) (netip.Addr, bool) {
	a, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}, true // of an unknown kind, all together
	}
	return prefixOf(a.Addr())
}

func prefixOf(a netip.Addr) (netip.Addr, bool) {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil && !a.IsLoopback() {
			return p.Addr(), true
		}
	}
	return a, !a.IsLoopback()
}

// of is called with mu held.
func (v *visitors) of(a netip.Addr, now time.Time) *visitor {
	e := v.list[a]
	if e == nil {
		if len(v.list) >= keptVisitors && now.Sub(v.swept) >= time.Second {
			v.swept = now
			for k, x := range v.list {
				if x.conns == 0 && x.streams == 0 && now.Sub(x.seen) > visitorForget {
					delete(v.list, k)
				}
			}
		}
		if len(v.list) >= keptVisitors {
			return &v.rest
		}
		e = &visitor{limit: newVisitorLimit()}
		v.list[a] = e
	}
	e.seen = now
	return e
}

// asker is the address that a request is from, and whether it is bounded.
func asker(r *http.Request) (netip.Addr, bool) {
	a, bounded := visitorAddr(r.RemoteAddr)
	given := r.Header.Values("X-Forwarded-For")
	if bounded || len(given) == 0 {
		return a, bounded
	}
	// The last name is the one that our own web server wrote, some with a port.
	names := strings.Split(given[len(given)-1], ",")
	name := strings.TrimSpace(names[len(names)-1])
	if real, err := netip.ParseAddr(name); err == nil {
		return prefixOf(real)
	}
	return visitorAddr(name)
}

// allow takes a request into account.
func (v *visitors) allow(r *http.Request) error {
	a, bounded := asker(r)
	if !bounded {
		return nil
	}
	now := time.Now()
	v.mu.Lock()
	e := v.of(a, now)
	v.mu.Unlock()
	if e.limit.AllowN(now, 1) {
		return nil
	}
	return tooMuch("this address asks too much: more than %d requests a second", visitorRate)
}

func tooMuch(format string, args ...any) error {
	err := Errorf(CodeRetry, format, args...).WithHint("try again in a moment")
	err.status = http.StatusTooManyRequests
	return err
}

// watch counts an event stream until end is called.
func (v *visitors) watch(r *http.Request) (end func(), err error) {
	a, bounded := asker(r)
	if !bounded {
		return func() {}, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.of(a, time.Now())
	if e.streams >= visitorConns {
		return nil, tooMuch("this address has %d event streams open already", visitorConns)
	}
	e.streams++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		e.streams--
	}, nil
}

// listener hands out connections, of one address no more than it may have.
func (v *visitors) listener(l net.Listener) net.Listener { return &visitorListener{l, v} }

type visitorListener struct {
	net.Listener
	v *visitors
}

// Accept implements net.Listener. What is too much is closed without a word.
func (l *visitorListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		a, bounded := visitorAddr(c.RemoteAddr().String())
		if !bounded {
			return c, nil
		}
		if end := l.v.enter(a); end != nil {
			return &visitorConn{Conn: c, end: sync.OnceFunc(end)}, nil
		}
		_ = c.Close()
	}
}

// enter counts a connection until end is called; nil if it is one too many.
func (v *visitors) enter(a netip.Addr) (end func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.of(a, time.Now())
	if e.conns >= visitorConns {
		return nil
	}
	e.conns++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		e.conns--
	}
}

type visitorConn struct {
	net.Conn
	end func()
}

// Close implements net.Conn.
func (c *visitorConn) Close() error {
	c.end()
	return c.Conn.Close()
}
