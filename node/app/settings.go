package app

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
)

// Settings implements api.Backend.
func (n *node) Settings(context.Context) (api.Settings, error) { return n.follow.settings() }

// ChangeSettings implements api.Backend.
func (n *node) ChangeSettings(ctx context.Context, req api.SettingsRequest) (api.Settings, error) {
	if err := n.follow.change(ctx, req); err != nil {
		return api.Settings{}, err
	}
	return n.follow.settings()
}

// next is the configuration as it would be at a start, and where its values
// are from. What a flag decided is not the same in both.
func (f *follower) next() (*config.Config, *config.Loaded, error) {
	next, err := f.load()
	if err != nil {
		return nil, nil, err
	}
	loaded, err := config.Load(f.file, os.Getenv)
	if errors.Is(err, fs.ErrNotExist) { // a path that was given need not be there any more
		loaded, err = &config.Loaded{Config: config.Default(), File: f.file}, nil
	}
	return next, loaded, err
}

// settings lists all keys.
func (f *follower) settings() (api.Settings, error) {
	out := api.Settings{}
	f.mu.Lock()
	now := f.inEffect
	if f.err != nil {
		out.Error = f.err.Error()
	}
	f.mu.Unlock()
	next, loaded := &now, (*config.Loaded)(nil)
	if f.load != nil && f.file != "" {
		out.File = f.file
		var err error
		if next, loaded, err = f.next(); err != nil {
			out.Error, next, loaded = err.Error(), &now, nil
		}
	}
	def := config.Default()
	for _, key := range config.Keys() {
		s, err := setting(key, &now, next, &def, loaded)
		if err != nil {
			return out, err
		}
		out.Settings = append(out.Settings, s)
	}
	return out, nil
}

func setting(key string, now, next, def *config.Config, loaded *config.Loaded) (s api.Setting, err error) {
	s = api.Setting{Key: key, Origin: "default", Live: config.Live(key)}
	if s.Values, err = now.Get(key); err != nil {
		return s, err
	}
	if s.Default, err = def.Get(key); err != nil {
		return s, err
	}
	later, err := next.Get(key)
	if err != nil {
		return s, err
	}
	if !slices.Equal(later, s.Values) {
		s.Next = nonNil(later)
	}
	s.List = isList(key)
	s.Values, s.Default = nonNil(s.Values), nonNil(s.Default)
	if loaded == nil {
		return s, nil
	}
	o := loaded.Origin(key)
	s.Origin, s.Where = o.Kind, o.Where
	if file, err := loaded.Get(key); err == nil && !slices.Equal(file, later) {
		s.Origin, s.Where = "flag", ""
	}
	return s, nil
}

// isList reports whether a key has any number of values.
func isList(key string) bool {
	c := config.Default()
	return c.Set(key) == nil // others want one
}

func nonNil(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// change writes the file and puts into effect what can be.
func (f *follower) change(ctx context.Context, req api.SettingsRequest) error {
	if f.load == nil || f.file == "" {
		return api.Errorf(api.CodeConflict, "the daemon follows no configuration file, so nothing can be set").
			WithHint("start it without --config, or with that of a file")
	}
	now, err := f.settings()
	if err != nil {
		return err
	}
	var sets []config.Set
	for key, values := range req.Set {
		i := slices.IndexFunc(now.Settings, func(s api.Setting) bool { return s.Key == key })
		switch {
		case i < 0:
			return api.Errorf(api.CodeNotFound, "there is no setting %q", key).WithHint(`"mootd config show" lists them`)
		case now.Settings[i].Origin == "flag" || now.Settings[i].Origin == "environment":
			s := now.Settings[i]
			return api.Errorf(api.CodeConflict, "%s is decided by the %s %s, which is stronger than the file", key, s.Origin, s.Where).
				WithHint("start the daemon without it")
		}
		if len(values) == 0 && !now.Settings[i].List {
			values = now.Settings[i].Default
		}
		sets = append(sets, config.Set{Key: key, Values: values})
	}
	slices.SortFunc(sets, func(a, b config.Set) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	if err := config.Edit(f.file, sets...); err != nil {
		return api.Errorf(api.CodeConfig, "%w", err).WithHint("the file was not changed")
	}
	f.reload(ctx)
	return nil
}
