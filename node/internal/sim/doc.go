// Package sim runs many nodes of one run in one process, under virtual time, and
// measures what the protocol promises: agreement, liveness, traffic, and what a
// run learns among liars, churn and partitions.
//
// A node is the daemon's own code: round.Machine decides, msg signs and
// verifies, fold encodes, decodes and folds, replay checks the whole chain at
// the end. What stands in for the rest is here: the clock and its events
// (queue.go), the network (network.go, gossip.go, contents.go) and what is
// trained (task.go). There are no sockets and no goroutines; the next event is
// taken from a heap, so that hours pass in seconds and the same seed gives the
// same transcript, which is hashed.
//
// What is simplified: a fold of the same inputs is computed once and not by
// each node, a message is verified once and not by each receiver, and the
// network is delays, bandwidth and a mesh, not libp2p. TestHosts plays a run over
// real hosts in virtual time, with the daemon's gossip and pull.
//
// README.md has the scenarios and what they came to.
package sim
