package rbd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"backy/rbd/child"
)

// slots is how many reads or writes of one image are under way at a time at most.
const slots = 8

// childEnv suits Go's runtime to a process that does little but wait within librbd.
// If all processors are within calls, its monitor sleeps; if one is idle, it looks
// every 20 µs whether the calls are back, which costs more than our own code.
var childEnv = []string{"GOMAXPROCS=1"}

// worker is a child process with a connection to the cluster. It works on one
// image at a time.
type worker struct {
	*child.Process
	cluster *Cluster

	mu    sync.Mutex
	image string // that it works on, for a report
	verb  string // the last that it was asked for
	told  error  // what it died of, once that is reported
}

// startWorker starts a child and has it connect.
func (c *Cluster) startWorker(ctx context.Context) (*worker, error) {
	p, err := child.Start(child.Options{
		Slots: slots, Faults: faults{}, Patience: patience(c.config.Timeout), Env: childEnv,
	})
	if err != nil {
		return nil, err
	}
	w := &worker{Process: p, cluster: c}
	var fsid string
	err = w.call(ctx, verbConnect, c.config, &fsid)
	if c.fsid != "" && err == nil && fsid != c.fsid {
		err = fmt.Errorf("connected to cluster %s: it was %s before", fsid, c.fsid)
	}
	if err != nil {
		w.Kill(errors.New("it could not connect"))
		return nil, errors.Join(err, w.Close())
	}
	if c.fsid == "" {
		c.fsid = fsid // the first, that Open waits for
	}
	return w, nil
}

// about notes which image comes next.
func (w *worker) about(image string) {
	w.mu.Lock()
	w.image = image
	w.mu.Unlock()
}

// patience is how long a child may be silent: a little longer than it waits itself
// for a call and then for what the call has left open.
func patience(timeout time.Duration) time.Duration {
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return timeout + timeout/4 + 3*grace
}

// call has the child do a verb. Where it dies of that, the error says so.
func (w *worker) call(ctx context.Context, verb string, args, result any) error {
	w.mu.Lock()
	w.verb = verb
	w.mu.Unlock()
	err := w.Call(ctx, verb, args, result)
	if err != nil && w.Dead() {
		return w.died(w.Death())
	}
	return caused(ctx, err)
}

// died reports a death, once.
func (w *worker) died(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told != nil {
		return w.told
	}
	w.told = err
	w.cluster.crashed.Store(true)
	if dir := w.cluster.o.CrashDir; dir != "" {
		path, reportErr := w.report(dir, err)
		if reportErr != nil {
			w.told = fmt.Errorf("%w; the report of it could not be written: %v", err, reportErr)
		} else {
			w.told = fmt.Errorf("%w; a report is in %s", err, path)
		}
	}
	return w.told
}

// report writes what is known of a child's death to a new file.
func (w *worker) report(dir string, death error) (path string, err error) {
	now := time.Now()
	path = filepath.Join(dir, fmt.Sprintf("backy-crash-%s-%d.txt", now.UTC().Format("20060102T150405.000"), w.Pid()))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return path, err
	}
	librbd, librados := Versions()
	_, err = fmt.Fprintf(f, "time: %s\nwhat: %v\nimage: %s\nlast asked for: %s\nlibrbd: %s\nlibrados: %s\ncluster: %s\n\nwhat the process printed, without keys:\n%s\n",
		now.Format(time.RFC3339), death, w.image, w.verb, librbd, librados, w.cluster.fsid, w.Output())
	return path, errors.Join(err, f.Close())
}

// fit reports whether the worker may go on to another image: it lives, and has
// left nothing behind.
func (w *worker) fit() bool {
	if w.Dead() {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	return w.Call(ctx, verbIdle, child.Nothing{}, &child.Nothing{}) == nil
}

// end ends the worker: in peace where it is fit, else at once.
func (w *worker) end(fit bool) error {
	if fit {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		fit = w.Call(ctx, verbQuit, child.Nothing{}, &child.Nothing{}) == nil
	}
	if !fit {
		w.Kill(errors.New("it was not fit for another image"))
	}
	return w.Close()
}
