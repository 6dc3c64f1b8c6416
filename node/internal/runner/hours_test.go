package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moot-net/moot/node/api"
)

func TestWaitForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		opens := began.Add(90 * time.Minute)
		closed := func() time.Time {
			if time.Now().Before(opens) {
				return opens
			}
			return time.Time{}
		}
		var told api.Progress
		if err := waitForHours(t.Context(), closed, "model", 7, func(p api.Progress) { told = p }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 90*time.Minute || took > 91*time.Minute {
			t.Errorf("it waited %v", took)
		}
		if want := "waits for the hours of network.schedule, until " + opens.Format("Mon 15:04"); told.Text != want || told.Total != 7 || told.Phase != "model" {
			t.Errorf("told %+v", told)
		}
		told = api.Progress{}
		if err := waitForHours(t.Context(), closed, "model", 7, func(p api.Progress) { told = p }); err != nil || told.Text != "" {
			t.Errorf("in the hours: %+v, %v", told, err)
		}
		if err := waitForHours(t.Context(), nil, "model", 7, nil); err != nil {
			t.Errorf("without a schedule: %v", err)
		}
		opens = time.Now().Add(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := waitForHours(ctx, closed, "model", 7, func(api.Progress) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("when it is left: %v", err)
		}
	})
}
