//go:build cgo

package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"backy/rbd/child"
	"backy/rbd/clustertest"
)

// childrenOf are the processes that run librbd for another.
func childrenOf(t *testing.T, parent int) (pids []int) {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range list {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		// pid (comm) state ppid …
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		line, err := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		if err != nil || fields[1] != strconv.Itoa(parent) || !strings.Contains(string(line), child.Verb) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func gone(pids []int) bool {
	for _, pid := range pids {
		// A zombie that nobody has waited for yet is gone, too.
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err == nil && !bytes.Contains(text, []byte(") Z ")) {
			return false
		}
	}
	return true
}

// However a backup ends, its children end with it, even those that hang; a terminal's
// Ctrl-C and what systemd sends to all of a service do not reach them first.
func TestChildrenEnd(t *testing.T) {
	cluster := clustertest.Get(t)
	image := cluster.Pool(t) + "/image"
	content := make([]byte, 64<<20)
	if _, err := rand.NewChaCha8([32]byte{4}).Read(content); err != nil {
		t.Fatal(err)
	}
	cluster.Run(t, "rbd", "create", "--size", strconv.Itoa(len(content))+"B", image)
	writeImage(t, cluster, image, content)
	for _, c := range []struct {
		what string
		code int
		end  func(r *running, children []int)
	}{
		{"killed", -1, func(r *running, _ []int) { r.signal(t, syscall.SIGKILL) }},
		{"interrupted", exitInterrupted, func(r *running, _ []int) { r.signal(t, syscall.SIGINT) }},
		{"terminated, children and all", exitInterrupted, func(r *running, children []int) {
			for _, pid := range children {
				if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
					t.Error(err)
				}
			}
			r.signal(t, syscall.SIGTERM)
		}},
		{"killed beside a child that hangs", -1, func(r *running, children []int) {
			hang(t, children)
			r.signal(t, syscall.SIGKILL)
		}},
		{"interrupted twice beside a child that hangs", exitInterrupted, func(r *running, children []int) {
			hang(t, children)
			r.signal(t, syscall.SIGINT)
			time.Sleep(1500 * time.Millisecond) // a second one counts after a second
			r.signal(t, syscall.SIGINT)
		}},
	} {
		repo := filepath.Join(t.TempDir(), "repo")
		r := start(t, cluster, "backup", "--limit", "4MiB/s", "-b", repo, "rbd:"+image, "image")
		var children []int
		waitFor(t, "a level's first pack or its claim, and a child", func() bool {
			children = childrenOf(t, r.cmd.Process.Pid)
			claims, err := filepath.Glob(repo + "/work/*")
			return err == nil && len(claims) > 0 && len(children) > 0 && len(ownSnapshots(t, cluster, image)) > 0
		})
		for _, pid := range children {
			if group, err := syscall.Getpgid(pid); err != nil || group != pid {
				t.Errorf("%s: child %d is in the group %d, %v", c.what, pid, group, err)
			}
		}
		c.end(r, children)
		if code := r.end(t); code != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.what, code, c.code, &r.stderr)
		}
		waitFor(t, c.what+": the end of its children", func() bool { return gone(children) })
		cluster.Run(t, "rbd", "snap", "purge", "--no-progress", image)
	}
}

func hang(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Error(err)
		}
	}
}

// A crash under a single backup, a restore or a scrub is an error with exit code 1;
// what the run had made is gone, and a report says what happened, where that is asked
// for.
func TestCrashOfOne(t *testing.T) {
	c := newCrashes(t, 1)
	image := "rbd:" + c.pool + "/i00"
	if _, code, said := c.backy("", "backup", image, "vm"); code != 0 {
		t.Fatal(said)
	}
	reports := t.TempDir()
	restored := "rbd:" + c.pool + "/restored"
	for _, run := range []struct {
		about string
		args  []string
	}{
		{"read " + image, []string{"backup", "--diff", "none", image, "vm"}},
		{"create a snapshot", []string{"backup", image, "vm"}},
		{"read " + image, []string{"scrub", "-s", image, "vm"}},
		{"write " + restored, []string{"restore", "vm", restored}},
		{"flush " + restored, []string{"restore", "vm", restored}},
		{"list the images", []string{"backup", "rbd:" + c.pool}},
	} {
		m := clustertest.Misstep{Kind: "SEGV", Step: 1, About: strings.ReplaceAll(run.about, " ", "_"), Once: filepath.Join(t.TempDir(), "once")}
		r, code, said := c.backy(m.Env(), append(run.args, "--crash-dir", reports)...)
		if !m.Happened(t) || code != 1 || !strings.Contains(r.Error, crashed["SEGV"]) {
			t.Errorf("%v: happened: %v, exit code %d, %q\n%s", run.args, m.Happened(t), code, r.Error, said)
		}
		_, path, _ := strings.Cut(r.Error, "a report is in ")
		path, _, _ = strings.Cut(path, "\n")
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), crashed["SEGV"]) || !strings.Contains(string(text), c.pool) {
			t.Errorf("%v: report: %v\n%s", run.args, err, text)
		}
		if info, err := os.Stat(path); err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", path, info.Mode())
		}
		if own := ownSnapshots(t, c.cluster, c.pool+"/i00"); len(own) != 1 {
			t.Errorf("%v: snapshots %q", run.args, own)
		}
		if list := c.cluster.Run(t, "rbd", "ls", c.pool); list != "i00\n" {
			t.Errorf("%v: images %q", run.args, list)
		}
	}
	if found, err := filepath.Glob(reports + "/*"); err != nil || len(found) != 6 {
		t.Errorf("reports: %q, %v", found, err)
	}
}
