package shard

import "errors"

var (
	// ErrLocked is wrapped by [Open] when another process has the store open.
	ErrLocked = errors.New("in use")
	// ErrTooLarge is wrapped when something exceeds the caller's limit or one
	// of FORMAT.md.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid is wrapped when bytes break a rule of FORMAT.md, whoever
	// they came from.
	ErrInvalid = errors.New("invalid")
	// ErrIncomplete is wrapped when blocks of a DAG are not local.
	ErrIncomplete = errors.New("incomplete")
)
