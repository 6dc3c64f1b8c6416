package runfile

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/moot-net/moot/node/api"
)

// What a preset has commented out is the default: with it or without, the file
// means the same.
func TestPresets(t *testing.T) {
	commented := regexp.MustCompile(`(?m)^# ([a-z0-9_]+ = )`)
	for _, preset := range api.Presets() {
		b, err := api.RunFile(preset, api.RunFileValues{Name: `my "first" run`, Model: "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", Data: "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"})
		if err != nil {
			t.Fatal(err)
		}
		as, err := Parse(preset, b)
		if err != nil {
			t.Fatal(err)
		}
		if as.Name != `my "first" run` || (as.Mode == "full") != (preset == api.PresetFull) {
			t.Errorf("%s: %+v", preset, as)
		}
		before, licence, _ := strings.Cut(string(b), "[licence]")
		all, err := Parse(preset, []byte(commented.ReplaceAllString(before, "$1")+"[licence]"+licence))
		if err != nil {
			t.Fatalf("%s: with what is commented out: %v", preset, err)
		}
		all.Inner.SequenceSet = as.Inner.SequenceSet // the default depends on the model
		if diff := cmp.Diff(as, all); diff != "" {
			t.Errorf("%s: what is commented out is not the default:\n%s", preset, diff)
		}
	}
	if _, err := api.RunFile("moe", api.RunFileValues{}); err == nil {
		t.Error("a preset that is not there is accepted")
	}
}

// TestPresetNamesAll: the preset that "moot run init" writes by default names
// everything that can be set.
func TestPresetNamesAll(t *testing.T) {
	b, err := api.RunFile(api.PresetAlpaca, api.RunFileValues{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	var walk func(reflect.Type)
	walk = func(k reflect.Type) {
		for i := range k.NumField() {
			f := k.Field(i)
			key := f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Struct && key != "-" {
				walk(f.Type)
			}
			if key != "" && key != "-" && key != "mode" && !regexp.MustCompile(`(?m)\b`+key+`\b`).Match(b) {
				t.Errorf("%s is not in it", key)
			}
		}
	}
	walk(reflect.TypeFor[File]())
}
