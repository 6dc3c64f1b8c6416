package api

import "context"

// maxPullPeers bounds the peers that are named for one pull.
const maxPullPeers = 64

// checkPull checks what does not need the node to know.
func checkPull(_ context.Context, req *PullShardsRequest) error {
	switch l := req.Layers; {
	case req.ID == "":
		return Errorf(CodeUsage, "id is missing")
	case len(req.Peers) > maxPullPeers:
		return Errorf(CodeUsage, "%d peers are named, at most %d", len(req.Peers), maxPullPeers)
	case l != nil && (l.First < 0 || l.Last < l.First):
		return Errorf(CodeUsage, "layers are %d to %d, must be counted from 0, the first first", l.First, l.Last)
	}
	return nil
}
