// Package rbd makes Ceph RBD images the sources and targets of backups: it
// connects, makes and removes snapshots, finds out what changed between two of
// them, reads and writes. It is the only importer of go-ceph, and needs cgo.
//
// What it believes of librbd's answers, and what it does not, was measured; the
// tests named TestP1 and on hold the pitfalls of it.
//
// A call into librados or librbd cannot be interrupted, and some never return
// from a cluster that hangs. So each runs in a goroutine of its own that is
// left behind when the context ends or when nothing moves for Config.Timeout;
// what such a call may still use is then never closed, but left to the end of
// the process.
package rbd
