// Package gossip spreads small messages among the peers of a run: gossipsub
// with strict signatures, limits, and a validator for each topic.
//
// A message reaches the subscriber once, validated and parsed, and is passed
// on only then. Delivery is best effort: messages are lost when a peer is not
// connected yet, and dropped, newest first, when the subscriber is too slow
// ([Topic.Dropped]). What must arrive has to be published again, which makes a
// new message of it. Payloads do not belong here; announce their CID.
//
// Topics begin with /moot/1/. Other topics, and floodsub, are not spoken.
package gossip
