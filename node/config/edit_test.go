package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEditKeepsTheRest(t *testing.T) {
	const file = `# my node
threads = 3 # of 8
log_level = "warn"

# when it works
[work]
schedule = [ # nights
  "Mon-Fri 22:00-07:00", # not 8
]
exclusive_apps = ["a#b"]  # odd
# end of work

[network]
upload_mbit = 5.0
`
	for _, tt := range []struct {
		name string
		from string
		set  Set
		want string
	}{
		{"a value", file, Set{"threads", []string{"4"}}, strings.Replace(file, "threads = 3", "threads = 4", 1)},
		{"a text", file, Set{"log_level", []string{"debug"}}, strings.Replace(file, `"warn"`, `'debug'`, 1)},
		{
			"a list of lines", file,
			Set{"work.schedule", []string{"Sat,Sun 00:00-24:00; Mon 1:00-2:00"}},
			strings.Replace(file, "[ # nights\n  \"Mon-Fri 22:00-07:00\", # not 8\n]", "['Sat,Sun 00:00-24:00', 'Mon 1:00-2:00']", 1),
		},
		{"a value with a hash", file, Set{"work.exclusive_apps", []string{"Elden Ring", "b"}}, strings.Replace(file, `["a#b"]`, `['Elden Ring', 'b']`, 1)},
		{"another of a table", file, Set{"work.duty_percent", []string{"40"}}, strings.Replace(file, "# odd\n", "# odd\nduty_percent = 40\n", 1)},
		{"another at the top", file, Set{"mdns", []string{"false"}}, strings.Replace(file, "\"warn\"\n", "\"warn\"\nmdns = false\n", 1)},
		{"another at the end", file, Set{"network.public", []string{"true"}}, file + "public = true\n"},
		{"an empty file", "", Set{"work.duty_percent", []string{"40"}}, "[work]\nduty_percent = 40\n"},
		{"a new table", "threads = 3", Set{"work.duty_percent", []string{"40"}}, "threads = 3\n\n[work]\nduty_percent = 40\n"},
		{"a table alone", "[work]\n", Set{"threads", []string{"2"}}, "threads = 2\n[work]\n"},
		{"an empty table", "[work]\n[network]\n", Set{"work.on_battery", []string{"true"}}, "[work]\non_battery = true\n[network]\n"},
		{"a dotted key", "work.duty_percent = 30 # quiet", Set{"work.duty_percent", []string{"40"}}, "work.duty_percent = 40 # quiet"},
		{"CRLF", "threads = 3\r\nmdns = true\r\n", Set{"threads", []string{"4"}}, "threads = 4\r\nmdns = true\r\n"},
		{"beside a dotted key", "work.duty_percent = 30\n", Set{"work.on_battery", []string{"true"}}, "[work]\nduty_percent = 30\non_battery = true\n"},
		{"an inline table", "work = {duty_percent = 30}\n", Set{"work.duty_percent", []string{"40"}}, "[work]\nduty_percent = 40\n"},
		{"a list as in a file", "", Set{"bootstrap", []string{`[]`}}, "bootstrap = []\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "moot", "mootd.toml")
			if tt.from != "" {
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(tt.from), 0o640); err != nil {
					t.Fatal(err)
				}
			}
			if err := Edit(path, tt.set); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(b)); diff != "" {
				t.Error(diff)
			}
			if info, err := os.Stat(path); err != nil || tt.from != "" && info.Mode().Perm() != 0o640 || tt.from == "" && info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestEditWritesNothingThatIsWrong(t *testing.T) {
	for _, tt := range []struct{ name, file, key, value, want string }{
		{"unknown key", "threads = 2\n", "work.duty", "3", `did you mean "work.duty_percent"?`},
		{"bad value", "threads = 2\n", "work.duty_percent", "0", "must be between 1 and 100"},
		{"no number", "threads = 2\n", "threads", "many", "must be a number"},
		{"bad schedule", "threads = 2\n", "work.schedule", "Mon 25:00-26:00", "has no times"},
		{"broken file", "threads = \n", "threads", "2", ":1:"},
		{"not a list", "threads = 2\n", "bootstrap", "[1", "must be a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "mootd.toml")
			if err := os.WriteFile(path, []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Edit(path, Set{tt.key, []string{tt.value}}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tt.file {
				t.Errorf("the file is %q, %v", b, err)
			}
		})
	}
}
