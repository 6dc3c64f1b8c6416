// Package tensor is the interface between the definition of a model and the
// devices that compute it: memory, views of it, and the operations that a
// transformer's forward and backward passes are made of. Package cpu
// implements it; package tensortest checks an implementation.
//
// Letters of shapes: T tokens of a batch, C channels of the residual stream,
// V vocabulary, NH query heads, KH key and value heads, HD width of a head,
// R rank. A leading d is a derivative of the loss.
package tensor
