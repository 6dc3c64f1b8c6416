package cpu

// native are the fastest kernels that this processor runs, or nil.
var native *kernels
