package device

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/internal/cuda"
)

func TestLook(t *testing.T) {
	const self, other = 100, 200
	const gb = int64(1e9)
	sensors := cuda.Use{Celsius: new(71), Busy: new(90), Watts: new(142.6), UsedBytes: new(5 * gb), TotalBytes: new(8 * gb)}
	use := func(shares bool, processes ...cuda.Process) cuda.Use {
		u := sensors
		u.Shares, u.Processes = shares, append([]cuda.Process{}, processes...)
		return u
	}
	want := func(bytes *int64, busy *int) Use {
		return Use{Name: "RTX", Celsius: new(71), Busy: new(90), Watts: new(143), UsedBytes: new(5 * gb), TotalBytes: new(8 * gb), OtherBytes: bytes, OtherBusy: busy}
	}
	for _, tt := range []struct {
		name   string
		u      cuda.Use
		opened bool
		want   Use
		err    error
	}{
		{name: "processes are not known", u: sensors, want: want(nil, nil)},
		{name: "nobody", u: use(true), want: want(new(int64(0)), new(0))},
		{name: "this one", u: use(true, cuda.Process{PID: self, UsedBytes: new(4 * gb), Busy: 80}), opened: true, want: want(new(int64(0)), new(0))},
		{
			name: "this one and others", opened: true,
			u:    use(true, cuda.Process{PID: self, UsedBytes: new(4 * gb), Busy: 80}, cuda.Process{PID: other, UsedBytes: new(gb), Busy: 15}, cuda.Process{PID: 7, UsedBytes: new(gb), Busy: 1}),
			want: want(new(2*gb), new(16)),
		},
		{name: "memory is not known", u: use(true, cuda.Process{PID: other, Busy: 15}), want: want(nil, new(15))},
		{name: "shares are not known, this one is on it", u: use(false, cuda.Process{PID: self}, cuda.Process{PID: other, UsedBytes: new(gb)}), opened: true, want: want(new(gb), nil)},
		{name: "shares are not known, only others are", u: use(false, cuda.Process{PID: other, UsedBytes: new(gb)}), want: want(new(gb), new(90))},
		{name: "a container", u: use(true, cuda.Process{PID: other, UsedBytes: new(4 * gb)}), opened: true, want: want(nil, nil), err: ErrAlike},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &GPU{query: func(int) (cuda.Info, error) { return cuda.Info{Name: "RTX", Bus: "b"}, nil }}
			g.watch.pid = self
			g.watch.read = func(bus string, _ uint64) (cuda.Use, error) {
				if bus != "b" {
					t.Errorf("bus %q", bus)
				}
				return tt.u, nil
			}
			g.watch.opened.Store(tt.opened)
			got, err := g.Look()
			if d := cmp.Diff(tt.want, got); d != "" || !errors.Is(err, tt.err) {
				t.Errorf("Look(): %v\n%s", err, d)
			}
		})
	}
}

// Once this process was seen, it is known again after it gave the memory back.
func TestLookAfterRelease(t *testing.T) {
	list := []cuda.Process{{PID: 100, UsedBytes: new(int64(9))}}
	g := &GPU{query: func(int) (cuda.Info, error) { return cuda.Info{Bus: "b"}, nil }}
	g.watch.pid = 100
	g.watch.opened.Store(true)
	var since []uint64
	g.watch.read = func(_ string, s uint64) (cuda.Use, error) {
		since = append(since, s)
		return cuda.Use{Processes: list, Shares: true, Time: s + 5}, nil
	}
	if _, err := g.Look(); err != nil {
		t.Fatal(err)
	}
	list = []cuda.Process{{PID: 200, UsedBytes: new(int64(7))}}
	if u, err := g.Look(); err != nil || u.OtherBytes == nil || *u.OtherBytes != 7 {
		t.Errorf("Look() = %+v, %v", u, err)
	}
	if d := cmp.Diff([]uint64{0, 5}, since); d != "" {
		t.Error(d)
	}
}

// A GPU that cannot be used is not asked every two seconds.
func TestLookLeavesABrokenGPUAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		g := &GPU{query: func(int) (cuda.Info, error) { asked++; return cuda.Info{}, errors.New("gone") }}
		for range 100 {
			if _, err := g.Look(); err == nil {
				t.Fatal("no error")
			}
			time.Sleep(2 * time.Second)
		}
		if asked != 4 {
			t.Errorf("asked %d times in 200 s", asked)
		}
	})
}

func TestReserve(t *testing.T) {
	const gb = int64(1e9)
	g := &GPU{query: func(int) (cuda.Info, error) { return cuda.Info{FreeBytes: 6 * gb}, nil }}
	_, before, err := g.Room()
	if err != nil {
		t.Fatal(err)
	}
	if most := g.most(6 * gb); most != 0 {
		t.Errorf("without a reserve it is bounded to %d", most)
	}
	g.Reserve(2 * gb)
	if _, after, err := g.Room(); err != nil || before-after != 2*gb {
		t.Errorf("room %d, before %d, %v", after, before, err)
	}
	if most := g.most(6 * gb); most != 4*gb {
		t.Errorf("it takes %d at most", most)
	}
	if most := g.most(gb); most != 1 {
		t.Errorf("of too little it takes %d", most)
	}
}
