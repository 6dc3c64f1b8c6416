// Package client talks to a daemon on this machine by its HTTP API (node/api).
// It is how the command line reaches a node, and the only way.
package client
