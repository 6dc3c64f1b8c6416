package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/moot-net/moot/node/api"
)

// absolute makes a path absolute: the daemon stands in another folder.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", api.Errorf(api.CodeUsage, "%s: %w", path, err)
	}
	return abs, nil
}

// absoluteAll makes all paths absolute.
func absoluteAll(paths []string) ([]string, error) {
	all := make([]string, len(paths))
	for i, path := range paths {
		var err error
		if all[i], err = absolute(path); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// folderOrID makes a path absolute, and leaves an ID as it is.
func folderOrID(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	isPath := filepath.IsAbs(s) || strings.HasPrefix(s, ".") || strings.ContainsAny(s, `/\`)
	if !isPath {
		info, err := os.Stat(s)
		isPath = err == nil && info.IsDir()
	}
	if !isPath {
		return s, nil
	}
	return absolute(s)
}
