package api

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The files in a data folder by which the daemon is found.
const (
	EndpointFile = "api.json"
	TokenFile    = "api.token"
	// ReadTokenFile has a token that lets its owner ask and change nothing.
	ReadTokenFile = "api.read.token"
)

// Endpoint is where a running daemon is reached.
type Endpoint struct {
	URL     string   `json:"url"`  // http://host:port
	Peer    string   `json:"peer"` // peer ID
	Addrs   []string `json:"addrs"`
	PID     int      `json:"pid"`
	Version string   `json:"version"`
}

// maxEndpointBytes bounds what is read of either file.
const maxEndpointBytes = 64 << 10

// NewToken draws a token and writes it to dir, readable by the user alone. A
// daemon does so at every start, so that a token that somebody caught on the
// port of a dead daemon is worth nothing.
func NewToken(dir string) (string, error) { return newToken(dir, TokenFile) }

// NewReadToken is NewToken for a token that lets its owner ask and change
// nothing.
func NewReadToken(dir string) (string, error) { return newToken(dir, ReadTokenFile) }

func newToken(dir, name string) (string, error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	token := hex.EncodeToString(b[:])
	if err := replaceFile(filepath.Join(dir, name), []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("write API token: %w", err)
	}
	return token, nil
}

// WriteEndpoint writes e to dir. It must come after NewToken and after the
// listener is open: who finds it may connect at once.
func WriteEndpoint(dir string, e Endpoint) error {
	b, err := Marshal(e)
	if err == nil {
		err = replaceFile(filepath.Join(dir, EndpointFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write API address: %w", err)
	}
	return nil
}

// RemoveEndpoint deletes these files when the daemon stops.
func RemoveEndpoint(dir string) (err error) {
	for _, name := range []string{EndpointFile, TokenFile, ReadTokenFile} {
		if rerr := os.Remove(filepath.Join(dir, name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// ReadEndpoint reads what WriteEndpoint wrote. Without a daemon it gives an
// error that wraps fs.ErrNotExist.
func ReadEndpoint(dir string) (Endpoint, error) {
	b, err := readSmall(filepath.Join(dir, EndpointFile))
	if err != nil {
		return Endpoint{}, fmt.Errorf("read API address: %w", err)
	}
	var e Endpoint
	if err := json.Unmarshal(b, &e); err != nil {
		return Endpoint{}, fmt.Errorf("read API address: %s: %w", filepath.Join(dir, EndpointFile), err)
	}
	return e, nil
}

// ReadToken reads the token in dir.
func ReadToken(dir string) (string, error) { return readToken(dir, TokenFile) }

// ReadReadToken reads what NewReadToken wrote.
func ReadReadToken(dir string) (string, error) { return readToken(dir, ReadTokenFile) }

func readToken(dir, name string) (string, error) {
	b, err := readSmall(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("read API token: %w", err)
	}
	return string(bytes.TrimSpace(b)), nil
}

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxEndpointBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxEndpointBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxEndpointBytes)
	}
	return b, nil
}

// replaceFile puts b at path in one step, readable by the user alone. It is
// not made durable: the files are of use only while the daemon lives.
func replaceFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	// Close, then rename: Windows refuses the reverse order.
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
