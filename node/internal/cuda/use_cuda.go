//go:build cuda && cgo

package cuda

import "github.com/moot-net/moot/node/internal/cuda/cushim"

// ReadUse asks NVML about the device on a bus. Unlike Query it takes nothing on
// the device, so that it may be asked again and again.
func ReadUse(bus string, since uint64) (Use, error) {
	u, err := cushim.ReadUse(bus, since)
	if err != nil {
		return Use{}, err
	}
	out := Use{UsedBytes: u.UsedBytes, TotalBytes: u.TotalBytes, Shares: u.Busy, Time: u.Time}
	if u.Processes != nil {
		out.Processes = []Process{}
	}
	for _, p := range u.Processes {
		out.Processes = append(out.Processes, Process(p))
	}
	if s, err := cushim.ReadSensors(bus); err == nil {
		out.Celsius, out.Busy, out.Watts = s.Celsius, s.Busy, s.Watts
	}
	return out, nil
}
