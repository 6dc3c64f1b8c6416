package cpu

import (
	"fmt"
	"math"

	"github.com/moot-net/moot/node/internal/tensor"
)

type lossTask struct {
	k      *kernels
	step   int
	logits tensor.Mat
	labels []int32
	scale  float32
	nll    []float32
	top    []int32
	rows   int
}

// CrossEntropy sets nll, top and, with a scale, the derivatives.
func (b *Backend) CrossEntropy(logits tensor.Mat, labels []int32, gradScale float32, nll []float32, top []int32) {
	if len(labels) != logits.Rows || len(nll) < logits.Rows || len(top) < logits.Rows {
		panic(fmt.Sprintf("bug: %d labels for %d rows", len(labels), logits.Rows))
	}
	b.loss = lossTask{
		k: b.k, logits: logits, labels: labels, scale: gradScale, nll: nll, top: top, rows: logits.Rows,
		step: max(1, minRowWork/4/max(1, logits.Cols), ceilDiv(logits.Rows, 4*b.pool.threads)),
	}
	b.pool.do(ceilDiv(logits.Rows, b.loss.step), &b.loss)
	b.loss = lossTask{}
}

func (t *lossTask) piece(_, n int) {
	for i := n * t.step; i < min((n+1)*t.step, t.rows); i++ {
		row, label := t.logits.HostRow(i), int(t.labels[i])
		most, own := t.k.maximum(row), row[label]
		t.top[i] = 0
		for j, v := range row {
			if v == most {
				t.top[i] = int32(j)
				break
			}
		}
		sum := t.k.expSum(row, row, most)
		t.nll[i] = float32(math.Log(float64(sum))) - (own - most)
		if t.scale != 0 {
			t.k.scale(row, t.scale/sum)
			row[label] -= t.scale
		}
	}
}
