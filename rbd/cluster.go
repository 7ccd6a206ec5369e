package rbd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"backy/engine"
	"backy/rbd/child"
	"backy/store"
)

// Cluster is a cluster that is reached through child processes: what librbd does
// there, aborting, dividing by zero or hanging, costs the image that it was
// called for, and nothing else. Conn does in a child what Cluster asks for; the
// lock of an image is this process's own, by librados alone.
//
// A child works on one image at a time, and goes on to the next if all went
// well. Cluster is safe for concurrent use.
type Cluster struct {
	config Config
	o      ClusterOptions
	fsid   string
	places chan struct{} // one for each worker

	mu     sync.Mutex
	idle   []*worker
	ending sync.WaitGroup

	crashed atomic.Bool

	leases struct {
		sync.Mutex
		conn *Conn
	}
}

// ClusterOptions are the choices of a Cluster. The zero value works.
type ClusterOptions struct {
	// Workers is how many children there are at most; 0: 16.
	Workers int

	// CrashDir is the directory where a child's death is reported, a file each;
	// "": nowhere.
	CrashDir string

	// Warn takes sentences about what is viewed; may be nil.
	Warn engine.Warn
}

const (
	defaultWorkers = 16

	// idleWorkers is how many children wait for the next image at most.
	idleWorkers = 4
)

// Open connects to a cluster through a child process.
//
// Errors: those of Connect.
func Open(ctx context.Context, config Config, o ClusterOptions) (*Cluster, error) {
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	c := &Cluster{config: config, o: o, places: make(chan struct{}, o.Workers)}
	w, err := c.hire(ctx)
	if err != nil {
		return nil, err
	}
	c.leave(w)
	return c, nil
}

// FSID is the id of the cluster.
func (c *Cluster) FSID() string { return c.fsid }

// Crashed reports whether a child has died of librbd, in a crash or because it hung.
func (c *Cluster) Crashed() bool { return c.crashed.Load() }

// hire waits for a place and takes a worker that is idle, or starts one.
func (c *Cluster) hire(ctx context.Context) (*worker, error) {
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	w, err := c.worker(ctx)
	if err != nil {
		<-c.places
	}
	return w, err
}

func (c *Cluster) worker(ctx context.Context) (*worker, error) {
	for {
		c.mu.Lock()
		last := len(c.idle) - 1
		if last < 0 {
			c.mu.Unlock()
			return c.startWorker(ctx)
		}
		w := c.idle[last]
		c.idle = c.idle[:last]
		c.mu.Unlock()
		if !w.Dead() {
			return w, nil
		}
		c.dismiss(w, false)
	}
}

// leave gives a worker and its place back.
func (c *Cluster) leave(w *worker) {
	defer func() { <-c.places }()
	fit := w.fit()
	c.mu.Lock()
	keep := fit && len(c.idle) < idleWorkers
	if keep {
		c.idle = append(c.idle, w)
	}
	c.mu.Unlock()
	if !keep {
		c.dismiss(w, fit)
	}
}

// dismiss ends a worker. Nobody waits for it but Close.
func (c *Cluster) dismiss(w *worker, fit bool) {
	c.ending.Go(func() { _ = w.end(fit) })
}

// replace ends a worker that is of no use any more and starts another in its
// place.
func (c *Cluster) replace(ctx context.Context, w *worker) (*worker, error) {
	c.dismiss(w, false)
	return c.startWorker(ctx)
}

// Close ends all child processes. Sources, views and targets must be done with.
func (c *Cluster) Close() error {
	c.mu.Lock()
	for _, w := range c.idle {
		c.dismiss(w, true)
	}
	c.idle = nil
	c.mu.Unlock()
	c.ending.Wait()
	c.leases.Lock()
	defer c.leases.Unlock()
	if c.leases.conn == nil {
		return nil
	}
	return c.leases.conn.Close()
}

// ask has some worker do a verb that is done at once.
func (c *Cluster) ask(ctx context.Context, image string, verb string, args, result any) error {
	w, err := c.hire(ctx)
	if err != nil {
		return err
	}
	defer c.leave(w)
	w.about(image)
	return w.call(ctx, verb, args, result)
}

// List is Conn.List.
func (c *Cluster) List(ctx context.Context, p PoolSpec) (specs []Spec, err error) {
	err = c.ask(ctx, p.String(), verbList, p, &specs)
	return specs, err
}

// HasNamespace is Conn.HasNamespace.
func (c *Cluster) HasNamespace(ctx context.Context, pool, namespace string) (there bool, err error) {
	err = c.ask(ctx, pool, verbHasNamespace, Spec{Pool: pool, Namespace: namespace}, &there)
	return there, err
}

// HasImage is Conn.HasImage.
func (c *Cluster) HasImage(ctx context.Context, spec Spec) (there bool, err error) {
	err = c.ask(ctx, spec.String(), verbHasImage, spec, &there)
	return there, err
}

// Look is Conn.Look, and tells of an image that is half removed.
func (c *Cluster) Look(ctx context.Context, spec Spec, prefix string) (info Info, err error) {
	err = c.ask(ctx, spec.String(), verbLook, lookArgs{spec, prefix}, &info)
	return info, err
}

// Inspect is Conn.Inspect.
func (c *Cluster) Inspect(ctx context.Context, spec Spec, prefix string) (Info, []OwnSnapshot, error) {
	var i inspection
	err := c.ask(ctx, spec.String(), verbInspect, lookArgs{spec, prefix}, &i)
	return i.Info, openAll(i.Own), err
}

func (c *Cluster) identify(ctx context.Context, spec Spec) (id store.ImageID, err error) {
	err = c.ask(ctx, spec.String(), verbIdentify, spec, &id)
	return id, err
}

func (c *Cluster) admit(ctx context.Context, who claimant, newest *store.Level) (note string, err error) {
	a := admitArgs{who.spec, who.id, who.name, who.adopt, document[*store.Level]{newest}}
	err = c.ask(ctx, who.spec.String(), verbAdmit, a, &note)
	return note, err
}

// Space is Conn.Space.
func (c *Cluster) Space(ctx context.Context, o OwnSnapshot) (bytes int64, ok bool, err error) {
	var r space
	err = c.ask(ctx, o.Spec.String(), verbSpace, sealOwn(o), &r)
	return r.Bytes, r.OK, err
}

// RemoveStray is Conn.RemoveStray.
func (c *Cluster) RemoveStray(ctx context.Context, o OwnSnapshot) error {
	return c.ask(ctx, o.Spec.String(), verbRemoveStray, sealOwn(o), &child.Nothing{})
}

// CheckStray is Conn.CheckStray.
func (c *Cluster) CheckStray(ctx context.Context, o OwnSnapshot) error {
	return c.ask(ctx, o.Spec.String(), verbCheckStray, sealOwn(o), &child.Nothing{})
}

// Prepare is Conn.Prepare.
func (c *Cluster) Prepare(ctx context.Context, spec Spec, repository store.RepositoryID, name store.Name, maxAge time.Duration, around Snapping) error {
	w, err := c.hire(ctx)
	if err != nil {
		return err
	}
	defer c.leave(w)
	w.about(spec.String())
	v := child.Verbs{}
	snap := handleSnap(v, w, around)
	w.Serve(v)
	return snap.kept(w.call(ctx, verbPrepare, prepareArgs{spec, repository, name, maxAge, around != nil}, &child.Nothing{}))
}

// snapping is what came of what was to be done around a snapshot.
type snapping struct {
	mu  sync.Mutex
	err error
}

// handleSnap lets a child take a snapshot inside of what is to be done around it.
func handleSnap(v child.Verbs, w *worker, around Snapping) *snapping {
	s := &snapping{}
	child.Handle(v, verbSnap, func(ctx context.Context, _ *child.Peer, spec Spec) (n child.Nothing, err error) {
		err = around.do(ctx, spec, func(ctx context.Context) error {
			return w.call(ctx, verbTake, child.Nothing{}, &child.Nothing{})
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
		return n, err
	})
	return s
}

// kept gives an error that went to the child and back what it was here.
func (s *snapping) kept(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || s.err == nil || !strings.Contains(err.Error(), s.err.Error()) {
		return err
	}
	return &farError{engine.ErrorLines(err), []error{err, s.err}}
}

// Lock is Conn.Lock, on a connection of this process.
func (c *Cluster) Lock(ctx context.Context, spec Spec, repository store.RepositoryID, duration time.Duration) (*Lease, error) {
	conn, err := c.leaseConn(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Lock(ctx, spec, repository, duration)
}

func (c *Cluster) leaseConn(ctx context.Context) (*Conn, error) {
	c.leases.Lock()
	defer c.leases.Unlock()
	if c.leases.conn == nil {
		conn, err := Connect(ctx, c.config)
		if err != nil {
			return nil, fmt.Errorf("to lock images: %w", err)
		}
		c.leases.conn = conn
	}
	return c.leases.conn, nil
}
