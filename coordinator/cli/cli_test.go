package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/moot-net/moot/coordinator/cli/demo/demotest"
	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"moot": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			defer stop()
			os.Exit(Main(ctx, os.Args[1:], os.Stdout, os.Stderr))
		},
		"mootd": demotest.Daemon,
	})
}

// TestScripts runs the transcripts in testdata/script. In them:
//
//	daemon               starts a fake daemon with data folder data
//	daemon stop          ends it; its api.json stays, as after a crash
//	launched NAME        makes a run known that this node launched
//	decide NAME N [final [provisional]]
//	                     ends round N of a run
//	event TYPE NAME TEXT publishes an event of a run
//	watching             waits until a command watches events
//	fail CODE TEXT       makes the daemon's next method fail
//	world                starts a world for the daemons of a demo
//	judge                starts a judge at $JUDGE, which wants the key "key"
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("MOOT_DATA_DIR", filepath.Join(e.WorkDir, "data"))
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", os.Getenv("GORACE")) // else each command sleeps for a second at its end, with the race detector
			e.Setenv("RUN", apitest.ID("demo"))
			e.Setenv("MODEL", apitest.DirID("tiny"))
			e.Setenv("DATA", apitest.DirID("rows.jsonl"))
			e.Setenv("PEER", apitest.PeerID("node"))
			for _, name := range []string{"fits", "large", "fat"} {
				e.Setenv(strings.ToUpper(name), apitest.ID(name))
			}
			e.Values[fakeKey{}] = &fakeDaemon{dir: filepath.Join(e.WorkDir, "data"), watched: make(chan struct{}, 100)}
			return os.MkdirAll(filepath.Join(e.WorkDir, ".tmp"), 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				f := fake(ts)
				if len(args) == 1 && args[0] == "stop" {
					f.stop()
					return
				}
				ts.Check(f.start())
				ts.Defer(f.stop)
			},
			"launched": func(ts *testscript.TestScript, _ bool, args []string) {
				fake(ts).AddRun(apitest.Detail(args[0], apitest.PeerID("node")))
			},
			"decide": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.ParseUint(args[1], 10, 64)
				ts.Check(err)
				r := apitest.DecidedRound(args[0], n, slices.Contains(args, "final"), apitest.PeerID("node"), apitest.PeerID("other"))
				if slices.Contains(args, "provisional") {
					r.Certified, r.Votes = false, 1
					r.Refused = []api.Refusal{{Peer: apitest.PeerID("slow"), Reason: "timeout"}}
					r.Joined, r.Left = []string{apitest.PeerID("late")}, []string{apitest.PeerID("slow")}
				}
				fake(ts).Decide(apitest.ID(args[0]), r)
			},
			"event": func(ts *testscript.TestScript, _ bool, args []string) {
				e := api.Event{Type: api.EventType(args[0]), Run: apitest.ID(args[1]), Time: apitest.Epoch, Text: args[2], N: 1, Loss: new(1.25), Peer: apitest.PeerID("other")}
				fake(ts).Log.Publish(e)
			},
			"fail": func(ts *testscript.TestScript, _ bool, args []string) {
				fake(ts).fail(api.Errorf(api.Code(args[0]), "%s", args[1]).WithHint("%s", args[2]))
			},
			"world": func(ts *testscript.TestScript, _ bool, _ []string) {
				addr, stop, err := demotest.NewWorld(0)
				ts.Check(err)
				ts.Defer(stop)
				ts.Setenv(demotest.WorldEnv, addr)
			},
			"judge": func(ts *testscript.TestScript, _ bool, _ []string) {
				s := httptest.NewServer(http.HandlerFunc(serveJudge))
				ts.Defer(s.Close)
				ts.Setenv("JUDGE", s.URL+"/v1")
				ts.Setenv("JUDGE_HOST", strings.TrimPrefix(s.URL, "http://"))
			},
			"watching": func(ts *testscript.TestScript, _ bool, _ []string) {
				select {
				case <-fake(ts).watched:
				case <-time.After(2 * time.Minute):
					ts.Fatalf("nobody watches after two minutes")
				}
			},
			"exits": exits,
			"quiet": quiet,
		},
	})
}

// serveJudge is a judge that gives 9 points to an answer that says so, and 6 to
// others.
func serveJudge(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer key" {
		http.Error(w, `{"error":{"message":"who are you?"}}`, http.StatusUnauthorized)
		return
	}
	var q struct{ Messages []struct{ Content string } }
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q.Messages) != 2 {
		http.Error(w, "what?", http.StatusBadRequest)
		return
	}
	_, answers, _ := strings.Cut(q.Messages[1].Content, "--- answer 1 ")
	first, second, _ := strings.Cut(answers, "--- answer 2 ")
	points := func(s string) int {
		if strings.Contains(s, "The answer to") {
			return 9
		}
		return 6
	}
	fmt.Fprintf(w, `{"choices":[{"message":{"content":"%d %d"}}],"usage":{"prompt_tokens":300,"completion_tokens":20}}`, points(first), points(second))
}

// exits runs moot and checks its exit code, which exec cannot: exits 4 moot status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if x, ok := err.(interface{ ExitCode() int }); ok {
		code = x.ExitCode()
	} else if err != nil {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("%q ended with %d, want %s", args[1:], code, args[0])
	}
}

// quiet checks that there is nothing on stderr but how far something is, which a
// machine that is busy for some seconds has time to show.
func quiet(ts *testscript.TestScript, _ bool, _ []string) {
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !progressLine.MatchString(line) {
			ts.Fatalf("on stderr: %s", line)
		}
	}
}

// progressLine is a name, and what is said about it.
var progressLine = regexp.MustCompile(`^[a-z]+(?: [0-9a-z]+)*  \S`)

// fakeDaemon is the daemon of a script.
type fakeDaemon struct {
	*apitest.Fake
	dir string

	mu  sync.Mutex
	err error
	end context.CancelFunc

	watched chan struct{} // gets a token for each watcher
	done    chan struct{}
}

// noPID is the ID of no process.
const noPID = 1 << 30

type fakeKey struct{}

func fake(ts *testscript.TestScript) *fakeDaemon { return ts.Value(fakeKey{}).(*fakeDaemon) }

func (f *fakeDaemon) start() error {
	f.Fake = apitest.New("node")
	f.Err = func(method string) error {
		if method == "Watch" {
			f.watched <- struct{}{}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		err := f.err
		f.err = nil
		return err
	}
	f.AddPeer(api.Peer{ID: apitest.PeerID("other"), Addr: "/ip4/127.0.0.1/tcp/4001", Where: "loopback", Direction: "out", RTTMillis: 1.5, Runs: []string{"x"}, Device: "cuda:0 (RTX 3060)"})
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	token, err := api.NewToken(f.dir)
	if err != nil {
		return err
	}
	readToken, err := api.NewReadToken(f.dir)
	if err != nil {
		return err
	}
	if err := api.WriteEndpoint(f.dir, api.Endpoint{URL: "http://" + l.Addr().String(), PID: noPID}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.OnShutdown = cancel
	f.end, f.done = cancel, make(chan struct{})
	go func() {
		defer close(f.done)
		_ = api.NewServer(f.Fake, api.Options{Token: token, ReadToken: readToken}).Serve(ctx, l) // clients see it
	}()
	return nil
}

func (f *fakeDaemon) stop() {
	f.end()
	<-f.done
}

func (f *fakeDaemon) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// leaves calls fn with each command that does something.
func leaves(cmd *cobra.Command, fn func(*cobra.Command)) {
	for _, c := range cmd.Commands() {
		leaves(c, fn)
	}
	if !cmd.HasSubCommands() && cmd.Name() != "help" && (cmd.Parent() == nil || cmd.Parent().Name() != "completion") {
		fn(cmd)
	}
}

// TestExamples: every command has an example, and each parses with flags and
// arguments that are as many as it takes.
func TestExamples(t *testing.T) {
	n := 0
	leaves(newRoot(&env{board: newBoard(new(bytes.Buffer))}), func(cmd *cobra.Command) {
		t.Run(strings.ReplaceAll(cmd.CommandPath(), " ", "_"), func(t *testing.T) {
			if cmd.Example == "" || cmd.Short == "" {
				t.Fatal("no example or no description")
			}
			examples(t, cmd)
		})
		n++
	})
	if n < 17 {
		t.Errorf("%d commands, want 17 or more", n)
	}
	for _, line := range strings.Split(newRoot(&env{}).Long, "\n") {
		if len(line) > 80 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

func examples(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	for _, line := range strings.Split(strings.ReplaceAll(cmd.Example, "\\\n", ""), "\n") {
		args := words(line)
		if i := slices.Index(args, "|"); i >= 0 {
			args = args[:i] // where the output goes is the shell's
		}
		if len(args) < 2 || args[0] != "moot" {
			t.Errorf("%q is no command", line)
			continue
		}
		// A fresh tree: flags keep what was parsed.
		found, rest, err := newRoot(&env{board: newBoard(new(bytes.Buffer))}).Find(args[1:])
		if err == nil && found.CommandPath() != cmd.CommandPath() {
			t.Errorf("%q is an example of %q", line, found.CommandPath())
			continue
		}
		if err == nil {
			err = found.ParseFlags(rest)
		}
		if err == nil {
			err = found.ValidateArgs(found.Flags().Args())
		}
		if err == nil {
			err = found.ValidateRequiredFlags()
		}
		if err == nil {
			err = found.ValidateFlagGroups()
		}
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	for _, text := range strings.Split(cmd.Long+"\n"+cmd.Short+"\n"+cmd.Flags().FlagUsages(), "\n") {
		if len(text) > 100 {
			t.Errorf("%d columns: %s", len(text), text)
		}
	}
}

// words splits a line as a shell would, as far as examples need it.
func words(line string) []string {
	var l []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			l = append(l, part)
		} else {
			l = append(l, strings.Fields(part)...)
		}
	}
	return l
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{size(0), "0 B"},
		{size(1023), "1023 B"},
		{size(2457600), "2.3 MiB"},
		{size(int64(5) << 40), "5.0 TiB"},
		{size(int64(5) << 50), "5120.0 TiB"},
		{cleanText("a\r\n\x07b\n"), "a\n?b"},
		{clip("abcdef", 6), "abcdef"},
		{clip("abcdefg", 6), "abcde…"},
		{loss(nil), "-"},
		{progressText(api.Progress{Phase: "model", Done: 1 << 20, Total: 4 << 20, Unit: api.UnitBytes}, true, true), "model     [======                  ]   25 %  1.0 MiB of 4.0 MiB"},
		{progressText(api.Progress{Phase: "check", Done: 12, Unit: "rows"}, true, true), "check     12 rows"},
		{progressText(api.Progress{Done: 9, Total: 4}, false, false), "100 %  4 of 4"},
		{progressText(api.Progress{Phase: "wait", Text: "for 2 peers"}, false, false), "for 2 peers"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestBoardLines: without a terminal, progress is a line every few seconds.
func TestBoardLines(t *testing.T) {
	var out bytes.Buffer
	now := apitest.Epoch
	b := &board{w: &out, fd: -1, now: func() time.Time { return now }, told: now}
	p := b.progress("")
	for i := range int64(100) {
		p(api.Progress{Phase: "model", Done: i, Total: 100})
		now = now.Add(100 * time.Millisecond)
	}
	b.close()
	want := "model  30 %  30 of 100\nmodel  60 %  60 of 100\nmodel  90 %  90 of 100\n"
	if out.String() != want {
		t.Errorf("10 s of progress gave %q, want %q", out.String(), want)
	}
}

// TestBoardLate: what is said once, and then nothing for long, is a line too.
func TestBoardLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		b := newBoard(&out)
		b.set("pull", "looking")
		b.set("pull", "looking for peers that have it")
		time.Sleep(time.Minute)
		b.set("pull", "13 %")
		b.set("pull", "14 %")
		b.close()
		time.Sleep(time.Minute)
		if want := "pull  looking for peers that have it\npull  13 %\n"; out.String() != want {
			t.Errorf("told %q, want %q", out.String(), want)
		}
	})
}

// TestBoardTerminal: on a terminal, rows are drawn over themselves and are gone
// in the end.
func TestBoardTerminal(t *testing.T) {
	var out bytes.Buffer
	now := apitest.Epoch
	b := &board{w: &out, fd: 99, now: func() time.Time { return now }, size: func() int { return 20 }}
	b.set("node 2", "pulls\x1b[2J something very long")
	b.set("node 3", "waits")
	b.set("node 2", "too soon to be drawn")
	now = now.Add(time.Second)
	b.set("node 2", "done")
	b.around(func() { out.WriteString("said\n") })
	b.close()
	want := "node 2  pulls?[2J …\x1b[K\n" +
		"\r\x1b[1Anode 2  pulls?[2J …\x1b[K\nnode 3  waits\x1b[K\n" +
		"\r\x1b[2Anode 2  done\x1b[K\nnode 3  waits\x1b[K\n" +
		"\r\x1b[2A\x1b[Jsaid\nnode 2  done\x1b[K\nnode 3  waits\x1b[K\n" +
		"\r\x1b[2A\x1b[J"
	if out.String() != want {
		t.Errorf("drawn:\n%q\nwant:\n%q", out.String(), want)
	}
}
