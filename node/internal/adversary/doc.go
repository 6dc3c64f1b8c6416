// Package adversary attacks whole nodes, over the network, as a peer without shame
// can: with whatever bytes it likes on every protocol that they speak, with as many
// identities as it likes, and with a seat in their run. It has tests alone; what
// they found, and what a node withstands, is in its README.
package adversary
