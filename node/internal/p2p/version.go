package p2p

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"
)

// ErrVersion is wrapped when a peer speaks other versions of a protocol, or not
// this protocol at all.
var ErrVersion = errors.New("no version in common")

// VersionError says in a sentence why a peer could not be spoken to, if err is
// that it does not know proto; other errors stay as they are.
func VersionError(h host.Host, p peer.ID, proto protocol.ID, err error) error {
	var unknown multistream.ErrNotSupported[protocol.ID]
	if !errors.As(err, &unknown) {
		return err
	}
	known, perr := h.Peerstore().GetProtocols(p)
	base, version := cutVersion(proto)
	var others []string
	for _, k := range known {
		if b, v := cutVersion(k); perr == nil && b == base && v != "" {
			others = append(others, v)
		}
	}
	slices.Sort(others)
	agent := "the peer"
	if v, err := h.Peerstore().Get(p, "AgentVersion"); err == nil {
		if s, ok := v.(string); ok && s != "" {
			agent += " (" + printable(s) + ")"
		}
	}
	if len(others) == 0 {
		return fmt.Errorf("%w: %s does not speak %s", ErrVersion, agent, base)
	}
	return fmt.Errorf("%w: %s speaks version %s of %s, this node version %s; the older of the two has to be updated",
		ErrVersion, agent, printable(strings.Join(others, ", ")), base, version)
}

// cutVersion cuts "/moot/shard/1" into "/moot/shard" and "1".
func cutVersion(p protocol.ID) (base, version string) {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return string(p), ""
	}
	return string(p)[:i], string(p)[i+1:]
}
