package rbd

/*
#include <signal.h>

// fatal are the signals of a crash.
static const int fatal[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

static void crash_plainly(void) {
	for (unsigned i = 0; i < sizeof fatal / sizeof *fatal; i++)
		signal(fatal[i], SIG_DFL);
}
*/
import "C"

import (
	"os/signal"
	"syscall"
)

// childSignals makes a crash in this process end it by the signal, so that the
// parent sees which, in place of Go's trace; a bug of ours ends it in the same way.
// What asks a process to end is the parent's matter: systemd, for one, sends it to
// both.
func childSignals() {
	C.crash_plainly()
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE)
}
