// Package logs is where the daemon's log goes: as text or JSON, to a file that
// does not grow without end, with levels that can be changed while it is written.
package logs

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
)

// Levels say what is logged: one level for all, and others for components. The
// zero Levels are Info. Their methods may be called at any time.
type Levels struct{ now atomic.Pointer[levels] }

type levels struct {
	all       slog.Level
	component map[string]slog.Level
	least     slog.Level
}

// Parse reads levels as they are in a configuration: "info", or
// "info,p2p=debug,run=warn".
func (l *Levels) Parse(s string) error {
	v, err := parse(s)
	if err == nil {
		l.now.Store(v)
	}
	return err
}

// Check is Parse without effect.
func Check(s string) error {
	_, err := parse(s)
	return err
}

func parse(s string) (*levels, error) {
	v := &levels{component: map[string]slog.Level{}}
	for i, part := range strings.Split(s, ",") {
		component, name, one := strings.Cut(strings.TrimSpace(part), "=")
		if !one {
			component, name = "", component
		}
		var level slog.Level
		switch name {
		case "debug", "info", "warn", "error":
			_ = level.UnmarshalText([]byte(name)) // it knows these
		default:
			return nil, fmt.Errorf("%q is not debug, info, warn or error", name)
		}
		switch {
		case i == 0 && one, i > 0 && !one, one && component == "":
			return nil, fmt.Errorf("%q is not a level and those of components, such as info,p2p=debug", s)
		case one:
			v.component[component] = level
		default:
			v.all, v.least = level, level
		}
		v.least = min(v.least, level)
	}
	return v, nil
}

func (l *Levels) get() *levels {
	if v := l.now.Load(); v != nil {
		return v
	}
	return &levels{}
}

func (v *levels) of(component string) slog.Level {
	if level, ok := v.component[component]; ok {
		return level
	}
	return v.all
}
