package round

import "crypto/sha256"

// spotDomain draws the rounds, one in 256, that a peer without a seat computes.
const spotDomain = "moot spot 1"

// computes reports whether Self computes the states of this round. A peer
// without a seat takes a quorum's word for most of them, as it would for rounds
// that it brings later: to pull the deltas of all seats in each round would cost it as
// much as a seat. Among many such peers each round is computed by some.
func (m *Machine) computes(h *height) bool {
	if h.self >= 0 || h.inFallback {
		return true
	}
	key := sha256.Sum256(append(append([]byte(spotDomain), h.parent.ID.Bytes()...), m.cfg.Self...))
	return key[0] == 0
}

// takesWord reports whether a record may be adopted on its certificate alone.
func (m *Machine) takesWord(h *height, c *candidate) bool {
	return c.state == unfolded && !m.computes(h)
}
