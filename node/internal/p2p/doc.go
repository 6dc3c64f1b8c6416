// Package p2p is a node's place in the network: the libp2p host, and how it
// finds other nodes and stays connected to them.
//
// Nodes find each other by, in this order of speed: a folder that the nodes of
// one user on one machine share, mDNS on the LAN, the peers of the last time
// (a file), configured bootstrap addresses, and a Kademlia DHT under /moot.
// Peers of one run meet through [Host.Rendezvous]. None of these is needed by
// the others, and no failure of one of them ends a node.
//
// What travels between peers is not the business of this package; other
// packages build on [Host.Libp2p], or on the single exchanges of [Host.Handle]
// and [Host.Request].
//
// # Protocols
//
//	/moot/kad/1.0.0   the DHT: provider records only, no values
//	/moot/peers/1     a request as below; answers with peers of a run
//
// A request is a stream of its own. All integers are unsigned LEB128 varints
// in their shortest form.
//
//	request:  length, bytes, end of the sending direction
//	response: status (one byte), length, bytes
//
// Status 0 is an answer, 1 is an error whose text follows (at most 512 bytes),
// 2 says that the peer is busy, and the asker should wait before it asks again.
//
// A request of /moot/peers/1 is
//
//	flags (one byte: 1 = I am in that run)
//	length, the run's name (1 to 128 bytes)
//	length, the asker's own signed peer record (0 to 4096 bytes)
//
// and its response
//
//	flags (one byte: 1 = I am in that run)
//	0 to 32 times: length, signed peer record of another peer in that run
//
// A signed peer record is a libp2p envelope. A receiver MUST check its
// signature and that it is of the asker, or drop it; it MUST bound how many it
// keeps and dials. Nobody vouches that a peer in an answer is in the run.
package p2p
