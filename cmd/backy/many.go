package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/engine/batch"
	"backy/store"
)

// manyFlags are those of a backup of all images of a pool.
type manyFlags struct {
	pickFlags
	jobs           int
	minAge         time.Duration
	snapshotsFirst bool
	snapshotOnly   bool

	lease, beat durationValue // shorter in tests

	given []string // those that were
}

const (
	manyCategory   = "Options for rbd:POOL"
	keepCategory   = "Options for --forget"
	freezeCategory = "Options for the snapshot"
)

func (f *manyFlags) flags() []cli.Flag {
	f.minAge = 12 * time.Hour
	return append(f.pickFlags.flags(manyCategory),
		&cli.IntFlag{
			Name: "jobs", Aliases: []string{"j"}, Category: manyCategory, Destination: &f.jobs, Value: batch.DefaultJobs,
			Usage: "back up `N` images at a time",
		},
		&cli.GenericFlag{
			Name: "min-age", Category: manyCategory, Value: &spanValue{to: &f.minAge, parse: engine.ParseAge, zero: true},
			Usage: "pass over those with a level under `TIME`",
		},
		&cli.BoolFlag{
			Name: "snapshots-first", Category: manyCategory, Destination: &f.snapshotsFirst, DisableDefaultText: true,
			Usage: "make all snapshots before any image is read",
		},
		&cli.BoolFlag{
			Name: "snapshot-only", Category: manyCategory, Destination: &f.snapshotOnly, DisableDefaultText: true,
			Usage: "only make the snapshots that the next backup reads",
		},
		&cli.GenericFlag{Name: "lease", Hidden: true, Value: &f.lease},
		&cli.GenericFlag{Name: "beat", Hidden: true, Value: &f.beat},
	)
}

// note remembers which of the flags were given.
func (f *manyFlags) note(c *cli.Context) {
	for _, flag := range new(manyFlags).flags() {
		if name := flag.Names()[0]; c.IsSet(name) {
			f.given = append(f.given, name)
		}
	}
}

// check refuses what cannot be meant.
func (f *manyFlags) check(limit rateValue) error {
	switch {
	case f.jobs < 1 || f.jobs > batch.MaxJobs:
		return usagef("--jobs %d: want 1 to %d", f.jobs, batch.MaxJobs)
	case limit > 0 && int(limit) < f.jobs*leastRate/4:
		return usagef("--limit %s is too little for %d images at a time", &limit, f.jobs)
	case f.snapshotOnly && f.snapshotsFirst:
		return usagef("--snapshot-only and --snapshots-first exclude each other: the one stops where the other goes on")
	}
	_, err := f.naming()
	return err
}

// locateMany finds the repository of a run over many images.
func (p *program) locateMany(arg string) (place, error) {
	folder := p.common.backupDir
	switch {
	case folder == "" && arg == "":
		return place{}, usagef("the repository is missing: give BACKUPDIR, -b or BACKY_BACKUPDIR")
	case folder != "" && arg != "" && folder != arg:
		return place{}, usagef("BACKUPDIR is given twice: %s and %s; the images' names in it are made by --name-template", folder, arg)
	case folder == "":
		folder = arg
	}
	at, err := locateDir(folder)
	if err == nil {
		err = at.refusal()
	}
	return at, err
}

// backupMany backs up the images of a pool.
func (p *program) backupMany(ctx context.Context, f backupFlags, source, backupDir string) error {
	switch {
	case f.hints != "" || f.size.given || f.fromCommand != "":
		return usagef("--hints, --size and --from-command do not go with rbd:POOL")
	case f.many.snapshotOnly && (f.forget || f.gc):
		return usagef("--forget and --gc do not go with --snapshot-only, which makes no levels")
	}
	at, err := p.locateMany(backupDir)
	if err != nil {
		return err
	}
	p.metrics.folder = at.dir
	compression, err := store.ParseCompression(f.compression.chosen)
	if err != nil {
		return err
	}
	o := batch.Options{
		Jobs: f.many.jobs, MinAge: f.many.minAge,
		Backup: engine.BackupOptions{
			Compression: compression, Rate: f.limit.rate(), Beat: time.Duration(f.many.beat),
		},
	}
	if f.many.lease != 0 {
		o.Again = max(time.Duration(f.many.lease)/4, 10*time.Millisecond)
	}
	switch {
	case f.many.snapshotOnly:
		o.Snapshots = batch.Only
	case f.many.snapshotsFirst:
		o.Snapshots = batch.First
	}
	if f.forget {
		o.Keep, o.KeepLess = &f.keep.Keep, f.keep.less
	}
	repo, pool, images, err := p.lookMany(ctx, f, source, at)
	if err != nil {
		return err
	}
	p.metrics.about(repo, namesOf(images)...)
	view := p.newManyView("backup "+strings.TrimPrefix(source, rbdScheme), len(images))
	o.Watcher = view
	err = view.watch(func() (err error) {
		p.report.Images, err = batch.Run(ctx, repo, pool, images, o)
		return err
	})
	if p.report.Images == nil {
		return err // nothing was begun
	}
	if printErr := p.print(manyTable(p.report.Images, p.terminalWidth())); err == nil {
		err = printErr
	}
	p.talk.say("%s", manySummary(p.report.Images))
	if f.gc && ctx.Err() == nil {
		err = errors.Join(err, p.gcAfter(ctx, repo, gcFlags{maxWait: f.maxWait}))
	}
	return err
}

// namesOf are the names of images that are to have backups.
func namesOf(images []batch.Image) (names []store.Name) {
	for _, i := range images {
		if i.Name != "" && !i.Rules.Exclude {
			names = append(names, i.Name)
		}
	}
	return names
}
