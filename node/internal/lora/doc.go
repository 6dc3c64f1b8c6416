// Package lora describes low-rank adapters: which tensors they have, under the
// names that PEFT gives them, and the folder that holds them on disk. It
// computes nothing on them but a merge; package model does.
package lora
