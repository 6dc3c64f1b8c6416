// Package top shows on a terminal what a node does: its state and why, the run
// with its round, who is awaited, losses, devices, credits and peers. It reads
// the local API like any other client and has no part in the daemon.
//
// Names, texts and notes come from other peers: each passes through clean before
// it is shown.
package top
