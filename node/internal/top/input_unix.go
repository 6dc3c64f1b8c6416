//go:build unix

package top

import (
	"fmt"
	"io"
	"sync"

	"github.com/muesli/cancelreader"
)

// input is a terminal that a program reads and cannot close. What bubbletea
// opens by itself to read a terminal it closes half a second after the end,
// also while it is still read, which a busy machine makes it.
type input struct {
	file   cancelreader.File
	reader cancelreader.CancelReader
	mu     sync.Mutex // held while it is read
}

// openInput returns what is to be read instead of r, and what ends that: then
// nobody reads any more.
func openInput(r io.Reader) (io.Reader, func(), error) {
	file, ok := r.(cancelreader.File)
	if !ok {
		return r, func() {}, nil
	}
	reader, err := cancelreader.NewReader(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read the terminal: %w", err)
	}
	i := &input{file: file, reader: reader}
	return i, i.end, nil
}

func (i *input) end() {
	i.reader.Cancel()
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = i.reader.Close() // of pipes that nothing is written to
}

func (i *input) Read(b []byte) (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reader.Read(b)
}

// The rest is what makes it a terminal to bubbletea. Without a name it opens
// nothing by itself.

func (i *input) Write(b []byte) (int, error) { return i.file.Write(b) }
func (i *input) Fd() uintptr                 { return i.file.Fd() }
func (i *input) Close() error                { return nil } // who opened it closes it
