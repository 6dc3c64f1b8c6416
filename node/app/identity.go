package app

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
)

// identityFile holds the node's private key in libp2p's protobuf form.
const identityFile = "identity.key"

// loadIdentity reads the node's key from dir, or makes one there (0600) when
// there is none. A key that cannot be read is an error and is never
// overwritten: it is what the node's credits are bound to.
func loadIdentity(dir string) (crypto.PrivKey, peer.ID, error) {
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newIdentity(path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read identity: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, "", api.Errorf(api.CodeConfig, "identity %s is damaged: %w", path, err).
			WithHint("restore it from a backup, or move it away to start as a new peer")
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("identity %s: %w", path, err)
	}
	return key, id, nil
}

func newIdentity(path string) (crypto.PrivKey, peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("make identity: %w", err)
	}
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("make identity: %w", err)
	}
	if err := writeFileDurably(path, b, 0o600); err != nil {
		return nil, "", fmt.Errorf("make identity: %w", err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, "", fmt.Errorf("make identity: %w", err)
	}
	return key, id, nil
}

// tempInfix is in the names of files that are not complete yet.
const tempInfix = ".tmp"

// writeFileDurably replaces path by b in one step: a crash leaves the old
// contents or the new ones.
func writeFileDurably(path string, b []byte, perm os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+tempInfix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(perm); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	// Close, then rename: Windows refuses the reverse order.
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename durable. Some file systems cannot sync a folder; the
// rename is then as durable as they make it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync()
	return nil
}
