package autostart

import (
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
)

const agentName = "net.moot.mootd"

const agentText = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by "mootd service install"; "mootd service uninstall" removes it. -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>` + agentName + `</string>
	<key>ProgramArguments</key>
	<array>
%s	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>KeepAlive</key>
	<dict>
		<key>SuccessfulExit</key>
		<false/>
	</dict>
	<key>ThrottleInterval</key>
	<integer>30</integer>
	<key>ExitTimeOut</key>
	<integer>120</integer>
	<key>ProcessType</key>
	<string>Background</string>
	<key>Nice</key>
	<integer>10</integer>
	<key>LowPriorityIO</key>
	<true/>
	<key>Umask</key>
	<integer>63</integer>
</dict>
</plist>
`

func launchd(o Options) *Unit {
	var words strings.Builder
	for _, a := range append(append([]string{o.Exe}, o.Args...), logArgs(o)...) {
		fmt.Fprintf(&words, "\t\t<string>%s</string>\n", xmlText(a))
	}
	path := filepath.Join(o.Home, "Library", "LaunchAgents", agentName+".plist")
	domain := fmt.Sprintf("gui/%d", o.UID)
	return &Unit{
		System: "launchd", Path: path, Content: fmt.Appendf(nil, agentText, words.String()),
		Note: "it runs while you are logged in; its log is " + logFile(o),

		// One that is loaded is not read again.
		install:   [][]string{{"/bin/sh", "-c", "launchctl bootout " + domain + "/" + agentName + " 2>/dev/null; :"}, {"launchctl", "bootstrap", domain, path}},
		uninstall: [][]string{{"launchctl", "bootout", domain + "/" + agentName}},
		status:    [][]string{{"launchctl", "print", domain + "/" + agentName}},
	}
}

func logFile(o Options) string { return filepath.Join(o.DataDir, "mootd.log") }

// logArgs are for systems without a journal.
func logArgs(o Options) []string { return []string{"--log-file", logFile(o)} }

func xmlText(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes all
	return b.String()
}
