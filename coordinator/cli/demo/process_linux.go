package demo

import "syscall"

// childAttr makes children die with their parent, even when that is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
