package runner

import (
	"context"
	"time"

	"github.com/moot-net/moot/node/api"
)

// hoursInterval is how often it is looked whether a pull may begin.
const hoursInterval = 20 * time.Second

// waitForHours waits until a pull of a model or a data set may begin, and says
// until when. mayPull returns until when it may not, the zero time if it may.
func waitForHours(ctx context.Context, mayPull func() (until time.Time), what string, size int64, tell func(api.Progress)) error {
	for mayPull != nil {
		until := mayPull()
		if until.IsZero() {
			return nil
		}
		tell(api.Progress{
			Phase: what, Total: size, Unit: api.UnitBytes,
			Text: "waits for the hours of network.schedule, until " + until.Format("Mon 15:04"),
		})
		t := time.NewTimer(hoursInterval)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
	return nil
}
