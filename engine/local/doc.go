// Package local joins the engine to what the operating system has: files, block
// devices and pipes, as sources and as targets. It needs Linux.
//
// It knows holes (SEEK_DATA and SEEK_HOLE, hole punching, BLKZEROOUT) and what
// must not be overwritten. It decides nothing about chunks and keeps nothing.
package local
