package model

import "github.com/moot-net/moot/node/internal/tensor"

// linear is y = x W^T + bias + scale * (x A^T) B^T; see dora for another kind.
type linear struct {
	Module
	w, bias   tensor.Mat // (out,in), (1,out) or none
	dw, dBias tensor.Mat
	lora      *LowRank
	dora      *dora // nil without magnitudes
}

// rank returns the adapter's rank, 0 without one.
func (l *linear) rank() int {
	if l.lora == nil {
		return 0
	}
	return l.lora.A.Rows
}

// forward sets y (T,out), or adds to it. low (T,R) keeps x A^T for the
// backward pass; where the backend fuses, scale * x A^T.
func (l *linear) forward(b tensor.Backend, y, x, low tensor.Mat, add bool) {
	if f, ok := b.(tensor.Fuser); ok && l.dora == nil && (l.lora != nil || !l.bias.None()) {
		var up tensor.Mat
		if l.lora != nil {
			b.MatMul(low, x, l.lora.A, tensor.MatMul{TransB: true, Alpha: l.lora.Scale})
			up = l.lora.B
		}
		f.MatMulSum(y, x, l.w, low, up, l.bias, tensor.MatMul{TransB: true, Add: add})
		return
	}
	if l.dora != nil {
		l.dora.forward(b, l, y, x, low, add)
	} else {
		b.MatMul(y, x, l.w, tensor.MatMul{TransB: true, Add: add})
	}
	if !l.bias.None() {
		b.AddRow(y, l.bias)
	}
	if a := l.lora; a != nil && l.dora == nil {
		b.MatMul(low, x, a.A, tensor.MatMul{TransB: true})
		b.MatMul(y, low, a.B, tensor.MatMul{TransB: true, Add: true, Alpha: a.Scale})
	}
}

// backward adds the derivatives by the parameters, and sets dx (T,in), or adds
// to it with add; dx is none where nothing below is trained. dlow (T,R) is
// scratch.
func (l *linear) backward(b tensor.Backend, dx, dy, x, low, dlow tensor.Mat, add bool) {
	if !l.dw.None() {
		b.MatMul(l.dw, dy, x, tensor.MatMul{TransA: true, Add: true})
		if !l.dBias.None() {
			b.SumRows(l.dBias, dy)
		}
	}
	a, f, fuses := l.lora, tensor.Fuser(nil), false
	if a != nil {
		f, fuses = b.(tensor.Fuser)
		b.MatMul(dlow, dy, a.B, tensor.MatMul{Alpha: a.Scale})
	}
	switch {
	case dx.None():
	case fuses:
		f.MatMulSum(dx, dy, l.w, dlow, a.A, tensor.Mat{}, tensor.MatMul{Add: add})
	default:
		b.MatMul(dx, dy, l.w, tensor.MatMul{Add: add})
		if a != nil {
			b.MatMul(dx, dlow, a.A, tensor.MatMul{Add: true})
		}
	}
	if a == nil || a.DA.None() {
		return
	}
	scale := a.Scale
	if fuses {
		scale = 1 // low has it
	}
	b.MatMul(a.DB, dy, low, tensor.MatMul{TransA: true, Add: true, Alpha: scale})
	b.MatMul(a.DA, dlow, x, tensor.MatMul{TransA: true, Add: true})
}
