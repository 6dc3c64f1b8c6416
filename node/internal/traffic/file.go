package traffic

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const saveEvery = time.Minute

// usage is what the file holds.
type usage struct {
	Month string `json:"month"` // such as "2026-11", UTC
	Count Count  `json:"bytes"`
}

func monthOf(t time.Time) string { return t.UTC().Format("2006-01") }

// nextMonth is the first moment after a month.
func nextMonth(month string) time.Time {
	t, err := time.Parse("2006-01", month)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return t.AddDate(0, 1, 0)
}

// turn begins a new month when it is time. It is called with m.mu held.
func (m *Meter) turn(now time.Time) {
	if now.Before(m.until) && !now.Before(m.until.AddDate(0, -1, 0)) {
		return
	}
	if month := monthOf(now); month != m.month.Month {
		m.month, m.refused, m.dirty = usage{Month: month}, false, true
	}
	m.until = nextMonth(m.month.Month)
}

// load reads the file. A file that is not there, or damaged, is one of nothing:
// the quota is a courtesy of the owner's to himself.
func (m *Meter) load() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opt.File != "" {
		b, err := os.ReadFile(m.opt.File)
		var u usage
		if err == nil {
			err = json.Unmarshal(b, &u)
		}
		switch {
		case err == nil && u.Month == monthOf(time.Now()):
			m.month = u
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			m.log.Warn("usage of this month was not read, it counts from 0", "err", err)
		}
	}
	m.turn(time.Now())
}

// save writes the file if there is news.
func (m *Meter) save() error {
	m.mu.Lock()
	u, dirty := m.month, m.dirty
	m.dirty = false
	m.mu.Unlock()
	if !dirty || m.opt.File == "" {
		return nil
	}
	b, err := json.Marshal(u)
	if err != nil {
		panic("bug: " + err.Error())
	}
	if err := writeFile(m.opt.File, b); err != nil {
		m.mu.Lock()
		m.dirty = true
		m.mu.Unlock()
		return err
	}
	return nil
}

// writeFile replaces a file. After a crash it is the old one or the new one.
func writeFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// Run saves what was used now and then until ctx is done, and once more then. It
// returns nil.
func (m *Meter) Run(ctx context.Context) error {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		if err := m.save(); err != nil {
			m.log.WarnContext(ctx, "usage of this month was not saved", "err", err)
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}
