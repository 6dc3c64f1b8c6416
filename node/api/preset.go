package api

import (
	"embed"
	"slices"
	"strconv"
	"strings"
)

// A run file is a preset, with what all have in common from the parts. There
// is no text/template here: it calls methods by name, so that all methods of
// everything in mootd would be linked, 5 MB of them.
//
//go:embed presets/*.toml presets/*.part
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
	return []byte(strings.NewReplacer(
		"{swarm}\n", presetFile("swarm.part"),
		"{rules}\n", presetFile("rules.part"),
		"{name}", strconv.Quote(v.Name),
		"{model}", strconv.Quote(v.Model),
		"{data}", strconv.Quote(v.Data),
	).Replace(presetFile(preset + ".toml"))), nil
}

func presetFile(name string) string {
	text, err := presets.ReadFile("presets/" + name)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return string(text)
}
