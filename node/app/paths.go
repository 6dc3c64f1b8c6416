package app

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/p2p"
)

// Path is a file or folder with its name.
type Path struct{ Name, Path string }

// Paths are where a node with this data folder keeps what it has.
func Paths(dataDir string) []Path {
	in := func(name, file string) Path { return Path{name, filepath.Join(dataDir, file)} }
	return []Path{
		{"data", dataDir},
		in("identity", identityFile), in("store", storeDir), in("models", modelsDir), in("datasets", datasetsDir),
		in("runs", runsDir), in("peers", peersFile), in("traffic", trafficFile), in("control", controlFile), in("events", eventsFile), in("usage", usageFile), in("uploads", uploadsDir),
		in("api", api.EndpointFile), in("token", api.TokenFile),
		{"nodes", p2p.LocalFolder()}, // their addresses, while network.mdns is on
	}
}

// FreeBytes is what this user may still write to the file system of dir.
func FreeBytes(dir string) (int64, error) { return freeBytes(dir) }

// PeerID reads who a node is from its data folder. It makes no identity.
func PeerID(dataDir string) (string, error) {
	path := filepath.Join(dataDir, identityFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	key, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return "", fmt.Errorf("identity %s is damaged: %w", path, err)
	}
	id, err := peer.IDFromPrivateKey(key)
	return id.String(), err
}
