// Package tokenizer turns text into the tokens of a language model and back,
// as the model's own files say: tokenizer.json (BPE over bytes or over
// characters, or Unigram) or a sentencepiece tokenizer.model (BPE or unigram).
//
// The files come from strangers. They are bounded, checked, and never trusted
// to be consistent; a setting that would change tokens and is not known is an
// error that wraps ErrUnsupported, never ignored. Chat templates are not read
// here.
package tokenizer
