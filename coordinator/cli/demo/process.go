package demo

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// process is a child. It must be stopped or killed.
type process struct {
	// constant after startProcess
	cmd     *exec.Cmd
	logPath string
	exited  chan struct{} // closed when it has ended

	err error // of Wait; set before exited is closed
}

// startProcess starts a program whose output goes to a file.
func startProcess(path string, args, env []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(path, args...), logPath: logPath, exited: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		defer log.Close()
		// On Linux the child is killed when the thread that started it ends,
		// so that thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// pid is the process ID.
func (p *process) pid() int { return p.cmd.Process.Pid }

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// wait reports whether the process ends within d.
func (p *process) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.exited:
		return true
	case <-t.C:
		return false
	}
}

// kill ends the process as a power cut would (SIGKILL), and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.exited
}

// interrupt asks the process to stop. Windows cannot.
func (p *process) interrupt() {
	if runtime.GOOS != "windows" {
		_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	}
}

// ending says how the process ended.
func (p *process) ending() string {
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// How much of a log an error shows.
const (
	tailBytes = 4 << 10
	tailLines = 15
)

// tail is the end of the log, set in, with its name.
func (p *process) tail() string {
	f, err := os.Open(p.logPath)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := f.Seek(-tailBytes, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, _ := io.ReadAll(io.LimitReader(f, tailBytes)) // what could be read is better than nothing
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	lines = lines[max(0, len(lines)-tailLines):]
	if len(lines) == 1 && lines[0] == "" {
		return fmt.Sprintf("\n  %s is empty", p.logPath)
	}
	return fmt.Sprintf("\n  the end of %s:\n    %s", p.logPath, strings.Join(lines, "\n    "))
}
