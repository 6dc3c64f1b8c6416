package runner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateEndsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		ctx, cancel := g.whileOpen(t.Context())
		defer cancel()
		g.Set(true, 50) // another duty ends nothing
		synctest.Wait()
		if ctx.Err() != nil {
			t.Fatal("work ended while the gate was open")
		}
		g.Set(false, 50)
		synctest.Wait()
		if ctx.Err() == nil {
			t.Fatal("work goes on though the gate is closed")
		}
		open, changed := g.state()
		if open {
			t.Fatal("the gate is open")
		}
		late, stop := g.whileOpen(t.Context())
		defer stop()
		synctest.Wait()
		if late.Err() == nil {
			t.Error("work begins though the gate is closed")
		}
		g.Set(true, 50)
		<-changed
		if open, _ := g.state(); !open {
			t.Error("the gate stays closed")
		}
	})
}

func TestGateDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g Gate
		ctx, cancel := g.whileOpen(t.Context())
		defer cancel()
		_, changed := g.state()
		g.Drain(true)
		<-changed
		synctest.Wait()
		if open, _ := g.state(); !open || ctx.Err() != nil || !g.Draining() {
			t.Error("draining ended what was under way")
		}
		g.Drain(false)
		if g.Draining() {
			t.Error("it drains for ever")
		}
	})
}

func TestGateRestsAfterWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for duty, want := range map[int]time.Duration{0: 0, 100: 0, 50: 3 * time.Second, 75: time.Second, 10: 27 * time.Second} {
			var g Gate
			g.Set(true, duty)
			began := time.Now()
			g.rest(t.Context(), nil, 3*time.Second)
			if got := time.Since(began); got != want {
				t.Errorf("%d %%: rests for %v, want %v", duty, got, want)
			}
		}
		var g Gate
		g.Set(true, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		g.rest(ctx, nil, time.Hour)
		ending := make(chan struct{})
		close(ending)
		g.rest(t.Context(), ending, time.Hour)
		if got := time.Since(began); got != time.Second {
			t.Errorf("a rest was not broken off: %v", got)
		}
	})
}
