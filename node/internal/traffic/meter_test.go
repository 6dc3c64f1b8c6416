package traffic

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const mb = 1000_000

func newMeter(t *testing.T, o Options) *Meter {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sendAll sends n bytes in pieces and returns how long it took.
func sendAll(t *testing.T, m *Meter, p peer.ID, u Use, n int) time.Duration {
	t.Helper()
	begun := time.Now()
	for ; n > 0; n -= 64 << 10 {
		if err := m.Send(t.Context(), p, u, min(n, 64<<10)); err != nil {
			t.Error(err)
		}
	}
	return time.Since(begun)
}

func TestCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Options{Limits: Limits{UpMbit: 8}, Near: func(p peer.ID) bool { return p == "lan" }})
		if d := sendAll(t, m, "far", Seeding, 10*mb); d < 9800*time.Millisecond || d > 10*time.Second {
			t.Errorf("10 MB at 8 Mbit/s took %v, want 10 s less a burst", d)
		}
		if d := sendAll(t, m, "lan", Seeding, 10*mb); d != 0 {
			t.Errorf("10 MB on the LAN took %v", d)
		}
		begun := time.Now()
		for range 100 {
			if err := m.Receive(t.Context(), "far", Seeding, 64<<10); err != nil {
				t.Error(err)
			}
		}
		if d := time.Since(begun); d != 0 {
			t.Errorf("the other direction, which has no cap, took %v", d)
		}
		c := m.Usage().Start
		if c.Internet != [2][uses]uint64{{10 * mb, 0}, {100 * 64 << 10, 0}} || c.LAN != [2][uses]uint64{{10 * mb, 0}} {
			t.Errorf("counted %+v", c)
		}
	})
}

// While a delta is sent, models wait; then they have the line again.
func TestTrainingGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Options{Limits: Limits{UpMbit: 8}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for m.Send(ctx, "p", Seeding, 64<<10) == nil {
				}
			})
		}
		time.Sleep(10 * time.Second)
		before := m.Usage().Start.Internet[Out][Seeding]
		d := sendAll(t, m, "q", Training, 5*mb)
		seeded := m.Usage().Start.Internet[Out][Seeding] - before
		if d > 5500*time.Millisecond {
			t.Errorf("5 MB of training took %v beside 8 that seed, alone 5 s", d)
		}
		if seeded > 5*mb/10 {
			t.Errorf("%d bytes were seeded while 5 MB of training were sent", seeded)
		}
		before = m.Usage().Start.Internet[Out][Seeding]
		time.Sleep(10 * time.Second)
		if n := m.Usage().Start.Internet[Out][Seeding] - before; n < 9*mb || n > 11*mb {
			t.Errorf("afterwards %d bytes in 10 s, want 10 MB", n)
		}
		cancel()
		wg.Wait()
	})
}

// A new cap holds for who waits already.
func TestSetLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Options{Limits: Limits{UpMbit: 0.5}})
		time.AfterFunc(time.Second, func() {
			if err := m.SetLimits(Limits{}); err != nil {
				t.Error(err)
			}
		})
		if d := sendAll(t, m, "p", Seeding, 100*mb); d != time.Second {
			t.Errorf("it took %v, the cap was lifted after 1 s", d)
		}
		for _, l := range []Limits{{UpMbit: -1}, {DownMbit: 0.1}} {
			if err := m.SetLimits(l); err == nil {
				t.Errorf("%+v was accepted", l)
			}
		}
	})
}

func TestWaitEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMeter(t, Options{Limits: Limits{UpMbit: 0.5}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Send(ctx, "p", Training, 10*mb); err != nil {
			t.Fatal(err) // the first goes at once
		}
		if err := m.Send(ctx, "p", Training, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Send() = %v", err)
		}
		if m.up.urgent != 0 {
			t.Errorf("%d are said to wait", m.up.urgent)
		}
	})
}

func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "traffic.json")
		o := Options{Limits: Limits{MonthlyBytes: 100 * mb}, File: file, Near: func(p peer.ID) bool { return p == "lan" }}
		m := newMeter(t, o)
		sendAll(t, m, "far", Seeding, 80*mb)
		sendAll(t, m, "lan", Seeding, 500*mb)
		if err := m.Receive(t.Context(), "far", Seeding, 9*mb); err != nil {
			t.Fatal(err)
		}
		if !m.MaySend("far", Seeding) {
			t.Error("89 of 90 MB, and no more may be seeded")
		}
		err := m.Receive(t.Context(), "far", Seeding, mb)
		if !errors.Is(err, ErrQuota) || !strings.Contains(err.Error(), "90 of 100 MB") || !strings.Contains(err.Error(), "1 February") {
			t.Errorf("Receive() = %v", err)
		}
		if m.MaySend("far", Seeding) || !m.MaySend("lan", Seeding) || !m.MaySend("far", Training) || m.MayReceive(Training) != nil {
			t.Error("seeding over the internet should be over, and nothing else")
		}

		// The usage survives a restart.
		if err := m.save(); err != nil {
			t.Fatal(err)
		}
		m = newMeter(t, o)
		if got := m.Usage(); got.Month.total() != 90*mb || got.Start.total() != 0 {
			t.Errorf("after a restart %+v", got)
		}
		sendAll(t, m, "far", Training, 10*mb)
		if m.MaySend("far", Training) || !errors.Is(m.MayReceive(Training), ErrQuota) {
			t.Error("100 of 100 MB, and more may be sent")
		}
		// It begins anew with the month; time here begins with a year.
		time.Sleep(31*24*time.Hour + time.Second)
		if !m.MaySend("far", Seeding) || m.Usage().Month.total() != 0 {
			t.Errorf("in the new month %+v", m.Usage())
		}
	})
}

func TestDamagedFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "traffic.json")
	if err := os.WriteFile(file, []byte(`{"month": "20`), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMeter(t, Options{File: file})
	if m.Usage().Month.total() != 0 {
		t.Errorf("%+v", m.Usage())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Receive(ctx, "p", Training, 5); err != nil {
		t.Fatal(err)
	}
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := newMeter(t, Options{File: file}).Usage().Month.Internet[In][Training]; got != 5 {
		t.Errorf("%d bytes were kept, want 5", got)
	}
}

func TestNilMeter(t *testing.T) {
	var m *Meter
	if err := m.Send(t.Context(), "p", Seeding, 1); err != nil || !m.MaySend("p", Seeding) || m.MayReceive(Seeding) != nil || m.Receive(t.Context(), "p", Seeding, 1) != nil {
		t.Error("a nil meter bounds something")
	}
}

// evenHours is a schedule of every other hour.
type evenHours struct{}

func (evenHours) Active(t time.Time) bool { return t.Hour()%2 == 0 }

func (evenHours) Next(t time.Time) time.Time { return t.Truncate(time.Hour).Add(time.Hour) }

// Outside of its hours nothing is served but what training needs, and the LAN.
func TestHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Options{Limits: Limits{Hours: evenHours{}}, Near: func(p peer.ID) bool { return p == "near" }})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(time.Now().Truncate(2 * time.Hour).Add(2*time.Hour + 30*time.Minute)))
		open := time.Now().Hour()%2 == 0
		for range 4 {
			until := m.ClosedUntil()
			if until.IsZero() != open || !open && !until.Equal(time.Now().Add(30*time.Minute)) {
				t.Errorf("at %v: closed until %v", time.Now(), until)
			}
			if m.MaySend("far", Seeding) != open || !m.MaySend("far", Training) || !m.MaySend("near", Seeding) || m.MayReceive(Seeding) != nil {
				t.Errorf("at %v: %v, %v, %v, %v", time.Now(), m.MaySend("far", Seeding), m.MaySend("far", Training), m.MaySend("near", Seeding), m.MayReceive(Seeding))
			}
			time.Sleep(time.Hour)
			open = !open
		}
		if err := m.SetLimits(Limits{}); err != nil || !m.ClosedUntil().IsZero() || !m.MaySend("far", Seeding) {
			t.Errorf("without hours: %v, %v", m.ClosedUntil(), err)
		}
		if until := (*Meter)(nil).ClosedUntil(); !until.IsZero() {
			t.Errorf("without a meter: %v", until)
		}
	})
}

// What is carried for others is under the upload limit, and counts in both
// directions and for the quota.
func TestCarry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Options{Limits: Limits{UpMbit: 8, MonthlyBytes: 40e6}})
		if err != nil {
			t.Fatal(err)
		}
		begun, n := time.Now(), 0
		for ; n < 10e6; n += 50_000 {
			if !m.MayCarry() {
				t.Fatalf("refused after %d bytes", n)
			}
			if err := m.Carry(t.Context(), 50_000); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(begun); d < 9*time.Second || d > 11*time.Second {
			t.Errorf("10 MB at 1 MB/s took %v", d)
		}
		c := m.Usage().Start
		if c.Internet[In][Seeding] != uint64(n) || c.Internet[Out][Seeding] != uint64(n) {
			t.Errorf("counted %v", c.Internet)
		}
		for range n / 50_000 {
			if err := m.Carry(t.Context(), 50_000); err != nil {
				t.Fatal(err)
			}
		}
		if m.MayCarry() {
			t.Error("40 MB of 40 do not close it")
		}
	})
}
