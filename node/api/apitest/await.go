package apitest

import (
	"context"
	"testing"
	"time"

	"github.com/moot-net/moot/node/api"
)

// Runs is what can be asked about a run: an api.Backend, or a client.
type Runs interface {
	Run(ctx context.Context, id string) (api.RunDetail, error)
}

// Await asks about a run until ok, and returns it as it is then. What says what
// it is waited for; after three minutes the test fails.
func Await(t testing.TB, from Runs, id, what string, ok func(api.Run) bool) api.RunDetail {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r, err := from.Run(t.Context(), id)
		if err != nil {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok(r.Run) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %+v", what, r.Run)
		}
	}
}
