// Package train is the inner loop: a base model with one adapter (or, for tiny
// models, with all its parameters) trained by AdamW, AdamW in eight bits or SGD
// on batches of samples, with checkpoints from which a killed process continues
// bit by bit. Adapters of more kinds than are trained can be applied.
//
// It knows nothing of rounds, data files or the network.
package train
