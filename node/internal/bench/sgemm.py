"""Speed of numpy's sgemm: one JSON line. Arguments: repetitions, then products as MxNxK; B is transposed, as in X W^T."""
import json, sys, time
import numpy as np

reps, out = int(sys.argv[1]), []
for shape in sys.argv[2:]:
    m, n, k = map(int, shape.split("x"))
    r = np.random.default_rng(1)
    x, w = r.standard_normal((m, k), np.float32), r.standard_normal((n, k), np.float32)
    c = np.empty((m, n), np.float32)
    np.matmul(x, w.T, out=c)
    wall, cpu = [], []
    for _ in range(reps):
        t, p = time.perf_counter(), time.process_time()
        np.matmul(x, w.T, out=c)
        wall.append(time.perf_counter() - t)
        cpu.append(time.process_time() - p)
    wall.sort()
    cpu.sort()
    flops = 2e-9 * m * n * k
    out.append(dict(shape=shape, gflops=flops / wall[0], gflop_per_cpu_s=flops / cpu[len(cpu) // 2]))
blas = "openblas" in open("/proc/self/maps").read()
print(json.dumps(dict(blas="openblas" if blas else "other", products=out)))
