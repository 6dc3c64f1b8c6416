package config

import (
	"context"
	"os"
	"time"
)

// WatchInterval is how often Watch looks at a file.
const WatchInterval = 2 * time.Second

// Watch calls changed at once, for what happened before, and whenever the file at
// path was changed, made or removed, until ctx is done. Times of change are compared: what a file system for many
// machines does not tell would not be seen otherwise.
func Watch(ctx context.Context, path string, changed func()) {
	t := time.NewTicker(WatchInterval)
	defer t.Stop()
	last := look(path)
	changed()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := look(path); now != last {
			last = now
			changed()
		}
	}
}

// stamp changes when a file does.
type stamp struct {
	there bool
	size  int64
	time  time.Time
}

func look(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{true, info.Size(), info.ModTime()}
}
