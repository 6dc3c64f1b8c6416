package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
	"github.com/moot-net/moot/node/internal/cuda"
	"github.com/moot-net/moot/node/internal/doctor"
	"github.com/moot-net/moot/node/internal/volunteer"
)

// Checkup implements api.Backend.
func (n *node) Checkup(ctx context.Context, req api.CheckupRequest) (api.Checkup, error) {
	if req.Speed {
		if !n.measuring.TryLock() {
			return api.Checkup{}, api.Errorf(api.CodeRetry, "how fast disk and processor are is being measured already").WithHint("ask again in a few seconds")
		}
		defer n.measuring.Unlock()
	}
	observer := volunteer.NewObserver(nil)
	defer observer.Close()
	return doctor.Run(ctx, doctor.Options{
		Config: n.follow.loaded(), Daemon: ownDaemon{n}, Self: true, Identity: PeerID, FreeBytes: freeBytes,
		Device: n.checkDevice, Observe: observer.Observe, Quick: !req.Speed,
	}), nil
}

// ownDaemon asks the node as a client would.
type ownDaemon struct{ *node }

func (d ownDaemon) Peers(ctx context.Context) (api.Peers, error) {
	l, err := d.node.Peers(ctx)
	return api.Peers{Peers: l}, err
}

// loaded is the configuration in effect. What is wrong with the file now, the
// status says.
func (f *follower) loaded() *config.Loaded {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &config.Loaded{Config: f.inEffect, File: f.file}
	if f.file != "" {
		_, err := os.Stat(f.file)
		l.Found = err == nil
	}
	return l
}

// checkDevice says whether the device that trains can be used. It does not look
// for others: that takes memory on each of them for a moment.
func (n *node) checkDevice(name string) doctor.Check {
	c := doctor.Check{Name: "device", Level: doctor.OK, Text: "the processor trains"}
	if n.gpu == nil {
		if name == "auto" && !cuda.Built {
			c.Text += "; this program was built without CUDA"
		}
		return c
	}
	text, err := n.gpu.Text()
	if err == nil {
		c.Text = text + `; "mootd gpu" tests it`
		return c
	}
	c.Level, c.Text, c.Fix = doctor.Fail, err.Error(), n.gpu.Hint(err)
	if c.Fix == "" {
		c.Fix = `"mootd gpu" lists the GPUs; "mootd config set device cpu" trains on the processor`
	}
	return c
}

// maxReportLog bounds the lines of the log in a report.
const maxReportLog = keptLogs

// Report implements api.Backend. What cannot be told is left out, and why.
func (n *node) Report(ctx context.Context, w io.Writer) error {
	files := map[string][]byte{}
	put := func(name string, v any, err error) {
		if err == nil {
			files[name], err = json.MarshalIndent(v, "", "  ")
		}
		if err != nil {
			files[name+".error"] = []byte(err.Error())
		}
	}
	check, err := n.Checkup(ctx, api.CheckupRequest{})
	put("report.json", check, err)
	var text bytes.Buffer
	if err := doctor.Print(&text, check); err != nil {
		return err
	}
	files["report.txt"] = text.Bytes()
	status, err := n.Status(ctx)
	put("status.json", status, err)
	settings, err := n.Settings(ctx)
	put("settings.json", settings, err)
	put("runs.json", n.runs.list(), nil)
	peers, err := n.Peers(ctx)
	put("peers.json", peers, err)
	cache, err := n.Cache(ctx)
	put("cache.json", cache, err)
	put("usage.json", n.usage.Since(api.UsageRequest{Span: api.UsageHour}), nil)
	logs, err := n.Logs(ctx, api.LogsRequest{Limit: maxReportLog, Level: api.LogLevels[0]})
	if err != nil {
		put("mootd.log", nil, err)
	}
	var lines bytes.Buffer
	for _, e := range logs.Entries {
		fmt.Fprintf(&lines, "%s %-5s %s: %s %s\n", e.Time.UTC().Format(time.RFC3339), e.Level, e.Component, e.Message, e.Attrs)
	}
	files["mootd.log"] = lines.Bytes()
	if err := doctor.WriteBundle(w, files, doctor.NewRedactor(doctor.SecretsOf(n.dir))); err != nil {
		return api.Errorf(api.CodeInternal, "%w", err)
	}
	return nil
}
