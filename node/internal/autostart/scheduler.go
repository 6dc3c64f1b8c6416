package autostart

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf16"
)

const taskName = `moot\mootd`

// taskText is a task that runs in the session of its user, where the GPU is;
// conhost --headless keeps its console from showing.
const taskText = `<?xml version="1.0" encoding="UTF-16"?>
<!-- Written by "mootd service install"; "mootd service uninstall" removes it. -->
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>moot node: trains in the runs that its user joined</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <UserId>%[1]s</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>%[1]s</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <AllowHardTerminate>true</AllowHardTerminate>
    <StartWhenAvailable>true</StartWhenAvailable>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>7</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>5</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>conhost.exe</Command>
      <Arguments>%[2]s</Arguments>
      <WorkingDirectory>%[3]s</WorkingDirectory>
    </Exec>
  </Actions>
</Task>
`

func scheduler(o Options) *Unit {
	words := []string{"--headless"}
	for _, a := range append(append([]string{o.Exe}, o.Args...), logArgs(o)...) {
		words = append(words, windowsQuote(a))
	}
	path := filepath.Join(o.DataDir, "mootd-task.xml")
	return &Unit{
		System: "task scheduler", Path: path,
		Content: utf16Text(fmt.Sprintf(taskText, xmlText(o.User), xmlText(strings.Join(words, " ")), xmlText(o.Home))),
		Note:    "it runs while you are logged in; its log is " + logFile(o),

		install:   [][]string{{"schtasks", "/Create", "/F", "/TN", taskName, "/XML", path}, {"schtasks", "/Run", "/TN", taskName}},
		uninstall: [][]string{{"schtasks", "/End", "/TN", taskName}, {"schtasks", "/Delete", "/F", "/TN", taskName}},
		status:    [][]string{{"schtasks", "/Query", "/TN", taskName, "/FO", "LIST"}},
	}
}

// windowsQuote writes a word as programs of Windows split their command lines:
// backslashes count only before a quote.
func windowsQuote(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\"") {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for _, r := range s {
		switch r {
		case '\\':
			slashes++
		case '"':
			b.WriteString(strings.Repeat(`\`, slashes+1))
			slashes = 0
		default:
			slashes = 0
		}
		b.WriteRune(r)
	}
	b.WriteString(strings.Repeat(`\`, slashes))
	b.WriteByte('"')
	return b.String()
}

// utf16Text is how the scheduler wants its file: UTF-16, with lines of Windows.
func utf16Text(s string) []byte {
	units := utf16.Encode([]rune("\ufeff" + strings.ReplaceAll(s, "\n", "\r\n")))
	b := make([]byte, 0, 2*len(units))
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}
