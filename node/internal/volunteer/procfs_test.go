package volunteer

import (
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"testing/fstest"
)

func files(m map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, content := range m {
		root[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return root
}

func TestReadBattery(t *testing.T) {
	const dir = "sys/class/power_supply/"
	for _, x := range []struct {
		name string
		root fstest.MapFS
		want *bool
	}{
		{"no such folder", files(nil), nil},
		{"desktop", files(map[string]string{dir + "AC/type": "Mains\n", dir + "AC/online": "1\n"}), new(false)},
		{"on battery", files(map[string]string{dir + "AC/type": "Mains\n", dir + "BAT0/type": "Battery\n", dir + "BAT0/status": "Discharging\n"}), new(true)},
		{"charging", files(map[string]string{dir + "BAT0/type": "Battery\n", dir + "BAT0/status": "Charging\n"}), new(false)},
		{"mouse", files(map[string]string{dir + "hid/type": "Battery\n", dir + "hid/scope": "Device\n", dir + "hid/status": "Discharging\n"}), new(false)},
	} {
		if got := readBattery(x.root); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: got %v", x.name, got)
		}
	}
}

func TestReadTemps(t *testing.T) {
	zone := map[string]string{"sys/class/thermal/thermal_zone0/type": "acpitz\n", "sys/class/thermal/thermal_zone0/temp": "20000\n"}
	if got := readTemps(files(zone)); got != nil {
		t.Errorf("a board's zone is read as the processor's: %v", got)
	}
	zone["sys/class/thermal/thermal_zone1/type"], zone["sys/class/thermal/thermal_zone1/temp"] = "x86_pkg_temp\n", "61500\n"
	if got := readTemps(files(zone)); !reflect.DeepEqual(got, []Temp{{"the processor", 61}}) {
		t.Errorf("got %v", got)
	}
	for name, content := range map[string]string{
		"0/name": "nvme\n", "0/temp1_input": "90000\n", "1/name": "k10temp\n", "1/temp1_input": "70125\n", "1/temp3_input": "72000\n", "1/temp9_input": "broken\n",
	} {
		zone["sys/class/hwmon/hwmon"+name] = content
	}
	if got := readTemps(files(zone)); !reflect.DeepEqual(got, []Temp{{"the processor", 72}}) {
		t.Errorf("got %v", got)
	}
}

func TestReadLoad(t *testing.T) {
	root := files(map[string]string{
		"proc/stat":    "cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1 1 1\n",
		"proc/meminfo": "MemTotal:        8000 kB\nMemFree:  100 kB\nMemAvailable:    6000 kB\nHugePages_Total:       0\n",
	})
	var times cpuTimes
	if l := readLoad(root, &times); l == nil || *l != (Load{0, 2000 << 10, 8000 << 10}) {
		t.Errorf("at first %+v", l)
	}
	root["proc/stat"] = &fstest.MapFile{Data: []byte("cpu  150 0 125 800 125 0 0 0 90 0\n")}
	if l := readLoad(root, &times); l == nil || l.Util != 37 {
		t.Errorf("then %+v, want 75 of 200", l)
	}
	for _, bad := range []string{"", "cpu a b c d e\n", "intr 1 2 3 4 5\n"} {
		if l := readLoad(files(map[string]string{"proc/stat": bad}), &times); l != nil {
			t.Errorf("%q: %+v", bad, l)
		}
	}
}

func TestReadApps(t *testing.T) {
	got := readApps(files(map[string]string{
		"proc/1/comm": "systemd\n", "proc/1/cmdline": "/sbin/init\x00splash\x00",
		"proc/20/comm": "a-very-long-nam\n", "proc/20/cmdline": "/opt/a-very-long-name\x00",
		"proc/21/comm": "wine64\n", "proc/21/cmdline": `C:\games\Elden.exe` + "\x00",
		"proc/22/comm": "kthreadd\n", "proc/22/cmdline": "",
		"proc/meminfo": "x", "proc/self/comm": "me\n",
	}))
	want := []string{"Elden.exe", "a-very-long-nam", "a-very-long-name", "init", "kthreadd", "systemd", "wine64"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if runtime.GOOS == "linux" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(readApps(os.DirFS("/")), filepath.Base(self)) {
			t.Error("this test is not among the running programs")
		}
	}
}
