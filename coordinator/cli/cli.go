// Package cli is the command line of moot. Each command asks the daemon
// (node/client) and prints what it says; nothing is decided here.
//
// The answer goes to stdout, all else to stderr. With --json the answer is one
// JSON object, errors included; see node/api for its conventions and for the
// exit codes.
package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/plain"
)

// Main runs the command that args name and returns the exit code. When ctx
// ends, the command does.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	e := &env{out: stdout, err: stderr, board: newBoard(stderr)}
	root := newRoot(e)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	e.board.close()
	if err == nil {
		return 0
	}
	if usage := new(api.Error); !errors.As(err, &usage) {
		// Commands return nothing else, so this is cobra's own.
		err = api.Errorf(api.CodeUsage, "%w", err).WithHint("see %q", cmd.CommandPath()+" --help")
	}
	return e.report(err, wantsJSON(args))
}

// wantsJSON finds --json also where parsing did not come so far.
func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// env is what every command gets.
type env struct {
	out, err io.Writer
	board    *board // on stderr

	// flags of all commands
	dataDir string
	json    bool
}

// open connects to the daemon.
func (e *env) open() (*client.Client, error) {
	dir := e.dataDir
	if dir == "" {
		dir = os.Getenv("MOOT_DATA_DIR")
	}
	if dir == "" {
		dir = client.DefaultDataDir()
	}
	return client.Open(dir)
}

// answer prints v, with --json as it is, else as text writes it.
func (e *env) answer(v any, text func(w *page)) error {
	e.board.close()
	var b []byte
	if e.json {
		var err error
		if b, err = api.Marshal(v); err != nil {
			return api.Errorf(api.CodeInternal, "%w", err)
		}
		b = append(b, '\n')
	} else {
		p := new(page)
		text(p)
		b = p.Bytes()
	}
	return e.write(b)
}

func (e *env) write(b []byte) error {
	if _, err := e.out.Write(b); err != nil {
		return api.Errorf(api.CodeInternal, "write answer: %w", err)
	}
	return nil
}

// reported is an error that the command has told already.
type reported struct{ error }

func (r reported) Unwrap() error { return r.error }

// report prints err and returns the exit code that goes with it.
func (e *env) report(err error, asJSON bool) int {
	x := api.AsError(err)
	switch told := new(reported); {
	case errors.As(err, told):
	case asJSON:
		_ = e.write(append(api.MarshalError(x), '\n')) // the exit code says it too
	default:
		fmt.Fprintf(e.err, "moot: %s\n", cleanText(x.Message))
		if x.Hint != "" {
			fmt.Fprintf(e.err, "moot: hint: %s\n", plain.Clean(x.Hint))
		}
	}
	return x.Exit
}

// page is an answer as text.
type page struct{ bytes.Buffer }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// field writes a name and a value, lined up. An empty value is left out.
func (p *page) field(name, format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	if strings.TrimSpace(v) != "" {
		p.line("%-11s  %s", name, plain.Clean(v))
	}
}

// table lines up columns. Those whose title begins with > are set to the
// right.
func (p *page) table(title []string, rows [][]string) {
	all := append([][]string{title}, rows...)
	width := make([]int, len(title))
	for i, row := range all {
		for j := range row {
			all[i][j] = plain.Clean(row[j])
			if i > 0 {
				width[j] = max(width[j], runes(row[j]))
			} else {
				width[j] = runes(strings.TrimPrefix(row[j], ">"))
			}
		}
	}
	for i, row := range all {
		var b strings.Builder
		for j, v := range row {
			right := strings.HasPrefix(title[j], ">")
			if i == 0 {
				v = strings.TrimPrefix(v, ">")
			}
			pad := strings.Repeat(" ", width[j]-runes(v))
			if right {
				v = pad + v
			} else {
				v += pad
			}
			if j > 0 {
				b.WriteString("  ")
			}
			b.WriteString(v)
		}
		p.line("%s", strings.TrimRight(b.String(), " "))
	}
}
