// Package portmap opens a node's ports in the router of a home, by NAT-PMP or
// UPnP, so that others reach it without settings by hand.
//
// It takes the place of go-libp2p's own NAT manager, which in version 0.51 finds no
// router by NAT-PMP (it asks for the route to 0.0.0.0, which go-netroute 0.4.0
// refuses), does not read which port the router gave, asks for another port at
// each start, so that addresses that others remember are wrong, and looks for a
// router only once. PCP is not spoken: routers that know it answer NAT-PMP too, as
// RFC 6887, appendix A has it. Pinholes for IPv6 are not asked for.
package portmap
