package local

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// family are all processes that descend from this one. They are children of this
// process once their own parents have ended, since it is their subreaper
// (prctl), and so none gets lost by becoming a daemon. Nothing else in this
// process may wait for children.
type family struct {
	mu      sync.Mutex
	reaping bool                    // there are children
	exits   map[int]unix.WaitStatus // of those that have ended
	news    chan struct{}           // closed when one ends; nil while nobody waits
}

// start starts a command whose standard streams are files.
func (f *family) start(cmd *exec.Cmd) (pid int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	if f.exits == nil {
		f.exits = map[int]unix.WaitStatus{}
	}
	delete(f.exits, pid)
	if !f.reaping {
		f.reaping = true
		go f.reap()
	}
	return pid, cmd.Process.Release()
}

// reap collects what ends until there is no child left.
func (f *family) reap() {
	for {
		// To wait without collecting leaves the number taken until f.mu is held, so that
		// start never gets that of one whose end is not noted.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if !f.collect() {
			return
		}
	}
}

// collect notes one that has ended, and reports whether there are more children.
func (f *family) collect() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
	switch {
	case err == unix.EINTR, err == nil && pid == 0:
		return true
	case err != nil: // ECHILD
		f.reaping = false
	default:
		f.exits[pid] = status
	}
	if f.news != nil {
		close(f.news)
		f.news = nil
	}
	return f.reaping
}

// await waits until a condition, which is asked with f.mu held, is true.
func (f *family) await(is func() bool) {
	for {
		f.mu.Lock()
		if is() {
			f.mu.Unlock()
			return
		}
		if f.news == nil {
			f.news = make(chan struct{})
		}
		news := f.news
		f.mu.Unlock()
		<-news
	}
}

// ended gives the status of a process once it has ended.
func (f *family) ended(pid int) <-chan unix.WaitStatus {
	c := make(chan unix.WaitStatus, 1)
	go f.await(func() bool {
		status, ok := f.exits[pid]
		if ok {
			c <- status
		}
		return ok
	})
	return c
}

// gone is closed once there are none left.
func (f *family) gone() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		f.await(func() bool { return !f.reaping })
		close(c)
	}()
	return c
}

// lastGrace is how long processes may take to end by SIGKILL. What takes longer
// hangs in the kernel, or is another user's.
const lastGrace = 3 * time.Second

// end ends all of them and reports whether they have gone.
func (f *family) end() bool {
	gone := f.gone()
	signalAll(unix.SIGTERM)
	if within(gone, grace) {
		return true
	}
	for start := time.Now(); time.Since(start) < lastGrace; {
		signalAll(unix.SIGKILL) // again and again, for what is started meanwhile
		if within(gone, wake) {
			return true
		}
	}
	return false
}

func within(c <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-timer.C:
		return false
	}
}

// signalAll sends a signal to all descendants of this process.
func signalAll(s unix.Signal) {
	for _, pid := range descendants(os.Getpid()) {
		_ = unix.Kill(pid, s)
	}
}

// descendants lists the processes below one, as far as they can be seen.
func descendants(of int) (list []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	for queue := children[of]; len(queue) > 0; queue = queue[1:] {
		list = append(list, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return list
}

// parentOf reads /proc/PID/stat: "PID (NAME) STATE PARENT …", the name being
// anything.
func parentOf(pid int) (parent int, ok bool) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, err == nil
}
