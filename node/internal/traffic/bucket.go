package traffic

import (
	"context"
	"sync"
	"time"
)

const (
	// burst is how much may go at once after a pause. Two pieces of 64 KiB
	// keep a line busy; more would be felt by who shares it.
	burst   = 128 << 10
	minWait = 2 * time.Millisecond
)

// bucket is a rate with two ranks: while somebody waits for Training, nobody
// gets anything for Seeding. The zero value is no limit.
type bucket struct {
	mu     sync.Mutex
	rate   float64 // guarded by mu: bytes per second; 0: no limit
	left   float64 // guarded by mu: bytes; below 0 after one that was larger
	at     time.Time
	urgent int           // guarded by mu: those who wait for Training
	turned chan struct{} // guarded by mu: closed when the rate changes
}

func (b *bucket) set(rate float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rate, b.left, b.at = rate, burst, time.Now()
	if b.turned != nil {
		close(b.turned)
	}
	b.turned = make(chan struct{})
}

// take waits until n bytes may go.
func (b *bucket) take(ctx context.Context, u Use, n int) error {
	waits := false
	defer func() {
		if waits && u == Training {
			b.mu.Lock()
			b.urgent--
			b.mu.Unlock()
		}
	}()
	for {
		d, turned := b.try(u, n)
		if d == 0 {
			return nil
		}
		if !waits && u == Training {
			b.mu.Lock()
			b.urgent++
			b.mu.Unlock()
		}
		waits = true
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-turned:
			t.Stop()
		case <-t.C:
		}
	}
}

// try takes n bytes and returns 0, or says after what time to try again.
func (b *bucket) try(u Use, n int) (time.Duration, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rate == 0 {
		return 0, nil
	}
	now := time.Now()
	b.left = min(b.left+b.rate*now.Sub(b.at).Seconds(), burst)
	b.at = now
	if b.left > 0 && (u == Training || b.urgent == 0) {
		b.left -= float64(n)
		return 0, nil
	}
	d := time.Duration(-b.left / b.rate * float64(time.Second))
	return max(d, minWait), b.turned
}
