//go:build !unix

package p2p

import (
	"io/fs"
	"os"
	"path/filepath"
)

// LocalFolder is where nodes of this user on this machine leave their addresses,
// unless Options say otherwise. The folder for temporary files is the user's own
// here.
func LocalFolder() string { return filepath.Join(os.TempDir(), "moot") }

func checkPrivate(string, fs.FileInfo) error { return nil }

// A folder cannot be synced here; the rename is durable by itself or not.
func syncFolder(string) error { return nil }
