package fold

import (
	"runtime"
	"sync"
)

// parallel calls f for parts of 0, 1, … n-1 that cover it, at the same time,
// and waits for them. What f computes must not depend on the parts.
func parallel(n int, f func(lo, hi int)) { parallelOn(runtime.GOMAXPROCS(0), n, f) }

func parallelOn(workers, n int, f func(lo, hi int)) {
	workers = max(1, min(workers, n))
	if workers == 1 {
		f(0, n)
		return
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { f(w*n/workers, (w+1)*n/workers) })
	}
	wg.Wait()
}
