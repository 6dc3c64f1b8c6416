package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// gpu is a machine with one GPU that gets hotter with every look.
type gpu struct{ looks int }

func (g *gpu) look() api.UsageSample {
	g.looks++
	return api.UsageSample{
		Devices: []api.Device{
			{Name: "gpu", Celsius: new(30 + g.looks%12), UtilPercent: new(10 * (g.looks % 2)), UsedBytes: new(int64(g.looks)), TotalBytes: new(int64(9)), Watts: new(100 + 2*(g.looks%12)), OtherBytes: new(int64(1))},
			{Name: "bare"},
		},
		ProcessBytes: new(int64(7)), ProcessPercent: new(float64(g.looks % 2)), MaxCelsius: 83, DutyPercent: 70,
	}
}

// start runs a history until stop is called.
func start(t *testing.T, path string, look func() api.UsageSample) (h *History, log *bytes.Buffer, stop func()) {
	t.Helper()
	log = new(bytes.Buffer)
	h = New(Options{File: path, Look: look, Log: slog.New(slog.NewTextHandler(log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	return h, log, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func hourOf(h *History) []api.UsageSample {
	return h.Since(api.UsageRequest{Span: api.UsageHour}).Samples
}

func dayOf(h *History) []api.UsageSample {
	return h.Since(api.UsageRequest{Span: api.UsageDay}).Samples
}

// Two days are an hour in steps of five seconds and a day of minutes, and what
// is kept does not grow.
func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "usage")
		h, log, stop := start(t, path, new(gpu).look)
		defer stop()
		time.Sleep(2*day + 7*time.Second)
		synctest.Wait()
		fine, minutes := hourOf(h), dayOf(h)
		if len(fine) != int(hour/step) || len(minutes) != int(day/minute) {
			t.Fatalf("%d samples and %d minutes, want 720 and 1440", len(fine), len(minutes))
		}
		if cap(h.fine) > 4*len(fine) || cap(h.minutes) > 4*len(minutes) {
			t.Errorf("memory of %d and %d samples is held", cap(h.fine), cap(h.minutes))
		}
		for _, l := range [][]api.UsageSample{fine, minutes} {
			for i := range l[1:] {
				if got, want := l[i+1].Time.Sub(l[i].Time), l[1].Time.Sub(l[0].Time); got != want {
					t.Fatalf("samples %d and %d are %v apart, others %v", i, i+1, got, want)
				}
			}
		}
		// Of twelve looks the mean of the load and of the power, the highest else.
		m := minutes[3]
		if m.Time != m.Time.Truncate(time.Minute) || *m.Devices[0].UtilPercent != 5 || *m.Devices[0].Celsius != 41 || *m.Devices[0].Watts != 111 ||
			*m.ProcessPercent != 0.5 || *m.Devices[0].TotalBytes != 9 || m.MaxCelsius != 83 || m.DutyPercent != 70 {
			b, _ := json.Marshal(m)
			t.Errorf("a minute is %s", b)
		}
		if d := m.Devices[1]; d.UtilPercent != nil || d.Celsius != nil || d.Watts != nil || d.UsedBytes != nil {
			t.Errorf("what nobody knows is told: %+v", d)
		}
		if got := h.Since(api.UsageRequest{Span: api.UsageHour, After: fine[len(fine)-3].Time}).Samples; len(got) != 2 || !got[0].Time.Equal(fine[len(fine)-2].Time) {
			t.Errorf("after the third last come %d samples", len(got))
		}
		if lines := lines(t, path); lines > maxLines {
			t.Errorf("the file has %d lines, at most %d are to be there", lines, maxLines)
		}
		if log.Len() > 0 {
			t.Errorf("it logged %s", log)
		}
	})
}

func lines(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// After a restart the minutes go on, with a gap; a line that was cut off and
// one that is damaged are lost alone.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "usage")
		h, _, stop := start(t, path, new(gpu).look)
		time.Sleep(10*time.Minute + time.Second)
		stop()
		before := dayOf(h)
		if len(before) != 10 {
			t.Fatalf("%d minutes", len(before))
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.SplitAfter(string(b), "\n")
		all[4] = "x" + all[4]
		if err := os.WriteFile(path, []byte(strings.Join(all[:9], "")+all[9][:20]), 0o600); err != nil {
			t.Fatal(err)
		}
		want := append(append([]api.UsageSample{}, before[:4]...), before[5:9]...)
		time.Sleep(30 * time.Minute)
		h, _, stop = start(t, path, new(gpu).look)
		if diff := cmp.Diff(want, dayOf(h)); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		stop()
		if n := lines(t, path); n != 8+3 {
			t.Errorf("the file has %d lines, want 11", n)
		}
		if got := dayOf(New(Options{File: path, Log: slog.New(slog.DiscardHandler)})); len(got) != 11 || got[8].Time.Sub(got[7].Time) < 30*time.Minute {
			t.Errorf("%d minutes are kept", len(got))
		}
		// What is older than a day, or in the future, is not told.
		time.Sleep(day - 35*time.Minute)
		if got := dayOf(New(Options{File: path, Log: slog.New(slog.DiscardHandler)})); len(got) != 3 {
			t.Errorf("%d minutes a day later, want the 3 of the second start", len(got))
		}
	})
}

// A clock that is set back hides nothing of what comes, and one file has both.
func TestClockSetBack(t *testing.T) {
	h := New(Options{File: filepath.Join(t.TempDir(), "usage"), Log: slog.New(slog.DiscardHandler)})
	at := time.Now().Add(-5 * time.Hour).Truncate(time.Minute)
	var kept []api.UsageSample
	for _, after := range []time.Duration{0, time.Minute, 2 * time.Minute, 3 * time.Minute, time.Minute + 5*time.Second, 2*time.Minute + 5*time.Second, 3*time.Minute + 5*time.Second} {
		if m := h.add(api.UsageSample{Time: at.Add(after), DutyPercent: int(after / time.Second)}); m != nil {
			kept = append(kept, *m)
			if err := h.file.append(*m, h.newest); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(kept) != 6 {
		t.Fatalf("%d minutes were kept, want 6", len(kept))
	}
	want := []time.Duration{0, time.Minute, 2 * time.Minute}
	for _, l := range [][]api.UsageSample{dayOf(h), dayOf(New(Options{File: h.file.path, Log: slog.New(slog.DiscardHandler)}))} {
		var got []time.Duration
		for _, s := range l {
			got = append(got, s.Time.Sub(at))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("minutes (-want +got):\n%s", diff)
		}
	}
	if l := hourOf(h); len(l) != 5 || l[2].DutyPercent != 65 {
		t.Errorf("the hour has %d samples", len(l))
	}
}

// What cannot be written is said once, and written later.
func TestNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "there")
		path := filepath.Join(dir, "usage")
		_, log, stop := start(t, path, new(gpu).look)
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "was not kept"); n != 1 {
			t.Errorf("it is said %d times: %s", n, log)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := lines(t, path); n < 5 {
			t.Errorf("%d minutes were written when it was possible again", n)
		}
	})
}

// A file that is not ours costs its content alone.
func TestForeignFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), maxBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	h := New(Options{File: path, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if len(dayOf(h)) != 0 || !strings.Contains(log.String(), "more than") {
		t.Errorf("%d minutes, log %s", len(dayOf(h)), &log)
	}
	if err := h.file.append(api.UsageSample{Time: time.Now()}, h.newest); err != nil {
		t.Fatal(err)
	}
	if n := lines(t, path); n != 0 {
		t.Errorf("%d lines", n)
	}
}

// This process has memory and takes time, on systems that tell.
func TestProcess(t *testing.T) {
	p := NewProcess()
	if _, percent := p.Look(); percent != nil {
		t.Errorf("%v %% of no time", *percent)
	}
	var bytes *int64
	var percent *float64
	for begin := time.Now(); time.Since(begin) < 2*time.Minute && (percent == nil || *percent == 0); { // processor time has a grain
		for spin := time.Now(); time.Since(spin) < 50*time.Millisecond; {
		}
		if bytes, percent = p.Look(); runtime.GOOS != "linux" {
			break
		}
	}
	if runtime.GOOS != "linux" {
		t.Skip("what a process takes is only checked on Linux")
	}
	if bytes == nil || *bytes < 1<<20 || percent == nil || *percent <= 0 || *percent > 100 {
		t.Errorf("memory %v, processor %v", bytes, percent)
	}
}
