// Package app is the daemon: it builds every component, runs them until it is
// told to stop, and ends them in the reverse order. It also is what lies behind
// the local API: the catalogue of models and data sets, the runs that this node
// is in, and generation and evaluation.
//
// README.md of node says what is on disk and who owns which goroutine.
package app
