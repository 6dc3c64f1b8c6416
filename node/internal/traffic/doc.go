// Package traffic bounds and counts the bytes that a node sends and receives:
// a cap for each direction, a quota for each month, and what they were for.
//
// Nothing of that concerns this machine and the LAN, which cost nothing and share
// no line. Deltas and states go before models and data sets: a round waits for
// the ones, and nobody for the others. What is not content (gossip, the DHT) is
// neither bounded nor counted; it is a few hundred bytes per second.
package traffic
