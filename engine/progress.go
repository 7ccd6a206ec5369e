package engine

import "sync/atomic"

// Progress is what a running backup, restore or scrub has done so far. It is
// read while the run goes on, by whoever shows it; the engine only adds.
type Progress struct {
	Total  atomic.Int64 // bytes of work expected; 0 while unknown
	Done   atomic.Int64 // bytes of work done, of Total
	Read   atomic.Int64 // bytes read from the source
	Stored atomic.Int64 // bytes put in the repository
	Bad    atomic.Int64 // chunks found damaged or different
}

// Warn takes a sentence for the user, printf style.
type Warn func(format string, args ...any)
