package store

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// process identifies a process so that another one on the same host can tell
// for certain whether it still lives. Containers with a pid namespace of
// their own are other hosts.
type process struct {
	Host         string `json:"host"`
	BootID       string `json:"boot_id"`
	PIDNamespace string `json:"pid_namespace"`
	PID          int    `json:"pid"`
	Start        uint64 `json:"start"` // clock ticks after boot, from /proc/PID/stat
}

// thisProcess identifies the caller. What cannot be found out stays empty, and
// the process then is taken for one of another host.
var thisProcess = sync.OnceValue(func() process {
	p := process{PID: os.Getpid()}
	p.Host, _ = os.Hostname()
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		p.BootID = strings.TrimSpace(string(id))
	}
	p.PIDNamespace, _ = os.Readlink("/proc/self/ns/pid")
	p.Start, _ = processStart(p.PID)
	return p
})

func (p process) String() string { return fmt.Sprintf("process %d on %s", p.PID, p.Host) }

// sameHost reports whether the caller can see whether p lives.
func (p process) sameHost(self process) bool {
	return p.BootID != "" && p.PIDNamespace != "" && p.Start != 0 &&
		p.BootID == self.BootID && p.PIDNamespace == self.PIDNamespace
}

// alive reports whether p, of the caller's host, still runs.
func (p process) alive() bool {
	start, err := processStart(p.PID)
	return err == nil && start == p.Start
}

// running are the runs of this process that have begun and not ended.
var running sync.Map // RunID to struct{}

// runs reports whether a run of p, a process of self's host, goes on. A run of
// self that has ended, and could not take its claim away, is as dead as one
// whose process is gone.
func (p process) runs(run RunID, self process) bool {
	if p == self {
		_, ok := running.Load(run)
		return ok
	}
	return p.alive()
}

// processStart reads field 22 of /proc/PID/stat (proc(5)). A zombie counts as
// gone: it cannot commit any more.
func processStart(pid int) (uint64, error) {
	p, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command, in parentheses, may hold spaces and parentheses itself.
	s := string(p)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
