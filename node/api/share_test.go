package api_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
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

// endless is asked for its status, and answers when its context is done.
type endless struct {
	*apitest.Fake
	asked, ended chan struct{}
}

func (e endless) Status(ctx context.Context) (api.Status, error) {
	close(e.asked)
	<-ctx.Done()
	close(e.ended)
	return api.Status{}, ctx.Err()
}

// TestSharedGoesOn: an answer goes on being made when who asked first is gone, until
// it has taken too long.
func TestSharedGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := endless{apitest.New("node"), make(chan struct{}), make(chan struct{})}
		s := api.NewServer(e, api.Options{Token: token})
		asker, leave := context.WithCancel(t.Context())
		r := httptest.NewRequestWithContext(asker, "GET", "http://localhost/api/v1/status", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			s.ServeHTTP(httptest.NewRecorder(), r)
		}()
		<-e.asked
		leave()
		<-gone
		synctest.Wait() // all that its end ends has ended
		select {
		case <-e.ended:
			t.Error("it ended with who asked first")
		default:
		}
		<-e.ended
	})
}

// TestSharedEnds: an answer that nobody waits for ends with the server.
func TestSharedEnds(t *testing.T) {
	e := endless{apitest.New("node"), make(chan struct{}), make(chan struct{})}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	served := make(chan error, 1)
	go func() { served <- api.NewServer(e, api.Options{Token: token}).Serve(ctx, l) }()
	asker, leave := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(asker, "GET", "http://"+l.Addr().String()+"/api/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if resp, err := http.DefaultClient.Do(r); err == nil {
			resp.Body.Close()
			t.Errorf("who went away got %s", resp.Status)
		}
	}()
	<-e.asked
	leave()
	<-gone
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	select {
	case <-e.ended:
	default:
		t.Error("it goes on although the server has ended")
	}
}
