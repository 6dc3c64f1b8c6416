// Package config holds what concerns one machine: where the daemon keeps its
// data, what it listens on and how much of the machine it may use. What the
// peers of a run share is in the run manifest (proto/run), not here.
//
// A value comes from, in this order: a flag, the environment, the file, the
// default. The file is TOML; a key that is not known is an error.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/multiformats/go-multiaddr"
	"github.com/pelletier/go-toml/v2"

	"github.com/moot-net/moot/node/client"
	"github.com/moot-net/moot/node/internal/logs"
)

// Config is the daemon's configuration. Default gives usable values; Validate
// checks them.
type Config struct {
	// DataDir holds the identity, the store, the runs and the API's address
	// and token. Two daemons cannot share one. Default: the user's data
	// directory (XDG_DATA_HOME/moot or ~/.local/share/moot).
	DataDir string `toml:"data_dir"`

	// Listen is the list of libp2p addresses to listen on, as multiaddrs.
	// Default: TCP and QUIC on port 4717 of every interface, or on a free
	// port when that one is taken.
	Listen []string `toml:"listen"`
	// AnyPort holds while nothing but the default was given for Listen: only
	// then a taken port may be replaced by a free one.
	AnyPort bool `toml:"-"`

	// API is host:port of the local HTTP API; the host is a loopback
	// address. Port 0 takes a free one, which is written to api.json in the
	// data folder. Default 127.0.0.1:7717, or a free port when it is taken.
	API string `toml:"api"`
	// AnyAPIPort is AnyPort for API.
	AnyAPIPort bool `toml:"-"`

	// Bootstrap is the list of peers to connect to first, as multiaddrs that
	// end in /p2p/PEERID. Any node may be one. Default none: nodes on this
	// machine and on the LAN are found without.
	Bootstrap []string `toml:"bootstrap"`

	// MDNS finds nodes on the LAN (mDNS) and on this machine (a shared
	// folder). Default true.
	MDNS bool `toml:"mdns"`

	// CacheMaxMB is how much of the disk models, data sets and what runs write
	// may take, in 1,000,000 bytes. What was used longest ago and is not in use
	// makes room. Files that were imported in place do not count. Default 0: as
	// much as there is.
	CacheMaxMB int64 `toml:"cache_max_mb"`

	// MinFreeMB is how much of the disk stays free, in 1,000,000 bytes. Default
	// 1000.
	MinFreeMB int64 `toml:"min_free_mb"`

	// Device is what trains: cpu, or cuda:N for a GPU, counted from 0; auto is
	// the first GPU in a binary that was built with CUDA, and the CPU in one
	// that was not. Nothing is trained on the CPU where a GPU was asked for and
	// cannot be used. Default auto.
	Device string `toml:"device"`

	// Threads is how many CPU threads training may use. Default: all
	// logical processors.
	Threads int `toml:"threads"`

	// Precision is how training multiplies with weights of 16 or 4 bits on
	// the CPU: bf16 rounds what they are multiplied with to bfloat16, as
	// PyTorch does; f32 does not, with results that are nearer to exact ones;
	// auto is bf16 where the processor has instructions for it (AVX512_BF16),
	// with which a step takes about 60 % of the time. Default auto.
	Precision string `toml:"precision"`

	// LogLevel is debug, info, warn or error, with others for components:
	// info,p2p=debug. Default info.
	LogLevel string `toml:"log_level"`
	// LogFormat is text or json. Default text.
	LogFormat string `toml:"log_format"`
	// LogFile is where the log goes instead of standard error. At 10,000,000
	// bytes a new one is begun, and four older ones are kept, as LOG_FILE.1 to
	// LOG_FILE.4. Default none.
	LogFile string `toml:"log_file,omitempty"`

	// OpenBrowser opens the dashboard in a browser at the first start, when
	// somebody answered its questions on a terminal. Default true.
	OpenBrowser bool `toml:"open_browser"`

	// Work is when this machine works for others, and how hard.
	Work Work `toml:"work"`

	// Network is how much it sends and receives, and what it does for others.
	Network Network `toml:"network"`
}

// DefaultListen and DefaultAPI are used when nothing else is configured; a
// daemon that finds them taken falls back to free ports.
const (
	DefaultListen = "/ip4/0.0.0.0/tcp/4717"
	DefaultAPI    = "127.0.0.1:7717"
)

// maxMB bounds a size on the disk.
const maxMB = 1 << 40

// Default is the configuration of a daemon without file, environment or flags.
func Default() Config {
	return Config{
		DataDir:     client.DefaultDataDir(),
		Listen:      []string{DefaultListen, "/ip4/0.0.0.0/udp/4717/quic-v1", "/ip6/::/tcp/4717", "/ip6/::/udp/4717/quic-v1"},
		AnyPort:     true,
		API:         DefaultAPI,
		AnyAPIPort:  true,
		MDNS:        true,
		MinFreeMB:   1000,
		Threads:     runtime.NumCPU(),
		Precision:   "auto",
		Device:      "auto",
		LogLevel:    "info",
		LogFormat:   "text",
		OpenBrowser: true,
		Work:        DefaultWork(),
		Network:     DefaultNetwork(),
	}
}

// DefaultPath is where Load looks when no path is given.
func DefaultPath() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "moot", "mootd.toml")
}

// SetListen and SetAPI set what somebody asked for: a port of theirs that is
// taken is an error.
func (c *Config) SetListen(addrs []string) { c.Listen, c.AnyPort = addrs, false }

// SetAPI is SetListen for the API.
func (c *Config) SetAPI(addr string) { c.API, c.AnyAPIPort = addr, false }

// Encode returns c as a configuration file.
func (c *Config) Encode() ([]byte, error) { return toml.Marshal(c) }

func (c *Config) decode(path string, b []byte) error {
	var given struct { // nil: not in the file
		Listen *[]string `toml:"listen"`
		API    *string   `toml:"api"`
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	err := d.Decode(c)
	if err == nil {
		err = toml.Unmarshal(b, &given)
	}
	if given.Listen != nil {
		c.SetListen(*given.Listen)
	}
	if given.API != nil {
		c.SetAPI(*given.API)
	}
	if strict := new(toml.StrictMissingError); errors.As(err, &strict) {
		e := strict.Errors[0]
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		return fmt.Errorf("%s:%d: unknown key %q%s", path, line, key, didYouMean(key))
	}
	if de := new(toml.DecodeError); errors.As(err, &de) {
		line, _ := de.Position()
		return fmt.Errorf("%s:%d: %s", path, line, strings.TrimPrefix(de.Error(), "toml: "))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Validate reports the first value that cannot work, by its key.
func (c *Config) Validate() error {
	if c.DataDir == "" {
		return errors.New("data_dir is empty and the user has no home folder; give --data-dir")
	}
	if len(c.Listen) == 0 {
		return errors.New("listen is empty; a node needs at least one address, for example " + DefaultListen)
	}
	for _, a := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(a); err != nil {
			return fmt.Errorf("listen: %q is not a multiaddr such as %s: %w", a, DefaultListen, err)
		}
	}
	for _, a := range c.Bootstrap {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			return fmt.Errorf("bootstrap: %q is not a multiaddr: %w", a, err)
		}
		if _, err := m.ValueForProtocol(multiaddr.P_P2P); err != nil {
			return fmt.Errorf("bootstrap: %q does not end in /p2p/PEERID (mootd prints its addresses in that form)", a)
		}
	}
	host, _, err := net.SplitHostPort(c.API)
	if err != nil {
		return fmt.Errorf("api: %q is not host:port: %w", c.API, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("api: %q is not a loopback address; the API controls this machine and is served locally only", c.API)
	}
	for key, v := range map[string]int64{"cache_max_mb": c.CacheMaxMB, "min_free_mb": c.MinFreeMB} {
		if v < 0 || v > maxMB {
			return fmt.Errorf("%s is %d, must be between 0 and %d", key, v, int64(maxMB))
		}
	}
	if c.Threads < 1 || c.Threads > 1024 {
		return fmt.Errorf("threads is %d, must be between 1 and 1024", c.Threads)
	}
	switch c.Precision {
	case "auto", "f32", "bf16":
	default:
		return fmt.Errorf("precision is %q, must be auto, f32 or bf16", c.Precision)
	}
	if n, ok := strings.CutPrefix(c.Device, "cuda:"); c.Device != "auto" && c.Device != "cpu" && (!ok || !isOrdinal(n)) {
		return fmt.Errorf("device is %q, must be auto, cpu or cuda:N, N counted from 0", c.Device)
	}
	if err := c.Work.validate(); err != nil {
		return err
	}
	if err := c.Network.validate(); err != nil {
		return err
	}
	if err := logs.Check(c.LogLevel); err != nil {
		return fmt.Errorf("log_level: %w", err)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("log_format is %q, must be text or json", c.LogFormat)
	}
	return nil
}

func isOrdinal(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0 && n < 1024
}

func didYouMean(key string) string {
	best, bestD := "", min(4, len(key)/2+1)
	for _, k := range Keys() {
		// A key without its table, or not written out.
		if strings.HasSuffix(k, "."+key) || len(key) > 3 && strings.HasPrefix(k, key) {
			return fmt.Sprintf("; did you mean %q?", k)
		}
		if d := distance(key, k); d < bestD {
			best, bestD = k, d
		}
	}
	if best == "" {
		return "; known keys are " + strings.Join(Keys(), ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance of two short ASCII strings.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cur := row[j+1]
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, row[j]+1, cur+1)
			prev = cur
		}
	}
	return row[len(b)]
}
