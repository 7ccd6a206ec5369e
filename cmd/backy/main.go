// Command backy backs up, restores and scrubs RBD images, devices, files and
// pipes. It holds flags, words for people and exit codes; what is done is in
// package engine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"

	"backy/engine/local"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == local.GuardVerb {
		os.Exit(local.Guard())
	}
	if code, ok := childMain(os.Args[1:]); ok {
		os.Exit(code)
	}
	// Most of the heap is a few large buffers, which cost the collector nothing
	// and should not be doubled.
	debug.SetGCPercent(20)
	setZone()
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 16)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup and background jobs ask
			signal.Notify(signals, s)
		}
	}
	// A closed pipe is an error to clean up after, like any other. The channel
	// is never read: what counts is that the signal no longer kills.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	go func() {
		cancel(&interruptedError{<-signals})
		again(signals)
		os.Exit(exitInterrupted) // whatever hangs, in librbd too
	}()
	stop := profile(os.Getenv("BACKY_CPUPROFILE"))
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// secondSignal is how long after the first a signal kills. timeout(1), for one,
// sends its signal twice within a moment: to the process and to its group.
const secondSignal = time.Second

// again waits for a second signal that is meant as one.
func again(signals <-chan os.Signal) {
	for first := time.Now(); ; {
		if <-signals; time.Since(first) >= secondSignal {
			return
		}
	}
}

// profile writes where the time of Go's part goes to a file, for the bench; "" is
// none.
func profile(path string) (stop func()) {
	if path == "" {
		return func() {}
	}
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "backy: profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}
}
