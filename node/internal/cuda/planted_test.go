//go:build cuda && cgo

package cuda

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/moot-net/moot/node/internal/cuda/cushim"
	"github.com/moot-net/moot/node/internal/cuda/emu"
)

// planted is a bug: in a file of kernels, the first old text becomes new, and
// the tests have to fail.
type planted struct {
	file, old, new, tests string
	target                int // 80 if 0
}

// plantedBugs has several for each file: a wrong formula, a missing barrier, a
// wrong bound, a wrong type. They are found by tests of operations, or by the
// emulated driver.
var plantedBugs = []planted{
	{file: "view.cuh", old: "for (int k = 0; k < 4; k++) q.v[k] = f2bf2(v[2 * k], v[2 * k + 1]);", new: "for (int k = 0; k < 4; k++) q.v[k] = f2bf2(v[2 * k + 1], v[2 * k]);", tests: "TestRows"},
	{file: "view.cuh", old: "if (i >= rows * groups) return false;", new: "if (i > rows * groups) return false;", tests: "TestRows"},
	{file: "view.cuh", old: "	__syncthreads(); // scratch may still be read\n", new: "", tests: "TestNorms"},
	{file: "view.cuh", old: "scratch[threadIdx.x >> 5] = v;\n	__syncthreads();", new: "scratch[threadIdx.x >> 5] = v;", tests: "TestNorms"},
	{file: "view.cuh", old: "v[k + 4] = __uint_as_float(b.v[k]);", new: "v[k + 4] = __uint_as_float(a.v[k]);", tests: "TestRows"},

	{file: "elementwise.cu", old: "u[i] *= g[i] / (1.f + expf(-g[i]))", new: "u[i] *= g[i] / (1.f + expf(g[i]))", tests: "TestActivations"},
	{file: "elementwise.cu", old: "s * (1.f + x * (1.f - s))", new: "s * (1.f + x * s)", tests: "TestActivations"},
	{file: "elementwise.cu", old: "#define geluB 0.07135481282580394f", new: "#define geluB 0.0713f", tests: "TestActivations"},
	{file: "elementwise.cu", old: "slope > 0.f ? p + y * slope", new: "true ? p + y * slope", tests: "TestActivations"},
	{file: "elementwise.cu", old: "y.half ? bf2f(f2bf((float)limit)) : (float)limit", new: "(float)limit", tests: "TestActivations"},
	{file: "elementwise.cu", old: "v[i] *= 1.f - t * t;", new: "v[i] *= 1.f - t;", tests: "TestActivations"},

	{file: "norm.cu", old: "v[i] = v[i] * r * (u[i] + one);", new: "v[i] = v[i] * r * u[i];", tests: "TestNorms"},
	{file: "norm.cu", old: "d[i] += r * (g[i] * (u[i] + one) - v[i] * r * mean)", new: "d[i] = r * (g[i] * (u[i] + one) - v[i] * r * mean)", tests: "TestNorms"},
	{file: "norm.cu", old: "s += (v[i] - mean) * (v[i] - mean)", new: "s += v[i] * v[i]", tests: "TestNorms"},
	{file: "norm.cu", old: "- shift - (v[i] - mean) * slope", new: "- (v[i] - mean) * slope", tests: "TestNorms"},
	{file: "norm.cu", old: "	sums[ty][tx] = s;\n	__syncthreads();", new: "	sums[ty][tx] = s;", tests: "TestRows"},
	{file: "norm.cu", old: "from + part < rows ? from + part : rows", new: "from + part < rows ? from + part - 1 : rows", tests: "TestRows"},

	{file: "rows.cu", old: "b[i] = v * c[i] + u * t;", new: "b[i] = v * c[i] - u * t;", tests: "TestRope"},
	{file: "rows.cu", old: "p = pos[row]", new: "p = row", tests: "TestRope"},
	{file: "rows.cu", old: "get8(v, src, idx[row], col);", new: "get8(v, src, row, col);", tests: "TestIndexed"},
	{file: "rows.cu", old: "k < starts[row + 1]", new: "k < starts[row] + 1", tests: "TestIndexed"},

	{file: "loss.cu", old: "b.most == a.most && b.at < a.at", new: "b.most == a.most && b.at > a.at", tests: "TestCrossEntropy"},
	{file: "loss.cu", old: "r.sum *= expf(r.most - most);", new: "", tests: "TestCrossEntropy"},
	{file: "loss.cu", old: "(c + i == label ? scale : 0.f)", new: "(c + i == label ? 1.f : 0.f)", tests: "TestCrossEntropy"},
	{file: "loss.cu", old: "	__syncthreads(); // now own was read by all, too\n", new: "", tests: "TestCrossEntropy"},
	{file: "loss.cu", old: "		__syncthreads();\n		if ((int)threadIdx.x < n)", new: "		if ((int)threadIdx.x < n)", tests: "TestSumSquares"},
	{file: "loss.cu", old: "s += (double)v[i] * v[i];", new: "s += v[i] * v[i];", tests: "TestSumSquares"},

	{file: "optim.cu", old: "(sqrtf(vi) * (float)root + (float)epsilon)", new: "(sqrtf(vi) + (float)epsilon)", tests: "TestAdamW"},
	{file: "optim.cu", old: "if (decay != 0) d = __fadd_rn(d, __fmul_rn(p[i], (float)decay));", new: "", tests: "TestSGD"},
	{file: "optim.cu", old: "map[hi] - x < x - map[lo]", new: "map[hi] - x <= x - map[lo]", tests: "TestAdam8"},
	{file: "optim.cu", old: "if (m < 0.f && map[code] >= 0.f) code--;", new: "", tests: "TestAdam8"},
	{file: "optim.cu", old: "	__syncthreads(); // the scales were read by all\n", new: "", tests: "TestAdam8"},

	{file: "attention.cuh", old: "key > own - window", new: "key >= own - window", tests: "TestAttention$"},
	{file: "attention.cuh", old: "slope = 1.f - t * t;", new: "slope = 1.f;", tests: "TestAttention$"},
	{file: "attention_f32.cuh", old: "sum[i] *= shrink;", new: "", tests: "TestAttention$"},
	{file: "attention_f32.cuh", old: "seen ? e * (d[i][j] - dot) * slope : 0.f", new: "seen ? e * d[i][j] * slope : 0.f", tests: "TestAttention$"},
	{file: "attention_f32.cuh", old: "for (int h = (int)blockIdx.y * group; h < ((int)blockIdx.y + 1) * group; h++)", new: "for (int h = (int)blockIdx.y * group; h < (int)blockIdx.y * group + 1; h++)", tests: "TestAttention$"},
	{file: "attention_f32.cuh", old: "		load_rows(space, W, b, brow + from, 16, bhave - from, bhead, 0, W, hd);\n		__syncthreads();", new: "		load_rows(space, W, b, brow + from, 16, bhave - from, bhead, 0, W, hd);", tests: "TestAttention$"},
	{file: "attention.cu", old: "put(out, p.q + p.first, (long long)h * hd + c, s / total)", new: "put(out, p.q + p.first, (long long)h * hd + c, s)", tests: "TestAttention$"},
	{file: "attention.cu", old: "total = total * shrink + e;", new: "total += e;", tests: "TestAttention$"},
	{file: "attention.cu", old: "254 - exponent", new: "127", tests: "TestAttentionSmall", target: 75},

	{file: "attention_mma.cuh", old: "(group ^ (row & 7)) << 4", new: "(group ^ (row & 3)) << 5", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "mma(s[2 * j + 1], x, y + 2);", new: "mma(s[2 * j + 1], x, y);", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "fragments<true>(y", new: "fragments<false>(y", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "sum1 *= shrink1;", new: "", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "arrived<0>(); // and all have done with the last values", new: "cp_async_wait<0>(); // and all have done with the last values", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "arrived<0>(); // and all have done with these keys", new: "arrived<1>(); // and all have done with these keys", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "(!r.window || k0 > last - r.window)", new: "true", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "k0 + N - 1 <= own_key(p, p.first)", new: "k0 <= own_key(p, p.first)", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "d[j][i] -= i < 2 ? dot0 : dot1;", new: "d[j][i] -= dot0;", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "		if (more) {\n			__syncthreads();", new: "		if (more) {", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "if (d) d[j][i] *= 1.f - t * t;", new: "", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "(row ? key1 : key0) - own0 - c", new: "key0 - own0 - c", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "accumulate<W, N, C>(accv, s, space, ds, part * (C / 8));\n		__syncthreads();", new: "accumulate<W, N, C>(accv, s, space, ds, part * (C / 8));", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "arrived<1>(); // derivatives by the output", new: "cp_async_wait<1>(); // derivatives by the output", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "1.f / up, 1.f / up, tile", new: "1.f, 1.f, tile", tests: "TestAttentionSmall", target: 75},
	{file: "attention_mma.cuh", old: "fminf(fmaxf(v, -65504.f), 65504.f)", new: "v * 0.99f", tests: "TestAttention$", target: 75},
	{file: "attention_mma.cuh", old: "qs + bytes<W>(16 * warp));\n}\n\n// keys", new: "qs + bytes<W>(8 * warp));\n}\n\n// keys", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "r < have, by);", new: "true, by);", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "if (c >= hd) have = 0;", new: "", tests: "TestAttention$"},
	{file: "attention_mma.cuh", old: "r < have && c < hd, by", new: "c < hd, by", tests: "TestAttention$"},
	{file: "attention_256.cu", old: "KERNELS(256, 64, 4, 32, 2, 32)", new: "KERNELS(256, 64, 4, 32, 1, 32)", tests: "TestAttention$"},
	{file: "attention_96.cu", old: "KERNELS(96, 64, 4, 32, 1, 32)", new: "KERNELS(96, 64, 2, 32, 1, 32)", tests: "TestAttention$"},
}

// TestBugsCanBePlanted: kernels still have the texts that bugs replace.
func TestBugsCanBePlanted(t *testing.T) {
	for _, p := range plantedBugs {
		text, err := os.ReadFile("kernels/" + p.file)
		if err != nil {
			t.Fatal(err)
		}
		if p.old == p.new || !strings.Contains(string(text), p.old) {
			t.Errorf("%s has no %q", p.file, p.old)
		}
	}
}

// TestPlantedBugs takes minutes, most of which g++ takes, and runs when
// MOOT_PLANTED is set: to 1, or to a part of the names of the files that bugs
// are planted in.
func TestPlantedBugs(t *testing.T) {
	only := os.Getenv("MOOT_PLANTED")
	if only == "" {
		t.Skip("MOOT_PLANTED is not set")
	}
	if os.Getenv("MOOT_EMU_MUTANT") != "" {
		t.Skip("in a test of its own")
	}
	for i, p := range plantedBugs {
		if only == "each" && i > 0 && plantedBugs[i-1].file == p.file || only != "1" && only != "each" && !strings.Contains(p.file, only) {
			continue
		}
		t.Run(fmt.Sprintf("%s/%d", p.file, i), func(t *testing.T) {
			if out, err := plant(t, p); err == nil {
				t.Errorf("%s with\n%s\nfor\n%s\npasses:\n%s", p.file, p.new, p.old, out)
			}
		})
	}
}

// plant runs tests on a driver with the bug; err says that they failed.
func plant(t *testing.T, p planted) (output string, err error) {
	if p.target == 0 {
		p.target = 80
	}
	kernels := fstest.MapFS{}
	entries, err := os.ReadDir("kernels")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		text, err := os.ReadFile("kernels/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == p.file {
			if !strings.Contains(string(text), p.old) {
				t.Fatalf("%s has no %q any more", p.file, p.old)
			}
			text = []byte(strings.Replace(string(text), p.old, p.new, 1))
		}
		kernels[e.Name()] = &fstest.MapFile{Data: text}
	}
	driver, err := emu.Build(emu.Options{Kernels: kernels, Targets: []int{p.target}})
	if errors.Is(err, emu.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", p.tests, "-test.short")
	cmd.Env = append(os.Environ(), cushim.Env+"="+driver.Path, "MOOT_TEST_DRIVER=", "MOOT_EMU_MUTANT=1", fmt.Sprintf("MOOT_EMU_CC=%d.%d", p.target/10, p.target%10))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
