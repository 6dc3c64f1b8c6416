package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/api/apitest"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/internal/cuda"
)

// The test binary is mootd when it is called by that name, and a program that
// does not end by itself when it is called stubborn.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mootd": main, "stubborn": stubborn})
}

// stubborn is a daemon whose shutdown hangs.
func stubborn() {
	ctx := interruptible(context.Background(), os.Stderr)
	fmt.Println("up")
	<-ctx.Done()
	fmt.Println("saving")
	select {}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GORACE", os.Getenv("GORACE")) // else each command sleeps for a second at its end, with the race detector
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("XDG_DATA_HOME", filepath.Join(e.WorkDir, "data"))
			e.Values[bystanderKey{}] = new(*exec.Cmd)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "cuda":
				return cuda.Built, nil
			case "readonly":
				return canMakeReadOnly(), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// waitfor FILE: somebody writes it.
			"waitfor": func(ts *testscript.TestScript, _ bool, args []string) {
				for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
						return
					}
				}
				ts.Fatalf("there is no %s", args[0])
			},
			// waitstatus TEXT: "mootd status" has it.
			"waitstatus": func(ts *testscript.TestScript, _ bool, args []string) {
				for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
					if ts.Exec("mootd", "status") == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
						return
					}
				}
				ts.Fatalf("the status has no %q", args[0])
			},
			// waitgrep TEXT FILE: somebody writes it into the file.
			"waitgrep": func(ts *testscript.TestScript, _ bool, args []string) {
				for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
					if b, err := os.ReadFile(ts.MkAbs(args[1])); err == nil && strings.Contains(string(b), args[0]) {
						return
					}
				}
				ts.Fatalf("%s has no %q", args[1], args[0])
			},
			// busy: $BUSY is a port that is taken.
			"busy": func(ts *testscript.TestScript, _ bool, _ []string) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				ts.Check(err)
				ts.Defer(func() { l.Close() })
				_, port, err := net.SplitHostPort(l.Addr().String())
				ts.Check(err)
				ts.Setenv("BUSY", port)
			},
			// readonly DIR: makes a folder that nobody can write to.
			"readonly": func(ts *testscript.TestScript, _ bool, args []string) {
				undo, err := makeReadOnly(ts.MkAbs(args[0]))
				ts.Check(err)
				ts.Defer(undo)
			},
			// bystander NAME: a program of that name runs, until the next bystander.
			"bystander": func(ts *testscript.TestScript, _ bool, args []string) {
				if p, ok := ts.Value(bystanderKey{}).(**exec.Cmd); ok && *p != nil {
					ts.Check((*p).Process.Kill())
					_ = (*p).Wait() // it was killed
					*p = nil
				}
				if len(args) == 0 {
					return
				}
				sleep, err := exec.LookPath("sleep")
				ts.Check(err)
				path := ts.MkAbs(args[0])
				// Not by this process: another script may start a program while it is
				// written, which has the file open until then, and a file that
				// somebody writes cannot be run.
				ts.Check(ts.Exec("cp", sleep, path))
				cmd := exec.Command(path, "600")
				ts.Check(cmd.Start())
				*ts.Value(bystanderKey{}).(**exec.Cmd) = cmd
				ts.Defer(func() { _ = cmd.Process.Kill() })
			},
			// exits N args...: the command ends with exit code N.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				code := 0
				if exit := new(exec.ExitError); errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if fmt.Sprint(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
		},
	})
}

// bystanderKey is that of the program that "bystander" started.
type bystanderKey struct{}

// process is a program that was started.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	err *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), err: new(lockedBuffer)}
	p.cmd.Stderr = p.err
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote on stderr:\n%s", name, p.err)
		}
	})
	return p
}

// line waits for a line that begins with prefix, and returns the rest.
func (p *process) line(prefix string) string {
	p.t.Helper()
	for {
		s, err := p.out.ReadString('\n')
		if err != nil {
			p.t.Fatalf("no line with %q: %v\n%s", prefix, err, p.err)
		}
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
}

// ends waits for the end, and returns the exit code.
func (p *process) ends() int {
	p.t.Helper()
	watch := time.AfterFunc(3*time.Minute, func() { p.cmd.Process.Kill() })
	defer watch.Stop()
	if _, err := io.Copy(io.Discard, p.out); err != nil {
		p.t.Error(err)
	}
	err := p.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func daemon(t *testing.T, dir string) (p *process, c *client.Client, id string) {
	t.Helper()
	p = start(t, "mootd", "--data-dir", dir, "--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--no-mdns", "--threads", "1")
	id = p.line("peer ")
	if addr := p.line("address "); !strings.HasPrefix(addr, "/ip4/127.0.0.1/tcp/") || !strings.HasSuffix(addr, "/p2p/"+id) {
		t.Errorf("address %s", addr)
	}
	url := p.line("api ")
	c, err := client.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if s, err := c.Status(t.Context()); err != nil || s.API != url || s.Peer != id || s.PID != p.cmd.Process.Pid {
		t.Fatalf("status %+v, %v; want API %s and peer %s", s, err, url, id)
	}
	return p, c, id
}

func TestInterrupt(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		dir := t.TempDir()
		p, _, _ := daemon(t, dir)
		if err := p.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := p.ends(); code != 0 {
			t.Errorf("exit code %d after %v", code, sig)
		}
		if _, err := client.Open(dir); api.AsError(err) == nil || api.AsError(err).Code != api.CodeDaemon {
			t.Errorf("after %v the daemon is still to be found: %v", sig, err)
		}
	}
}

func TestSecondInterrupt(t *testing.T) {
	for tries := 1; ; tries++ {
		p := start(t, "stubborn")
		p.line("up")
		interrupt := func() {
			if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
		// As timeout does it: that is one interrupt.
		interrupt()
		interrupt()
		watch := time.AfterFunc(3*time.Minute, func() { p.cmd.Process.Kill() })
		ends := func() int {
			if !watch.Stop() {
				t.Fatal("it has been interrupted for three minutes, and has not ended")
			}
			return p.ends()
		}
		saving, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			if s, _ := p.out.ReadString('\n'); s == "saving\n" {
				close(saving)
			}
			_, _ = io.Copy(io.Discard, p.out) // until it ends
		}()
		early := false
		select {
		case <-over:
			early = true
		case <-saving:
			select {
			case <-over:
				early = true
			case <-time.After(2 * sameInterrupt):
			}
		}
		if early { // they were not at once, on a machine that did nothing between the two
			if ends(); tries == 10 {
				t.Fatal("it ends by two signals at once")
			}
			continue
		}
		for ended := false; !ended; { // the first one may have been seen later than it was sent
			interrupt()
			select {
			case <-over:
				ended = true
			case <-time.After(2 * sameInterrupt):
			}
		}
		if code := ends(); code != 130 {
			t.Errorf("exit code %d, want 130", code)
		}
		return
	}
}

// After kill -9, identity and content are there, and the folder is free.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	p, c, id := daemon(t, dir)
	assets, err := c.DemoAssets(t.Context(), filepath.Join(t.TempDir(), "demo"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.ImportModel(t.Context(), api.ImportModelRequest{Dir: assets.ModelDir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	_, c, again := daemon(t, dir)
	if again != id {
		t.Errorf("peer %s after kill -9, was %s", again, id)
	}
	if l, err := c.Models(t.Context()); err != nil || len(l.Models) != 1 || l.Models[0].ID != m.ID {
		t.Errorf("models %v, %v", l, err)
	}
	g, err := c.Generate(t.Context(), api.GenerateRequest{
		Subject: api.Subject{Model: m.ID}, MaxTokens: 3, Prompts: []api.Prompt{{Instruction: "Who are you?"}},
	}, nil)
	if err != nil || len(g.Outputs) != 1 || g.Outputs[0].Tokens == 0 {
		t.Errorf("generated %+v, %v", g, err)
	}
}

// demoAssets imports the model and the data of the demo.
func demoAssets(t *testing.T, c *client.Client) (model, dataset string) {
	t.Helper()
	assets, err := c.DemoAssets(t.Context(), filepath.Join(t.TempDir(), "demo"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.ImportModel(t.Context(), api.ImportModelRequest{Dir: assets.ModelDir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.ImportDataset(t.Context(), assets.Data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m.ID, d.ID
}

// A run goes on by itself after kill -9, from where it was.
func TestKillInRun(t *testing.T) {
	if testing.Short() {
		t.Skip("trains for some seconds")
	}
	dir := t.TempDir()
	p, c, _ := daemon(t, dir)
	m, d := demoAssets(t, c)
	r, err := c.Launch(t.Context(), api.LaunchRequest{Name: "run.toml", Model: m, Dataset: d, TOML: `
name = "killed"
rounds = 100000
period = "20s"
eval_samples = 4
[lora]
rank = 2
[inner]
max_steps = 4
batch_samples = 2
sequence_tokens = 96
`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wait := func(ok func(api.Run) bool) api.Run {
		t.Helper()
		return apitest.Await(t, c, r.ID, "it is as it should be", ok).Run
	}
	before := wait(func(r api.Run) bool { return r.TrainedRounds >= 1 })
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	_, c, _ = daemon(t, dir)
	after := wait(func(api.Run) bool { return true })
	if after.Round < before.Round || !after.Joined {
		t.Errorf("after kill -9 %+v, before %+v", after, before)
	}
	wait(func(r api.Run) bool { return r.TrainedRounds > after.TrainedRounds+2 })
	if _, err := c.Order(t.Context(), api.OrderRequest{Run: r.ID, Action: api.OrderStop}); err != nil {
		t.Fatal(err)
	}
	last := wait(func(r api.Run) bool { return r.Final })
	if last.State != api.RunFinal {
		t.Errorf("at the end %+v", last)
	}
}
