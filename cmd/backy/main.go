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
)

func main() {
	// Most of the heap is a few large buffers, which cost the collector nothing
	// and should not be doubled.
	debug.SetGCPercent(20)
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
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
		<-signals
		os.Exit(exitInterrupted) // whatever hangs, in librbd too
	}()
	stop := profile(os.Getenv("BACKY_CPUPROFILE"))
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
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
