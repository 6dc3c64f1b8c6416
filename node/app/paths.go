package app

import (
	"path/filepath"

	"github.com/moot-net/moot/node/api"
)

// Path is a file or folder with its name.
type Path struct{ Name, Path string }

// Paths are what a node keeps in its data folder.
func Paths(dataDir string) []Path {
	in := func(name, file string) Path { return Path{name, filepath.Join(dataDir, file)} }
	return []Path{
		{"data", dataDir}, in("identity", identityFile), in("store", storeDir), in("models", modelsDir), in("datasets", datasetsDir),
		in("runs", runsDir), in("peers", peersFile), in("traffic", trafficFile), in("control", controlFile),
		in("api", api.EndpointFile), in("token", api.TokenFile),
	}
}
