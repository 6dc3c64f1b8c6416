package shard

import (
	"crypto/sha256"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// hashMapped hashes leaves that follow each other in a file without copying
// them. It reports false when that cannot be done, or the file could not be
// read to the end, or became shorter meanwhile: then it has to be read.
func hashMapped(f *os.File, out []hashResult) (ok bool) {
	first, last := &out[0], &out[len(out)-1]
	size := last.off + last.size - first.off
	if size < 2*hashPiece || first.off%int64(os.Getpagesize()) != 0 {
		return false
	}
	// What lies behind the end of the file gives a fault, or zeros to the end of
	// a page: so it must not.
	fi, err := f.Stat()
	if err != nil || fi.Size() < first.off+size {
		return false
	}
	data, err := unix.Mmap(int(f.Fd()), first.off, int(size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return false
	}
	defer func() {
		if err := unix.Munmap(data); err != nil {
			panic("bug: " + err.Error())
		}
	}()
	if !hashAll(data, out) {
		return false
	}
	fi, err = f.Stat()
	return err == nil && fi.Size() >= first.off+size
}

// hashAll hashes leaves that lie one after the other in mapped memory. It
// reports false after a fault: when the file became shorter, or cannot be read.
func hashAll(data []byte, out []hashResult) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil { // nothing else in here panics
			ok = false
		}
	}()
	for i := range out {
		out[i].digest = sha256.Sum256(data[:out[i].size])
		data = data[out[i].size:]
	}
	return true
}
