// Package hugepage makes the large buffers that are used again and again. With
// pages of 4 KiB, touching one for the first time takes about as long as hashing it.
package hugepage
