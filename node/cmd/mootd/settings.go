package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/moot-net/moot/node/api"
	"github.com/moot-net/moot/node/config"
)

// settings are the flags, which are stronger than environment and file.
type settings struct {
	file      string
	dataDir   string
	listen    []string
	api       string
	bootstrap []string
	noMDNS    bool
	device    string
	threads   int
	precision string
	logLevel  string
	logFormat string
	logFile   string
}

func (s *settings) register(c *cobra.Command) {
	f := c.PersistentFlags()
	d := config.Default()
	f.StringVar(&s.file, "config", "", "configuration file (default "+config.DefaultPath()+", if it is there)")
	f.StringVar(&s.dataDir, "data-dir", d.DataDir, "folder for identity, models, data and runs")
	f.StringSliceVar(&s.listen, "listen", d.Listen, "multiaddrs to listen on for peers")
	f.StringVar(&s.api, "api", d.API, "host:port of the local API; port 0 takes a free one")
	f.StringSliceVar(&s.bootstrap, "bootstrap", d.Bootstrap, "multiaddrs of peers to connect to first")
	f.BoolVar(&s.noMDNS, "no-mdns", false, "do not look for peers on this machine and on the LAN")
	f.StringVar(&s.device, "device", d.Device, "what trains: cpu, cuda:N for a GPU, or auto")
	f.IntVar(&s.threads, "threads", d.Threads, "CPU threads that training may use")
	f.Lookup("threads").DefValue = "all there are" // the same text on each machine
	f.StringVar(&s.precision, "precision", d.Precision, "of products with 16- or 4-bit weights on the CPU: auto, f32, bf16")
	f.StringVar(&s.logLevel, "log-level", d.LogLevel, "debug, info, warn or error, with others for components: info,p2p=debug")
	f.StringVar(&s.logFormat, "log-format", d.LogFormat, "text or json")
	f.StringVar(&s.logFile, "log-file", "", "`file` for the log instead of standard error; at 10 MB a new one is begun")
}

// load returns the configuration that is in effect.
func (s *settings) load(cmd *cobra.Command) (*config.Loaded, error) {
	c, err := s.read(cmd)
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, api.Errorf(api.CodeConfig, "configuration: %w", err).WithHint(`"mootd config show --origin" says where each value is from`)
	}
	return c, nil
}

// read is load for a configuration that may be wrong.
func (s *settings) read(cmd *cobra.Command) (*config.Loaded, error) {
	c, err := config.Load(s.file, os.Getenv)
	if err != nil {
		return nil, api.Errorf(api.CodeConfig, "%w", err)
	}
	for _, f := range []struct {
		name, key string
		set       func()
	}{
		{"data-dir", "data_dir", func() { c.DataDir = s.dataDir }},
		{"listen", "listen", func() { c.Listen = s.listen }},
		{"api", "api", func() { c.API = s.api }},
		{"bootstrap", "bootstrap", func() { c.Bootstrap = s.bootstrap }},
		{"no-mdns", "mdns", func() { c.MDNS = !s.noMDNS }},
		{"device", "device", func() { c.Device = s.device }},
		{"threads", "threads", func() { c.Threads = s.threads }},
		{"precision", "precision", func() { c.Precision = s.precision }},
		{"log-level", "log_level", func() { c.LogLevel = s.logLevel }},
		{"log-format", "log_format", func() { c.LogFormat = s.logFormat }},
		{"log-file", "log_file", func() { c.LogFile = s.logFile }},
	} {
		if cmd.Flags().Changed(f.name) {
			f.set()
			c.Flagged(f.key, f.name)
		}
	}
	// They stay the same when the process goes to another folder.
	for key, path := range map[string]*string{"data_dir": &c.DataDir, "log_file": &c.LogFile} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, api.Errorf(api.CodeConfig, "%s: %w", key, err)
		}
	}
	return c, nil
}
