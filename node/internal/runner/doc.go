// Package runner takes part in runs: it is where the round, the ledger, the
// network and the trainer meet.
//
// A Runner drives one run. Its goroutines are the loop, which owns the round's
// state machine and the ledger's writing side; the device, which owns the
// trainer; one for each delta being pulled, fold and sync under way, all of
// them bounded; and one that stays connected to the others of the run. Run
// starts them all and returns when all have ended.
package runner
