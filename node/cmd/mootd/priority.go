package main

import (
	"log/slog"

	"github.com/moot-net/moot/node/config"
)

// niceness is that of a daemon with low priority: a program of the usual one
// gets about nine times as much of a processor that both want.
const niceness = 10

// setPriority gives way to other programs, if that is asked for. One that
// cannot works as well.
func setPriority(priority string, log *slog.Logger) {
	if priority != config.PriorityLow {
		return
	}
	if err := giveWay(); err != nil {
		log.Warn("priority was not lowered", "err", err)
	}
}
