// Package round is the round of a run as a pure state machine: events and the
// time go in, effects come out. It is proto/README.md section 6.
//
// It reads no clock, starts no goroutine, draws no random number and does no
// I/O, so the same code runs in the daemon, in tests and in a simulation, and
// the same events give the same effects. Whoever drives it carries the effects
// out in their order and reports what came of them as further events.
//
// Clocks decide when a message is sent, never whether it counts.
package round
