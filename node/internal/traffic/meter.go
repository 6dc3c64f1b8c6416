package traffic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Use is what bytes are for.
type Use int

// The uses.
const (
	Seeding  Use = iota // models and data sets
	Training            // deltas and states
	uses
)

func (u Use) String() string {
	if u == Training {
		return "training"
	}
	return "seeding"
}

// ErrQuota is wrapped when the month's quota is used up.
var ErrQuota = errors.New("monthly quota is used up")

// seedingShare of the quota may be used for models and data sets; the rest is for
// deltas and states, without which this node could not go on.
const seedingShare = 0.9

// Limits are what a node may send and receive over the internet. Zero is no limit.
type Limits struct {
	UpMbit       float64 // 1e6 bits per second
	DownMbit     float64
	MonthlyBytes uint64 // both directions together, in a calendar month of UTC
	// Hours are those in which models and data sets are served, and pulls of them
	// begin. Nil: always.
	Hours Hours
}

// Hours are times of a week.
type Hours interface {
	Active(t time.Time) bool
	// Next is when Active is next another one.
	Next(t time.Time) time.Time
}

// Validate says which limit makes no sense.
func (l Limits) Validate() error {
	for name, v := range map[string]float64{"upload limit": l.UpMbit, "download limit": l.DownMbit} {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v Mbit/s, must be 0 or more", name, v)
		}
		if v > 0 && v < 0.5 {
			return fmt.Errorf("%s is %v Mbit/s, must be at least 0.5, or 0 for none", name, v)
		}
	}
	return nil
}

// Options configure a [Meter]; all are optional.
type Options struct {
	Limits Limits

	// Near says whether a peer is on this machine or the LAN. It is called
	// often and must not block. Default: none is.
	Near func(peer.ID) bool

	// File is where the month's usage is kept over restarts. Default: it is
	// forgotten.
	File string

	// Log is where it is told what happened. Default: nowhere.
	Log *slog.Logger
}

// Meter bounds and counts. A nil *Meter bounds and counts nothing.
type Meter struct {
	// constant after New
	opt Options
	log *slog.Logger

	up, down bucket

	mu      sync.Mutex
	limits  Limits        // guarded by mu
	changed chan struct{} // guarded by mu: closed when limits are other ones
	since   Count         // guarded by mu: since New
	month   usage         // guarded by mu: of the month that month.Month names
	until   time.Time     // guarded by mu: the end of that month
	dirty   bool          // guarded by mu: the file is not up to date
	refused bool          // guarded by mu: it was told that the quota is used up
}

// New makes a meter and reads what was used in this month.
func New(o Options) (*Meter, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Near == nil {
		o.Near = func(peer.ID) bool { return false }
	}
	m := &Meter{opt: o, log: o.Log.With("component", "traffic"), changed: make(chan struct{})}
	if err := m.SetLimits(o.Limits); err != nil {
		return nil, fmt.Errorf("traffic: %w", err)
	}
	m.load()
	return m, nil
}

// SetLimits changes the limits, also while bytes travel.
func (m *Meter) SetLimits(l Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	m.limits, m.refused = l, false
	close(m.changed)
	m.changed = make(chan struct{})
	m.mu.Unlock()
	m.up.set(l.UpMbit * 1e6 / 8)
	m.down.set(l.DownMbit * 1e6 / 8)
	return nil
}

// MaySend says whether quota and hours let anything be sent to p.
func (m *Meter) MaySend(p peer.ID, u Use) bool {
	return m == nil || m.opt.Near(p) || m.allowed(u) == nil && (u != Seeding || m.ClosedUntil().IsZero())
}

// ClosedUntil is until when no pull of models and data sets may begin, the zero
// time if one may. What was begun is ended.
func (m *Meter) ClosedUntil() time.Time {
	if m == nil {
		return time.Time{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.limits.Hours == nil || m.limits.Hours.Active(now) {
		return time.Time{}
	}
	if next := m.limits.Hours.Next(now); !next.IsZero() {
		return next
	}
	return now.Add(7 * 24 * time.Hour) // it never is open; it may be changed
}

// openInterval is how often WaitOpen asks unless.
const openInterval = time.Second

// WaitOpen waits until a pull of models and data sets may begin, or unless says
// that it is not concerned. tell is called with until when it waits.
func (m *Meter) WaitOpen(ctx context.Context, tell func(until time.Time), unless func() bool) error {
	for {
		until := m.ClosedUntil()
		if until.IsZero() || unless() {
			return nil
		}
		m.mu.Lock()
		changed := m.changed
		m.mu.Unlock()
		tell(until)
		t := time.NewTimer(min(time.Until(until), openInterval))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-t.C:
		}
		t.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// MayReceive says why the quota lets nothing come from the internet, or returns
// nil. The error wraps [ErrQuota].
func (m *Meter) MayReceive(u Use) error {
	if m == nil {
		return nil
	}
	return m.allowed(u)
}

// Send waits until n bytes may be sent to p, and counts them. Bytes for training
// go before others. n should be small, such as 64 KiB. The error is that of ctx;
// the quota is not looked at, for what was begun is ended.
func (m *Meter) Send(ctx context.Context, p peer.ID, u Use, n int) error {
	if m == nil {
		return nil
	}
	if m.opt.Near(p) {
		m.count(Out, u, n, true)
		return nil
	}
	if err := m.up.take(ctx, u, n); err != nil {
		return err
	}
	m.count(Out, u, n, false)
	return nil
}

// Receive counts n bytes that came from p, and waits until the next may come. An
// error that wraps [ErrQuota] says that none may.
func (m *Meter) Receive(ctx context.Context, p peer.ID, u Use, n int) error {
	if m == nil {
		return nil
	}
	near := m.opt.Near(p)
	m.count(In, u, n, near)
	if near {
		return nil
	}
	if err := m.allowed(u); err != nil {
		return err
	}
	return m.down.take(ctx, u, n)
}

// MayCarry says whether the quota lets this node carry models and data sets between
// others.
func (m *Meter) MayCarry() bool { return m == nil || m.allowed(Seeding) == nil }

// Carry waits until n bytes may be sent that came from one peer for another, and
// counts them in both directions.
func (m *Meter) Carry(ctx context.Context, n int) error {
	if m == nil {
		return nil
	}
	m.count(In, Seeding, n, false)
	if err := m.up.take(ctx, Seeding, n); err != nil {
		return err
	}
	m.count(Out, Seeding, n, false)
	return nil
}

// allowed looks at the quota.
func (m *Meter) allowed(u Use) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(time.Now())
	quota := m.limits.MonthlyBytes
	if quota == 0 {
		return nil
	}
	limit := quota
	if u == Seeding {
		limit = uint64(float64(quota) * seedingShare)
	}
	if used := m.month.Count.total(); used >= limit {
		first := nextMonth(m.month.Month)
		if !m.refused {
			m.refused = true
			m.log.Warn("monthly quota is used up", "use", u.String(), "bytes", used, "quota", quota, "until", first)
		}
		return fmt.Errorf("%w: %d of %d MB, of which %s may use %d; it begins anew on %s",
			ErrQuota, used/1e6, quota/1e6, u, limit/1e6, first.Format("2 January"))
	}
	return nil
}

// Direction is the way that bytes go.
type Direction int

// The directions.
const (
	Out Direction = iota
	In
)

// Count is bytes by direction and use, over the internet and on the LAN.
type Count struct {
	Internet [2][uses]uint64 // [Direction][Use]
	LAN      [2][uses]uint64 // with those that stay on this machine
}

func (c Count) total() (n uint64) {
	for _, d := range c.Internet {
		for _, v := range d {
			n += v
		}
	}
	return n
}

func (m *Meter) count(d Direction, u Use, n int, near bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(time.Now())
	for _, c := range []*Count{&m.since, &m.month.Count} {
		to := &c.Internet
		if near {
			to = &c.LAN
		}
		to[d][u] += uint64(n)
	}
	m.dirty = true
}

// Usage is what was counted.
type Usage struct {
	Start Count // since the node started
	Month Count // in this calendar month
	Quota uint64
}

// Usage says what was counted.
func (m *Meter) Usage() Usage {
	if m == nil {
		return Usage{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(time.Now())
	return Usage{Start: m.since, Month: m.month.Count, Quota: m.limits.MonthlyBytes}
}
