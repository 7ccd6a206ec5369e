//go:build cgo

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// row is one piece of work, by whoever can do it.
type row struct {
	work    string
	samples map[string][]sample // by tool
	order   []string
}

func (r *row) add(tool string, s sample) {
	if r.samples == nil {
		r.samples = map[string][]sample{}
	}
	if len(r.samples[tool]) == 0 {
		r.order = append(r.order, tool)
	}
	r.samples[tool] = append(r.samples[tool], s)
}

// decided reports whether one run of a tool has told enough: it took twice as
// long as backy, or it is qemu-img, which no target names. Increments go on from the last, but
// for those of backup systems, which take up any.
func (r *row) decided(tool string) bool {
	if r.work == fileChanged || r.work == increment && !slices.Contains(systems, tool) {
		return false
	}
	ours, theirs := r.samples["backy"], r.samples[tool]
	return len(theirs) > 0 && (tool == qemu || len(ours) > 0 && theirs[0].Seconds > 2*ours[0].Seconds)
}

// plays reports whether a tool has a script for some work, was asked for, and is
// installed.
func (b *bench) plays(t *tool, work string) bool {
	asked := b.o.with == nil || t.scripts[prepare] == "" || b.o.with[t.name]
	return t.scripts[work] != "" && asked && t.installed()
}

// players are the tools that take part in a run.
func (b *bench) players(r *row, run int) (list []*tool) {
	for _, t := range tools {
		if b.plays(t, r.work) && (run == 1 || !r.decided(t.name)) {
			list = append(list, t)
		}
	}
	return list
}

// envOf is what a tool's scripts know. Caches and keys of the peers lie in
// their folders in RAM, too.
func (b *bench) envOf(t *tool, e env) env {
	self, _ := os.Executable()
	home := filepath.Join(b.dir, "home."+fileName(t.name))
	e = e.with(env{
		"BACKY": b.o.backy, "BENCH": self, "OUT": filepath.Join(b.dir, "restored"),
		"WITH": filepath.Join(b.dir, "repo.backy"), "XDG_CACHE_HOME": home + "/cache", "XDG_CONFIG_HOME": home + "/config",
		"BORG_BASE_DIR": home, "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
		"KOPIA_CONFIG_PATH": home + "/kopia.config", "KOPIA_PASSWORD": "bench", "KOPIA_CHECK_FOR_UPDATES": "false",
	})
	if t.scripts[prepare] != "" {
		repo := filepath.Join(b.dir, "repo."+fileName(t.name))
		e = e.with(env{"REPO": repo, "RESTIC_REPOSITORY": repo, "RESTIC_PASSWORD": "bench"})
	}
	return e
}

func fileName(s string) string {
	name := []byte(s)
	for i, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			name[i] = '-'
		}
	}
	return string(name)
}

// fresh gives a tool an empty repository, if it has one.
func (b *bench) fresh(ctx context.Context, t *tool, e env) error {
	if e["REPO"] == "" {
		return nil
	}
	if err := dismiss(e); err != nil {
		return err
	}
	_, err := b.shell(ctx, t.scripts[prepare], e)
	return err
}

// step is what comes before or after a tool's work, and is not measured.
type step func(context.Context, *tool, env) error

// play measures one work of each player, one after the other.
func (b *bench) play(ctx context.Context, r *row, run int, e env, before step) error {
	for _, t := range b.players(r, run) {
		if err := b.playOne(ctx, r, t, e, before, nil); err != nil {
			return err
		}
	}
	return nil
}

// playOne measures one work of one tool.
func (b *bench) playOne(ctx context.Context, r *row, t *tool, e env, before, after step) error {
	e = b.envOf(t, e)
	if b.o.prof && t.name == "backy" {
		e = e.with(env{"BACKY_CPUPROFILE": filepath.Join(b.o.out, fileName(r.work)+".pprof")})
	}
	work := func(ctx context.Context, t *tool, e env) error {
		s, err := b.measure(ctx, t.scripts[r.work], e)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%-30s %-30s %7.2f s  %7.2f s CPU  %5d MiB peak\n", r.work, t.name, s.Seconds, s.CPU, s.Peak>>20)
		r.add(t.name, s)
		return nil
	}
	for _, do := range []step{before, work, after} {
		if do == nil {
			continue
		}
		if err := do(ctx, t, e); err != nil {
			return fmt.Errorf("%s, %s: %w", r.work, t.name, err)
		}
	}
	return nil
}

// warmSize is how many bytes each player backs up before anything counts.
const warmSize = 64 << 20

// warmUp lets each player do some work once, on little, so that what counts finds
// the programs and their libraries in memory.
func (b *bench) warmUp(ctx context.Context, work string, e env) error {
	fmt.Fprintln(os.Stderr, "bench: a warm-up that does not count:")
	return b.play(ctx, &row{work: work}, 1, e, b.fresh)
}

const (
	image    = "rbd/bench"
	warm     = "rbd/bench-warm"
	restored = "rbd/bench-restored"
)

// benchRBD measures all work on an RBD image.
func benchRBD(ctx context.Context, b *bench) error {
	started := time.Now()
	w, err := b.makeWork(ctx)
	if err != nil {
		return err
	}
	if err := b.snapshots(ctx, w, image, b.o.runs); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: the image and its snapshots were made in %.0f s\n", time.Since(started).Seconds())
	e := env{"IMAGE": image, "NEW": restored, "FILE": w.path, "N": fmt.Sprint(b.o.runs)}
	steps := []func(context.Context, env) error{
		b.warmUpRBD, b.firsts, b.increments, b.same, b.scrubs,
		func(ctx context.Context, e env) error { return b.own(ctx, w, e) },
		b.makeRoom, b.restores,
	}
	for _, step := range steps {
		if err := step(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) warmUpRBD(ctx context.Context, e env) error {
	e = e.with(env{"IMAGE": warm, "SNAP": "s0", "SIZE": fmt.Sprint(warmSize)})
	_, err := b.shell(ctx, `rbd create --size ${SIZE}B $IMAGE
rbd bench --io-type write --io-size 4M --io-total ${SIZE}B $IMAGE
rbd snap create --no-progress $IMAGE@$SNAP`, e)
	if err == nil {
		err = b.warmUp(ctx, first, e)
	}
	if err == nil {
		_, err = b.shell(ctx, `rbd snap purge --no-progress $IMAGE; rbd rm --no-progress $IMAGE; `+trimmed, e)
	}
	return err
}

func (b *bench) firsts(ctx context.Context, e env) error {
	r := b.report.row(first)
	// The qcow2 would take room until the restores, for which ready makes one.
	for run := 1; run <= b.o.runs; run++ {
		if err := b.play(ctx, r, run, e.with(env{"SNAP": "s0"}), b.fresh); err != nil {
			return err
		}
	}
	return os.RemoveAll(b.envOf(toolNamed(qemu), e)["REPO"])
}

// increments measures one for each change. What is decided meanwhile makes the
// last one too, unmeasured: the rows that follow ask for that.
func (b *bench) increments(ctx context.Context, e env) error {
	r := b.report.row(increment)
	for run := 1; run <= b.o.runs; run++ {
		e := e.with(env{"SNAP": fmt.Sprint("s", run), "PREV": fmt.Sprint("s", run-1)})
		if err := b.play(ctx, r, run, e, nil); err != nil {
			return err
		}
		for _, t := range tools {
			if run < b.o.runs || !b.plays(t, increment) || slices.Contains(b.players(r, run), t) {
				continue
			}
			if _, err := b.shell(ctx, t.scripts[increment], b.envOf(t, e)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) same(ctx context.Context, e env) error {
	r := b.report.row(unchanged)
	for run := 1; run <= b.o.runs; run++ {
		if err := b.play(ctx, r, run, e.with(env{"SNAP": "s" + e["N"]}), nil); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) scrubs(ctx context.Context, e env) error {
	r := b.report.row(scrub)
	for run := 1; run <= b.o.runs; run++ {
		if err := b.play(ctx, r, run, e, nil); err != nil {
			return err
		}
	}
	return nil
}

// own measures increments with the snapshots that they need, of random writes
// inside a file.
func (b *bench) own(ctx context.Context, w *work, e env) error {
	backy := b.envOf(toolNamed("backy"), e)
	if _, err := b.shell(ctx, `$BACKY backup rbd:$IMAGE $REPO/own; rbd snap create --no-progress $IMAGE@pipe-old`, backy); err != nil {
		return err
	}
	r := b.report.row(own)
	for run := 1; run <= b.o.runs; run++ {
		if err := importDiff(ctx, image, "", imageSize, w.rewrites); err != nil {
			return err
		}
		if err := b.play(ctx, r, run, e, nil); err != nil {
			return err
		}
		if b.o.with == nil || b.o.with[pipe] {
			if _, err := b.shell(ctx, `rbd snap rename $IMAGE@pipe-new $IMAGE@pipe-old`, e); err != nil {
				return err
			}
		}
		if _, err := b.shell(ctx, trimmed, e); err != nil {
			return err
		}
	}
	return nil
}

// trimmed waits until removed snapshots take no memory, nor the OSD's time.
const trimmed = `while ceph osd pool ls detail | grep -q removed_snaps_queue; do sleep 1; done`

// makeRoom removes the image, which restores do without: an OSD in memory takes
// up to twice what the image holds.
func (b *bench) makeRoom(ctx context.Context, e env) error {
	_, err := b.shell(ctx, `rbd snap purge --no-progress $IMAGE; rbd rm --no-progress $IMAGE; `+trimmed, e)
	return err
}

// restores measures restoring the last snapshot, to a file and to an image. A
// tool leaves with its repository when it is done, so that there is room for the
// raw image in the page cache. What has no repository yet, the qcow2, comes last.
func (b *bench) restores(ctx context.Context, e env) error {
	late := func(t *tool) bool { return t.name == qemu }
	for _, some := range [][]*tool{slices.DeleteFunc(slices.Clone(tools), late), {toolNamed(qemu)}} {
		for run := 1; run <= b.o.runs; run++ {
			for _, t := range some {
				if err := b.restoresOf(ctx, t, run, e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// restoresOf measures a tool's restores of one run. After its last the tool leaves.
func (b *bench) restoresOf(ctx context.Context, t *tool, run int, e env) error {
	again := false
	for _, work := range []string{toFile, toRBD} {
		r := b.report.row(work)
		if slices.Contains(b.players(r, run), t) {
			if err := b.playOne(ctx, r, t, e, b.ready, b.compareAndRemove(r, run)); err != nil {
				return err
			}
		}
		again = again || run < b.o.runs && slices.Contains(b.players(r, run+1), t)
	}
	if again {
		return nil
	}
	return dismiss(b.envOf(t, e))
}

// ready makes what a tool restores from, if that is not there yet: the qcow2 of
// the last snapshot, and the raw image in the page cache.
func (b *bench) ready(ctx context.Context, t *tool, e env) (err error) {
	image := filepath.Join(e["REPO"], "image.qcow2")
	switch _, statErr := os.Stat(image); {
	case t.name == qemu && statErr != nil:
		_, err = b.shell(ctx, t.scripts[prepare]+"\n"+toQcow2+` $FILE `+image, e)
	case e["REPO"] == "":
		err = b.cached(ctx, t, e)
	}
	return err
}

// cached has the raw image in the page cache, but for its holes, which would
// take room there, too.
func (b *bench) cached(ctx context.Context, _ *tool, e env) error {
	_, err := b.shell(ctx, `$BENCH -limit read:$FILE`, e)
	return err
}

// compareAndRemove holds what a tool's first run restored against the raw image,
// and removes it.
func (b *bench) compareAndRemove(r *row, run int) step {
	compare, remove := `cmp $OUT $FILE; `, `rm -f $OUT`
	if r.work == toRBD {
		compare, remove = `rbd export --no-progress $NEW - | cmp - $FILE; `, `rbd snap purge --no-progress $NEW; rbd rm --no-progress $NEW; `+trimmed
	}
	if run > 1 {
		compare = ""
	}
	return func(ctx context.Context, _ *tool, e env) error {
		_, err := b.shell(ctx, compare+remove, e)
		return err
	}
}

// dismiss removes what a tool has in RAM, whose environment it is given.
func dismiss(e env) error {
	return errors.Join(os.RemoveAll(e["REPO"]), os.RemoveAll(e["XDG_CACHE_HOME"])) // "" is no folder, and no error
}

// benchFile measures the raw image as a file.
func benchFile(ctx context.Context, b *bench) error {
	w, err := b.makeWork(ctx)
	if err != nil {
		return err
	}
	e := env{"FILE": w.path}
	little := filepath.Join(b.o.work, "little")
	if err := errors.Join(b.writeRandom(little, warmSize), b.warmUp(ctx, fileFirst, env{"FILE": little})); err != nil {
		return err
	}
	ready := func(ctx context.Context, t *tool, e env) error {
		return errors.Join(b.fresh(ctx, t, e), b.cached(ctx, t, e))
	}
	for run := 1; run <= b.o.runs; run++ {
		if err := b.play(ctx, b.report.row(fileFirst), run, e, ready); err != nil {
			return err
		}
	}
	for run := 1; run <= b.o.runs; run++ {
		if err := w.change(ctx, run); err != nil {
			return err
		}
		if err := b.play(ctx, b.report.row(fileChanged), run, e, b.cached); err != nil {
			return err
		}
		if err := b.play(ctx, b.report.row(fileSame), run, e, b.cached); err != nil {
			return err
		}
	}
	return nil
}
