//go:build linux || darwin

package shard

import (
	"os"
	"syscall"
)

// changeTime is when content or attributes of a file changed last, and the
// file's number in its file system.
func changeTime(fi os.FileInfo) (nanoseconds int64, inode uint64) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return ctimeOf(st), st.Ino
}
