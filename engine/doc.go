// Package engine is what backy does: backup, restore, scrub. It turns sources
// into levels and levels into targets, and owns the order of the steps that
// makes a crash at any point harmless.
//
// It does not know how a repository keeps its bytes (package store), what RBD
// is (package rbd), or how to talk to people (cmd/backy). It is pure Go.
package engine
