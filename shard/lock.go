package shard

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

const lockName = "lock"

// lockFolder takes the lock file of dir for as long as the returned file is
// open. The system drops the lock when the process dies, however it dies.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	taken, err := tryLock(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !taken {
		f.Close()
		return nil, fmt.Errorf("%w by %s: stop it, or choose another folder", ErrLocked, holder(path))
	}
	// The number is for people; failing to write it harms nothing.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

func holder(path string) string {
	b, err := readFileMax(path, 64)
	if pid, atoiErr := strconv.Atoi(string(bytes.TrimSpace(b))); err == nil && atoiErr == nil {
		return fmt.Sprintf("process %d", pid)
	}
	return "another process"
}
