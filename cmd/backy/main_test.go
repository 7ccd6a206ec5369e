package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/rbd/clustertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"backy": leastMain, "backy-node": nodeMain})
}

// leastEnv is set where a test's cluster has the clients backup and restore.
const leastEnv = "BACKY_TEST_LEAST"

// leastMain is backy as the client with the least rights for what it does, unless
// something else names one.
func leastMain() {
	if os.Getenv(leastEnv) != "" && os.Getenv("CEPH_ARGS") == "" {
		id := "backup"
		if slices.Contains(os.Args[1:], "restore") {
			id = "restore"
		}
		if err := os.Setenv("CEPH_ARGS", "--id "+id); err != nil {
			panic(err)
		}
	}
	clustertest.Stumble()
	main()
}

// scriptLimit is for all scripts of a test, which run beside much else.
const scriptLimit = 15 * time.Minute

// TestScripts runs backy as users type it. Each script is a specification: what
// is typed, what comes of it, and the exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		Setup:               setupScript,
		Cmds:                scriptCommands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(scriptLimit), // what hangs shows where
	})
}
