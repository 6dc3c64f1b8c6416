//go:build !linux && !windows && !darwin

package volunteer

// desktop is one that tells nothing.
type desktop struct{}

func newDesktop() *desktop { return &desktop{} }

func (*desktop) close() {}

func (*desktop) look(_ Settings, v *Observation) {
	for _, s := range []Sight{SightIdle, SightFullscreen, SightGame, SightApps} {
		v.unseen(s, "not available on this system")
	}
}
