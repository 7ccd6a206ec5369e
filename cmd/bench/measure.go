//go:build cgo

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the program.
type bench struct {
	o      options
	dir    string // below o.ram
	osds   []string
	report report
}

func newBench(o options) (*bench, error) {
	var err error
	if o.backy, err = filepath.Abs(o.backy); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.backy); err != nil {
		return nil, fmt.Errorf("%w; make build makes it", err)
	}
	if os.Getenv("CEPH_CONF") == "" {
		return nil, errors.New("no CEPH_CONF: run it by make bench, or with a cluster of docker/cluster.sh")
	}
	if o.out, err = filepath.Abs(o.out); err == nil {
		err = os.MkdirAll(o.out, 0o755)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(o.ram, "backy-bench-")
	if err != nil {
		return nil, err
	}
	if o.work, err = os.MkdirTemp(o.work, "backy-bench-"); err != nil {
		return nil, err
	}
	return &bench{o: o, dir: dir, report: report{started: time.Now()}}, nil
}

func (b *bench) close() {
	_ = os.RemoveAll(b.dir)
	_ = os.RemoveAll(b.o.work)
}

// sample is what one command took.
type sample struct {
	Seconds float64
	CPU     float64 // seconds, user and system, of the command and its children; not of the cluster
	Peak    int64   // bytes of the largest process
	Read    int64   // bytes that the OSDs gave to it
	Added   int64   // bytes by which its folder grew
}

// env is what the scripts know: see tools.go.
type env map[string]string

func (e env) with(more env) env {
	all := env{}
	for _, m := range []env{e, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func (e env) list() []string {
	list := os.Environ()
	for k, v := range e {
		list = append(list, k+"="+v)
	}
	return list
}

// shell runs a script without measuring it.
func (b *bench) shell(ctx context.Context, script string, e env) ([]byte, error) {
	cmd := command(ctx, script, e)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("%s: %w", script, err)
	}
	return out, nil
}

func command(ctx context.Context, script string, e env) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -euo pipefail\n"+script)
	cmd.Env = e.list()
	// What is left of a pipeline ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// measure runs a script and takes its figures. GNU time stands between, since
// the kernel counts the memory of whoever starts a program as that program's.
func (b *bench) measure(ctx context.Context, script string, e env) (sample, error) {
	figures := filepath.Join(b.dir, "figures")
	before := folderSize(e["REPO"])
	read, err := b.osdRead(ctx, e)
	if err != nil {
		return sample{}, err
	}
	cmd := command(ctx, `env time -q -f '%U %S %M' -o `+figures+` bash -c "set -euo pipefail; $SCRIPT"`, e.with(env{"SCRIPT": script}))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	started := time.Now()
	err = cmd.Run()
	s := sample{Seconds: time.Since(started).Seconds()}
	if err != nil {
		return s, fmt.Errorf("%s: %w: %s", script, err, bytes.TrimSpace(stderr.Bytes()))
	}
	text, err := os.ReadFile(figures)
	if err != nil {
		return s, err
	}
	var user, system float64
	if _, err := fmt.Sscan(string(text), &user, &system, &s.Peak); err != nil {
		return s, fmt.Errorf("what time says, %q: %w", text, err)
	}
	s.CPU, s.Peak = user+system, s.Peak<<10
	s.Added = folderSize(e["REPO"]) - before
	now, err := b.osdRead(ctx, e)
	s.Read = now - read
	return s, err
}

// osdRead is how many bytes the OSDs have given to clients. Work without an
// image asks no OSD.
func (b *bench) osdRead(ctx context.Context, e env) (total int64, err error) {
	if e["IMAGE"] == "" {
		return 0, nil
	}
	if b.osds == nil {
		out, err := b.shell(ctx, `ceph osd ls`, e)
		if err != nil {
			return 0, err
		}
		b.osds = strings.Fields(string(out))
	}
	for _, id := range b.osds {
		out, err := b.shell(ctx, `ceph tell osd.`+id+` perf dump osd op_out_bytes`, e)
		if err != nil {
			return 0, err
		}
		var dump struct {
			OSD struct {
				Out int64 `json:"op_out_bytes"`
			} `json:"osd"`
		}
		if err := json.Unmarshal(out, &dump); err != nil {
			return 0, fmt.Errorf("what osd.%s counted: %w", id, err)
		}
		total += dump.OSD.Out
	}
	return total, nil
}

// folderSize is the sum of the files' lengths below a folder.
func folderSize(dir string) (total int64) {
	if dir == "" {
		return 0
	}
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// median takes each figure's median.
func median(list []sample) sample {
	return sample{
		Seconds: middle(list, func(s sample) float64 { return s.Seconds }),
		CPU:     middle(list, func(s sample) float64 { return s.CPU }),
		Peak:    middle(list, func(s sample) int64 { return s.Peak }),
		Read:    middle(list, func(s sample) int64 { return s.Read }),
		Added:   middle(list, func(s sample) int64 { return s.Added }),
	}
}

func middle[T cmp.Ordered](list []sample, of func(sample) T) T {
	var all []T
	for _, s := range list {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}
