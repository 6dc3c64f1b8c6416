package cuda

// Use is what a device is used for, by which processes. What is not known is
// nil.
type Use struct {
	UsedBytes, TotalBytes *int64
	// Processes hold memory there, nil if that is not known. Shares tells whether
	// their Busy is known.
	Processes []Process
	Shares    bool
	Time      uint64 // for the next ReadUse, whose shares are those since then
	// Sensors, nil if not known.
	Celsius, Busy *int
	Watts         *float64
}

// Process is what a process does on a device.
type Process struct {
	PID       int
	UsedBytes *int64 // nil: not known
	Busy      int    // percent of the time
}
