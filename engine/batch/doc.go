// Package batch backs up many images in one run: which of them, in which order,
// how many at a time, together with which other nodes, and what became of each.
//
// It knows no more of a cluster than the interface Pool. Several nodes may run
// the same batch: each image is claimed in its pool, so that one node does it,
// and what the others find done they leave alone. The claims only spare work: what
// may be committed is decided by the repository, as for any backup.
package batch
