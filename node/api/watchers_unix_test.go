//go:build unix

package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

// The pace of the run that is watched: a round of four seats in 15 s, as in the
// demo, with all its events.
const (
	watchedRound = 15 * time.Second
	watchedSeats = 4
)

// TestMain lets a test be the daemon whose processor time is measured.
func TestMain(m *testing.M) {
	if os.Getenv("MOOT_TEST_WATCHED") != "" {
		watched()
		return
	}
	os.Exit(m.Run())
}

// watched is a daemon whose run goes on. It prints its address, and what it
// used of the processor whenever a line comes.
func watched() {
	f := apitest.New("node")
	d := apitest.Detail("demo", apitest.PeerID("node"))
	var peers []string
	for i := range watchedSeats {
		p := apitest.PeerID(fmt.Sprint(i))
		peers = append(peers, p)
		d.NextSeats = append(d.NextSeats, api.Seat{Peer: p})
		d.Members = append(d.Members, api.Member{Peer: p, Phase: "train", Agent: "moot/test", Device: "cpu (2 threads)", TokensPerSecond: 1000})
	}
	f.AddRun(d)
	for n := range uint64(100) {
		f.Decide(d.ID, apitest.DecidedRound("demo", n+1, false, peers...))
	}
	f.Log = api.NewEventLog(1000) // of the rounds so far nothing is replayed
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	ctx, stop := context.WithCancel(context.Background())
	begin := make(chan struct{}) // closed by the first line: nothing is there to be replayed before
	go func() {
		for in, first := bufio.NewScanner(os.Stdin), true; in.Scan(); first = false {
			if first {
				close(begin)
			}
			var u syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
				panic(err)
			}
			fmt.Println(time.Duration(u.Utime.Nano() + u.Stime.Nano()).Microseconds())
		}
		stop()
	}()
	pace, _ := strconv.ParseFloat(os.Getenv("MOOT_TEST_WATCHED"), 64)
	go func() {
		<-begin
		phases := []string{"train", "exchange", "vote"}
		events := len(phases) + watchedSeats + 2
		tick := time.NewTicker(time.Duration(float64(watchedRound) / float64(events) / pace))
		defer tick.Stop()
		for n := uint64(101); ; n++ {
			for i := range events {
				<-tick.C
				switch {
				case i == 0 || i > watchedSeats && i < events-2:
					f.Log.Publish(api.Event{Type: api.EventPhase, Run: d.ID, N: n, Phase: phases[i%len(phases)]})
				case i <= watchedSeats:
					f.Log.Publish(api.Event{Type: api.EventCommit, Run: d.ID, N: n, Peer: peers[i-1], Tokens: 4096})
				case i == events-2:
					f.Decide(d.ID, apitest.DecidedRound("demo", n, false, peers...))
				default:
					f.Log.Publish(api.Event{Type: api.EventEval, Run: d.ID, N: n})
				}
			}
		}
	}()
	if err := api.NewServer(f, api.Options{Token: token}).Serve(ctx, l); err != nil {
		panic(err)
	}
}

// TestWatchersCost measures what dashboards cost a daemon: MOOT_WATCHERS pages
// (200, say) follow the events and ask again after them, as the page does; the
// processor time that the daemon takes for them is what training loses.
func TestWatchersCost(t *testing.T) {
	n, seconds, pace := 20, 3, watchedRound.Seconds()/3
	if s := os.Getenv("MOOT_WATCHERS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		seconds, pace = 2*int(watchedRound.Seconds()), 1
	} else if testing.Short() { // the race detector looks at what pages share
		n, seconds = 10, 1
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("MOOT_TEST_WATCHED=%g", pace))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the daemon says nothing")
	}
	url := "http://" + lines.Text()
	used := func() time.Duration {
		if _, err := io.WriteString(in, "\n"); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() {
			t.Fatal("the daemon is gone")
		}
		us, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration(us) * time.Microsecond
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var seen, asked atomic.Int64
	open := make(chan struct{}, n)
	for range n {
		wg.Go(func() { pageLike(ctx, t, url, open, &seen, &asked) })
	}
	for range n {
		<-open
	}
	if got := seen.Load(); got > 0 {
		t.Errorf("%d events before anything happened", got)
	}
	alone := measured(used, time.Duration(seconds)*time.Second)
	t.Logf("%d pages: the daemon used %.2f %% of a processor, %.2f %% of this machine's %d; %d events seen, %d questions",
		n, 100*alone, 100*alone/float64(runtime.NumCPU()), runtime.NumCPU(), seen.Load(), asked.Load())
	if most := 0.02 * float64(runtime.NumCPU()); n == 200 && alone > most {
		t.Errorf("200 pages take more than 2 %% of this machine")
	}
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) && (seen.Load() < int64(n) || asked.Load() < int64(n)); {
		time.Sleep(10 * time.Millisecond) // a machine that is busy
	}
	cancel()
	wg.Wait()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if seen.Load() < int64(n) || asked.Load() < int64(n) {
		t.Errorf("%d pages saw %d events and asked %d questions", n, seen.Load(), asked.Load())
	}
}

// measured is the share of a processor that is used for some time.
func measured(used func() time.Duration, d time.Duration) float64 {
	before, began := used(), time.Now()
	time.Sleep(d)
	return float64(used()-before) / float64(time.Since(began))
}

// pageLike does what the page of a run does: it follows the events, and asks
// for the run again after one, at most once a second, and each 10 s anyhow; with
// a new round, also for what each peer did, for coverage and who is online.
func pageLike(ctx context.Context, t *testing.T, url string, open chan<- struct{}, seen, asked *atomic.Int64) {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, DisableCompression: true}}
	defer c.CloseIdleConnections()
	request := func(path, accept string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, "GET", url+path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Accept", accept)
		return c.Do(r)
	}
	resp, err := request("/api/v1/events", "text/event-stream")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("events: %v, %v", resp, err)
		open <- struct{}{}
		return
	}
	defer resp.Body.Close()
	touched := make(chan struct{}, 1)
	go func() {
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "data:") {
				seen.Add(1)
				select {
				case touched <- struct{}{}:
				default:
				}
			}
		}
	}()
	open <- struct{}{}
	ask := func(path string, v any) bool {
		asked.Add(1)
		answer, err := request(path, "*/*")
		if err == nil {
			defer answer.Body.Close()
			err = json.NewDecoder(answer.Body).Decode(v)
		}
		if err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", path, err)
		}
		return err == nil
	}
	for round := uint64(0); ; {
		select {
		case <-touched:
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return
		}
		path := "/api/v1/runs/" + apitest.ID("demo")
		var run struct{ Round uint64 }
		if !ask(path, &run) {
			return
		}
		if run.Round != round {
			round = run.Round
			for _, more := range []string{"/peers", "/coverage", "/online"} {
				ask(path+more, new(struct{}))
			}
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}
