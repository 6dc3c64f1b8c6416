// Package client talks to a daemon on this machine by its HTTP API (node/api).
// It is how the command line reaches a node, and the only way.
//
// Every error is an *api.Error: the daemon's own, as it was sent, or one made
// here with the code E_DAEMON when no daemon answers or an answer was cut, and
// E_INTERRUPTED when the context was cancelled.
package client
