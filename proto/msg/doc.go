// Package msg holds the signed messages of a run: what they say, which of them
// are well formed, and how they are encoded, sealed and opened.
//
// It decides nothing that depends on time, on other messages or on the state:
// whether a well formed message counts is the business of the round. The
// specification is proto/README.md.
package msg
