package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/internal/presence"
)

// newPresence makes what compares clocks and finds out about a second machine
// with this identity.
func (n *node) newPresence(key crypto.PrivKey) *presence.Presence {
	log := n.log.With("component", "presence")
	return presence.New(n.host.Libp2p(), presence.Options{Key: key, Log: log, Skewed: func(offset time.Duration, peers int) {
		text := clockError(offset, peers)
		if text == "" {
			log.Info("clock is right again", "peers", peers)
			return
		}
		log.Error("clock is wrong", "offset", offset.Round(time.Second), "peers", peers)
		n.emit(api.Event{Type: api.EventAlert, Text: text})
	}})
}

// runPresence ends the daemon when another machine proves that it has the same
// identity: two of them would vote twice, which others take for a lie.
func (n *node) runPresence(ctx context.Context) error {
	err := n.presence.Run(ctx)
	if errors.Is(err, presence.ErrConflict) {
		return api.Errorf(api.CodeConflict, "%w", err).
			WithHint("stop one of the two; a second machine needs a data folder, and so an identity, of its own: remove %s from the copy", identityFile)
	}
	return err
}

// clockError says by how much the clock is wrong, "" if it is not.
func clockError(offset time.Duration, peers int) string {
	if peers == 0 || offset.Abs() <= presence.Slack {
		return ""
	}
	how := "behind"
	if offset < 0 {
		how = "ahead of"
	}
	of := "that of the one peer that was asked"
	if peers > 1 {
		of = fmt.Sprintf("those of %d peers", peers)
	}
	return fmt.Sprintf("the clock of this machine is %s %s %s", offset.Abs().Round(time.Second), how, of)
}
