// Package shard keeps models, data sets, deltas and states as immutable
// bytes named by their hash, and turns folders into such bytes and back.
//
// A [Store] is a folder of blocks, each named by the SHA-256 of what is in
// it. It serves as the block store of a bitswap node. On top of the blocks
// lies UnixFS as the IPFS world writes it with
//
//	ipfs add -r --cid-version=1 --raw-leaves --chunker=size-1048576 --max-file-links=1024
//
// so that a folder has the same CID here and there.
//
// What comes from a block is never trusted: sizes, counts and depths are
// bounded, encodings must be canonical, and names inside a DAG become paths
// only after they were checked.
//
// The package knows no network; see node/internal/exchange for that.
// FORMAT.md specifies what is on disk and inside a DAG.
package shard
