package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options are the choices of a child process.
type Options struct {
	Slots  int // of the memory
	Faults Faults
	Env    []string // added to the parent's own

	// Patience is how long the child may be silent while it is waited for; then
	// it is killed. It is longer than the child's own.
	Patience time.Duration

	// In tests: how it is killed, nil for SIGKILL to its whole group, and how long it
	// may take to die, 0 for the usual time.
	kill  func(pid int) error
	dying time.Duration
}

const (
	// dying is how long a child takes at most that was killed, or that has closed
	// its socket. One that takes longer sits in the kernel.
	dying = 10 * time.Second

	// checks is how often in its patience the parent looks after a child.
	checks = 16
)

// Process is a child process and the parent's end of the talk with it. It is safe
// for concurrent use.
type Process struct {
	*Peer
	Memory *Memory

	o      Options
	cmd    *exec.Cmd
	output output
	reaped chan struct{} // it is dead
	over   chan struct{} // it is dead, or given up: Death tells

	mu    sync.Mutex
	why   error // why it was killed; nil: it was not
	death error
}

// Start runs this binary again as a child.
func Start(o Options) (p *Process, err error) {
	if o.dying == 0 {
		o.dying = dying
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, fmt.Errorf("the socket of a child process: %w", err)
	}
	memory, err := newMemory(o.Slots)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p = &Process{Peer: NewPeer(conn, o.Faults), Memory: memory, o: o, reaped: make(chan struct{}), over: make(chan struct{})}
	if err := p.start(theirs); err != nil {
		return nil, errors.Join(err, conn.Close(), memory.close())
	}
	return p, nil
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("the socket of a child process: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

func (p *Process) start(socket *os.File) error {
	read, write, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("the output of a child process: %w", err)
	}
	// Whatever has become of the file that we were started from, this is it.
	p.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], Verb},
		Env:    append(os.Environ(), p.o.Env...),
		Stdout: write, Stderr: write,
		ExtraFiles:  []*os.File{socket, p.Memory.file}, // see attach
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	err = spawn(p.cmd)
	if err = errors.Join(err, write.Close()); err != nil {
		return errors.Join(fmt.Errorf("start of a child process: %w", err), read.Close())
	}
	said := make(chan struct{})
	go func() {
		defer close(said)
		defer read.Close()
		_, _ = io.Copy(&p.output, read)
	}()
	ended := make(chan error, 1)
	go func() { ended <- p.Run() }()
	go p.watch(ended, said)
	return nil
}

// spawn starts a process from a thread that lasts as long as this one: the kernel
// takes a thread's end for the parent's.
func spawn(cmd *exec.Cmd) error {
	err := make(chan error)
	spawner() <- func() { err <- cmd.Start() }
	return <-err
}

var spawner = sync.OnceValue(func() chan<- func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range todo {
			f()
		}
	}()
	return todo
})

// watch sees the child to its end, and brings it about where it is silent for too
// long.
func (p *Process) watch(ended <-chan error, said <-chan struct{}) {
	var state *os.ProcessState
	go func() {
		state, _ = p.cmd.Process.Wait()
		close(p.reaped)
	}()
	tick := time.NewTicker(max(p.o.Patience/checks, time.Millisecond))
	defer tick.Stop()
	for alive := true; alive; {
		select {
		case <-p.reaped:
			alive = false
		case err := <-ended:
			alive = false
			if errors.Is(err, errFrame) { // others come of its death
				p.Kill(fmt.Errorf("librbd's process says what nobody understands, and was killed: %w", err))
			}
		case now := <-tick.C:
			if silent := p.silent(now); silent > p.o.Patience {
				p.Kill(&SilentError{silent})
				alive = false
			}
		}
	}
	if !p.wait(p.o.dying) {
		p.Kill(errors.New("librbd's process has hung up, and was killed"))
	}
	if !p.wait(p.o.dying) {
		p.finish(&UnkillableError{p.cmd.Process.Pid})
		return
	}
	select {
	case <-said:
	case <-time.After(p.o.dying): // nobody else has its output
	}
	p.finish(p.post(state))
}

func (p *Process) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.reaped:
		return true
	case <-timer.C:
		return false
	}
}

// post says what it died of.
func (p *Process) post(state *os.ProcessState) error {
	p.mu.Lock()
	why := p.why
	p.mu.Unlock()
	if why != nil {
		return why
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	death := &DeathError{Code: status.ExitStatus(), Output: p.output.String()}
	if status.Signaled() {
		death.Signal = status.Signal()
	}
	return death
}

func (p *Process) finish(death error) {
	p.mu.Lock()
	p.death = death
	p.mu.Unlock()
	close(p.over)
	_ = p.Peer.Close()
}

// Kill ends the child at once; why is what Death then says. The first counts.
func (p *Process) Kill(why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.why != nil {
		return
	}
	p.why = why
	select {
	case <-p.reaped: // its number may be somebody else's by now
		return
	default:
	}
	kill := p.o.kill
	if kill == nil {
		kill = func(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
	}
	_ = kill(p.cmd.Process.Pid)
}

// Dead reports whether the child can do nothing more.
func (p *Process) Dead() bool {
	select {
	case <-p.over:
		return true
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Death waits for the child to be dead, or given up, and says of what: a
// *DeathError, a *SilentError, an *UnkillableError or what Kill was told.
func (p *Process) Death() error {
	<-p.over
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.death
}

// Output is what it has printed, without keys.
func (p *Process) Output() string { return p.output.String() }

// Pid is its number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Close ends a child that has nothing to do any more: it exits when it finds the
// socket closed, and is killed where it does not.
func (p *Process) Close() error {
	err := p.Peer.Close()
	<-p.over
	return errors.Join(err, p.Memory.close())
}

// Call is Peer.Call, but where the child dies the error is its Death.
func (p *Process) Call(ctx context.Context, verb string, args, result any) error {
	err := p.Peer.Call(ctx, verb, args, result)
	if errors.Is(err, ErrEnded) {
		return p.Death()
	}
	return err
}
