package runner

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// TestOnlineIsKept: a change is kept at once, no change now and then, also over
// a restart and a torn write.
func TestOnlineIsKept(t *testing.T) {
	dir := t.TempDir()
	o, err := readOnline(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := func(minutes float64, online, working, seats int) api.OnlineSample {
		return api.OnlineSample{Time: time.Unix(1_700_000_000, 0).UTC().Add(time.Duration(minutes * float64(time.Minute))), Online: online, Working: working, Seats: seats}
	}
	for _, s := range []api.OnlineSample{at(0, 1, 1, 1), at(0.25, 1, 1, 1), at(0.5, 2, 1, 1), at(1, 2, 1, 2), at(10.9, 2, 1, 2), at(11, 2, 1, 2), at(12, 70_000, 0, 2)} {
		if err := o.add(s); err != nil {
			t.Fatal(err)
		}
	}
	want := []api.OnlineSample{at(0, 1, 1, 1), at(0.5, 2, 1, 1), at(1, 2, 1, 2), at(11, 2, 1, 2), at(12, 70_000, 0, 2)}
	if diff := cmp.Diff(want, o.tell(100)); diff != "" {
		t.Error(diff)
	}
	f, err := os.OpenFile(o.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if o, err = readOnline(dir); err != nil {
		t.Fatal(err)
	}
	if err := o.add(at(20, 3, 3, 2)); err != nil {
		t.Fatal(err)
	}
	if o, err = readOnline(dir); err != nil {
		t.Fatal(err)
	}
	want[4].Online = 65535
	if diff := cmp.Diff(append(want, at(20, 3, 3, 2)), o.tell(100)); diff != "" {
		t.Error(diff)
	}
}

// TestOnlineTorn: after a write that came to a part of a sample, the file is whole again
// with the next.
func TestOnlineTorn(t *testing.T) {
	dir := t.TempDir()
	o, err := readOnline(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := func(i int) api.OnlineSample {
		return api.OnlineSample{Time: time.Unix(int64(1_700_000_000+i), 0).UTC(), Online: i, Working: 1, Seats: 1}
	}
	if err := o.add(at(1)); err != nil {
		t.Fatal(err)
	}
	path := o.path
	o.path = dir // cannot be written
	if err := o.add(at(2)); err == nil {
		t.Error("a sample that cannot be written is no error")
	}
	o.path = path
	if err := os.WriteFile(path, appendOnline(appendOnline(nil, at(1)), at(2))[:onlineBytes+4], 0o600); err != nil {
		t.Fatal(err)
	}
	for i := 3; i < 5; i++ {
		if err := o.add(at(i)); err != nil {
			t.Fatal(err)
		}
	}
	if o, err = readOnline(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]api.OnlineSample{at(1), at(2), at(3), at(4)}, o.tell(100)); diff != "" {
		t.Error(diff)
	}
}

// TestOnlineIsBounded: in memory, on disk and in an answer, which has the
// highest of each stretch, and what is now.
func TestOnlineIsBounded(t *testing.T) {
	o, err := readOnline(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Unix(1_700_000_000, 0).UTC()
	for i := range 2*keptOnline - 1 {
		o.list = append(o.list, api.OnlineSample{Time: began.Add(time.Duration(i) * time.Second), Online: 1 + i%2})
	}
	o.list[keptOnline+5].Online = 99
	if err := o.add(api.OnlineSample{Time: began.Add(24 * time.Hour), Online: 7}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(o.path)
	if err != nil || len(o.list) != keptOnline || info.Size() != keptOnline*onlineBytes {
		t.Fatalf("%d samples, %v, %v", len(o.list), info, err)
	}
	got := o.tell(100)
	if len(got) != 100 || got[0].Online != 99 || got[99].Online != 7 {
		t.Errorf("%d samples, the first %v, the last %v", len(got), got[0], got[len(got)-1])
	}
	for _, s := range got[1:99] {
		if s.Online != 2 {
			t.Errorf("%v is not the highest of its stretch", s)
		}
	}
}
