package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/proto/msg"
)

// onlineFile holds who was in the run: of each sample the Unix time as u32, and
// online, working and seats as u16, little endian.
const onlineFile = "online.bin"

const (
	onlineBytes  = 10
	onlineEvery  = 15 * time.Second // a change is seen
	onlineAnyhow = 10 * time.Minute // so that the end of a curve is known
	keptOnline   = 20_000           // samples; the older half goes when there are twice as many
)

// online remembers who was in a run. What of it cannot be written
// is with the next sample, or lost with the process.
type online struct {
	mu   sync.Mutex
	path string
	list []api.OnlineSample // guarded by mu
	torn bool               // guarded by mu; the file is not list: a write failed
}

// readOnline reads what earlier processes wrote; a torn end is cut off.
func readOnline(dir string) (*online, error) {
	o := &online{path: filepath.Join(dir, onlineFile)}
	b, err := os.ReadFile(o.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	for len(b) >= onlineBytes {
		o.list = append(o.list, api.OnlineSample{
			Time:   time.Unix(int64(binary.LittleEndian.Uint32(b)), 0).UTC(),
			Online: int(binary.LittleEndian.Uint16(b[4:])), Working: int(binary.LittleEndian.Uint16(b[6:])), Seats: int(binary.LittleEndian.Uint16(b[8:])),
		})
		b = b[onlineBytes:]
	}
	if len(b) > 0 {
		return o, o.rewrite()
	}
	return o, nil
}

func appendOnline(b []byte, s api.OnlineSample) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(s.Time.Unix()))
	for _, v := range []int{s.Online, s.Working, s.Seats} {
		b = binary.LittleEndian.AppendUint16(b, uint16(min(v, 1<<16-1)))
	}
	return b
}

// rewrite is called with mu held, or before anybody else knows o.
func (o *online) rewrite() error {
	var b []byte
	for _, s := range o.list {
		b = appendOnline(b, s)
	}
	if err := os.WriteFile(o.path+".tmp", b, 0o600); err != nil {
		return err
	}
	return os.Rename(o.path+".tmp", o.path)
}

// add takes a sample, if it says something new.
func (o *online) add(s api.OnlineSample) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.list); n > 0 {
		last := o.list[n-1]
		same := last.Online == s.Online && last.Working == s.Working && last.Seats == s.Seats
		if same && s.Time.Sub(last.Time) < onlineAnyhow {
			return nil
		}
	}
	o.list = append(o.list, s)
	full := len(o.list) >= 2*keptOnline
	if full {
		o.list = append([]api.OnlineSample(nil), o.list[len(o.list)-keptOnline:]...)
	}
	if full || o.torn {
		err := o.rewrite()
		o.torn = err != nil
		return err
	}
	f, err := os.OpenFile(o.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(appendOnline(nil, s))
		err = errors.Join(err, f.Close())
	}
	o.torn = err != nil
	return err
}

// tell returns at most limit samples: of each stretch the one with most peers.
func (o *online) tell(limit int) []api.OnlineSample {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) <= limit {
		return append([]api.OnlineSample(nil), o.list...)
	}
	out := make([]api.OnlineSample, 0, limit)
	for i := range limit {
		from, to := i*len(o.list)/limit, (i+1)*len(o.list)/limit
		most := o.list[from]
		for _, s := range o.list[from:to] {
			if s.Online > most.Online {
				most = s
			}
		}
		out = append(out, most)
	}
	out[limit-1] = o.list[len(o.list)-1] // what is now is not left out
	return out
}

// watchOnline takes samples until ctx is done.
func (r *Runner) watchOnline(ctx context.Context) error {
	t := time.NewTicker(time.Second) // until somebody knows
	defer t.Stop()
	for known, told := false, false; ; {
		if s, ok := r.sampleOnline(time.Now()); ok {
			if !known {
				known = true
				t.Reset(onlineEvery)
			}
			if err := r.online.add(s); err != nil && !told {
				told = true
				r.log.WarnContext(ctx, "who is online was not kept", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// sampleOnline counts who is in the run now; false before it is known.
func (r *Runner) sampleOnline(now time.Time) (api.OnlineSample, bool) {
	v := r.view.Load()
	if v == nil {
		return api.OnlineSample{}, false
	}
	works := func(p msg.Phase) bool { return p == msg.PhaseTrain || p == msg.PhaseExchange || p == msg.PhaseVote }
	s := api.OnlineSample{Time: now.UTC().Truncate(time.Second), Online: 1, Seats: len(v.Seats)}
	if works(v.Phase) && v.Seat >= 0 {
		s.Working++
	}
	for _, k := range v.Members {
		if now.Sub(k.Seen) > memberFor && now.After(k.Silent) || k.Status.Peer == r.hub.self {
			continue
		}
		s.Online++
		if works(k.Status.Phase) {
			s.Working++
		}
	}
	return s, true
}

// Online says who was in the run.
func (r *Runner) Online() []api.OnlineSample { return r.online.tell(api.MaxOnline) }
