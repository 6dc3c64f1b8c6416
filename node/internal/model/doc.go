// Package model runs transformer language models forward and backward on a
// tensor.Backend. There is one definition of a block; architectures differ by
// data: what all models of one share is in family, what config.json says is in
// Config. It reads and writes Hugging Face folders of
//
//	Llama 1 to 3, Mistral, Qwen2 and 2.5, Qwen3, Gemma 1 and 2, Phi-1.5, Phi-2,
//	Phi-3 and 4, Falcon (without ALiBi), MPT, GPT-NeoX (Pythia), GPT-2
//
// and refuses a configuration or a checkpoint that says more than it computes.
// Base models have no dropout here, whatever they were pretrained with.
package model
