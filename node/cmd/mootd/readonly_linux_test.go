package main

import (
	"os"
	"syscall"
)

// canMakeReadOnly reports whether makeReadOnly works here.
func canMakeReadOnly() bool {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	undo, err := makeReadOnly(dir)
	if err != nil {
		return false
	}
	undo()
	return true
}

// makeReadOnly makes a folder that nobody can write to: root writes to others
// whatever their mode.
func makeReadOnly(dir string) (undo func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() != 0 {
		return func() { _ = os.Chmod(dir, 0o700) }, os.Chmod(dir, 0o500)
	}
	if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_RDONLY, "size=1m"); err != nil {
		return nil, err
	}
	return func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }, nil
}
