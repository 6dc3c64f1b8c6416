//go:build cuda && cgo && !linux

package emu

// lib would be the driver's library: Build returns none here.
type lib struct{}

// Stat returns -1.
func (d *Driver) Stat(string) int { return -1 }

// Reset does nothing.
func (d *Driver) Reset() {}

// Repair does nothing.
func (d *Driver) Repair() {}
