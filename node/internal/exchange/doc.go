// Package exchange makes the blocks of a DAG local by asking peers for them,
// and gives peers what is local.
//
// Blocks travel by bitswap under its standard names, so that any IPFS node can
// be at the other end. What arrives is checked against the CID it was asked
// for before anything else sees it; a peer that sends blocks nobody asked for,
// which is what a forged block looks like, is banned.
//
// [Exchange.Fetch] asks in random order, so that several peers that fetch the
// same DAG at once have different parts of it to give each other.
package exchange
