package volunteer

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// desktop asks Windows.
type desktop struct{}

func newDesktop() *desktop { return &desktop{} }

func (*desktop) close() {}

var (
	user32               = windows.NewLazySystemDLL("user32.dll")
	kernel32             = windows.NewLazySystemDLL("kernel32.dll")
	shell32              = windows.NewLazySystemDLL("shell32.dll")
	getLastInputInfo     = user32.NewProc("GetLastInputInfo")
	getTickCount         = kernel32.NewProc("GetTickCount")
	getSystemPowerStatus = kernel32.NewProc("GetSystemPowerStatus")
	notificationState    = shell32.NewProc("SHQueryUserNotificationState")
)

// look fills in what the settings need. Windows has no GameMode to ask: games
// fill the screen.
func (*desktop) look(s Settings, v *Observation) {
	if s.IdleOnly > 0 {
		if idle, err := idleTime(); err != nil {
			v.unseen(SightIdle, err.Error())
		} else {
			v.Idle = &idle
		}
	}
	if s.Fullscreen || s.GameMode {
		lookFullscreen(v)
	}
	if len(s.ExclusiveApps) > 0 {
		apps, err := processes()
		if err != nil {
			v.unseen(SightApps, err.Error())
		}
		v.Apps = apps
	}
	var power powerStatus
	if ok, _, _ := getSystemPowerStatus.Call(uintptr(unsafe.Pointer(&power))); ok != 0 {
		v.Battery = power.battery()
	}
}

// idleTime is since when there was no input.
func idleTime() (time.Duration, error) {
	info := struct{ size, time uint32 }{size: 8}
	if ok, _, err := getLastInputInfo.Call(uintptr(unsafe.Pointer(&info))); ok == 0 {
		return 0, fmt.Errorf("GetLastInputInfo: %w", err)
	}
	now, _, _ := getTickCount.Call()
	return sinceInput(uint32(now), info.time), nil
}

func lookFullscreen(v *Observation) {
	var state uint32
	result, _, _ := notificationState.Call(uintptr(unsafe.Pointer(&state)))
	readNotificationState(v, result, state)
}

// processes are the names of running programs.
func processes() ([]string, error) {
	h, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var names []string
	e := windows.ProcessEntry32{}
	e.Size = uint32(unsafe.Sizeof(e))
	for err = windows.Process32First(h, &e); err == nil; err = windows.Process32Next(h, &e) {
		names = append(names, windows.UTF16ToString(e.ExeFile[:]))
	}
	return names, nil
}
