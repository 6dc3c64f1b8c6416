package api

import "time"

// Schema is the version of all JSON of this package.
const Schema = 1

// Version names a program and what it was built from.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Build   string `json:"build,omitempty"` // what the daemon was compiled from; equal in programs that were built together
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Status is who a node is and what it is doing.
type Status struct {
	Version string    `json:"version"`
	Peer    string    `json:"peer"`
	Addrs   []string  `json:"addrs"` // multiaddrs that end in /p2p/PEER
	API     string    `json:"api"`   // http://host:port
	DataDir string    `json:"data_dir"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`

	// State is what the node does as a whole; Why is one sentence that says
	// why it is not training, empty while it is.
	State NodeState `json:"state"`
	Why   string    `json:"why,omitempty"`
	// Reason is Why as a word for programs, "" while it trains: one of the
	// reasons below or the state of the run that comes next. Until is when it
	// ends by itself, if that is known, and Do what to do about it.
	Reason string     `json:"reason"`
	Until  *time.Time `json:"until,omitempty"`
	Do     string     `json:"do,omitempty"`

	// ConfigError is why the configuration file, as it is now, is not used:
	// what was in effect before still is. RestartNeeded are the settings that
	// were changed and take effect at the next start.
	ConfigError   string   `json:"config_error,omitempty"`
	RestartNeeded []string `json:"restart_needed,omitempty"`

	// Schedule is what work.schedule says just now, absent where it allows work
	// always.
	Schedule *ScheduleState `json:"schedule,omitempty"`

	// ClockError is by how much the clock of this machine differs from those of
	// peers, "" if it does not.
	ClockError string `json:"clock_error,omitempty"`

	// Blind are settings that have no effect, and why: what they need cannot be
	// seen on this machine. By key.
	Blind map[string]string `json:"blind,omitempty"`

	// Reachability is whether others can connect to this node: "public", from
	// everywhere; "private", over a relay or where a hole can be punched;
	// "unknown", nobody has tried yet.
	Reachability string `json:"reachability,omitempty"`

	Device string `json:"device"` // what it trains on, such as "cpu (2 threads, avx2, f32)"
	// Devices are what is known just now of the processor and the GPUs.
	Devices []Device `json:"devices,omitempty"`
	Peers   int      `json:"peers"` // connected
	Runs    int      `json:"runs"`  // joined
	Traffic Traffic  `json:"traffic"`
}

// ScheduleState is whether a schedule allows work.
type ScheduleState struct {
	Open  bool       `json:"open"`
	Until *time.Time `json:"until,omitempty"` // when that changes; absent: never
}

// NodeState is what a node does as a whole.
type NodeState string

// The states of a node.
const (
	NodeIdle     NodeState = "idle"     // in no run
	NodeSyncing  NodeState = "syncing"  // pulls what a run needs
	NodeWaiting  NodeState = "waiting"  // for a seat, for peers or for the round to end
	NodeTraining NodeState = "training" // computes
	NodePaused   NodeState = "paused"   // its owner, or what the machine is used for, does not let it
	NodeStopping NodeState = "stopping"
)

// Traffic counts the content, without protocol overhead, that a node moved
// since it started.
type Traffic struct {
	PulledBytes uint64 `json:"pulled_bytes"` // models, data, states and deltas
	SentBytes   uint64 `json:"sent_bytes"`
}

// Device is what is known just now of a device. What the system does not tell
// is absent.
type Device struct {
	Name        string `json:"name"`
	Celsius     *int   `json:"celsius,omitempty"`
	UtilPercent *int   `json:"util_percent,omitempty"` // of all processes
	UsedBytes   *int64 `json:"used_bytes,omitempty"`   // likewise
	TotalBytes  *int64 `json:"total_bytes,omitempty"`
	Watts       *int   `json:"watts,omitempty"`
	OtherBytes  *int64 `json:"other_bytes,omitempty"` // held by other processes
}

// Peer is another node that this one is connected to.
type Peer struct {
	ID        string   `json:"id"`
	Addr      string   `json:"addr"`      // of the connection
	Where     string   `json:"where"`     // "loopback", "lan" or "internet"
	Direction string   `json:"direction"` // "in" or "out": who dialled
	RTTMillis float64  `json:"rtt_ms"`    // 0 while unknown
	Agent     string   `json:"agent,omitempty"`
	Runs      []string `json:"runs,omitempty"` // runs of ours that it is in
	// Device is what it trains on, as it says itself in one of those runs.
	Device string `json:"device,omitempty"`
}

// Peers answers a list of peers.
type Peers struct {
	Peers []Peer `json:"peers"`
	// Next is what to ask after for the next page, empty on the last.
	Next string `json:"next,omitempty"`
}

// Stopping answers a shutdown.
type Stopping struct {
	Stopping bool `json:"stopping"`
	// Stopped says that it has ended. The daemon cannot say so; "moot stop"
	// does, which waited for it.
	Stopped bool `json:"stopped"`
}
