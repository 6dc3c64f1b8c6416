package importbench

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	r, err := Measure(t.Context(), dir, 3<<20, 2)
	if err != nil || !(r.Ratio > 0 && r.Ratio < 3) || !(r.Import > 0) || !(r.SHA256 > 0) {
		t.Fatalf("Measure = %+v, %v", r, err)
	}
	b, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(b), `"import_ratio_sha256":`) {
		t.Errorf("%s, %v", b, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// BenchmarkImport reports the ratio over rounds of 256 MiB.
func BenchmarkImport(b *testing.B) {
	var best Result
	for b.Loop() {
		r, err := Measure(b.Context(), b.TempDir(), 256<<20, 5)
		if err != nil {
			b.Fatal(err)
		}
		best = r
	}
	b.ReportMetric(best.Ratio, "ratio")
	b.ReportMetric(best.CPURatio, "cpu-ratio")
	b.ReportMetric(best.Import/1e6, "import-MB/s")
	b.ReportMetric(best.SHA256/1e6, "sha256-MB/s")
}
