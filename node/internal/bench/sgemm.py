"""Speed of numpy's sgemm. Says which BLAS it has, then for each line on standard input, a product as in products.go, how long
one took: one line of JSON each."""
import json, sys, time
import numpy as np

print(json.dumps("openblas" if "openblas" in open("/proc/self/maps").read() else "other"), flush=True)
operands = {}
for line in sys.stdin:
    shape = line.strip()
    if shape not in operands:
        dims, _, form = shape.partition(":")
        m, n, k = map(int, dims.split("x"))
        r = np.random.default_rng(1)
        x, w = r.standard_normal((m, k), np.float32), r.standard_normal((k, n) if form == "n" else (n, k), np.float32)
        operands = {shape: (x, w if form == "n" else w.T, np.empty((m, n), np.float32))}
        np.matmul(operands[shape][0], operands[shape][1], out=operands[shape][2])
    x, w, c = operands[shape]
    calls, fastest, start, used = 0, 1e9, time.perf_counter(), time.process_time()
    while True:
        t = time.perf_counter()
        np.matmul(x, w, out=c)
        now = time.perf_counter()
        calls, fastest = calls + 1, min(fastest, now - t)
        if now - start > 0.02:
            break
    print(json.dumps(dict(seconds=(now - start) / calls, fastest=fastest, cpu=(time.process_time() - used) / calls)), flush=True)
