package api_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// counted counts how often it is asked for its status, which takes a second.
type counted struct {
	*apitest.Fake
	asked atomic.Int64
}

func (c *counted) Status(ctx context.Context) (api.Status, error) {
	n := c.asked.Add(1)
	s, err := c.Fake.Status(ctx)
	time.Sleep(time.Second)
	s.Peers = int(n)
	return s, err
}

// TestShared: many who ask the same at once are answered together, and nobody
// with what was found out before it asked.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counted{Fake: apitest.New("node")}
		s := api.NewServer(c, api.Options{Token: token})
		answers := make(chan string, 300)
		status := func() { answers <- ask(t, s, "GET", "/api/v1/status", "").Body.String() }
		go status()
		synctest.Wait()
		for range 200 { // while the first is answered
			go status()
		}
		synctest.Wait()
		seen := map[string]int{}
		for range 201 {
			seen[<-answers]++
		}
		if c.asked.Load() != 2 || len(seen) != 2 {
			t.Errorf("200 askers during an answer made %d of them, %d different, want 2", c.asked.Load(), len(seen))
		}
		for a, n := range seen {
			if n != 1 && n != 200 {
				t.Errorf("%d askers got %.60s", n, a)
			}
		}
		go status()
		<-answers
		if c.asked.Load() != 3 {
			t.Errorf("an answer was kept: %d were made", c.asked.Load())
		}
	})
}
