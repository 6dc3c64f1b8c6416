package api

import (
	"bytes"
	"embed"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// A run file is a preset, with what all have in common from rules.tmpl.
//
//go:embed presets/*.toml presets/rules.tmpl
var presets embed.FS

// The run files that one can begin with.
const (
	PresetAlpaca = "alpaca" // LoRA on a model in 16 bits
	PresetQLoRA  = "qlora"  // LoRA on a model in four bits
	PresetFull   = "full"   // all parameters of a small model
)

// Presets are their names.
func Presets() []string { return []string{PresetAlpaca, PresetQLoRA, PresetFull} }

// RunFileValues are what a preset leaves open. Empty model and data are left
// to "moot launch --model --data".
type RunFileValues struct{ Name, Model, Data string }

// RunFile returns a run file with comments. Errors are of CodeUsage.
func RunFile(preset string, v RunFileValues) ([]byte, error) {
	if !slices.Contains(Presets(), preset) {
		return nil, Errorf(CodeUsage, "preset is %s, must be one of %s", clip(preset), strings.Join(Presets(), ", "))
	}
	text, err := presets.ReadFile("presets/" + preset + ".toml")
	if err != nil {
		panic("bug: " + err.Error())
	}
	t := template.Must(template.Must(template.ParseFS(presets, "presets/rules.tmpl")).New(preset).Parse(string(text)))
	quoted := RunFileValues{strconv.Quote(v.Name), strconv.Quote(v.Model), strconv.Quote(v.Data)}
	var b bytes.Buffer
	if err := t.Execute(&b, quoted); err != nil {
		panic("bug: " + err.Error())
	}
	return b.Bytes(), nil
}
