//go:build !unix

package importbench

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
