// Package fetchtest tests what makes DAGs local from peers: the same suite for
// package exchange and package pull, and what their own tests need besides.
package fetchtest
