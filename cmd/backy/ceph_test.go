//go:build cgo

package main

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/rbd/clustertest"
)

// TestCephScripts are scripts on a real cluster, each with a pool of its own in
// $POOL.
func TestCephScripts(t *testing.T) {
	cluster := clustertest.Get(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/ceph",
		Setup: func(e *testscript.Env) error {
			e.Setenv("CEPH_CONF", cluster.Conf())
			e.Setenv("POOL", cluster.Pool(t))
			e.Setenv("READER", cluster.Key(t, "mon", "profile rbd", "osd", "profile rbd-read-only"))
			return setupScript(e)
		},
		Cmds:                scriptCommands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(scriptLimit),
	})
}
