// Package round is the round of a run as a pure state machine: events and the
// time go in, effects come out. It is proto/README.md section 6.
//
// It reads no clock, starts no goroutine, draws no random number and does no
// I/O, so the same code runs in the daemon, in tests and in a simulation, and
// the same events give the same effects. Whoever drives it carries the effects
// out in their order and reports what came of them as further events.
//
// Clocks decide when a message is sent, never whether it counts.
//
// Rules are what follows from messages alone; Machine adds when. A Machine has
// one height under way, the round after its head, and keeps the one before as
// long as the head is provisional. Everything that is due is found anew in each
// Step from what is there (advance), so nothing depends on a Tick that came
// early, late or twice.
//
// What may surprise:
//
//   - How many records a chain has does not count, certified or not, only who
//     signed for it where it parts from another: a single seat that plays the
//     others absent is the only seat after two rounds, and can certify as many
//     as it likes. What is known of who signed what only grows (forkBook).
//   - Deltas are audited one round later, and the verdicts are in the haves of
//     that round: they are signed, gossiped and recorded once for each head
//     already. A seat on probation trains, and its word counts for nothing.
//   - A verdict comes too late for the fold, so a record can take back what deltas
//     of the round before did (Back): the state moves by what that round gives
//     without them, less what it gave. So a fold may need two rounds of deltas.
//   - A record can return to the best state (Trend), by losses that haves tell.
//     Then all commits of the round are refused, as they come from elsewhere.
//   - A head can be proven with few records (skip.go), on a weaker word than that
//     of all of them. Nothing is adopted on it.
//   - A branch that was left is not forgotten: it may come back as a merge, on
//     the word of more than half of the witnesses.
//   - A seat leaves the round under way for a provisional record that was
//     offered only when more seats than may lie are further already, or when
//     its own round failed. A peer without a seat follows at once.
//   - Which join requests a record left out without effect cannot be told from
//     the record. A seat that knows such a request, and knows better, does not
//     vote; but it accepts the record once it is certified.
//   - Self remembers for which heads it signed long after it forgot what, and
//     is silent when it comes back to one. A switch to another branch and back
//     would make it sign twice otherwise.
package round
