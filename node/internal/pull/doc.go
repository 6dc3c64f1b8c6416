// Package pull makes large DAGs local by asking many peers at once, and gives
// peers what is local. It is the bulk carrier beside package exchange: models
// and data sets travel by it, and where no peer speaks it, it lets the
// exchange fetch.
//
// [Puller.Fetch] first makes the inner nodes of the DAG local, and then its
// leaves, rarest first, from every peer that has some of them. A peer that
// fetches tells others at once what it got, so that many who fetch from one
// need little more than one copy of it. Every block is checked against its
// CID before it is stored; who sent a wrong one is banned.
//
// # Protocol
//
// /moot/shard/1 gives blocks to peers that ask for them by CID, and tells them
// which leaves of a DAG are there. What a DAG may be is said by shard's
// FORMAT.md. Integers are unsigned LEB128 varints in their shortest form. A
// CID is 36 bytes: 0x01, 0x55 (raw) or 0x70 (dag-pb), 0x12, 0x20, 32 bytes of
// hash.
//
// The peer that wants something, here the asker, opens the streams. The first
// byte that it sends says what for: 1 blocks, 2 have. Each stream is for one
// of these until it ends.
//
// Blocks. Any number of requests, each answered in the order in which they
// came:
//
//	request:  length (36), CID
//	response: status (one byte); if it is 0: length (0 to 2,097,152), the bytes
//
// Status 0 is the block; 1 says that it is not here; 2 that the peer is busy,
// and the asker SHOULD wait a second before it asks this peer for anything.
// An asker MUST NOT have more than 64 requests without response on a stream,
// and SHOULD have no more than two streams for blocks with a peer. It MUST
// compute the hash of what came before it uses, stores or serves it.
//
// Have. One request:
//
//	request:  length (36), CID of the root
//	response: status (one byte); if it is 0: number of leaves, bitmap
//	update:   number of entries (0 to 4,096), that many entries
//	entry:    2 × leaf + kind
//
// The leaves of a DAG are its distinct raw blocks, numbered from 0 in the order
// in which a walk meets them that begins at the root, follows the links of each
// node in their order, and goes below a node before it takes the next link.
// There are at most 16,777,216. The bitmap has one bit for each, the lowest
// bit of a byte first, set if the leaf is there; bits after the last leaf are
// 0. Updates follow as things change, for as long as the stream is open. Kind
// 0 says that the leaf is there now; kind 1 that the peer has asked somebody
// for it, which is a hint to ask for others first, and no promise. A peer
// SHOULD send an update without entries after 15 seconds without others.
//
// Status 1 says that the root or an inner node of that DAG is not here, status 2
// that the peer is busy; both end the stream. A peer that is about to get the
// inner nodes may wait for them, up to 30 seconds, before it answers.
//
// Errors. All else is against the protocol: another first byte, length,
// status or kind; a longer varint than need be; a bit after the last; a leaf
// that does not exist; a number of leaves other than the DAG has; bytes whose
// hash is not that of the CID. Who receives such a thing MUST end the stream
// and use nothing of what came. An asker SHOULD NOT deal with that peer any
// more: none of these happens to an honest peer by a bad line, for streams
// are authenticated. A stream that ends early, or resets, is no such error. A
// leaf that is not there although the bitmap says so is none either.
//
// Limits. An answerer bounds streams (here 4 for blocks and 16 for have with a
// peer, 512 in all) by resetting those above, and what it reads for others at
// once (here 2 blocks for a peer and 32 in all, first come first served). It
// ends a stream on which no request comes for 10 minutes, or whose asker takes
// less than 16 KiB/s.
//
// Versions. The name of the protocol has the version. A change of any byte is
// another name; a peer may speak several.
package pull
