package clustertest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"backy/rbd/child"
)

// missteps are what a child process that runs librbd can do to itself.
var missteps = map[string]func(){
	"FPE":  func() { raise(syscall.SIGFPE) },
	"SEGV": func() { raise(syscall.SIGSEGV) },
	"ABRT": func() { raise(syscall.SIGABRT) },
	"KILL": func() { raise(syscall.SIGKILL) },
	"stop": func() { raise(syscall.SIGSTOP) }, // the whole process hangs
	"hang": func() { select {} },              // the call does
	"exit": func() { os.Exit(3) },
}

func raise(s syscall.Signal) {
	_ = syscall.Kill(os.Getpid(), s)
	select {} // until it comes
}

const misstepEnv = "BACKY_TEST_MISSTEP"

// Misstep is one thing that goes wrong in librbd, once: before the Step-th call that
// is about something whose name holds About, in which _ stands for a space.
type Misstep struct {
	Kind  string
	Step  int
	About string
	Once  string // a file that tells that it has happened
}

// Env is the environment of a backy whose children are to make it.
func (m Misstep) Env() string {
	return fmt.Sprintf("%s=%s %d %s %s", misstepEnv, m.Kind, m.Step, m.About, m.Once)
}

// Happened reports whether it has been made.
func (m Misstep) Happened(t testing.TB) bool {
	_, err := os.Stat(m.Once)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

// Stumble has this process, if it is a child that runs librbd, make the misstep that
// its environment holds.
func Stumble() {
	words := strings.Fields(os.Getenv(misstepEnv))
	if len(words) == 0 || len(os.Args) < 2 || os.Args[1] != child.Verb {
		return
	}
	step, err := strconv.Atoi(words[1])
	if err != nil {
		panic(err)
	}
	var steps atomic.Int64
	child.AtStep = func(what string) {
		if !strings.Contains(what, strings.ReplaceAll(words[2], "_", " ")) || steps.Add(1) != int64(step) {
			return
		}
		once, err := os.OpenFile(words[3], os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return // another has made it
		}
		_ = once.Close()
		missteps[words[0]]()
	}
}
