//go:build cgo

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// The curves show how a cost grows. They measure backy alone, once a point.

// metadata is what a repository holds beside chunks.
func metadata(repo string) int64 {
	return folderSize(filepath.Join(repo, "maps")) + folderSize(filepath.Join(repo, "maps2")) + folderSize(filepath.Join(repo, "levels"))
}

func (b *bench) backyEnv(e env) (env, error) {
	e = b.envOf(toolNamed("backy"), e)
	return e, errors.Join(os.RemoveAll(e["REPO"]), os.Mkdir(e["REPO"], 0o755))
}

const changedObjects = 100

// benchSizes backs up the same change of images that differ in size alone.
func benchSizes(ctx context.Context, b *bench) error {
	c := curve{
		title: fmt.Sprintf("An increment of %d changed objects, by the image's size", changedObjects), name: "sizes", x: "TiB", log: true,
		y: []string{"seconds", "seconds, rbd diff --whole-object", "metadata KB an object", "peak MiB"},
	}
	rnd := rand.New(rand.NewPCG(6, 7))
	for _, tib := range []float64{1, 10, 100} {
		e, err := b.backyEnv(env{"IMAGE": "rbd/sizes", "TIB": fmt.Sprint(tib)})
		if err != nil {
			return err
		}
		if _, err := b.shell(ctx, `rbd create --size ${TIB}T $IMAGE`, e); err != nil {
			return err
		}
		size := int64(tib) << 40
		for _, snap := range []string{"s0", "s1"} {
			if err := importDiff(ctx, e["IMAGE"], snap, size, randomWrites(rnd, size, changedObjects)); err != nil {
				return err
			}
		}
		if _, err := b.shell(ctx, `$BACKY backup rbd:$IMAGE@s0 $REPO/image`, e); err != nil {
			return err
		}
		diff, err := b.measure(ctx, `rbd diff --whole-object --from-snap s0 $IMAGE@s1 > /dev/null`, e)
		if err != nil {
			return err
		}
		before := metadata(e["REPO"])
		s, err := b.measure(ctx, `$BACKY backup rbd:$IMAGE@s1 $REPO/image`, e)
		if err != nil {
			return err
		}
		kb := float64(metadata(e["REPO"])-before) / 1000 / changedObjects
		c.add(fmt.Sprint(tib), tib, s.Seconds, diff.Seconds, kb, float64(s.Peak>>20))
		if _, err := b.shell(ctx, `rbd snap purge --no-progress $IMAGE; rbd rm --no-progress $IMAGE`, e); err != nil {
			return err
		}
	}
	b.report.curves = append(b.report.curves, c)
	return nil
}

func (c *curve) add(label string, x float64, y ...float64) {
	fmt.Fprintln(os.Stderr, c.name, label, y)
	c.points = append(c.points, point{label, x, y})
}

// benchLevels makes a thousand levels of a file, by hints.
func benchLevels(ctx context.Context, b *bench) error {
	// The changes keep to a part of the file, so that old levels come to hold
	// what no later one does.
	const size, hot, changes = 256 << 20, 16 << 20, 10
	file := filepath.Join(b.dir, "levels.raw")
	if err := b.writeRandom(file, size); err != nil {
		return err
	}
	e, err := b.backyEnv(env{"FILE": file})
	if err != nil {
		return err
	}
	c := curve{
		title: fmt.Sprintf("An increment of %d changed chunks, by the number of levels", changes), name: "levels", x: "levels", log: true,
		y: []string{"seconds", "seconds, ls", "added KiB", "peak MiB"},
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := 1; n <= 1000; n++ {
		type extent struct {
			Offset int64  `json:"offset"`
			Length int64  `json:"length"`
			Exists string `json:"exists"`
		}
		var extents []extent
		for range changes {
			x := extent{rnd.Int64N(hot/blockSize) * blockSize, blockSize, "true"}
			if _, err := f.WriteAt(fmt.Appendf(nil, "%020d", rnd.Uint64()), x.Offset); err != nil {
				return err
			}
			extents = append(extents, x)
		}
		hints, err := json.Marshal(extents)
		if err != nil {
			return err
		}
		script := `$BACKY backup -q -r <(echo "$HINTS") $FILE $REPO/image`
		if n == 1 {
			script = `$BACKY backup -q $FILE $REPO/image`
		}
		s, err := b.measure(ctx, script, e.with(env{"HINTS": string(hints)}))
		if err != nil {
			return err
		}
		switch n {
		case 2, 100, 1000:
			ls, err := b.measure(ctx, `$BACKY ls $REPO/image > /dev/null`, e)
			if err != nil {
				return err
			}
			c.add(fmt.Sprint(n-1), float64(n-1), s.Seconds, ls.Seconds, float64(s.Added>>10), float64(s.Peak>>20))
		}
		if n == 101 {
			if err := b.benchGC(ctx, e); err != nil {
				return err
			}
		}
	}
	b.report.curves = append(b.report.curves, c)
	return nil
}

// benchGC removes the oldest 50 levels from a copy of the repository and collects
// twice.
func (b *bench) benchGC(ctx context.Context, e env) error {
	c := curve{
		title: "gc after removing the oldest 50 of 101 levels, and again with what it remembers", name: "gc", x: "gc",
		y: []string{"seconds", "map nodes read", "packs deleted", "packs written anew", "MiB given back"},
	}
	e = e.with(env{"COPY": filepath.Join(b.dir, "copy")})
	if _, err := b.shell(ctx, `cp -a $REPO $COPY; $BACKY rm $COPY/image $(seq 1 50)`, e); err != nil {
		return err
	}
	for i, label := range []string{"first", "second"} {
		started := time.Now()
		out, err := b.shell(ctx, `$BACKY gc --json $COPY`, e)
		if err != nil {
			return err
		}
		seconds := time.Since(started).Seconds()
		var r struct {
			GC struct{ Nodes, Deleted, Rewritten, Freed float64 } `json:"gc"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			return err
		}
		c.add(label, float64(i+1), seconds, r.GC.Nodes, r.GC.Deleted, r.GC.Rewritten, r.GC.Freed/(1<<20))
	}
	b.report.curves = append(b.report.curves, c)
	_, err := b.shell(ctx, `rm -r $COPY`, e)
	return err
}

// benchImages backs up the same pool with more and more images at once.
func benchImages(ctx context.Context, b *bench) error {
	const images = 16
	c := curve{title: fmt.Sprintf("First backups of %d images of 256 MiB, by how many are backed up at once", images), name: "images", x: "at once", y: []string{"seconds", "CPU seconds", "peak MiB"}}
	content := filepath.Join(b.o.work, "image")
	for i := range images {
		if err := os.WriteFile(content, nil, 0o600); err != nil {
			return err
		}
		files, err := realFiles(256 << 20)
		if err != nil {
			return err
		}
		script := fmt.Sprintf(`head -c 256M <(cat "$@") > %s; rbd import --no-progress %s images/image-%d`, content, content, i)
		rand.New(rand.NewPCG(uint64(i), 5)).Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		list := filepath.Join(b.o.work, "list")
		var names []byte
		for _, f := range files {
			names = append(append(names, f.path...), 0)
		}
		if err := os.WriteFile(list, names, 0o600); err != nil {
			return err
		}
		if i == 0 {
			script = "ceph osd pool create images 4 >/dev/null 2>&1; rbd pool init images\n" + script
		}
		script = fmt.Sprintf("mapfile -d '' -t files < %s; set -- \"${files[@]:0:1500}\"\n", list) + script
		if _, err := b.shell(ctx, script, nil); err != nil {
			return err
		}
	}
	for _, jobs := range []int{1, 4, 16} {
		e, err := b.backyEnv(env{"JOBS": fmt.Sprint(jobs)})
		if err != nil {
			return err
		}
		s, err := b.measure(ctx, `$BACKY backup -q --jobs $JOBS rbd:images $REPO`, e)
		if err != nil {
			return err
		}
		c.add(fmt.Sprint(jobs), float64(jobs), s.Seconds, s.CPU, float64(s.Peak>>20))
	}
	b.report.curves = append(b.report.curves, c)
	_, err := b.shell(ctx, `ceph osd pool rm images images --yes-i-really-really-mean-it >/dev/null 2>&1`, nil)
	return err
}

// benchChunks backs up the bench's image and its change with each chunk size.
func benchChunks(ctx context.Context, b *bench) error {
	w, err := b.makeWork(ctx)
	if err != nil {
		return err
	}
	if err := b.snapshots(ctx, w, image, 1); err != nil {
		return err
	}
	c := curve{
		title: "Chunk sizes", name: "chunks", x: "KiB", log: true,
		y: []string{"full, seconds", "full, CPU s", "full, MiB", "of it metadata, KiB", "increment, seconds", "increment, MiB", "of it metadata, KiB"},
	}
	for kib := 16; kib <= 4096; kib *= 2 {
		e, err := b.backyEnv(env{"IMAGE": image, "SIZE": fmt.Sprint(kib, "KiB")})
		if err != nil {
			return err
		}
		e["SIZE"] = fmt.Sprintf("%dKiB", kib)
		if _, err := b.shell(ctx, `$BACKY init --chunk-size $SIZE $REPO`, e); err != nil {
			return err
		}
		full, err := b.measure(ctx, `$BACKY backup rbd:$IMAGE@s0 $REPO/image`, e)
		if err != nil {
			return err
		}
		meta := metadata(e["REPO"])
		inc, err := b.measure(ctx, `$BACKY backup rbd:$IMAGE@s1 $REPO/image`, e)
		if err != nil {
			return err
		}
		c.add(fmt.Sprint(kib), float64(kib), full.Seconds, full.CPU, float64(full.Added)/(1<<20), float64(meta>>10),
			inc.Seconds, float64(inc.Added)/(1<<20), float64((metadata(e["REPO"])-meta)>>10))
	}
	b.report.curves = append(b.report.curves, c)
	_, err = b.shell(ctx, `rbd snap purge --no-progress $IMAGE; rbd rm --no-progress $IMAGE`, env{"IMAGE": image})
	return err
}
