// Package dataset turns the rows of a data set into samples to train on and
// into prompts to answer: prompt templates, tokens and labels, and the order
// in which a peer draws rows. It reads from a local store and knows no network.
package dataset
