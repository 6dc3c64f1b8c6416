//go:build cuda && cgo

package cuda

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Bugs in the kernels of matrix products; see plantedBugs.
var plantedProducts = []planted{
	{file: "gemm.cuh", old: "v *= g.alpha;", new: "", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "if (g.bias) v += g.bias[col];", new: "", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "const u32 high = rows - first < group ? rows - first : group", new: "const u32 high = group", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "*c = f2bf(g.flags & ADD ? v + bf2f(*c) : v);", new: "*c = f2bf(v);", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "v[4] += bf_lo(o.z)", new: "v[4] += bf_lo(o.y)", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "v[4] += p.x", new: "v[4] += o.x", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "col + 8 > g.n", new: "col > g.n", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "if (row >= g.m) break;", new: "if (row > g.m) break;", tests: "TestProducts$"},
	{file: "gemm.cuh", old: "o.alpha = 1.f, o.bias = nullptr", new: "o.alpha = 1.f", tests: "TestProducts$"},

	{file: "gemm_mma.cuh", old: "a.fill(sa + filled", new: "a.fill(sa + slot", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "cp_async_wait<STAGES - 2>();", new: "cp_async_wait<STAGES - 1>();", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "		__syncthreads(); // tile has landed", new: "		// tile has landed", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "	__syncthreads(); // the tiles make room", new: "	// the tiles make room", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "		__syncwarp();\n		flush", new: "		flush", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "col0 + wcol, lane, 32);\n		__syncwarp();", new: "col0 + wcol, lane, 32);", tests: "TestLargeTiles$"},
	{file: "gemm_mma.cuh", old: "return min(max(ACROSS ? rows : left, 0), 8);", new: "return min(max(ACROSS ? rows : left, 8), 8);", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "return (ACROSS ? left : rows) > i * GAP;", new: "return (ACROSS ? left : rows) > 0;", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "advance = BK * ld", new: "advance = BK", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "8 * (SECOND ? mid : high)", new: "8 * (SECOND ? high : mid)", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "y[j / 2] + j % 2 * 2", new: "y[j / 2]", tests: "TestProducts$"},
	{file: "gemm_mma.cuh", old: "if (ahead == tiles1 || (ahead == from && from > tiles1))", new: "if (ahead == tiles1 && from <= tiles1)", tests: "TestSplitInTheSecondPair"},
	{file: "gemm_mma.cuh", old: "(ahead - tiles1) * BK, g.k2);                                                       \\\n		b.begin", new: "0, g.k2);                                                       \\\n		b.begin", tests: "TestSplitInTheSecondPair"},
	{file: "gemm_mma.cuh", old: "v[0] * unscale", new: "v[0]", tests: "TestHalfRange", target: 75},
	{file: "gemm_mma.cuh", old: "u.x &= mask(n)", new: "u.x &= mask(n + 1)", tests: "TestProducts$", target: 75},
	{file: "gemm_mma.cuh", old: "		b.put(sb + slot * (BN * BK), vb, scale_b);\n		__syncthreads();", new: "		b.put(sb + slot * (BN * BK), vb, scale_b);", tests: "TestProducts$", target: 75},
	{file: "gemm_mma.cuh", old: "b.put(sb + slot * (BN * BK), vb, scale_b);", new: "b.put(sb + slot * (BN * BK), vb, scale_a);", tests: "TestHalfRange", target: 75},

	{file: "gemm_f32.cu", old: "acc[i][j] = fmaf(x[i], y[j], acc[i][j]);", new: "acc[i][j] = x[i] * y[j];", tests: "TestProducts$"},
	{file: "gemm_f32.cu", old: "		__syncthreads(); // the other slot is free too", new: "		// the other slot is free too", tests: "TestProducts$"},
	{file: "gemm_f32.cu", old: "const int slot = (tile - from) & 1;", new: "const int slot = 0;", tests: "TestProducts$"},
	{file: "gemm_f32.cu", old: "n = k0 + kk < k ? rows - row0 - r : 0;", new: "n = rows - row0 - r;", tests: "TestProducts$"},
	{file: "gemm_f32.cu", old: "if (ty / 8 == (q & 1)) {", new: "if (ty / 8 == 0) {", tests: "TestProducts$"},
	{file: "gemm_f32.cu", old: "second ? B2_BF16 : B_BF16", new: "B_BF16", tests: "TestProducts$"},

	{file: "gemm_aux.cu", old: "for (i64 z = 0; z < parts; z++)", new: "for (i64 z = 1; z < parts; z++)", tests: "TestProducts$"},
	{file: "gemm_aux.cu", old: "v[j] = col + j < cols ? bf16 ?", new: "v[j] = true ? bf16 ?", tests: "TestPack"},
	{file: "gemm_aux.cu", old: "14 - e;", new: "15 - e;", tests: "TestScale", target: 75},
	{file: "gemm_aux.cu", old: "if (p2) v = fmaxf(", new: "if (false) v = fmaxf(", tests: "TestScale", target: 75},
	{file: "gemm_aux.cu", old: "row < rows; row += gridDim.x", new: "row < rows; row += rows", tests: "TestScale", target: 75},

	{file: "nf4.cuh", old: "b >> w.nested_shift", new: "b >> w.block_shift", tests: "TestDequant"},
	{file: "nf4.cuh", old: "__fadd_rn(__fmul_rn(w.nested_map[w.nested[b]], w.nested_scales[b >> w.nested_shift]), w.offset)", new: "fmaf(w.nested_map[w.nested[b]], w.nested_scales[b >> w.nested_shift], w.offset)", tests: "TestDequant"},
	{file: "nf4.cu", old: "code[b >> 4 & 15], s), v[2 * j + 1] = __fmul_rn(code[b & 15], s)", new: "code[b & 15], s), v[2 * j + 1] = __fmul_rn(code[b >> 4 & 15], s)", tests: "TestDequant"},
	{file: "nf4.cu", old: "(i & 1 ? 0 : 4)", new: "(i & 1 ? 4 : 0)", tests: "TestDequant"},
	{file: "nf4.cu", old: "	if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];\n	__syncthreads();", new: "	if (threadIdx.x < 16) code[threadIdx.x] = w.code[threadIdx.x];", tests: "TestDequant"},
	{file: "nf4_gemm.cu", old: "const u32 fa[4] = {lo.x, hi.x, lo.y, hi.y};", new: "const u32 fa[4] = {lo.x, lo.y, hi.x, hi.y};", tests: "TestNF4Products"},
	{file: "nf4_gemm.cu", old: "		__syncthreads();\n		for (int i = threadIdx.x; i < 16 * CHUNK", new: "		for (int i = threadIdx.x; i < 16 * CHUNK", tests: "TestNF4Products"},
	{file: "nf4_gemm.cu", old: "		__syncthreads();\n#pragma unroll\n		for (int r = 0; r < CHUNK / 128; r++) {\n			const u32 words", new: "#pragma unroll\n		for (int r = 0; r < CHUNK / 128; r++) {\n			const u32 words", tests: "TestNF4Products"},
	{file: "nf4_gemm.cu", old: "l < (int)k2; l++", new: "l < (int)k2 - 1; l++", tests: "TestNF4Products"},
	{file: "nf4_gemm.cu", old: "32 * t + 4 * i;", new: "32 * t + 2 * i;", tests: "TestNF4Products"},
}

// TestPlantedProducts is TestPlantedBugs for matrix products.
func TestPlantedProducts(t *testing.T) {
	only := os.Getenv("MOOT_PLANTED")
	if only == "" {
		t.Skip("MOOT_PLANTED is not set")
	}
	if os.Getenv("MOOT_EMU_MUTANT") != "" {
		t.Skip("in a test of its own")
	}
	tests := map[string]int{} // and their target
	for i, p := range plantedProducts {
		if only == "each" && i > 0 && plantedProducts[i-1].file == p.file || only != "1" && only != "each" && !strings.Contains(p.file, only) {
			continue
		}
		if p.target == 0 {
			p.target = 80
		}
		tests[p.tests] = p.target
		t.Run(fmt.Sprintf("%s/%d", p.file, i), func(t *testing.T) {
			out, err := plant(t, p)
			if err == nil {
				t.Errorf("%s with\n%s\nfor\n%s\npasses:\n%s", p.file, p.new, p.old, out)
			} else if strings.Contains(out, "no tests to run") {
				t.Errorf("there is no test %s", p.tests)
			}
		})
	}
	// The same tests pass where nothing is planted.
	for name, target := range tests {
		if out, err := plant(t, planted{tests: name, target: target}); err != nil || strings.Contains(out, "no tests to run") {
			t.Errorf("%s without a bug: %v\n%s", name, err, out)
		}
	}
}
