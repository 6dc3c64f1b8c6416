package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is a child under way.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start runs a child, on a host of a lab if before is what lab.in says.
func (b *bench) start(ctx context.Context, before []string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if b.o.profile != "" {
		args = append(args, "-profile", b.o.profile)
	}
	args = append(append(before[:len(before):len(before)], self), args...)
	p := &process{cmd: exec.CommandContext(ctx, args[0], args[1:]...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// report waits for the next line of the child.
func (p *process) report() (r report, err error) {
	if !p.out.Scan() {
		return r, fmt.Errorf("%s ended early", strings.Join(p.cmd.Args, " "))
	}
	err = json.Unmarshal(p.out.Bytes(), &r)
	return r, err
}

// begin makes a node fetch.
func (p *process) begin() error {
	_, err := io.WriteString(p.in, "begin\n")
	return err
}

// end ends the child and returns its last line.
func (p *process) end() (r report, err error) {
	p.in.Close()
	for p.out.Scan() {
		if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
			return r, err
		}
	}
	return r, p.cmd.Wait()
}
