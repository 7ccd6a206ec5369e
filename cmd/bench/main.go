//go:build cgo

// Command bench compares backy with what an administrator would use instead, on
// the same work in one run, and with the limits of the machine. It runs against
// the cluster in CEPH_CONF, which `make bench` starts in RAM, as does the
// repositories' folder; it prints Markdown and draws SVG.
//
// It owns the work and the measuring. What is measured are the commands that
// people type: backy's too is the built binary.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
)

// options are the command line.
type options struct {
	backy string  // path of the binary
	ram   string  // folder in RAM, for repositories and restored files
	work  string  // folder of the raw image, on a disk: the page cache has it
	out   string  // where the report goes
	runs  int     // of each row; the median counts
	prof  bool    // write CPU profiles of backy beside the report
	scale float64 // of the image's content: 1 is 4.6 GiB
	with  map[string]bool
}

// parts of the bench, in the order in which they run.
var parts = []struct {
	name, usage string
	run         func(context.Context, *bench) error
}{
	{"rbd", "backups, restores and scrubs of an RBD image, beside its peers", benchRBD},
	{"file", "backups and restores of a file, beside its peers", benchFile},
	{"sizes", "an increment of 100 objects in images of 1, 10 and 100 TiB", benchSizes},
	{"levels", "1, 100 and 1000 levels; gc after removing 50 of 100", benchLevels},
	{"images", "1, 4 and 16 images at once", benchImages},
	{"chunks", "chunk sizes from 16 KiB to 4 MiB", benchChunks},
	{"fanout", "the map's fan-out from 8 to 256", benchFanout},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var o options
	var what, with, limit string
	var names, lines []string
	for _, p := range parts {
		names = append(names, p.name)
		lines = append(lines, fmt.Sprintf("  %-8s %s", p.name, p.usage))
	}
	flag.StringVar(&o.backy, "backy", "bin/backy", "the binary to measure")
	flag.StringVar(&o.ram, "ram", "/dev/shm", "a folder in RAM")
	flag.StringVar(&o.work, "work", os.TempDir(), "a folder on a disk, for the raw image")
	flag.StringVar(&o.out, "out", ".bench", "folder of the report")
	flag.IntVar(&o.runs, "runs", 3, "runs of each row; the median counts")
	flag.Float64Var(&o.scale, "scale", 1, "of the image's content; 1 is 4.6 GiB, and needs 24 GiB of memory")
	flag.BoolVar(&o.prof, "profile", false, "write CPU profiles of backy to the folder of the report, for go tool pprof")
	flag.StringVar(&what, "what", "rbd", "comma-separated `PARTS`:\n"+strings.Join(lines, "\n"))
	flag.StringVar(&with, "with", "", "only these `TOOLS`, comma-separated, and backy; default: all that are installed")
	flag.StringVar(&limit, "limit", "", "be one of the limits: read:IMAGE, sum:IMAGE, sum:FILE")
	flag.Parse()
	if limit != "" {
		return runLimit(ctx, limit)
	}
	if with != "" {
		o.with = map[string]bool{"backy": true}
		for _, name := range strings.Split(with, ",") {
			o.with[name] = true
		}
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	defer b.close()
	for _, name := range strings.Split(what, ",") {
		if !slices.Contains(names, name) {
			return fmt.Errorf("-what %s: there is %s", name, strings.Join(names, ", "))
		}
	}
	for _, p := range parts {
		if slices.Contains(strings.Split(what, ","), p.name) {
			if err := p.run(ctx, b); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", p.name, err), b.finish()) // what there is
			}
		}
	}
	return b.finish()
}
