package client

import (
	"os"
	"path/filepath"
	"runtime"
)

// DefaultDataDir is where a daemon keeps its data unless it is told otherwise:
// XDG_DATA_HOME/moot or ~/.local/share/moot, ~/Library/Application Support/moot
// on macOS, %LOCALAPPDATA%\moot on Windows. It is "" for a user without a home
// folder. The environment variable MOOT_DATA_DIR is not looked at here.
func DefaultDataDir() string {
	switch runtime.GOOS {
	case "windows":
		if dir := os.Getenv("LOCALAPPDATA"); dir != "" {
			return filepath.Join(dir, "moot")
		}
	case "darwin", "ios":
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, "Library", "Application Support", "moot")
		}
		return ""
	default:
		// A relative path there is invalid, says the specification.
		if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
			return filepath.Join(dir, "moot")
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "moot")
}
