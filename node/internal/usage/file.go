package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/moot-net/moot/node/api"
)

// The bounds of a file: with twice the minutes of a day in it, it is written
// anew.
const (
	maxLines = 2 * int(day/minute)
	maxBytes = 4 << 20
)

// file has a minute a line, oldest first. What is lost of its end costs a gap,
// so lines are not synced.
type file struct {
	path  string
	lines int
	torn  bool // the end may not be a whole line
}

// read returns the minutes of the last day. Lines that are none are left out.
func (f *file) read(now time.Time) ([]api.UsageSample, error) {
	r, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		f.torn = true
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err == nil && len(b) > maxBytes {
		err = fmt.Errorf("%s has more than %d bytes", f.path, maxBytes)
	}
	if err != nil {
		f.torn = true
		return nil, err
	}
	f.torn = len(b) > 0 && b[len(b)-1] != '\n'
	var l []api.UsageSample
	for line := range bytes.Lines(b) {
		f.lines++
		var s api.UsageSample
		switch err := json.Unmarshal(line, &s); {
		case err != nil, len(s.Devices) > maxDevices:
			f.torn = true // it is written anew without
		case s.Time.Before(now.Add(-day)), s.Time.After(now):
		default:
			l = append(until(l, s.Time), s)
		}
	}
	return l, nil
}

// append writes a minute, or all of them where the file is not as it should be.
func (f *file) append(s api.UsageSample, all func() []api.UsageSample) error {
	if f.torn || f.lines >= maxLines {
		return f.rewrite(all())
	}
	b, err := line(s)
	if err != nil {
		return err
	}
	w, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	}
	f.torn = err != nil
	f.lines++
	return err
}

func (f *file) rewrite(l []api.UsageSample) error {
	f.torn = true
	var all []byte
	for _, s := range l {
		b, err := line(s)
		if err != nil {
			return err
		}
		all = append(all, b...)
	}
	temp := f.path + ".tmp"
	if err := os.WriteFile(temp, all, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, f.path); err != nil {
		return err
	}
	f.lines, f.torn = len(l), false
	return nil
}

func line(s api.UsageSample) ([]byte, error) {
	b, err := json.Marshal(s)
	return append(b, '\n'), err
}
