package cli

import (
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// No order takes effect in a run that is over: nobody waits for it.
func TestOrderOfAFinalRunIsNotWaitedFor(t *testing.T) {
	before := api.Run{ID: "run", State: api.RunTraining}
	after := before
	after.State = api.RunFinal
	if r, err := effect(t.Context(), nil, after, before, time.Hour); err != nil || r.State != api.RunFinal {
		t.Errorf("effect() = %+v, %v", r, err)
	}
}
