package faulty

import "sync"

// Gate keeps calls waiting until it is opened, whatever becomes of their
// contexts: as a system call does on a file server that hangs.
type Gate struct {
	arrived, open        chan struct{}
	arriveOnce, openOnce sync.Once
}

// NewGate makes a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), open: make(chan struct{})}
}

// Arrived is closed when the first call waits.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Open lets all calls pass, now and later. It may be called again.
func (g *Gate) Open() { g.openOnce.Do(func() { close(g.open) }) }

func (g *Gate) pass() {
	g.arriveOnce.Do(func() { close(g.arrived) })
	<-g.open
}
