// Package run is the run manifest: what all peers of a run share, its checks,
// its canonical encoding, and the genesis that follows from it. The
// specification is proto/README.md.
package run
