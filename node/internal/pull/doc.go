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
// What is spoken is /moot/shard/1, which section 8 of proto/README.md specifies.
//
// # Limits
//
// A puller holds at most 128 MiB of blocks that come or wait for the store,
// whatever it fetches, and 32 blocks that it gives. It asks 24 peers for a DAG, a
// peer for 8 DAGs at once, and for something small 3 peers and one more each
// second. What it has asked of a peer and not stored takes that peer no more than
// twice the delay of the line: more would not come sooner, and a process that is
// killed would have asked for it in vain. An answerer allows a peer 24 streams for
// blocks and 16 for have, and all together 1,024; it reads 2 blocks at once for a
// peer and 32 in all, and ends a stream on which no request comes for 10 minutes,
// or whose asker takes less than 16 KiB/s.
package pull
