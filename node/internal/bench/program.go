package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// output runs a program and decodes the last line that it prints.
func output(ctx context.Context, v any, program string, args ...string) error {
	cmd := command(ctx, program, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(errs.String(), 5))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), v); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// command is a program in an environment that is fair to both.
func command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "OPENBLAS_CORETYPE=") { // OpenBLAS is to choose its kernels itself
			cmd.Env = append(cmd.Env, e)
		}
	}
	// Threads that wait must not take time from the other program, or from
	// themselves where the machine has other work.
	cmd.Env = append(cmd.Env, "OMP_WAIT_POLICY=PASSIVE")
	return cmd
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pythonHas reports whether a Python expression is true; it is not where an
// import in it fails.
func (o *options) pythonHas(ctx context.Context, imports, expression string) bool {
	return exec.CommandContext(ctx, o.python, "-c", "import "+imports+"\nassert "+expression).Run() == nil
}
