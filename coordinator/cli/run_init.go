package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/plain"
)

func newRunInit(e *env) *cobra.Command {
	var (
		v      api.RunFileValues
		preset string
	)
	cmd := &cobra.Command{
		Use:   "init FILE",
		Short: "Write a run file with comments to begin with",
		Long: `Writes a run file with comments. The presets are alpaca (LoRA on a model in 16
bits), which names everything that can be set, with its default; qlora (on one in
four bits); and full (all parameters of a small model). A file that is there is not touched.`,
		Example: `  moot run init run.toml
  moot run init run.toml --preset qlora --model last --data last --name "pirate talk"`,
		Args: needs(false, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if v.Name == "" {
				v.Name = strings.TrimSuffix(filepath.Base(args[0]), filepath.Ext(args[0]))
			}
			return runRunInit(cmd, e, args[0], preset, v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&preset, "preset", api.PresetAlpaca, "`name` of what to begin with: "+strings.Join(api.Presets(), ", "))
	f.StringVar(&v.Name, "name", "", "`name` of the run (default: that of the file)")
	f.StringVar(&v.Model, "model", "", "`ID` of the base model (default: left open)")
	f.StringVar(&v.Data, "data", "", "`ID` of the data set (default: left open)")
	return cmd
}

// runFileMade is the answer of moot run init.
type runFileMade struct {
	File   string `json:"file"`
	Preset string `json:"preset"`
	Model  string `json:"model,omitempty"`
	Data   string `json:"data,omitempty"`
}

func runRunInit(cmd *cobra.Command, e *env, file, preset string, v api.RunFileValues) error {
	if err := e.lookUp(cmd, &v); err != nil {
		return err
	}
	b, err := api.RunFile(preset, v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return api.Errorf(api.CodeConflict, "%s is there already", file).WithHint("give another name, or take it away first")
	case err != nil:
		return api.Errorf(api.CodeUsage, "write run file: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return api.Errorf(api.CodeDisk, "write run file: %w", err)
	}
	return e.answer(runFileMade{file, preset, v.Model, v.Data}, func(p *page) {
		with := file
		if v.Model == "" {
			with += " --model last"
		}
		if v.Data == "" {
			with += " --data last"
		}
		p.line("wrote %s. Read it, and then:\n  moot run plan %s\n  moot launch %[2]s", plain.Clean(file), plain.Clean(with))
	})
}

// lookUp replaces "last" by the ID of the last import.
func (e *env) lookUp(cmd *cobra.Command, v *api.RunFileValues) error {
	if v.Model != "last" && v.Data != "last" {
		return nil
	}
	c, err := e.open()
	if err != nil {
		return err
	}
	if v.Model == "last" {
		models, err := c.Models(cmd.Context())
		if err != nil {
			return err
		}
		if len(models.Models) == 0 {
			return api.Errorf(api.CodeNotFound, "no model was imported yet").WithHint(`"moot model import FOLDER" does`)
		}
		v.Model = models.Models[len(models.Models)-1].ID
	}
	if v.Data == "last" {
		sets, err := c.Datasets(cmd.Context())
		if err != nil {
			return err
		}
		if len(sets.Datasets) == 0 {
			return api.Errorf(api.CodeNotFound, "no data set was imported yet").WithHint(`"moot data import FILE" does`)
		}
		v.Data = sets.Datasets[len(sets.Datasets)-1].ID
	}
	return nil
}
