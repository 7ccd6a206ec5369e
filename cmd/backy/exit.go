package main

import (
	"errors"
	"fmt"
	"strings"

	"backy/engine"
	"backy/engine/batch"
	"backy/hints"
	"backy/store"
)

// exit is one exit code, what it says, and the errors that lead to it.
type exit struct {
	code    int
	meaning string
	matches func(error) bool
}

const (
	exitDone        = 0
	exitFailed      = 1
	exitInterrupted = 130
)

// exits is the one table of exit codes. The first that matches an error counts,
// so damage goes before difference; exitFailed is for the rest.
var exits = []exit{
	{exitDone, "done", nil},
	{exitFailed, "failed", nil},
	{2, "wrong usage", anyOf(isA[*usageError], isA[*hints.SyntaxError], isA[*hints.BoundsError])},
	{3, "damage: something of a level cannot be read, or its record is lost", anyOf(
		isA[*engine.DamagedError], isA[*engine.DamagedRepositoryError],
		isA[*store.LostError], isA[*store.BadRecordError], isA[*store.UnrecoverableError], isA[*recoveredDamagedError],
	)},
	{4, "a deep scrub found that the source differs", isA[*engine.DifferentError]},
	{5, "another run is at work on this name", isA[*store.BusyError]},
	{6, "some images of a pool were not backed up", isA[*batch.FailedError]},
	{exitInterrupted, "ended by SIGINT, SIGTERM or SIGHUP", isA[*interruptedError]},
}

// exitCode is that of a command.
func exitCode(command string, err error) int {
	if err == nil {
		return exitDone
	}
	for _, e := range exitsOf(command) {
		if e.matches != nil && e.matches(err) {
			return e.code
		}
	}
	if command == "status" {
		return exitUnknown
	}
	return exitFailed
}

// exitsOf are those of a command.
func exitsOf(command string) []exit {
	if command == "status" {
		return statusExits
	}
	return exits
}

// exitHelp is the part of each command's help that lists the exit codes.
func exitHelp(exits []exit) string {
	var b strings.Builder
	b.WriteString("\nEXIT CODES:\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "   %-3d  %s\n", e.code, e.meaning)
	}
	return b.String()
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func anyOf(matches ...func(error) bool) func(error) bool {
	return func(err error) bool {
		for _, m := range matches {
			if m(err) {
				return true
			}
		}
		return false
	}
}
