package autostart

import (
	"fmt"
	"path/filepath"
	"strings"
)

const unitName = "mootd.service"

// unitText is a unit of the user's own systemd. What would need a mount
// namespace (ProtectSystem, ReadWritePaths) is left out: models are imported
// where they lie, and a user's systemd cannot always make one. Memory may be
// written and executed because the driver of a GPU compiles into it.
const unitText = `# Written by "mootd service install"; "mootd service uninstall" removes it.
[Unit]
Description=moot node: trains in the runs that its user joined
Documentation=man:mootd(1)
StartLimitIntervalSec=10min
StartLimitBurst=5

[Service]
Type=exec
ExecStart=%s
# An error that comes back each time is not tried again: usage, configuration,
# token, GPU, version, refused.
Restart=on-failure
RestartSec=10s
RestartPreventExitStatus=2 3 5 7 12 15 16 130
# It saves the step that is under way first.
KillMode=mixed
TimeoutStopSec=2min

# Everything else on the machine goes first.
Nice=10
CPUWeight=20
IOSchedulingClass=idle
OOMScoreAdjust=500

UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
`

func systemd(o Options) *Unit {
	ctl := func(args ...string) []string { return append([]string{"systemctl", "--user"}, args...) }
	words := make([]string, 0, 1+len(o.Args))
	for _, a := range append([]string{o.Exe}, o.Args...) {
		words = append(words, systemdQuote(a))
	}
	home := o.ConfigHome
	if home == "" {
		home = filepath.Join(o.Home, ".config")
	}
	return &Unit{
		System: "systemd", Path: filepath.Join(home, "systemd", "user", unitName),
		Content: fmt.Appendf(nil, unitText, strings.Join(words, " ")),
		Note:    `it runs while you are logged in; "loginctl enable-linger" keeps it running afterwards. Its log: journalctl --user -u mootd`,

		install:   [][]string{ctl("daemon-reload"), ctl("enable", unitName), ctl("restart", unitName)},
		uninstall: [][]string{ctl("disable", "--now", unitName)},
		removed:   [][]string{ctl("daemon-reload")},
		status:    [][]string{ctl("is-enabled", unitName), ctl("is-active", unitName)},
	}
}

// systemdQuote writes a word of ExecStart.
func systemdQuote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$").Replace(s)
	if strings.ContainsAny(s, " \t'\"\\;") || s == "" {
		return `"` + s + `"`
	}
	return s
}
