package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/app"
	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/doctor"
	"github.com/moot-net/moot/node/internal/volunteer"
)

func newDoctor(s *settings) *cobra.Command {
	var (
		asJSON, quick bool
		bundle        string
	)
	c := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong, and say what to do", Args: noArgs,
		Long: `Looks at the configuration, the data folder, ports and network, the device, the
clock and the speed of the disk, and says for each thing that is not as it should
be what to do about it. It changes nothing, and works with and without a daemon;
with one it knows more. Exits with code 1 if something failed.

With --bundle it writes a zip file to send to somebody who helps: this report, the
configuration, and what the daemon says of itself. Keys, tokens, user names, home
folders, addresses and peer IDs are taken out; read it before you send it.`,
		Example: `  mootd doctor
  mootd doctor --json
  mootd doctor --bundle moot-report.zip`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			o := doctor.Options{Config: cfg, ConfigErr: err, Identity: app.PeerID, FreeBytes: app.FreeBytes, Device: checkDevice, Quick: quick}
			observer := volunteer.NewObserver(nil)
			defer observer.Close()
			o.Observe = observer.Observe
			var running *client.Client
			if err == nil {
				if running, err = client.Open(cfg.DataDir); err == nil {
					defer running.Close()
					o.Daemon = running
				}
			}
			r := doctor.Run(cmd.Context(), o)
			if bundle != "" {
				if err := writeBundle(cmd.Context(), bundle, r, cfg, running); err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "mootd: wrote %s; read it before you send it to somebody\n", bundle)
			}
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), r)
			} else {
				err = doctor.Print(cmd.OutOrStdout(), r)
			}
			if err != nil {
				return err
			}
			if failed := r.Failed(); len(failed) > 0 {
				return api.Errorf(api.CodeInternal, "failed: %s", strings.Join(failed, ", "))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&quick, "quick", false, "do not measure how fast disk and processor are")
	c.Flags().StringVar(&bundle, "bundle", "", "write a `file` to send to somebody who helps")
	return c
}

// checkDevice looks whether the device of the configuration can be used.
func checkDevice(name string) doctor.Check {
	c := doctor.Check{Name: "device", Level: doctor.OK}
	if name == "cpu" || name == "auto" && !cuda.Built {
		c.Text = "the processor trains"
		if name == "auto" {
			c.Text += "; this program was built without CUDA"
		}
		return c
	}
	r := lookForGPUs(false)
	if name == "auto" {
		name = "cuda:0"
	}
	for _, g := range r.Devices {
		if g.Device == name && g.Error == nil {
			c.Text = fmt.Sprintf("%s, %.1f of %.1f GB free; \"mootd gpu\" tests it", g.Name, float64(g.FreeBytes)/1e9, float64(g.TotalBytes)/1e9)
			return c
		}
		if g.Device == name {
			r.Error = g.Error
		}
	}
	c.Level, c.Text, c.Fix = doctor.Fail, "there is no "+name, `"mootd gpu" lists the GPUs; "mootd config set device cpu" trains on the processor`
	if r.Error != nil {
		c.Text = r.Error.Message
		if r.Error.Hint != "" {
			c.Fix = r.Error.Hint
		}
	}
	return c
}

// writeBundle writes what somebody who helps needs to see, without what is
// secret. What the daemon does not answer is left out.
func writeBundle(ctx context.Context, path string, r doctor.Report, cfg *config.Loaded, c *client.Client) error {
	dataDir := ""
	if cfg != nil {
		dataDir = cfg.DataDir
	}
	files := map[string][]byte{}
	put := func(name string, v any, err error) {
		if err == nil {
			files[name], err = json.MarshalIndent(v, "", "  ")
		}
		if err != nil {
			files[name+".error"] = []byte(err.Error())
		}
	}
	put("report.json", r, nil)
	var b bytes.Buffer
	if err := doctor.Print(&b, r); err != nil {
		return err
	}
	files["report.txt"] = b.Bytes()
	if cfg != nil {
		var b bytes.Buffer
		if err := runConfigShow(&b, cfg, true); err != nil {
			return err
		}
		files["config.toml"] = b.Bytes()
	}
	put("gpu.json", lookForGPUs(false), nil)
	if cfg != nil && cfg.LogFile != "" {
		if b, err := tail(cfg.LogFile, 256<<10); err != nil {
			put("mootd.log", nil, err)
		} else {
			files["mootd.log"] = b
		}
	}
	if c != nil {
		status, err := c.Status(ctx)
		put("status.json", status, err)
		runs, err := c.Runs(ctx)
		put("runs.json", runs, err)
		peers, err := c.Peers(ctx)
		put("peers.json", peers, err)
		cache, err := c.Cache(ctx)
		put("cache.json", cache, err)
	}
	if err := doctor.Bundle(path, files, doctor.NewRedactor(doctor.SecretsOf(dataDir))); err != nil {
		if !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return api.Errorf(api.CodeDisk, "%w", err)
		}
		return api.Errorf(api.CodeUsage, "%w", err).WithHint("name a file that is not there yet, in a folder that is")
	}
	return nil
}

// tail returns the last bytes of a file, from the begin of a line.
func tail(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	from := max(0, size-most)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil {
		return nil, err
	}
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, nil
}
